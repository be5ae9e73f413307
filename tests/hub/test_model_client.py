"""Clients of models: against llama.cpp's own server, and against one that answers what a test wants to see handled."""

import asyncio
import contextlib
import gc
import inspect
import json
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("httpx", reason="the hub speaks HTTP with httpx")

import httpx
import tiny_model
from scripted import awaited, chunk, scripted, talking

from raeburnmemory.errors import InvalidInput
from raeburnmemory.hub.models import client as client_module
from raeburnmemory.hub.models.client import AsyncModelClient, Endpoint, ModelClient
from raeburnmemory.hub.models.errors import ClientError, ClientTimeout, ContextExceeded, NotRunning, WrongKind

KEY = "sesame-0123456789"
ASK = [{"role": "user", "content": "What is in the garden?"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def chat_server(tiny_chat_model, tmp_path_factory):
    """A chat model that wants a key."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "key").write_text(KEY + "\n")
    flags = ["--api-key-file", str(folder / "key"), "--alias", "tiny", "--slots"]
    with tiny_model.running(tiny_chat_model, folder / "log", *flags) as server:
        yield server


@pytest.fixture
def chat(chat_server):
    with ModelClient(chat_server.url + "/v1", api_key=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def embedding_server(tiny_embedding_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("embedding") / "log"
    with tiny_model.running(tiny_embedding_model, log, "--embeddings", "-b", "512", "-ub", "512") as server:
        yield server


@pytest.fixture
def script():
    with scripted() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def quick(monkeypatch):
    """Let nobody wait between two tries; return how long each would have been."""
    pauses = []
    monkeypatch.setattr(client_module.time, "sleep", pauses.append)
    return pauses


# --- the real server --------------------------------------------------------------------------------------------


def test_a_chat_is_answered(chat):
    reply = chat.chat("Hello", max_tokens=12, temperature=0)
    # The model's words are characters of ASCII, one token each.
    assert len(reply.text) == reply.completion_tokens == 12
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert reply.finish_reason == "length"
    assert reply.model == "tiny"
    assert str(reply) == reply.text
    prompt = "user: Hello\nassistant: "  # the tiny model's template, a token for a character, and one to begin with
    assert reply.prompt_tokens == len(prompt) + 1


def test_a_stream_brings_what_the_whole_answer_has(chat):
    params = {"max_tokens": 16, "temperature": 0, "seed": 1, "cache_prompt": False}
    stream = chat.stream_chat(ASK, **params)
    pieces = list(stream)
    assert len(pieces) > 4
    assert "".join(pieces) == chat.chat(ASK, **params).text == stream.reply.text
    assert stream.reply.finish_reason == "length"
    assert stream.reply.completion_tokens == 16


def test_params_reach_the_model(chat):
    greedy = {chat.chat("a", max_tokens=8, temperature=0).text for _ in range(2)}
    assert len(greedy) == 1
    grammar = 'root ::= "yes" | "no"'
    assert chat.chat("a", max_tokens=8, grammar=grammar).text in {"yes", "no"}


def test_a_prompt_is_gone_on_with(chat):
    assert len(chat.complete("Once upon", max_tokens=5).text) == 5


def test_tokens_are_the_models_own(chat):
    kinds = tiny_model.vocabulary()[0]
    text = "héllo"
    expected = ["h", "<0xC3>", "<0xA9>", "l", "l", "o"]
    assert [kinds[token] for token in chat.tokenize(text)] == expected
    count = chat.count_tokens(text)
    assert count == len(expected)
    assert not count.estimated
    assert repr(count) == "6"
    assert chat.count_messages("Hello") == chat.chat("Hello", max_tokens=1).prompt_tokens
    assert chat.tokenize("") == []


def test_what_the_server_tells_about_itself(chat, embedding_server):
    assert chat.models() == ["tiny"]
    assert chat.context_length() == tiny_model.CONTEXT
    with ModelClient(embedding_server.url + "/v1") as client:
        assert client.context_length() == tiny_model.CONTEXT


def test_a_prompt_that_is_too_long_is_told_with_its_numbers(chat):
    with pytest.raises(ContextExceeded) as raised:
        chat.chat("x" * 3000)
    assert raised.value.room == tiny_model.CONTEXT
    assert raised.value.need == 3000 + len("user: \nassistant: ") + 1
    assert isinstance(raised.value, ValueError)
    with pytest.raises(ContextExceeded):
        next(chat.stream_chat("x" * 3000))


def test_no_key_and_a_wrong_key_are_refused_and_not_told(chat_server):
    for key, words in (("", "No key was sent"), ("wrong-key-123456", "key that was sent is refused")):
        with ModelClient(chat_server.url + "/v1", api_key=key) as client:
            with pytest.raises(ClientError, match=words) as raised:
                client.chat("Hello")
            assert raised.value.status == 401
            assert raised.value.code == "client_error"
            assert "wrong-key" not in str(raised.value)
            assert client.context_length() is None  # /props and /v1/models want it, too
            with pytest.raises(ClientError):
                client.count_tokens("Hello")  # no estimate hides it


def test_vectors_are_those_of_the_server(embedding_server):
    with ModelClient(embedding_server.url + "/v1", kind="embedding") as client:
        texts = [f"text number {number}" for number in range(70)]  # more than one request
        rows = client.embed(texts)
        assert rows.shape == (70, tiny_model.WIDTH)
        assert rows.dtype == np.float32
        for place in (0, 69):
            said = httpx.post(embedding_server.url + "/v1/embeddings", json={"input": texts[place]}).json()
            assert np.allclose(rows[place], said["data"][0]["embedding"], atol=1e-5)
        assert client.embed([]).shape == (0, 0)
        with pytest.raises(ContextExceeded, match="batch"):
            client.embed(["x" * 600])
        with pytest.raises(WrongKind, match='kind="chat"'):
            client.chat("Hello")


def test_a_chat_model_makes_no_vectors(chat, chat_server):
    with pytest.raises(WrongKind, match='kind="embedding"'):
        chat.embed(["Hello"])
    with (
        ModelClient(chat_server.url + "/v1", api_key=KEY, kind="chat") as told,
        pytest.raises(WrongKind, match='kind="embedding"'),
    ):
        told.embed(["Hello"])


def test_a_model_that_pools_nothing_is_refused(tiny_embedding_model, tmp_path):
    flags = ["--embeddings", "--pooling", "none"]
    with tiny_model.running(tiny_embedding_model, tmp_path / "log", *flags) as server:
        said = httpx.post(server.url + "/embedding", json={"content": "ab"}).json()
        assert np.ndim(said[0]["embedding"]) == 2  # what is refused is what such a server says
        with ModelClient(server.url + "/v1") as client, pytest.raises((WrongKind, ClientError), match="pool"):
            client.embed(["Hello"])


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that speaks for tens of seconds unless it is stopped."""
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    folder = tmp_path_factory.mktemp("endless")
    model = tiny_model.write_model(folder / "endless.gguf", context=200_000)
    with tiny_model.running(model, folder / "log", "--slots") as server:
        yield server


def stopped_after(url, seconds=10.0):
    """Return how many tokens the only slot had made when it stopped, which must be soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (slot,) = httpx.get(url + "/slots").json()
        if not slot["is_processing"]:
            return slot
        time.sleep(0.02)
    raise AssertionError("the model still speaks")


def is_speaking(url):
    return httpx.get(url + "/slots").json()[0]["is_processing"]


def until_speaking(url):
    while not is_speaking(url):
        time.sleep(0.01)


def leave_by_close(client):
    stream = client.stream_chat("Go on", max_tokens=150_000)
    next(stream)
    assert is_speaking(client.url)
    stream.close()


def leave_by_break(client):
    for piece in client.stream_chat("Go on", max_tokens=150_000):
        assert piece
        break
    gc.collect()


def leave_by_block(client):
    with client.stream_chat("Go on", max_tokens=150_000) as stream:
        next(stream)


def leave_by_error(client):
    with contextlib.suppress(ZeroDivisionError), client.stream_chat("Go on", max_tokens=150_000) as stream:
        next(stream)
        raise ZeroDivisionError


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_break, leave_by_block, leave_by_error])
def test_leaving_a_stream_early_stops_the_model(endless, leave):
    with ModelClient(endless.url + "/v1") as client:
        client.url = endless.url
        leave(client)
        stopped_after(endless.url)


@awaited
async def test_leaving_an_asynchronous_stream_stops_the_model(endless):
    async with AsyncModelClient(endless.url + "/v1") as client:
        async with client.stream_chat("Go on", max_tokens=150_000) as stream:
            await stream.__anext__()
            assert await asyncio.to_thread(is_speaking, endless.url)
        await asyncio.to_thread(stopped_after, endless.url)

        async def listen():
            async for _ in client.stream_chat("Go on", max_tokens=150_000):
                pass

        task = asyncio.ensure_future(listen())
        await asyncio.to_thread(until_speaking, endless.url)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(stopped_after, endless.url)


@awaited
async def test_the_asynchronous_client_says_the_same(chat_server, embedding_server):
    params = {"max_tokens": 8, "temperature": 0, "cache_prompt": False}
    url = chat_server.url + "/v1"
    async with AsyncModelClient(url, api_key=KEY) as one:
        with ModelClient(url, api_key=KEY) as other:
            assert (await one.chat("Hi", **params)).text == other.chat("Hi", **params).text
            assert (
                "".join([piece async for piece in one.stream_chat("Hi", **params)]) == other.chat("Hi", **params).text
            )
            assert (await one.complete("Hi", **params)).text == other.complete("Hi", **params).text
            assert await one.tokenize("héllo") == other.tokenize("héllo")
            assert await one.count_tokens("héllo") == other.count_tokens("héllo") == 6
            assert await one.count_messages(ASK) == other.count_messages(ASK)
            assert await one.context_length() == other.context_length()
            assert await one.models() == other.models()
        with pytest.raises(ContextExceeded):
            await one.chat("x" * 3000)
    async with AsyncModelClient(embedding_server.url + "/v1") as one:
        with ModelClient(embedding_server.url + "/v1") as other:
            assert np.allclose(await one.embed(["a", "b"]), other.embed(["a", "b"]), atol=1e-5)


def test_both_clients_have_the_same_calls():
    def calls(cls):
        return {name: value for name, value in vars(cls).items() if not name.startswith("_")}

    one, other = calls(ModelClient), calls(AsyncModelClient)
    assert {*one} - {"close"} == {*other} - {"aclose"}
    for name in {*one} - {"close"}:
        given = [[*inspect.signature(value).parameters.values()] for value in (one[name], other[name])]
        assert given[0] == given[1], name


# --- what other servers answer ----------------------------------------------------------------------------------


def test_busy_and_broken_servers_are_asked_again(script, quick):
    def hang_up(handler, body):
        handler.cut()

    script.on(CHAT, (503, {"error": {"message": "Loading model"}}), (429, {}), hang_up, talking("Here."))
    with ModelClient(script.url) as client:
        assert client.chat("Hello").text == "Here."
    assert len(script.bodies()) == 4
    assert len(quick) == 3
    assert quick[0] < quick[1] < quick[2]


def test_tries_come_to_an_end(script, quick):
    script.on(CHAT, (503, {"error": {"message": "Loading model"}}))
    with ModelClient(script.url, retries=2) as client:
        with pytest.raises(ClientError, match="Loading model") as raised:
            client.chat("Hello")
        assert raised.value.status == 503
        assert len(script.bodies()) == 3
        with pytest.raises(ClientError, match="Loading model"):
            next(client.stream_chat("Hello"))
        assert len(script.bodies()) == 6


def test_other_refusals_are_final(script, quick):
    with ModelClient(script.url) as client:
        for status in (400, 401, 404, 500):
            script.on(CHAT, (status, {"error": {"message": "No."}}))
            asked = len(script.bodies())
            with pytest.raises(ClientError, match=rf"status {status}: No\.") as raised:
                client.chat("Hello")
            assert raised.value.status == status
            assert len(script.bodies()) == asked + 1
    assert quick == []


def test_a_server_may_say_how_long_to_wait_but_not_for_ever(script, quick):
    script.on(CHAT, (429, {}, {"Retry-After": "7"}), talking("Here."))
    with ModelClient(script.url) as client:
        assert client.chat("Hello").text == "Here."
        assert quick == [7.0]
        script.on(CHAT, (429, {}, {"Retry-After": "3600"}))
        with pytest.raises(ClientError, match="429"):
            client.chat("Hello")
    assert quick == [7.0]


def test_nobody_listens(quick):
    port = tiny_model.free_port()
    with ModelClient(f"http://127.0.0.1:{port}/v1", retries=1) as client, pytest.raises(NotRunning) as raised:
        client.chat("Hello")
    assert str(port) in str(raised.value)
    assert raised.value.remedy in str(raised.value)
    assert isinstance(raised.value, ConnectionError)
    assert len(quick) == 1


def test_a_stream_that_breaks_before_its_first_word_begins_again(script, quick):
    def breaks(handler, body):
        handler.begin()
        handler.wfile.write(b"data: " + json.dumps(chunk()).encode() + b"\n\n")
        handler.cut()

    script.on(CHAT, breaks, talking("All of it."))
    with ModelClient(script.url) as client:
        assert "".join(client.stream_chat("Hello")) == "All of it."
    assert len(script.bodies()) == 2


def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_an_answer(script, quick):
    def breaks(handler, body):
        handler.stream(chunk("Half of"), done=False)

    script.on(CHAT, breaks)
    with ModelClient(script.url) as client:
        stream = client.stream_chat("Hello")
        assert next(stream) == "Half of"
        with pytest.raises(NotRunning, match="7 characters"):
            next(stream)
        assert stream.reply.text == "Half of"
    assert len(script.bodies()) == 1
    assert quick == []


def test_a_stream_without_done_is_whole_if_it_says_why_it_ended(script):
    script.on(CHAT, lambda handler, body: handler.stream(chunk("Yes."), chunk(finish="stop"), done=False))
    with ModelClient(script.url) as client:
        assert "".join(client.stream_chat("Hello")) == "Yes."


def test_a_strict_server_is_asked_without_what_it_does_not_know(script, quick):
    refusal = (422, {"detail": "extra_forbidden: body.stream_options"})
    script.on(CHAT, refusal, talking("Yes."))
    with ModelClient(script.url, retries=0) as client:
        assert "".join(client.stream_chat("Hello")) == "Yes."
        script.on(CHAT, refusal)
        with pytest.raises(ClientError, match="stream_options"):
            list(client.stream_chat("Hello"))
    assert "stream_options" in script.bodies()[0]
    assert "stream_options" not in script.bodies()[1]
    assert quick == []


def test_an_error_in_a_stream_is_raised(script):
    for event in (
        b'data: {"error": {"code": 500, "message": "out of memory"}}',
        b'error: {"message": "out of memory"}',
    ):
        script.on(CHAT, lambda handler, body, event=event: handler.stream(chunk("Ye"), event))
        with ModelClient(script.url) as client, pytest.raises(ClientError, match="out of memory"):
            list(client.stream_chat("Hello"))


def test_only_newlines_end_a_line_of_a_stream(script):
    """JSON may hold U+2028 and U+0085 as they are, at which Python's `splitlines`, and so httpx, cuts."""
    text = "one\u2028two\u0085three\x1cfour\rfive"
    script.on(CHAT, lambda handler, body: handler.stream(b": a comment", chunk(text), chunk(finish="stop")))
    with ModelClient(script.url) as client:
        assert "".join(client.stream_chat("Hello")) == text


def test_characters_and_events_may_come_in_pieces(script):
    def in_pieces(handler, body):
        handler.begin()
        data = b"data: " + json.dumps(chunk("Grüße, 世界"), ensure_ascii=False).encode() + b"\r\n\r\n"
        for byte in data + b"data: [DONE]\r\n\r\n":
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()

    script.on(CHAT, in_pieces)
    with ModelClient(script.url) as client:
        assert "".join(client.stream_chat("Hello")) == "Grüße, 世界"


def test_nothing_for_too_long_is_an_error(script):
    def stalls(handler, body):
        handler.begin()
        handler.wfile.write(b"data: " + json.dumps(chunk("One")).encode() + b"\n\n")
        handler.wfile.flush()
        handler.sleep(2)

    script.on(CHAT, stalls)
    with ModelClient(script.url, timeout=0.3) as client:
        began = time.monotonic()
        stream = client.stream_chat("Hello")
        assert next(stream) == "One"
        with pytest.raises(ClientTimeout, match=r"0\.3 seconds"):
            next(stream)
        assert time.monotonic() - began < 2
        assert issubclass(ClientTimeout, TimeoutError)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b"<html>a page</html>"), "no JSON"),
        ({"choices": []}, "no 'choices'"),
        ({"choices": [{"message": {"content": 7}}]}, "no 'choices'"),
        ([], "no 'choices'"),
    ],
)
def test_what_is_no_answer_is_said_so(script, answer, words):
    script.on(CHAT, answer)
    with ModelClient(script.url) as client, pytest.raises(ClientError, match=words):
        client.chat("Hello")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([{"embedding": [1.0, None]}, {"embedding": [1.0, 2.0]}], "something else than numbers"),
        ([{"embedding": None}, {"embedding": [1.0, 2.0]}], "no vector"),
        ([{"embedding": [1.0, 2.0]}], "2 texts with 1"),
        ([{"embedding": [1.0, 2.0]}, {"embedding": [1.0]}], "of 2 and of 1"),
        ([{"embedding": [1e300, 2.0]}, {"embedding": [1.0, 2.0]}], "infinite"),
        ([{"embedding": [[1.0, 2.0]]}, {"embedding": [[1.0, 2.0]]}], "for each token"),
        ([{"embedding": [1.0], "index": 1}, {"embedding": [2.0], "index": 1}], "numbered"),
        ([{"embedding": []}, {"embedding": []}], "no vector"),
        ("nothing", "no list 'data'"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_vectors_are_checked(script, data, words):
    script.on("/v1/embeddings", {"data": data})
    with ModelClient(script.url) as client, pytest.raises((ClientError, WrongKind), match=words):
        client.embed(["one", "two"])


def test_vectors_may_come_in_any_order(script):
    script.on("/v1/embeddings", {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]})
    with ModelClient(script.url, "bge") as client:
        assert client.embed(["one", "two"]).tolist() == [[1, 2], [3, 4]]
    assert script.bodies("/v1/embeddings")[0]["model"] == "bge"


def test_batches_of_other_lengths_are_refused(script):
    def rows(width, count):
        return {"data": [{"index": place, "embedding": [1.0] * width} for place in range(count)]}

    script.on("/v1/embeddings", rows(2, 64), rows(3, 6))
    with ModelClient(script.url) as client, pytest.raises(ClientError, match=r"\[2, 3\]"):
        client.embed(["text"] * 70)


def test_without_a_tokenizer_tokens_are_estimated_and_said_so(script):
    from raeburnmemory.tokens import estimate

    with ModelClient(script.url) as client:
        count = client.count_tokens("How many are these?")
        assert count.estimated
        assert count == estimate("How many are these?")
        assert repr(count) == f"about {int(count)}"
        asked = len(script.asked)
        assert client.count_tokens("And these?").estimated
        assert len(script.asked) == asked  # it is known that there is none
        whole = client.count_messages(ASK)
        assert whole.estimated
        assert whole > estimate(ASK[0]["content"])
        with pytest.raises(ClientError, match="tokenizer"):
            client.tokenize("And these?")
        assert client.context_length() is None


def test_other_tokenizers_are_found(script):
    with ModelClient(script.url) as client:
        script.on("/extras/tokenize", {"tokens": [5, 6, 7]})
        assert client.tokenize("of llama-cpp-python") == [5, 6, 7]
    with ModelClient(script.url, "m") as client:
        script.on("/tokenize", {"count": 2, "max_model_len": 99, "tokens": [8, 9]})
        assert client.tokenize("of vLLM") == [8, 9]
        body = script.bodies("/tokenize")[-1]
        assert (body["prompt"], body["model"]) == ("of vLLM", "m")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/models", {"data": [{"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 4096}]}),
        ("/v1/models", {"data": [{"id": "m", "meta": {"n_ctx": 4096, "n_ctx_train": 131072}}]}),
        ("/v1/models", {"data": [{"id": "m", "context_length": 4096}]}),
        ("/props", {"default_generation_settings": {"n_ctx": 4096}}),
    ],
)
def test_the_context_is_found_where_servers_tell_it(script, path, answer):
    script.on(path, answer)
    with ModelClient(script.url, "m") as client:
        assert client.context_length() == 4096


def test_what_a_model_was_trained_with_is_not_what_it_has(script):
    script.on("/v1/models", {"data": [{"id": "m", "meta": {"n_ctx_train": 131072}}]})
    with ModelClient(script.url, "m") as client:
        assert client.context_length() is None


# --- keys, proxies, arguments -----------------------------------------------------------------------------------


def test_a_key_that_is_repeated_is_hidden(script):
    script.on(CHAT, (401, {"error": {"message": f"Bad key {KEY}, also sk-abcdefgh12345"}}))
    with ModelClient(script.url, api_key=KEY) as client:
        with pytest.raises(ClientError) as raised:
            client.chat("Hello")
        assert KEY not in str(raised.value)
        assert "sk-abc" not in str(raised.value)
        assert KEY not in repr(client)
        assert KEY not in repr(vars(raised.value))
        script.on(CHAT, (200, KEY.encode()))
        with pytest.raises(ClientError) as raised:
            client.chat("Hello")
        assert KEY not in str(raised.value)
        assert raised.value.__cause__ is None
    assert script.asked[0][2]["Authorization"] == f"Bearer {KEY}"


def test_the_key_of_the_environment_goes_only_where_it_may(script, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    script.says("Hi.")
    with ModelClient(script.url) as client:
        client.chat("Hello")
    assert script.asked[-1][2]["Authorization"] == f"Bearer {KEY}"
    with ModelClient(script.url, api_key="") as client:
        client.chat("Hello")
    assert "Authorization" not in script.asked[-1][2]
    far = ModelClient("http://192.0.2.1/v1")
    assert far._lease().__enter__().api_key is None
    far.close()
    with pytest.raises(InvalidInput, match="everybody on the way") as raised:
        ModelClient("http://192.0.2.1/v1", api_key=KEY)
    assert KEY not in str(raised.value)


def test_proxies_are_not_used_towards_this_machine(script, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{tiny_model.free_port()}")
    script.says("Hi.")
    with ModelClient(script.url) as client:
        assert client.chat("Hello").text == "Hi."


def test_redirects_are_not_followed(script):
    script.on(CHAT, (307, {}, {"Location": "http://127.0.0.1:1/"}))
    with ModelClient(script.url, api_key=KEY) as client, pytest.raises(ClientError, match="not followed"):
        client.chat("Hello")


@pytest.mark.parametrize(
    "given",
    [
        {"base_url": "ftp://host/"},
        {"base_url": "http://user:secret@127.0.0.1/v1"},
        {"base_url": None},
        {"base_url": "http://127.0.0.1/v1", "lease": lambda: None},
        {"base_url": "http://127.0.0.1/v1", "timeout": 0},
        {"base_url": "http://127.0.0.1/v1", "retries": -1},
        {"base_url": "http://127.0.0.1/v1", "kind": "talk"},
        {"base_url": "http://127.0.0.1/v1", "model": " "},
        {"base_url": "http://127.0.0.1/v1", "api_key": "has spaces"},
    ],
)
def test_arguments_are_checked(given):
    with pytest.raises(InvalidInput) as raised:
        ModelClient(**given)
    assert "secret" not in str(raised.value)


def test_messages_are_checked(script):
    with ModelClient(script.url) as client:
        for wrong in ([], {"role": "user"}, [{"content": "x"}], ["x"], 7):
            with pytest.raises(InvalidInput):
                client.chat(wrong)
        with pytest.raises(InvalidInput, match="stream_chat"):
            client.chat("x", stream=True)
        with pytest.raises(InvalidInput):
            client.embed("one text")
    assert script.asked == []


# --- leases -----------------------------------------------------------------------------------------------------


class Leases:
    """Counts who is in; gives another address each time, as a model that was started again has."""

    def __init__(self, *urls):
        self.urls, self.inside, self.most, self.taken = list(urls), 0, 0, 0

    @contextlib.contextmanager
    def __call__(self):
        self.inside += 1
        self.taken += 1
        try:
            yield Endpoint(self.urls.pop(0) if len(self.urls) > 1 else self.urls[0], KEY)
        finally:
            self.inside -= 1


def test_a_lease_lasts_as_long_as_an_answer(script):
    seen = []

    def answer(handler, body):
        seen.append(lease.inside)
        talking("One two three.")(handler, body)

    script.on(CHAT, answer)
    lease = Leases(script.url)
    with ModelClient(model="m", lease=lease) as client:
        client.chat("Hello")
        stream = client.stream_chat("Hello")
        assert lease.inside == 0  # nothing was asked yet
        next(stream)
        assert lease.inside == 1
        list(stream)
        assert lease.inside == 0
        with client.stream_chat("Hello") as left:
            next(left)
        assert lease.inside == 0
    assert seen == [1, 1, 1]
    assert script.asked[0][2]["Authorization"] == f"Bearer {KEY}"


def test_each_try_takes_a_lease_so_that_a_model_can_be_started_again(script, quick):
    script.says("Back.")
    lease = Leases(f"http://127.0.0.1:{tiny_model.free_port()}/v1", script.url)
    with ModelClient(model="m", lease=lease) as client:
        assert client.chat("Hello").text == "Back."
    assert lease.taken == 2
    assert lease.inside == 0


@awaited
async def test_a_lease_that_waits_does_not_hold_up_the_loop_and_is_given_back(script):
    script.says("Hi.")
    go, left = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def slow():
        go.wait(10)
        try:
            yield Endpoint(script.url)
        finally:
            left.set()

    async with AsyncModelClient(model="m", lease=slow) as client:
        task = asyncio.ensure_future(client.chat("Hello"))
        await asyncio.sleep(0.05)
        assert not task.done()
        go.set()
        assert (await task).text == "Hi."
        assert left.is_set()
        go.clear()
        left.clear()
        task = asyncio.ensure_future(client.chat("Hello"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert await asyncio.to_thread(left.wait, 5)  # though nobody waited for it any more


def test_threads_share_a_client(script):
    script.says("Hi.")
    said = []
    with ModelClient(script.url) as client:
        threads = [threading.Thread(target=lambda: said.append(client.chat("Hello").text)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == ["Hi."] * 8


def test_a_server_on_ipv6_is_on_this_machine(monkeypatch):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ModelClient("http://[::1]:9/v1") as client:
        assert client._lease().__enter__().api_key == KEY


def test_a_line_without_end_is_taken_in_once(script):
    """Not all of it again with each piece: 24 MB took 12 seconds of the processor."""
    from raeburnmemory.hub.models._wire import Deltas, Teller
    from raeburnmemory.hub.models.interface import Said

    deltas, begun = Deltas(Said(), Teller("x")), time.process_time()
    for _ in range(1500):
        assert list(deltas.feed(bytes(16_384))) == []
    assert time.process_time() - begun < 1.0
