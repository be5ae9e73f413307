"""Recording calls: of functions and blocks, and of the real OpenAI client against a server that speaks its wire form."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from outside import fake

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", fake) as memory:
        yield memory


def pairs(memory):
    """Return prompt and response of every interaction, in order; None where there is no response."""
    found = []
    for prompt in memory.nodes("prompt"):
        answers = memory.neighbours(prompt.id, "responded_with")
        found += [(prompt.text, answer.text) for answer in answers] or [(prompt.text, None)]
    return found


def only(memory, kind="prompt"):
    (node,) = memory.nodes(kind)
    return node


# --- functions and blocks ----------------------------------------------------------------------------------------


def test_a_function_is_recorded(memory):
    @memory.record(session_id="s", agent={"id": "bot", "name": "Bot"}, metadata={"app": "shop"})
    def ask(model, question="none", *, loud=False):
        """Ask."""
        return question.upper() if loud else f"yes, {question}"

    assert ask(5, "is it open?") == "yes, is it open?"
    assert ask(5, loud=True) == "NONE"
    assert pairs(memory) == [("is it open?", "yes, is it open?"), ("none", "NONE")]
    assert [node.text for node in memory.thread("s")] == ["is it open?", "yes, is it open?", "none", "NONE"]
    prompt, response = memory.thread("s")[:2]
    assert response.id == f"{prompt.id}/0"
    for node in (prompt, response):
        assert (node.attributes["run_id"], node.attributes["app"]) == (prompt.id, "shop")
        assert 0 <= node.attributes["latency"] < 5
    assert [link.target for link in memory.links(response.id, "generated_by")] == ["bot"]
    assert (ask.__name__, ask.__doc__, ask.recorder.recorded, ask.recorder.failed) == ("ask", "Ask.", 2, 0)


def test_which_argument_is_asked_and_what_is_answered(memory):
    @memory.record(argument="about", session_id=lambda given: f"user {given['user']}")
    def find(user, about, limit=3):
        return {"found": [about], "limit": limit}

    @memory.record
    def nothing(text):
        return None

    find(7, about={"n": 1})
    nothing("only asked")
    assert pairs(memory) == [('{"n": 1}', '{"found": [{"n": 1}], "limit": 3}'), ("only asked", None)]
    assert [node.id for node in memory.nodes("session")] == ["user 7"]
    with pytest.raises(InvalidInput, match="'other'"):
        memory.record(argument="other")(nothing)
    with pytest.raises(InvalidInput, match="5"):
        memory.record(5)
    with pytest.raises(InvalidInput, match="'text'"):
        memory.record(metadata={"text": 1})


def test_errors_are_recorded_and_raised(memory):
    @memory.record
    def fails(text):
        raise KeyError(text)

    with pytest.raises(KeyError):
        fails("what now?")
    with pytest.raises(TypeError):
        fails()
    assert pairs(memory) == [("what now?", None)]
    assert only(memory).attributes["error"] == "KeyError: 'what now?'"


def test_coroutines_and_generators_of_both_kinds(memory):
    @memory.record
    async def later(text):
        await asyncio.sleep(0)
        if text == "fail":
            raise ValueError(text)
        return text[::-1]

    @memory.record
    def parts(text):
        yield from text
        return "the end"

    @memory.record
    async def later_parts(text):
        for letter in text:
            yield letter

    def delegating():
        assert (yield from parts("one")) == "the end"

    async def everything():
        assert await later("abc") == "cba"
        with pytest.raises(ValueError, match="fail"):
            await later("fail")
        assert [part async for part in later_parts("two")] == ["t", "w", "o"]
        stream = later_parts("three")
        assert await anext(stream) == "t"
        await stream.aclose()

    assert list(delegating()) == ["o", "n", "e"]
    stream = parts("four")
    assert next(stream) == "f"
    stream.close()
    asyncio.run(everything())
    assert pairs(memory) == [
        ("one", "one"),
        ("four", "f"),
        ("abc", "cba"),
        ("fail", None),
        ("two", "two"),
        ("three", "t"),
    ]
    cancelled = [node.text for node in memory.nodes("prompt", where={"cancelled": True})]
    assert cancelled == ["four", "three"]


def test_generators_get_what_is_sent_and_thrown(memory):
    @memory.record
    def echo(text):
        got = None
        while got != "stop":
            try:
                got = yield f"{text} {got}"
            except ValueError as exc:
                got = str(exc)

    @memory.record
    async def later_echo(text):
        got = None
        while got != "stop":
            try:
                got = yield f"{text} {got}"
            except ValueError as exc:
                got = str(exc)

    async def asynchronously():
        stream = later_echo("b")
        found = [await anext(stream), await stream.asend("x"), await stream.athrow(ValueError("bad"))]
        with pytest.raises(StopAsyncIteration):
            await stream.asend("stop")
        return found

    stream = echo("a")
    assert [next(stream), stream.send("x"), stream.throw(ValueError("bad"))] == ["a None", "a x", "a bad"]
    with pytest.raises(StopIteration):
        stream.send("stop")
    assert asyncio.run(asynchronously()) == ["b None", "b x", "b bad"]
    assert pairs(memory) == [("a", "a Nonea xa bad"), ("b", "b Noneb xb bad")]
    assert list(memory.nodes("prompt", where={"error": {"exists": True}})) == []


def test_a_block_is_recorded(memory, caplog):
    with memory.record(session_id="s", agent="bot") as turn:
        turn.prompt, turn.response = "which day?", "Monday"
        turn.metadata["model"] = "small"
    with pytest.raises(ZeroDivisionError), memory.record(prompt="divide") as turn:
        turn.response = f"partly {1 / len(turn.metadata)}"
    with memory.record():
        pass
    assert "set no prompt" in caplog.text

    async def asynchronously():
        async with memory.record(prompt="later") as turn:
            turn.response = ["a", 1]

    asyncio.run(asynchronously())
    assert pairs(memory) == [("which day?", "Monday"), ("divide", None), ("later", '["a", 1]')]
    assert [(n.attributes.get("model"), n.attributes.get("error")) for n in memory.nodes("prompt")] == [
        ("small", None),
        (None, "ZeroDivisionError: division by zero"),
        (None, None),
    ]
    around = memory.record(prompt="p")
    with around, pytest.raises(InvalidInput, match="another block"):
        around.__enter__()


def test_what_cannot_be_recorded_is_told_and_stops_nothing(tmp_path, caplog):
    memory = MemoryGraph(tmp_path / "m.db", fake)

    @memory.record
    def ask(question):
        return "yes"

    @memory.record(session_id=lambda given: given["nobody"])
    def other(question):
        return "yes"

    @memory.record
    def numbers(one):
        return one

    assert ask("half a pair \ud800") == "yes"
    assert only(memory).text == "half a pair ?"
    assert other("x") == "yes"
    assert numbers(5) == 5
    memory.close()
    assert ask("closed?") == "yes"
    assert (ask.recorder.recorded, ask.recorder.failed) == (1, 1)
    assert "was closed" in str(ask.recorder.last_error)
    assert (other.recorder.failed, numbers.recorder.failed) == (1, 1)
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 3
    assert "'nobody'" in told[0]
    assert "argument" in told[1]
    assert "could not be recorded" in told[2]


def test_threads_record_side_by_side(tmp_path):
    with MemoryGraph(tmp_path / "m.db", fake) as memory:

        @memory.record
        def ask(question):
            return question * 2

        threads = [threading.Thread(target=lambda n=n: [ask(f"q{n}.{i}") for i in range(10)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ask.recorder.recorded == 40
        assert sorted(pairs(memory)) == sorted((f"q{n}.{i}", f"q{n}.{i}" * 2) for n in range(4) for i in range(10))


# --- a server that speaks OpenAI's wire form ---------------------------------------------------------------------


def chat_answer(body):
    text = "echo: " + str(body["messages"][-1].get("content"))
    choices = []
    for number in range(body.get("n") or 1):
        message = {"role": "assistant", "content": text if number == 0 else f"{text} ({number})", "refusal": None}
        if body.get("tools"):
            function = {"name": "weather", "arguments": '{"city": "Graz"}'}
            message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        if body.get("response_format"):
            message["content"] = '{"city": "Graz"}'
        reason = "tool_calls" if body.get("tools") else "stop"
        choices.append({"index": number, "message": message, "finish_reason": reason, "logprobs": None})
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "small-2026",
        "choices": choices,
        "usage": usage,
    }


def chunks(body):
    whole = chat_answer(body)
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small-2026"}
    for choice in whole["choices"]:
        number, message = choice["index"], choice["message"]

        def chunk(delta, reason=None, number=number):
            return {**base, "choices": [{"index": number, "delta": delta, "finish_reason": reason}]}

        yield chunk({"role": "assistant", "content": ""})
        for at in range(0, len(message["content"] or ""), 4):
            yield chunk({"content": message["content"][at : at + 4]})
        for place, call in enumerate(message.get("tool_calls") or []):
            arguments = call["function"]["arguments"]
            first = {**call["function"], "arguments": arguments[:5]}
            yield chunk({"tool_calls": [{"index": place, "id": call["id"], "type": "function", "function": first}]})
            yield chunk({"tool_calls": [{"index": place, "function": {"arguments": arguments[5:]}}]})
        yield chunk({}, choice["finish_reason"])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": whole["usage"]}


def response_answer(body):
    asked = body["input"] if isinstance(body["input"], str) else body["input"][-1].get("content")
    part = {"type": "output_text", "text": f"echo: {asked}", "annotations": []}
    if body.get("text"):
        part["text"] = '{"city": "Graz"}'
    output = [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}]
    if body.get("tools"):
        call = {"id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Graz"}'}
        output = [{**call, "type": "function_call", "status": "completed"}]
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "small-2026",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def response_events(body):
    whole = response_answer(body)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for place, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": place}
        empty = {**item, "status": "in_progress"} | (
            {"content": []} if item["type"] == "message" else {"arguments": ""}
        )
        yield {"type": "response.output_item.added", "output_index": place, "item": empty}
        if item["type"] == "message":
            (part,) = item["content"]
            at["content_index"] = 0
            yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
            for start in range(0, len(part["text"]), 4):
                delta = part["text"][start : start + 4]
                yield {"type": "response.output_text.delta", **at, "delta": delta, "logprobs": []}
            yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **at, "part": part}
        else:
            yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
            yield {
                "type": "response.function_call_arguments.done",
                **at,
                "arguments": item["arguments"],
                "name": item["name"],
            }
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": "response.completed", "response": whole}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Wire)
        self.bodies, self.breaking = [], False


class Wire(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.partition("?")[0]
        self.server.bodies.append((path, body))
        chat = path.endswith("/chat/completions")
        if body["model"] == "missing":
            self.answer(404, {"error": {"message": "no such model", "type": "invalid_request_error", "code": "x"}})
        elif path.endswith("/embeddings"):
            row = {"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            self.answer(200, {"object": "list", "data": [row], "model": "e", "usage": usage})
        elif body.get("stream"):
            self.stream(chunks(body) if chat else response_events(body), broken=body["model"] == "breaking")
        else:
            self.answer(200, chat_answer(body) if chat else response_answer(body))

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events, broken):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, event in enumerate(events):
                if broken and number == 4:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                name = f"event: {event['type']}\n" if "type" in event else ""
                numbered = {**event, "sequence_number": number} if name else event
                self.piece(f"{name}data: {json.dumps(numbered)}\n\n")
            self.piece("data: [DONE]\n\n" if not name else "")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # whoever read it had enough
            self.close_connection = True

    def piece(self, text):
        data = text.encode()
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("openai", reason="recording an OpenAI client needs openai")
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server):
    from openai import OpenAI

    server.bodies.clear()
    with OpenAI(api_key="k", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0) as client:
        yield client


@contextmanager
def loop_with(server):
    """Give a function that runs what it is given a client for, in a loop of its own."""
    from openai import AsyncOpenAI

    server.bodies.clear()

    def run(program):
        async def whole():
            address = f"http://127.0.0.1:{server.server_port}/v1"
            async with AsyncOpenAI(api_key="k", base_url=address, max_retries=0) as client:
                return await program(client)

        return asyncio.run(whole())

    yield run


@pytest.fixture
def run(server):
    with loop_with(server) as run:
        yield run


HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def test_a_completion_is_recorded(memory, client, server):
    wrapped = memory.wrap(client, session_id="s", agent="bot", metadata={"app": "shop"})
    answer = wrapped.chat.completions.create(model="small", messages=HELLO)
    assert answer == client.chat.completions.create(model="small", messages=HELLO)
    assert type(answer).__name__ == "ChatCompletion"
    assert server.bodies[0] == server.bodies[1] == ("/v1/chat/completions", {"model": "small", "messages": HELLO})
    prompt, response = memory.thread("s")
    assert (prompt.text, response.text) == ("hello", "echo: hello")
    assert response.id == f"{prompt.id}/0"
    assert response.attributes["model"] == "small-2026"
    assert response.attributes["usage"] == USAGE
    assert response.attributes["finish_reason"] == "stop"
    assert {node.attributes["endpoint"] for node in (prompt, response)} == {"chat.completions"}
    assert {node.attributes["app"] for node in (prompt, response)} == {"shop"}
    assert 0 < prompt.attributes["latency"] < 10
    assert [link.target for link in memory.links(response.id, "generated_by")] == ["bot"]
    assert (wrapped.recorder.recorded, wrapped.recorder.failed) == (1, 0)


def test_only_what_is_new_is_the_prompt(memory, client):
    wrapped = memory.wrap(client)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    wrapped.chat.completions.create(
        model="small",
        messages=[
            *HELLO,
            {"role": "assistant", "content": "hi", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
            {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "now?"}]},
        ],
    )
    wrapped.chat.completions.create(model="small", messages=[{"role": "system", "content": "only that"}])
    assert [prompt for prompt, _ in pairs(memory)] == ["42\n\nand\nnow?", "only that"]


def test_choices_and_tools(memory, client):
    wrapped = memory.wrap(client)
    wrapped.chat.completions.create(model="small", messages=HELLO, n=3)
    assert pairs(memory) == [("hello", "echo: hello"), ("hello", "echo: hello (1)"), ("hello", "echo: hello (2)")]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    for stream in (False, True):
        answer = wrapped.chat.completions.create(
            model="small", messages=[{"role": "user", "content": f"weather {stream}"}], tools=tools, stream=stream
        )
        _ = list(answer)
        node = list(memory.nodes("response"))[-1]
        assert node.text == ""
        assert node.attributes["tool_calls"] == [{"id": "call_1", "name": "weather", "arguments": '{"city": "Graz"}'}]
        assert node.attributes["finish_reason"] == "tool_calls"


def test_parsed_answers(memory, client):
    from pydantic import BaseModel

    class Place(BaseModel):
        city: str

    wrapped = memory.wrap(client)
    parsed = wrapped.chat.completions.parse(model="small", messages=HELLO, response_format=Place)
    assert parsed.choices[0].message.parsed == Place(city="Graz")
    other = wrapped.responses.parse(model="small", input="where?", text_format=Place)
    assert other.output_parsed == Place(city="Graz")
    assert pairs(memory) == [("hello", '{"city": "Graz"}'), ("where?", '{"city": "Graz"}')]


def test_streams_are_recorded_when_they_were_read(memory, client):
    from openai import Stream

    wrapped = memory.wrap(client)
    plain = list(client.chat.completions.create(model="small", messages=HELLO, stream=True))
    stream = wrapped.chat.completions.create(model="small", messages=HELLO, stream=True)
    assert isinstance(stream, Stream)
    assert len(memory) == 0
    assert list(stream) == plain
    assert pairs(memory) == [("hello", "echo: hello")]
    options = {"include_usage": True}
    list(wrapped.chat.completions.create(model="small", messages=HELLO, stream=True, stream_options=options, n=2))
    assert pairs(memory)[1:] == [("hello", "echo: hello"), ("hello", "echo: hello (1)")]
    responses = list(memory.nodes("response"))
    assert "usage" not in responses[0].attributes
    assert responses[1].attributes["usage"] == USAGE
    assert {node.attributes["model"] for node in responses} == {"small-2026"}
    with wrapped.chat.completions.stream(model="small", messages=HELLO) as events:
        kinds = {event.type for event in events}
        assert events.get_final_completion().choices[0].message.content == "echo: hello"
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert len(pairs(memory)) == 4
    assert [n for n in memory.nodes("prompt") if {"cancelled", "error"} & set(n.attributes)] == []
    assert wrapped.recorder.failed == 0


@pytest.mark.parametrize("how", ["close", "with", "break", "drop", "manager"])
def test_streams_that_nobody_read_to_their_end(memory, client, how):
    wrapped = memory.wrap(client)
    messages = [{"role": "user", "content": "a long question that is echoed"}]
    if how == "manager":
        with wrapped.chat.completions.stream(model="small", messages=messages) as events:
            for event in events:
                if event.type == "content.delta" and event.delta:
                    break
    else:
        stream = wrapped.chat.completions.create(model="small", messages=messages, stream=True)
        if how == "with":
            with stream:
                next(stream), next(stream)
        elif how == "break":
            for number, _ in enumerate(stream):
                if number == 1:
                    break
        else:
            next(stream), next(stream)
        if how == "close":
            stream.close()
            stream.close()
        del stream
        gc.collect()
    assert pairs(memory) == [("a long question that is echoed", "echo")]
    assert only(memory).attributes["cancelled"] is True
    assert "error" not in only(memory).attributes
    # One of which all was read but the very end is whole.
    stream = wrapped.chat.completions.create(model="small", messages=HELLO, stream=True)
    for piece in stream:
        if piece.choices[0].finish_reason:
            break
    stream.close()
    assert pairs(memory)[1] == ("hello", "echo: hello")
    assert len(list(memory.nodes("prompt", where={"cancelled": True}))) == 1


def test_errors_are_recorded_and_raised_as_they_are(memory, client, server):
    import openai

    wrapped = memory.wrap(client)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        wrapped.chat.completions.create(model="missing", messages=HELLO)
    assert pairs(memory) == [("hello", None)]
    assert only(memory).attributes["error"].startswith("NotFoundError: Error code: 404")
    assert only(memory).attributes["model"] == "missing"
    stream = wrapped.chat.completions.create(
        model="breaking", messages=[{"role": "user", "content": "break off"}], stream=True
    )
    with pytest.raises(Exception) as caught:
        list(stream)
    (_, broken) = memory.nodes("prompt")
    assert broken.attributes["error"].startswith(type(caught.value).__name__)
    assert "cancelled" not in broken.attributes
    assert pairs(memory)[1] == ("break off", "echo: break ")
    away = memory.wrap(client.with_options(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(openai.APIConnectionError):
        away.responses.create(model="small", input="anybody?")
    assert pairs(memory)[2] == ("anybody?", None)
    with pytest.raises(TypeError):
        wrapped.chat.completions.create(model="small")
    assert len(pairs(memory)) == 3


def test_responses(memory, client):
    wrapped = memory.wrap(client, session_id="s")
    answer = wrapped.responses.create(model="small", input="hello", instructions="Be brief.")
    assert answer.output_text == "echo: hello"
    node = only(memory, "response")
    assert (only(memory).text, node.text) == ("hello", "echo: hello")
    assert node.attributes["response_id"] == "resp_1"
    assert node.attributes["usage"]["total_tokens"] == 10
    assert (node.attributes["endpoint"], node.attributes["finish_reason"]) == ("responses", "completed")
    said = [
        {"role": "user", "content": "first"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"role": "user", "content": "second"},
    ]
    tools = [{"type": "function", "name": "weather", "parameters": {}, "strict": False}]
    wrapped.responses.create(model="small", input=said, tools=tools)
    assert [pair[0] for pair in pairs(memory)] == ["hello", "42\n\nsecond"]
    called = list(memory.nodes("response"))[-1]
    assert called.attributes["tool_calls"] == [{"id": "call_1", "name": "weather", "arguments": '{"city": "Graz"}'}]


def test_streams_of_responses(memory, client):
    wrapped = memory.wrap(client)
    plain = [event.type for event in client.responses.create(model="small", input="hello", stream=True)]
    assert [event.type for event in wrapped.responses.create(model="small", input="hello", stream=True)] == plain
    assert plain[-1] == "response.completed"
    with wrapped.responses.stream(model="small", input="again") as events:
        assert events.get_final_response().output_text == "echo: again"
    stream = wrapped.responses.create(model="small", input="a long question that is echoed", stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    assert pairs(memory) == [
        ("hello", "echo: hello"),
        ("again", "echo: again"),
        ("a long question that is echoed", "echo"),
    ]
    nodes = list(memory.nodes("response"))
    assert [node.attributes.get("cancelled") for node in nodes] == [None, None, True]
    assert nodes[0].attributes["usage"]["input_tokens"] == 7
    assert nodes[2].attributes["model"] == "small-2026"


def test_the_asynchronous_client(memory, run):
    import openai

    async def program(client):
        wrapped = memory.wrap(client, session_id="s")
        answer = await wrapped.chat.completions.create(model="small", messages=HELLO)
        assert answer.choices[0].message.content == "echo: hello"
        stream = await wrapped.chat.completions.create(model="small", messages=HELLO, stream=True)
        assert isinstance(stream, openai.AsyncStream)
        assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == "echo: hello"
        async with wrapped.chat.completions.stream(model="small", messages=HELLO) as events:
            assert (await events.get_final_completion()).choices[0].message.content == "echo: hello"
        assert (await wrapped.responses.create(model="small", input="r")).output_text == "echo: r"
        async with wrapped.responses.stream(model="small", input="rs") as events:
            assert (await events.get_final_response()).output_text == "echo: rs"
        with pytest.raises(openai.NotFoundError):
            await wrapped.chat.completions.create(model="missing", messages=HELLO)
        half = await wrapped.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "a long one"}], stream=True
        )
        await anext(half), await anext(half)
        await half.close()
        assert isinstance(wrapped, openai.AsyncOpenAI)
        other = wrapped.with_options(timeout=5)
        await asyncio.gather(*(other.responses.create(model="small", input=f"n{n}") for n in range(5)))
        return wrapped.recorder

    recorder = run(program)
    assert (recorder.recorded, recorder.failed) == (12, 0)
    found = pairs(memory)
    assert found[:7] == [
        ("hello", "echo: hello"),
        ("hello", "echo: hello"),
        ("hello", "echo: hello"),
        ("r", "echo: r"),
        ("rs", "echo: rs"),
        ("hello", None),
        ("a long one", "echo"),
    ]
    assert sorted(found[7:]) == [(f"n{n}", f"echo: n{n}") for n in range(5)]
    assert [n.text for n in memory.nodes("prompt", where={"cancelled": True})] == ["a long one"]


def test_a_cancelled_task_is_recorded(memory, run):
    async def program(client):
        wrapped = memory.wrap(client)
        began = asyncio.Event()

        async def read():
            stream = await wrapped.chat.completions.create(model="small", messages=HELLO, stream=True)
            async for _ in stream:
                began.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(read())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        for _ in range(100):
            gc.collect()
            await asyncio.sleep(0.01)
            if len(memory):
                break

    run(program)
    (prompt,) = memory.nodes("prompt")
    assert prompt.attributes["cancelled"] is True


def test_the_copy_is_a_client_like_the_one_it_was_made_of(memory, client, server):
    import openai

    wrapped = memory.wrap(client)
    assert isinstance(wrapped, openai.OpenAI)
    assert type(wrapped) is type(client)
    assert (wrapped.api_key, str(wrapped.base_url), wrapped.max_retries) == ("k", str(client.base_url), 0)
    assert "post" not in vars(client)
    assert client.chat is not wrapped.chat
    client.chat.completions.create(model="small", messages=HELLO)
    assert len(memory) == 0, "the client itself records nothing"
    assert wrapped.embeddings.create(model="e", input="x").data[0].embedding == [0.5, 0.5]
    assert len(memory) == 0
    for other in (wrapped.copy(), wrapped.with_options(max_retries=1), wrapped.with_options(timeout=3).with_options()):
        assert isinstance(other, openai.OpenAI)
        other.chat.completions.create(model="small", messages=HELLO)
        assert other.recorder is wrapped.recorder
    assert wrapped.with_options(max_retries=1).max_retries == 1
    assert wrapped.recorder.recorded == 3
    raw = wrapped.chat.completions.with_raw_response.create(model="small", messages=HELLO)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "echo: hello"
    assert wrapped.recorder.recorded == 4
    raw = wrapped.chat.completions.with_raw_response.create(model="small", messages=HELLO, stream=True)
    assert len(list(raw.parse())) > 3
    with wrapped.chat.completions.with_streaming_response.create(model="small", messages=HELLO) as by_hand:
        assert b"echo: hello" in by_hand.read()
    assert (wrapped.recorder.recorded, wrapped.recorder.failed) == (4, 0)
    azure = openai.AzureOpenAI(api_key="k", api_version="1", base_url=str(client.base_url), max_retries=0)
    with memory.wrap(azure) as recorded:
        assert (
            recorded.chat.completions.create(model="small", messages=HELLO).choices[0].message.content == "echo: hello"
        )
        assert recorded.recorder.recorded == 1


def test_wrapping_twice_records_in_both(memory, client):
    with MemoryGraph(":memory:", fake) as other:
        twice = other.wrap(memory.wrap(client))
        twice.chat.completions.create(model="small", messages=HELLO)
        list(twice.chat.completions.create(model="small", messages=HELLO, stream=True))
        assert pairs(memory) == pairs(other) == [("hello", "echo: hello")] * 2


def test_what_is_no_client(memory):
    for thing in (5, object(), MemoryGraph, {"chat": 1}):
        with pytest.raises(InvalidInput, match="client of the package openai"):
            memory.wrap(thing)


def test_sessions_may_be_named_for_each_call(memory, client):
    current = iter(["one", "two"])
    wrapped = memory.wrap(client, session_id=lambda: next(current))
    for _ in range(3):
        assert wrapped.chat.completions.create(model="small", messages=HELLO)
    assert [node.id for node in memory.nodes("session")] == ["one", "two"]
    assert (wrapped.recorder.recorded, wrapped.recorder.failed) == (2, 1), "a third has no name, and is told"
    with pytest.raises(InvalidInput, match="context"):
        memory.wrap(client, context="much")


def test_context_goes_along_and_is_not_recorded(memory, client, server):
    memory.add_interaction("Which sauce has peanuts?", "The satay sauce.")
    wrapped = memory.wrap(client, context={"budget": 300, "k": 3}, session_id="s")
    question = {"role": "user", "content": "peanuts in the satay sauce?"}
    given = [HELLO[0], question]
    wrapped.chat.completions.create(model="small", messages=given)
    body = server.bodies[-1][1]
    assert body["messages"][0] == HELLO[0]
    assert body["messages"][2] == question
    assert body["messages"][1]["role"] == "system"
    assert "The satay sauce." in body["messages"][1]["content"]
    assert given == [HELLO[0], question], "what was given is not changed"
    wrapped.responses.create(model="small", input="peanuts in the satay sauce?")
    body = server.bodies[-1][1]
    assert [message["role"] for message in body["input"]] == ["system", "user"]
    assert body["input"][1]["content"] == "peanuts in the satay sauce?"
    assert "satay" in body["input"][0]["content"]
    said = [node.text for node in memory.thread("s") if node.kind == "prompt"]
    assert said == ["peanuts in the satay sauce?"] * 2
    none = memory.wrap(client, context=1)
    none.chat.completions.create(model="small", messages=HELLO)
    assert server.bodies[-1][1]["messages"] == HELLO, "nothing fits, nothing goes along"


def test_a_memory_that_fails_stops_no_call(tmp_path, client, run, caplog):
    memory = MemoryGraph(tmp_path / "m.db", fake)
    wrapped = memory.wrap(client, context=100)
    wrapped.chat.completions.create(model="small", messages=HELLO)
    memory.close()
    assert wrapped.chat.completions.create(model="small", messages=HELLO).choices[0].message.content == "echo: hello"
    assert len(list(wrapped.chat.completions.create(model="small", messages=HELLO, stream=True))) > 3

    async def program(client):
        other = memory.wrap(client, context=100)
        answer = await other.responses.create(model="small", input="hello")
        assert answer.output_text == "echo: hello"
        return other.recorder

    assert run(program).failed == 2
    assert (wrapped.recorder.recorded, wrapped.recorder.failed) == (1, 4)
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([line for line in told if "went without context" in line]) == 3
    assert len([line for line in told if "could not be recorded" in line]) == 3
    assert "1 recorded, 4 failed" in repr(wrapped.recorder)
