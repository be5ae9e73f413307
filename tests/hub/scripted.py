"""A server on this machine that answers what a test tells it to: for faults, and where the words matter."""

import asyncio
import contextlib
import functools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def awaited(test):
    """Run a test that awaits, whether or not there is a plugin for such."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


class Scripted:
    """Answers each path by a list of answers, the last one for good; `asked` are the requests.

    An answer is a dict (JSON), a tuple of status and body and perhaps headers, or a function of the handler.
    """

    def __init__(self):
        self.answers, self.asked = {}, []
        self.lock = threading.Lock()

    def on(self, path, *answers):
        self.answers[path] = list(answers)
        return self

    def says(self, *texts, path="/v1/chat/completions"):
        """Answer chats with *texts*, one after the other, streamed where that is asked for."""
        return self.on(path, *(talking(text) for text in texts))

    def bodies(self, path="/v1/chat/completions"):
        return [body for asked, body, _ in self.asked if asked == path]


def chunk(text=None, finish=None, **more):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "scripted", **more}


def talking(text):
    def answer(handler, body):
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "scripted"}
            return handler.send(200, {**whole, "usage": {"prompt_tokens": 7, "completion_tokens": len(text)}})
        pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
        events = [chunk(piece) for piece in pieces] + [chunk(finish="stop")]
        return handler.stream(*events, {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(text)}})

    return answer


@contextlib.contextmanager
def scripted():
    """Run one; yields it with its `url`, which ends in /v1."""
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            self._answer({})

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            self._answer(json.loads(self.rfile.read(length) or b"{}"))

        def _answer(self, body):
            with script.lock:
                script.asked.append((self.path, body, dict(self.headers)))
                answers = script.answers.get(self.path, [(404, {"error": "no such place"})])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if callable(answer):
                    answer(self, body)
                elif isinstance(answer, tuple):
                    self.send(*answer)
                else:
                    self.send(200, answer)

        def send(self, status, body, headers=()):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def begin(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def stream(self, *events, done=True):
            self.begin()
            for event in events:
                data = event if isinstance(event, bytes) else b"data: " + json.dumps(event, ensure_ascii=False).encode()
                self.wfile.write(data + b"\n\n")
            if done:
                self.wfile.write(b"data: [DONE]\n\n")

        def cut(self):
            """Break the connection off, as a server does that is killed."""
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()

        sleep = staticmethod(time.sleep)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
