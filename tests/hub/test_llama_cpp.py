"""A model in this process, by llama-cpp-python: the calls of `ModelClient`, and the answers of llama.cpp's own server."""

import threading

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="the extra llama is compiled on the spot, and not installed everywhere")
pytest.importorskip("gguf", reason="the tiny model is written with gguf")

import tiny_model

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput
from raeburnmemory.hub import LlamaCppClient, ModelClient, ask, open_client
from raeburnmemory.hub.models.errors import ContextExceeded, ModelLoadFailed, NotDownloaded, NotRunning, WrongKind
from raeburnmemory.hub.models.interface import ChatClient

GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 24}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return {
        kind: tiny_model.write_model(folder / f"{kind}.gguf", kind=kind, context=1024) for kind in ("chat", "embedding")
    }


@pytest.fixture(scope="module")
def chat(files):
    with LlamaCppClient(files["chat"], threads=1) as client:
        yield client


@pytest.fixture(scope="module")
def embedding(files):
    with LlamaCppClient(files["embedding"], kind="embedding", context=256, threads=1) as client:
        yield client


def test_it_answers(chat):
    assert isinstance(chat, ChatClient)
    reply = chat.chat("Hello", **GREEDY)
    assert len(reply.text) == reply.completion_tokens == 24
    assert reply.finish_reason == "length"
    # Unlike the server, it puts no token before a prompt but what the model's template puts there.
    assert reply.prompt_tokens == len("user: Hello\nassistant: ")
    stream = chat.stream_chat("Hello", **GREEDY)
    pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == reply.text == stream.reply.text
    assert stream.reply.finish_reason == "length"
    assert len(chat.complete("Once upon", max_tokens=5).text) == 5
    assert chat.context_length() == 1024
    assert chat.models() == ["chat.gguf"]


def test_it_says_what_the_server_says(chat, files, tmp_path):
    pytest.importorskip("xllamacpp", reason="compares with the real llama.cpp server of xllamacpp")
    with tiny_model.running(files["chat"], tmp_path / "log") as server, ModelClient(server.url + "/v1") as other:
        assert chat.chat("Hello", **GREEDY).text == other.chat("Hello", **GREEDY).text
        assert chat.tokenize("héllo") == other.tokenize("héllo")
        assert chat.count_tokens("héllo") == other.count_tokens("héllo") == 6
        assert chat.count_messages("héllo").estimated


def test_its_vectors_are_those_of_the_server(embedding, files, tmp_path):
    rows = embedding.embed(["one text", "another", "x" * 200])
    assert rows.shape == (3, tiny_model.WIDTH)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-4)
    assert embedding.embed([]).shape == (0, 0)
    with pytest.raises(ContextExceeded):
        embedding.embed(["x" * 300])
    pytest.importorskip("xllamacpp", reason="compares with the real llama.cpp server of xllamacpp")
    with (
        tiny_model.running(files["embedding"], tmp_path / "log", "--embeddings") as server,
        ModelClient(server.url + "/v1") as other,
    ):
        assert np.allclose(rows, other.embed(["one text", "another", "x" * 200]), atol=1e-3)


def test_kinds_are_kept_apart(chat, embedding, files):
    with pytest.raises(WrongKind, match='kind="embedding"'):
        chat.embed(["Hello"])
    with pytest.raises(WrongKind, match='kind="chat"'):
        embedding.chat("Hello")
    with (
        LlamaCppClient(files["embedding"], kind="embedding", pooling_type=0, threads=1) as unpooled,
        pytest.raises(WrongKind, match="for each token"),
    ):
        unpooled.embed(["Hello"])


def test_leaving_a_stream_lets_the_next_one_in(chat):
    for piece in chat.stream_chat("Go on", max_tokens=900):
        assert piece
        break
    said = []
    thread = threading.Thread(target=lambda: said.append(chat.chat("Hello", **GREEDY).text))
    thread.start()
    thread.join(30)
    assert len(said[0]) == 24


def test_threads_take_turns(chat):
    expected = chat.chat("Hello", **GREEDY).text
    said = []
    threads = [threading.Thread(target=lambda: said.append(chat.chat("Hello", **GREEDY).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [expected] * 4


def test_what_does_not_fit_or_is_not_there(chat, files, tmp_path):
    with pytest.raises(ContextExceeded) as raised:
        chat.chat("x" * 2000)
    assert raised.value.room == 1024
    with pytest.raises(NotDownloaded):
        LlamaCppClient(tmp_path / "none.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelLoadFailed, match=r"broken\.gguf"):
        LlamaCppClient(tmp_path / "broken.gguf")
    with pytest.raises(InvalidInput):
        LlamaCppClient(files["chat"], kind="talk")
    closed = open_client(str(files["chat"]))
    closed.close()
    closed.close()
    with pytest.raises(NotRunning, match="closed"):
        closed.chat("Hello")


def test_a_memory_can_be_asked_with_it(files):
    with MemoryGraph(":memory:", embedding_model="builtin") as memory:
        memory.add_interaction("What is Ana allergic to?", "Ana is allergic to peanuts.")
        with LlamaCppClient(files["chat"], threads=1) as client:
            answer = ask(memory, "What is Ana allergic to?", client, max_tokens=20, k=1)
        assert len(answer.text) > 0
        assert "The answer cites nothing." in answer.problems
