"""The standard tests that LangChain ships for retrievers, vector stores and embeddings, as they are."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core", reason="the LangChain door needs langchain-core")
pytest.importorskip("langchain_tests", reason="LangChain's standard tests are in langchain-tests")
pytest.importorskip("pytest_asyncio", reason="half of LangChain's standard tests are coroutines")

from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from raeburnmemory import MemoryGraph
from raeburnmemory.langchain import RaeburnEmbeddings, RaeburnRetriever, RaeburnVectorStore


class _VectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        store = RaeburnVectorStore(tmp_path / self.FILE if self.FILE else ":memory:", self.get_embeddings())
        yield store
        store.close()


class TestVectorStoreInSQLite(_VectorStore):
    FILE = "memory.db"


class TestVectorStoreInJSON(_VectorStore):
    FILE = "memory.json"


class TestVectorStoreInMemory(_VectorStore):
    FILE = None


class TestVectorStoreBesideAnother(VectorStoreIntegrationTests):
    """The same in a memory that is full of documents of another collection, with the same ids, and of talk."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        with MemoryGraph(tmp_path / "memory.db", self.get_embeddings()) as memory:
            other = RaeburnVectorStore(memory, collection="other")
            other.add_texts(["foo", "bar", "baz"], ids=["1", "2", "3"])
            memory.add_interaction("foo", "bar", session_id="1")
            yield RaeburnVectorStore(memory, collection="tested")
            assert {document.page_content for document in other.get_by_ids(["1", "2", "3"])} == {"foo", "bar", "baz"}


class TestRetriever(RetrieversIntegrationTests):
    retriever_constructor = RaeburnRetriever
    retriever_query_example = "what must Ana avoid?"

    @pytest.fixture(autouse=True)
    def _memory(self):
        with MemoryGraph(":memory:", "builtin") as self.memory:
            self.memory.add_interaction("Which allergies does Ana have?", "Peanuts and latex.", session_id="s")
            self.memory.add_interaction("What does Ben eat?", "Anything but fish.", session_id="s")
            yield

    @property
    def retriever_constructor_params(self):
        return {"memory": self.memory}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = RaeburnEmbeddings


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    embeddings_class = RaeburnEmbeddings
