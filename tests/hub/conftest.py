"""What the hub's tests share: the tiny models, made once per run."""

import os

import pytest
import tiny_model


def _need_real_parts():
    pytest.importorskip("gguf", reason="the tiny model is written with gguf")
    pytest.importorskip("xllamacpp", reason="the real llama.cpp server is the one of xllamacpp")
    pytest.importorskip("httpx", reason="the hub speaks HTTP with httpx")


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory):
    """Return the file of a tiny chat model."""
    _need_real_parts()
    return tiny_model.write_model(tmp_path_factory.mktemp("models") / "tiny-chat.gguf")


@pytest.fixture(scope="session")
def tiny_embedding_model(tmp_path_factory):
    """Return the file of a tiny embedding model."""
    _need_real_parts()
    return tiny_model.write_model(tmp_path_factory.mktemp("models") / "tiny-embedding.gguf", kind="embedding")


@pytest.fixture(scope="module")
def chromium():
    """Return a browser for the hub's page; to start one takes longer than most of what is done with it."""
    from hub_page import Page

    with Page(1280, 860) as page:
        yield page


@pytest.fixture
def bench(tmp_path):
    """Return a folder for stand-ins of models, with managers over it."""
    if os.name != "posix":
        pytest.skip("models are run on POSIX systems")
    from running_models import Bench

    made = Bench(tmp_path)
    yield made
    made.close()
