"""The LangChain door, beyond LangChain's own standard tests: what goes in comes out, and every face finds it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import uuid

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="the LangChain door needs langchain-core")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import FakeListLLM, GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from outside import environment, fake, unit

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import EmbedderMismatch, InvalidInput
from raeburnmemory.langchain import (
    RaeburnCallbackHandler,
    RaeburnChatMessageHistory,
    RaeburnEmbeddings,
    RaeburnRetriever,
    RaeburnVectorStore,
)

METADATA = {
    "source": "handbook.pdf",
    "page": 7,
    "ratio": 0.1,
    "none": None,
    "flag": False,
    "größe": "日本語 😀",
    "nested": {"a": [1, {"b": None}], "empty": {}, "list": []},
    "": "an empty key",
    "a.dotted.key": 1,
    # what means something to us
    "id": "mine",
    "type": "pdf",
    "text": "not the text",
    "name": "not a speaker",
    "role": "appendix",
    "timestamp": 12,
    "collection": "shoes",
    "key": ["not", "ours"],
    "metadata": {"metadata": 1},
    "kind": "k",
    "score": "high",
    "namespace": "n",
}


class Words(Embeddings):
    """Bags of words, with a mark of their own on questions if they are *asymmetric*."""

    def __init__(self, asymmetric=False, model="words"):
        self.model, self.asymmetric, self.asked = model, asymmetric, []

    def embed_documents(self, texts):
        return fake(texts).tolist()

    def embed_query(self, text):
        self.asked.append(text)
        return self.embed_documents([text.replace("ask", "tell") if self.asymmetric else text])[0]


@pytest.fixture(params=["g.json", "g.db", ":memory:"])
def memory(request, tmp_path):
    name = request.param
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, Words()) as memory:
        yield memory


# --- the vector store -------------------------------------------------------------------------------------------


def test_metadata_comes_back_as_it_was(memory):
    store = RaeburnVectorStore(memory)
    given = json.loads(json.dumps(METADATA))
    assert store.add_texts(["one", "two"], [given, {}], ids=["1", "2"]) == ["1", "2"]
    assert given == METADATA, "what was given is not changed"
    first, second = store.get_by_ids(["1", "2"])
    assert (first.id, first.page_content, first.metadata) == ("1", "one", METADATA)
    assert (second.id, second.page_content, second.metadata) == ("2", "two", {})
    first.metadata["nested"]["a"].append("changed")
    assert store.get_by_ids(["1"])[0].metadata == METADATA
    assert store.similarity_search("one", 1)[0].metadata == METADATA


def test_metadata_come_back_in_another_process_too(tmp_path):
    with MemoryGraph(tmp_path / "g.json", "builtin") as memory:
        RaeburnVectorStore(memory).add_texts(["one"], [METADATA], ids=["1"])
    script = "import sys, json; from raeburnmemory.langchain import RaeburnVectorStore as S; "
    script += "print(json.dumps(S(sys.argv[1]).get_by_ids(['1'])[0].metadata))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "g.json"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == METADATA


def test_searches_agree_with_brute_force(memory):
    store = RaeburnVectorStore(memory, Words())
    rng = np.random.default_rng(3)
    words = ["red", "green", "blue", "round", "square", "small", "large", "cat", "dog", "bird"]
    texts = [" ".join(rng.choice(words, 4)) + f" {n}" for n in range(60)]
    metadatas = [{"n": n, "even": n % 2 == 0, "type": "abc"[n % 3]} for n in range(60)]
    keys = store.add_texts(texts, metadatas)
    RaeburnVectorStore(memory, collection="noise").add_texts(texts)
    memory.add_interaction("small red cat", "large blue dog")
    rows = unit(fake(texts))
    for question in ("small red cat", "a blue bird", "square"):
        cosines = rows @ unit(fake([question])[0])
        for condition, allowed in (
            (None, range(60)),
            ({"even": True}, range(0, 60, 2)),
            ({"n": {"gte": 50}}, range(50, 60)),
            ({"type": "b"}, range(1, 60, 3)),
            ({"or": [{"type": "a"}, {"not": {"n": {"lt": 55}}}]}, [n for n in range(60) if n % 3 == 0 or n >= 55]),
        ):
            expected = sorted(allowed, key=lambda n: (-cosines[n].round(5), n))[:7]
            found = store.similarity_search_with_score(question, 7, filter=condition)
            assert [score for _, score in found] == pytest.approx([cosines[n] for n in expected], abs=1e-5)
            assert all(document.metadata["n"] in set(allowed) for document, _ in found)
            assert all(score == pytest.approx(cosines[document.metadata["n"]], abs=1e-5) for document, score in found)
            vector = fake([question])[0].tolist()
            again = store.similarity_search_by_vector(vector, 7, filter=condition)
            assert [one.id for one in again] == [one.id for one, _ in found]
            relevant = store.similarity_search_with_relevance_scores(question, 7, filter=condition)
            assert [score for _, score in relevant] == pytest.approx([min(max(s, 0), 1) for _, s in found])
    assert {document.id for document in store.similarity_search("red", 1000)} == set(keys)


def test_relevance_is_from_0_to_1_and_thresholds_cut(memory):
    store = RaeburnVectorStore(memory)
    store.add_texts(["the same", "something else"])
    (best, score), *_ = store.similarity_search_with_relevance_scores("the same", 2)
    assert (best.page_content, score) == ("the same", pytest.approx(1))
    opposite = [-value for value in Words().embed_query("the same")]
    assert memory.similar(opposite, 1, kinds="fragment", where={"key": best.id})[0].score < 0
    assert store._select_relevance_score_fn()(-0.5) == 0
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99, "k": 2}
    )
    assert [document.page_content for document in retriever.invoke("the same")] == ["the same"]


def test_mmr_prefers_what_differs(memory):
    store = RaeburnVectorStore(memory)
    store.add_texts(["cat dog bird", "cat dog bird bird", "cat dog bird bird bird", "cat fish"], ids=list("abcd"))

    def found(**options):
        return [document.id for document in store.max_marginal_relevance_search("cat dog bird", 2, **options)]

    rows, question = (
        unit(fake(["cat dog bird", "cat dog bird bird", "cat dog bird bird bird", "cat fish"])),
        "cat dog bird",
    )
    similar = rows @ unit(fake([question])[0])
    expected = max(range(1, 4), key=lambda n: 0.3 * similar[n] - 0.7 * (rows[n] @ rows[0]))
    assert found(lambda_mult=1.0) == ["a", "b"]
    assert found(lambda_mult=0.3) == ["a", "abcd"[expected]] == ["a", "d"]
    assert found(lambda_mult=0.3, fetch_k=3) == ["a", "c"], "only what was fetched"
    assert found(filter={"nothing": 1}) == []
    vector = fake([question])[0].tolist()
    by_vector = store.max_marginal_relevance_search_by_vector(vector, 2, lambda_mult=0.3)
    assert [document.id for document in by_vector] == ["a", "d"]
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
    assert [document.id for document in retriever.invoke(question)] == ["a", "d"]


def test_collections_and_kinds_share_ids(memory):
    memory.add_interaction({"id": "1", "text": "a prompt called 1"})
    stores = [RaeburnVectorStore(memory, collection=name) for name in ("red", "blue", "a/b", "a%2Fb")]
    for store in stores:
        store.add_texts([f"document 1 of {store.collection}"], ids=["1"])
    for store in stores:
        assert [one.page_content for one in store.get_by_ids(["1"])] == [f"document 1 of {store.collection}"]
        assert len(store.similarity_search("document", 10)) == 1
    stores[0].delete()
    assert stores[0].get_by_ids(["1"]) == []
    stores[1].delete(["1", "nobody"])
    assert [node.id for node in memory.nodes("fragment")] == ["fragment/a%2Fb/1", "fragment/a%252Fb/1"]
    assert memory.get("1").text == "a prompt called 1"


def test_replacing_a_document_replaces_all_of_it(memory):
    store = RaeburnVectorStore(memory)
    store.add_texts(["old words"], [{"a": 1}], ids=["1"])
    store.add_documents([Document(id="1", page_content="new text", metadata={"b": 2})])
    assert store.get_by_ids(["1"]) == [Document(id="1", page_content="new text", metadata={"b": 2})]
    assert store.similarity_search_with_score("new text", 5)[0][1] == pytest.approx(1)
    assert store.add_texts(["x", "y"], ids=["k", None])[0] == "k"
    assert len(list(memory.nodes("fragment"))) == 3


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda s: s.add_texts(["a"], [{}, {}]), "There are 2 metadatas for 1 texts"),
        (lambda s: s.add_texts(["a", "b"], ids=["1"]), "There are 1 ids for 2 texts"),
        (lambda s: s.add_texts(["a"], ids=[""]), "A document's id must be a string that is not empty, not ''"),
        (lambda s: s.add_texts(["a", "b"], [{}, {"x": {1}}]), "'x' of fragment .* is .1., which JSON cannot hold"),
        (lambda s: s.add_texts(["a"], [{"x": float("nan")}]), "'x' of fragment .* is nan, which JSON cannot hold"),
        (lambda s: s.add_texts(["a"], colour="red"), "'colour' is no option of RaeburnVectorStore"),
        (lambda s: s.similarity_search("a", fillter={}), "'fillter' is no option"),
        (lambda s: s.similarity_search("a", filter="x"), "[Ww]here must be a dict"),
        (lambda s: s.similarity_search("a", filter={"x": {"gt": None}}), "'gt' for 'x' in where"),
        (lambda s: s.similarity_search("a", filter={"name": {"$eq": "x"}}), r"Write {'name': {'eq': 'x'}}"),
        (lambda s: s.similarity_search("a", filter={"$or": [{"name": "x"}]}), r"Write 'or': \["),
        (lambda s: s.similarity_search_by_vector([0.0] * 8, filter={"x": {"$gt": 1}}), r"Write {'x': {'gt': 1}}"),
        (lambda s: RaeburnVectorStore(s.memory, collection=""), "A collection's name must be a string"),
        (lambda s: RaeburnVectorStore(s.memory, namespace="x"), "is of the namespace 'default', not 'x'"),
        (lambda s: RaeburnVectorStore(5), "memory must be a MemoryGraph or the path of one, not a int"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(call, complaint):
    with MemoryGraph(":memory:", fake) as memory:
        with pytest.raises(InvalidInput, match=complaint):
            call(RaeburnVectorStore(memory))
        assert len(memory) == 0


def test_questions_are_embedded_as_the_model_wants_questions(tmp_path):
    model = Words(asymmetric=True)
    store = RaeburnVectorStore(tmp_path / "g.db", model)
    store.add_texts(["tell me", "ask me"])
    assert store.similarity_search("ask me", 1)[0].page_content == "tell me"
    assert "ask me" in model.asked
    assert store.embeddings is model
    store.close()


def test_a_model_is_named_by_class_and_model_and_another_one_is_refused(tmp_path):
    store = RaeburnVectorStore(tmp_path / "g.db", Words(model="small"))
    store.add_texts(["x"])
    assert store.memory.model.name == "Words(small)"
    with pytest.raises(
        EmbedderMismatch, match=r"embeds with 'Words\(small\)' \(16 numbers\).*DeterministicFakeEmbedding"
    ):
        RaeburnVectorStore(store.memory, DeterministicFakeEmbedding(size=16))
    assert RaeburnVectorStore(store.memory, Words()).similarity_search("x")[0].page_content == "x"
    store.close()
    other = RaeburnVectorStore(tmp_path / "g.db", DeterministicFakeEmbedding(size=6))
    with pytest.raises(EmbedderMismatch):
        other.add_texts(["y"])
    other.close()


def test_a_word_nobody_knows_finds_nothing():
    with MemoryGraph(":memory:", Words()) as memory:
        store = RaeburnVectorStore(memory, Words())
        store.add_texts(["known words", ""])
        assert store.similarity_search("") == []
        assert store.max_marginal_relevance_search("") == []
        assert RaeburnVectorStore(memory).similarity_search("") == []


def test_made_from_texts_and_documents(tmp_path):
    path = tmp_path / "g.db"
    store = RaeburnVectorStore.from_texts(["a", "b"], Words(), [{"n": 1}, {"n": 2}], ids=["1", "2"], memory=path)
    more = RaeburnVectorStore.from_documents(
        [Document(page_content="c", id="1")], Words(), memory=path, collection="more"
    )
    third = asyncio.run(RaeburnVectorStore.afrom_texts(["d"], None, memory=store.memory, collection="third"))
    assert [one.metadata for one in store.get_by_ids(["1", "2"])] == [{"n": 1}, {"n": 2}]
    assert [one.page_content for one in more.get_by_ids(["1"])] == ["c"]
    assert [one.page_content for one in third.similarity_search("d")] == ["d"]
    third.close()
    assert len(store.memory) == 4, "a memory that was given stays open"
    store.close(), more.close()
    with MemoryGraph(path, Words()) as memory:
        assert [node.id for node in memory.nodes("fragment")] == [
            "fragment/default/1",
            "fragment/default/2",
            "fragment/more/1",
            f"fragment/third/{next(iter(memory.nodes(where={'collection': 'third'}))).attributes['key']}",
        ]


def test_async_twins_of_the_store_do_the_same(memory):
    store = RaeburnVectorStore(memory)

    async def everything():
        keys = await store.aadd_texts(["one thing", "another thing"], [{"n": 1}, {"n": 2}], ids=["1", "2"])
        keys += await store.aadd_documents([Document(page_content="a third", metadata={"n": 3}, id="3")])
        vector = Words().embed_query("thing")
        answers = [
            await store.aget_by_ids(keys),
            await store.asimilarity_search("thing", 2, filter={"n": {"lt": 3}}),
            await store.asimilarity_search_with_score("thing", 2),
            await store.asimilarity_search_with_relevance_scores("thing", 2),
            await store.asimilarity_search_by_vector(vector, 2),
            await store.amax_marginal_relevance_search("thing", 2),
            await store.amax_marginal_relevance_search_by_vector(vector, 2),
        ]
        assert await store.adelete(["3"])
        return keys, answers

    keys, answers = asyncio.run(everything())
    vector = Words().embed_query("thing")
    assert keys == ["1", "2", "3"]
    assert store.get_by_ids(["3"]) == []
    store.add_documents([Document(page_content="a third", metadata={"n": 3}, id="3")])
    assert answers == [
        store.get_by_ids(keys),
        store.similarity_search("thing", 2, filter={"n": {"lt": 3}}),
        store.similarity_search_with_score("thing", 2),
        store.similarity_search_with_relevance_scores("thing", 2),
        store.similarity_search_by_vector(vector, 2),
        store.max_marginal_relevance_search("thing", 2),
        store.max_marginal_relevance_search_by_vector(vector, 2),
    ]


# --- the retriever ----------------------------------------------------------------------------------------------


@pytest.fixture
def told(memory):
    memory.add_interaction(
        {"id": "p", "text": "Which allergies does Ana have?"},
        {"id": "r", "text": "Ana must avoid peanuts."},
        {"id": "nurse", "name": "Nurse"},
        "intake",
        timestamp="2026-11-20T09:30:00Z",
        metadata={"stars": 4},
    )
    memory.add_message("Ben eats anything", session_id="other", name="Ben", timestamp="2026-11-21T09:30:00Z")
    return memory


def test_documents_say_where_they_come_from_and_why(told):
    hits = told.recall("what must Ana avoid?", 3)
    documents = RaeburnRetriever(told, k=3).invoke("what must Ana avoid?")
    assert [one.id for one in documents] == hits.ids
    first, hit = documents[0], hits[0]
    assert first.page_content == hit.text == "Ana must avoid peanuts."
    assert {key: first.metadata[key] for key in ("id", "kind", "session", "speaker", "score", "similarity")} == {
        "id": "r",
        "kind": "response",
        "session": "intake",
        "speaker": "Nurse",
        "score": hit.score,
        "similarity": hit.similarity,
    }
    assert first.metadata["citation"] == "Nurse, 2026-11-20 09:30, session intake, id r"
    assert first.metadata["why"] == hit.why.to_dict()
    assert first.metadata["stars"] == 4
    assert json.dumps([one.metadata for one in documents])


def test_documents_of_a_collection_keep_their_metadata(memory):
    RaeburnVectorStore(memory, collection="c").add_texts(
        ["some words", "more words"], [METADATA, {"n": 1}], ids=["1", "2"]
    )
    by_id = {one.id: one.metadata for one in RaeburnRetriever(memory, collection="c").invoke("words")}
    first, second = by_id["fragment/c/1"], by_id["fragment/c/2"]
    assert first["metadata"] == METADATA, "of which some names are ours"
    assert (first["id"], first["kind"], first["key"], first["source"]) == (
        "fragment/c/1",
        "fragment",
        "1",
        "handbook.pdf",
    )
    assert second["n"] == 1
    assert "metadata" not in second


FILTERS = [
    {"kinds": "response"},
    {"kinds": ["prompt", "response"]},
    {"session": "other"},
    {"agent": "nurse"},
    {"speaker": "Ben"},
    {"since": "2026-11-21"},
    {"until": "2026-11-21"},
    {"where": {"stars": {"gte": 4}}},
    {"collection": "c"},
    {"k": 1},
    {"min_coverage": 0.3},
    {"legs": "lexical"},
    {"diversity": 0.5, "fold": True, "recency": 0.3, "half_life": 2.0},
]


@pytest.mark.parametrize("options", FILTERS, ids=",".join)
def test_filters_are_those_of_recall_in_fields_and_in_calls(told, options):
    RaeburnVectorStore(told, collection="c").add_texts(["Ana and Ben"])
    expected = told.recall("what does Ana avoid, and Ben?", **options).ids
    assert expected
    question = "what does Ana avoid, and Ben?"
    assert [one.id for one in RaeburnRetriever(told, **options).invoke(question)] == expected
    assert [one.id for one in RaeburnRetriever(told).invoke(question, **options)] == expected
    assert [one.id for one in asyncio.run(RaeburnRetriever(told).ainvoke(question, **options))] == expected


def test_a_threshold_cuts_what_is_not_alike(told):
    everything = told.recall("what must Ana avoid?").ids
    alike = told.recall("what must Ana avoid?", min_similarity=0.5).ids
    assert 0 < len(alike) < len(everything)
    assert [one.id for one in RaeburnRetriever(told, score_threshold=0.5).invoke("what must Ana avoid?")] == alike
    assert RaeburnRetriever(told).batch(["what must Ana avoid?"] * 2, score_threshold=1.0) == [[], []]


def test_a_retriever_of_a_path_and_of_a_namespace(tmp_path):
    with MemoryGraph(tmp_path / "g.db", "builtin", namespace="ana") as memory:
        memory.add_interaction("a secret of Ana")
        retriever = RaeburnRetriever(str(tmp_path / "g.db"), namespace="ana")
        assert [one.page_content for one in retriever.invoke("secret")] == ["a secret of Ana"]
        memory.add_interaction("another secret")
        assert len(retriever.invoke("secret")) == 2
        retriever.close()
        stranger = RaeburnRetriever(tmp_path / "g.db")
        assert stranger.invoke("secret") == []
        stranger.close()
        with pytest.raises(InvalidInput, match="is of the namespace 'ana', not 'ben'"):
            RaeburnRetriever(memory, namespace="ben")
    with pytest.raises(TypeError, match="'colour' is no field of RaeburnRetriever"):
        RaeburnRetriever(":memory:", colour="red")


def test_an_option_that_is_none_is_refused(told):
    with pytest.raises(TypeError, match="'colour' is no option of RaeburnRetriever"):
        RaeburnRetriever(told).invoke("x", colour="red")


# --- the chat history -------------------------------------------------------------------------------------------

TALK = [
    SystemMessage("You are kind.", id="sys", additional_kwargs={"cache": True}),
    HumanMessage("What is on this picture?", name="Ana", id="h1", response_metadata={"x": [1, None]}),
    HumanMessage(
        [
            {"type": "text", "text": "and on this one: größer"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            "as a plain string",
        ]
    ),
    AIMessage(
        "",
        id="run-1",
        tool_calls=[{"name": "look", "args": {"at": {"x": 1.5}}, "id": "call-1", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "see", "args": "{", "id": "c2", "error": "cut", "type": "invalid_tool_call"}],
    ),
    ToolMessage("a cat", tool_call_id="call-1", name="look", artifact={"raw": [1, 2]}, status="error"),
    ToolMessage([{"type": "text", "text": "a dog"}], tool_call_id="call-2"),
    AIMessage(
        [{"type": "text", "text": "A cat."}, {"type": "reasoning", "reasoning": "whiskers"}],
        usage_metadata={
            "input_tokens": 3,
            "output_tokens": 5,
            "total_tokens": 8,
            "input_token_details": {"cache_read": 1},
        },
        response_metadata={"model_name": "m", "finish_reason": "stop"},
        additional_kwargs={"refusal": None},
    ),
    ChatMessage("Objection!", role="critic"),
    ChatMessage("so ordered", role="assistant", id="c"),
    FunctionMessage("42", name="f"),
    AIMessageChunk("in pieces", id="chunk"),
    HumanMessage(""),
    HumanMessage("Same again"),
    HumanMessage("Same again"),
]


def test_messages_come_out_as_they_went_in(memory):
    history = RaeburnChatMessageHistory("s", memory)
    assert history.messages == []
    version = memory.stats().version
    history.add_messages(TALK)
    assert memory.stats().version == version + 1, "one transaction"
    assert history.messages == TALK
    assert [type(message) for message in history.messages] == [type(message) for message in TALK]
    history.add_user_message("hello")
    history.add_ai_message(AIMessage("hi", id="x"))
    assert history.messages == [*TALK, HumanMessage("hello"), AIMessage("hi", id="x")]
    history.messages[1].response_metadata["x"].append("changed")
    assert history.messages[: len(TALK)] == TALK
    assert RaeburnChatMessageHistory("another", memory).messages == []


def test_messages_come_back_after_opening_again(tmp_path):
    for name in ("g.json", "g.db"):
        history = RaeburnChatMessageHistory("s", tmp_path / name)
        history.memory.close()
        with MemoryGraph(tmp_path / name, Words()) as memory:
            RaeburnChatMessageHistory("s", memory).add_messages(TALK)
        with MemoryGraph(tmp_path / name, read_only=True) as memory:
            assert RaeburnChatMessageHistory("s", memory).messages == TALK


def test_messages_are_prompts_and_responses_to_them(memory):
    RaeburnChatMessageHistory("s", memory).add_messages(TALK)
    nodes = memory.thread("s")
    assert [node.kind for node in nodes[:7]] == ["system", "prompt", "prompt", "response", "tool", "tool", "response"]
    assert nodes[2].text == "and on this one: größer\nas a plain string"
    assert memory.neighbours(nodes[6].id, "responded_with", "in") == [nodes[2]]
    assert memory.recall("größer", 1, session="s").ids == [nodes[2].id]
    assert memory.recall("objection", speaker="critic").ids == [nodes[7].id]


def test_clearing_forgets_this_session_only(memory):
    one, two = (RaeburnChatMessageHistory(name, memory) for name in ("one", "two"))
    RaeburnVectorStore(memory).add_texts(["a document"])
    one.add_messages(TALK)
    two.add_messages([HumanMessage("hello"), AIMessage("hi")])
    one.clear()
    assert one.messages == []
    assert two.messages == [HumanMessage("hello"), AIMessage("hi")]
    assert memory.stats().kinds == {"fragment": 1, "prompt": 1, "response": 1, "session": 1}
    one.clear()
    one.add_messages(TALK[:2])
    assert one.messages == TALK[:2]


def test_what_cannot_be_kept_is_refused_whole(memory):
    history = RaeburnChatMessageHistory("s", memory)
    with pytest.raises(InvalidInput, match="Message 1: .*which JSON cannot hold"):
        history.add_messages([HumanMessage("fine"), ToolMessage("x", tool_call_id="1", artifact=object())])
    assert history.messages == []


def test_what_others_said_in_the_session_is_in_the_history(memory):
    memory.add_message("Be kind", "system", "s")
    memory.add_interaction({"id": "p", "text": "Is it raining?"}, {"id": "r", "text": "No"}, session_id="s")
    memory.add_message("sunny", "tool", "s", name="weather", id="t")
    found = RaeburnChatMessageHistory("s", memory).messages
    assert [type(message) for message in found] == [SystemMessage, HumanMessage, AIMessage, ChatMessage]
    assert found[1:] == [
        HumanMessage("Is it raining?", id="p"),
        AIMessage("No", id="r"),
        ChatMessage("sunny", role="tool", name="weather", id="t"),
    ]


def test_async_twins_of_the_history_do_the_same(memory):
    history = RaeburnChatMessageHistory("s", memory)

    async def everything():
        await history.aadd_messages(TALK)
        found = await history.aget_messages()
        await history.aclear()
        return found, await history.aget_messages()

    assert asyncio.run(everything()) == (TALK, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_chain_with_history_remembers(memory):
    from langchain_core.runnables.history import RunnableWithMessageHistory

    seen = []

    def answer(prompt):
        seen.append([message.content for message in prompt.to_messages()])
        return AIMessage(f"answer {len(seen)}")

    chain = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")]) | answer
    chatting = RunnableWithMessageHistory(
        chain,
        lambda session_id: RaeburnChatMessageHistory(session_id, memory),
        input_messages_key="input",
        history_messages_key="history",
    )
    for session, text in (("a", "one"), ("b", "other"), ("a", "two")):
        chatting.invoke({"input": text}, {"configurable": {"session_id": session}})
    asyncio.run(chatting.ainvoke({"input": "three"}, {"configurable": {"session_id": "a"}}))
    assert seen == [
        ["one"],
        ["other"],
        ["one", "answer 1", "two"],
        ["one", "answer 1", "two", "answer 3", "three"],
    ]
    assert [node.text for node in memory.thread("b")] == ["other", "answer 2"]


# --- the recorder -----------------------------------------------------------------------------------------------


def model_that_says(*answers):
    return GenericFakeChatModel(messages=iter(answers))


def interactions(memory):
    """Return the prompts, each with its responses."""
    return [(prompt, memory.neighbours(prompt.id, "responded_with")) for prompt in memory.nodes("prompt")]


def test_a_call_of_a_chat_model_is_an_interaction(memory):
    handler = RaeburnCallbackHandler(memory, agent={"id": "bot", "name": "Bot"})
    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    answer = AIMessage("Peanuts.", usage_metadata=usage, response_metadata={"model_name": "gpt-x"})
    run = uuid.uuid4()
    config = {"callbacks": [handler], "run_id": run, "tags": ["t"], "metadata": {"session_id": "s"}}
    model_that_says(answer).invoke([SystemMessage("Be brief."), HumanMessage("What must Ana avoid?")], config)
    ((prompt, (response,)),) = interactions(memory)
    assert (prompt.id, prompt.text) == (str(run), "What must Ana avoid?")
    assert (response.text, response.attributes["model"], response.attributes["usage"]) == ("Peanuts.", "gpt-x", usage)
    assert prompt.attributes["run_id"] == response.attributes["run_id"] == str(run)
    assert prompt.attributes["tags"] == ["t"]
    assert [node.id for node in memory.thread("s")] == [prompt.id, response.id]
    assert memory.recall("peanuts", agent="bot").ids[0] == response.id
    assert "error" not in prompt.attributes
    assert RaeburnChatMessageHistory("s", memory).messages == [], "the history is told by others"


def test_what_is_new_is_the_prompt(memory):
    handler = RaeburnCallbackHandler(memory, session_id="s")
    talk = [
        SystemMessage("Be brief."),
        HumanMessage("one"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        ToolMessage("tool says", tool_call_id="1"),
        HumanMessage([{"type": "text", "text": "and I say"}, {"type": "image_url", "image_url": {"url": "x"}}]),
    ]
    calls = [{"name": "g", "args": {"a": 1}, "id": "2", "type": "tool_call"}]
    model_that_says(AIMessage("", tool_calls=calls)).invoke(talk, {"callbacks": [handler]})
    ((prompt, (response,)),) = interactions(memory)
    assert prompt.text == "tool says\n\nand I say"
    assert (response.text, response.attributes["tool_calls"]) == ("", calls)


def test_an_llm_and_its_batches_are_recorded(memory):
    handler = RaeburnCallbackHandler(memory)
    llm = FakeListLLM(responses=["first", "second"])
    llm.batch(["one", "two"], {"callbacks": [handler]})
    assert sorted((p.text, [r.text for r in rs]) for p, rs in interactions(memory)) in (
        [("one", ["first"]), ("two", ["second"])],
        [("one", ["second"]), ("two", ["first"])],
    )


def test_several_prompts_and_several_answers_of_one_call(memory):
    handler, run = RaeburnCallbackHandler(memory), uuid.uuid4()
    handler.on_llm_start({"name": "llm"}, ["one", "two"], run_id=run)
    generations = [[Generation(text="a"), Generation(text="b")], []]
    output = {"token_usage": {"total_tokens": 9, "odd": float("nan")}, "model_name": "m"}
    handler.on_llm_end(LLMResult(generations=generations, llm_output=output), run_id=run)
    assert [(p.text, [r.text for r in rs]) for p, rs in interactions(memory)] == [("one", ["a", "b"]), ("two", [])]
    assert memory.get(f"{run}/0").attributes["usage"] == {"total_tokens": 9, "odd": "nan"}
    assert memory.get(f"{run}/0").attributes["model"] == "m"


def test_streams_are_recorded_when_they_end(memory):
    handler = RaeburnCallbackHandler(memory)

    async def astream():
        return [
            c.content async for c in model_that_says(AIMessage("it is sunny")).astream("b", {"callbacks": [handler]})
        ]

    chunks = [c.content for c in model_that_says(AIMessage("it is raining")).stream("a", {"callbacks": [handler]})]
    assert len([chunk for chunk in chunks if chunk]) > 1
    assert "".join(asyncio.run(astream())) == "it is sunny"
    assert [(p.text, [r.text for r in rs]) for p, rs in interactions(memory)] == [
        ("a", ["it is raining"]),
        ("b", ["it is sunny"]),
    ]


def failing():
    yield AIMessage("fine")
    raise RuntimeError("the model is \ud800 down")


def test_a_call_that_fails_is_recorded_with_its_error(memory):
    handler, model = RaeburnCallbackHandler(memory), GenericFakeChatModel(messages=failing())
    model.invoke("one", {"callbacks": [handler]})
    with pytest.raises(RuntimeError, match="down"):
        model.invoke("two", {"callbacks": [handler]})
    (one, _), (two, answers) = interactions(memory)
    assert "error" not in one.attributes
    assert two.attributes["error"] == "RuntimeError: the model is ? down"
    assert answers == []
    run = uuid.uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("three")]], run_id=run)
    for token in ("half ", "an answer"):
        handler.on_llm_new_token(token, run_id=run)
    handler.on_llm_error(TimeoutError("cut"), run_id=run)
    assert [node.text for node in memory.neighbours(str(run))] == ["half an answer"]
    assert memory.get(f"{run}/0").attributes["error"] == "TimeoutError: cut"
    assert handler._calls == {}


def test_runs_side_by_side_are_told_apart(memory):
    handler = RaeburnCallbackHandler(memory)

    async def ask(number):
        model = model_that_says(AIMessage(f"answer {number}"))
        config = {"callbacks": [handler], "metadata": {"thread_id": f"s{number}"}}
        await model.ainvoke(f"question {number}", config)

    async def everybody():
        await asyncio.gather(*map(ask, range(12)))

    asyncio.run(everybody())
    found = {p.text: [r.text for r in rs] for p, rs in interactions(memory)}
    assert found == {f"question {n}": [f"answer {n}"] for n in range(12)}
    assert all([node.text for node in memory.thread(f"s{n}")] == [f"question {n}", f"answer {n}"] for n in range(12))


def test_what_cannot_be_recorded_does_not_stop_the_program(caplog, tmp_path):
    with MemoryGraph(tmp_path / "g.db", Words()) as memory:
        memory.add_interaction("there")
    with MemoryGraph(tmp_path / "g.db", Words(), read_only=True) as memory:
        with caplog.at_level(logging.WARNING, logger="raeburnmemory"):
            answer = model_that_says(AIMessage("fine")).invoke("x", {"callbacks": [RaeburnCallbackHandler(memory)]})
        assert answer.content == "fine"
        assert "could not be recorded" in caplog.text
        strict = RaeburnCallbackHandler(memory, raise_error=True)
        with pytest.raises(Exception, match="read_only|reading"):
            model_that_says(AIMessage("fine")).invoke("x", {"callbacks": [strict]})


def test_an_end_without_a_beginning_is_nothing(memory):
    handler = RaeburnCallbackHandler(memory)
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=AIMessage("x"))]]), run_id=uuid.uuid4())
    handler.on_llm_error(ValueError(), run_id=uuid.uuid4())
    assert len(memory) == 0


# --- one memory, many faces -------------------------------------------------------------------------------------


def test_what_one_face_writes_the_others_find(memory):
    store, history = RaeburnVectorStore(memory, collection="zoo"), RaeburnChatMessageHistory("s", memory)
    handler, retriever = RaeburnCallbackHandler(memory, session_id="calls"), RaeburnRetriever(memory, k=50)
    memory.add_interaction("zebra one", "zebra two", session_id="s")
    store.add_texts(["zebra three"])
    history.add_messages([HumanMessage("zebra four"), AIMessage("zebra five")])
    model_that_says(AIMessage("zebra seven")).invoke("zebra six", {"callbacks": [handler]})
    everything = {f"zebra {n}" for n in ["one", "two", "three", "four", "five", "six", "seven"]}
    assert set(memory.recall("zebra", 50).texts) == everything
    assert {one.page_content for one in retriever.invoke("zebra")} == everything
    assert set(memory.similar("zebra", 50, kinds=None).texts) == everything
    assert {one.page_content for one in store.similarity_search("zebra", 50)} == {"zebra three"}
    assert [one.content for one in history.messages] == ["zebra one", "zebra two", "zebra four", "zebra five"]
    calls = RaeburnRetriever(memory, session="calls", k=50)
    assert {one.page_content for one in calls.invoke("zebra")} == {"zebra six", "zebra seven"}
    assert all(text in memory.context("zebra", 2000).text for text in everything)


def test_faces_of_one_path_see_each_other(tmp_path):
    path = tmp_path / "g.db"
    stores = [RaeburnVectorStore(path, Words(), collection=name) for name in ("one", "two")]
    with MemoryGraph(path, Words()) as memory:
        for number, store in enumerate([*stores, *stores]):
            store.add_texts([f"text {number} of {store.collection}"])
            assert len(memory.recall("text", 50)) == number + 1
        memory.add_interaction("text of the memory")
        for store in stores:
            assert len(store.similarity_search("text", 50)) == 2
            assert store.memory.recall("text of the memory", 1, kinds="prompt").texts == ["text of the memory"]
            store.close()


# --- the model --------------------------------------------------------------------------------------------------


def test_the_model_of_a_memory_serves_others(tmp_path):
    packaged = RaeburnEmbeddings()
    with MemoryGraph(tmp_path / "g.db", "builtin") as memory:
        memory.add_interaction("words")
        assert RaeburnEmbeddings(memory).embed_query("a cat") == packaged.embed_query("a cat")
        assert packaged.embed_query("a cat") == [float(value) for value in memory.model.embed(["a cat"])[0]]
    assert RaeburnEmbeddings(tmp_path / "g.db").embed_documents(["a cat"]) == [packaged.embed_query("a cat")]


WITHOUT = """
import sys
sys.modules["langchain_core"] = None
try:
    import raeburnmemory.langchain
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_langchain_it_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment(), check=True, timeout=60
    )
    assert done.stdout.strip() == (
        "MissingDependency 'langchain_core' is not installed. Install it with: pip install 'raeburnmemory[langchain]'"
    )
