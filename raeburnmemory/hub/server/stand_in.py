"""What stands in for a model in a self-test: a server that speaks OpenAI's protocol, and says the same to everybody.

It can be run in a thread, or as a program with the flags of llama-server; then it needs nothing but Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["SAYS", "script", "serving"]

SAYS = "The spare key is under the blue pot [1]."
_NAME = "stand-in"
_VECTOR = [0.6, 0.8]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    key: str | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, {"status": "ok"})
        elif self._may():
            known = self.path == "/v1/models"
            self._answer(*((200, {"object": "list", "data": [{"id": _NAME, "object": "model"}]}) if known else _NO))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if not self._may():
            return
        if self.path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            rows = [{"object": "embedding", "index": n, "embedding": _VECTOR} for n in range(len(texts))]
            self._answer(200, {"object": "list", "data": rows, "model": _NAME})
        elif self.path == "/v1/chat/completions" and body.get("stream"):
            self._stream()
        elif self.path == "/v1/chat/completions":
            message = {"role": "assistant", "content": SAYS}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer(200, {"object": "chat.completion", "choices": [choice], "model": _NAME})
        else:
            self._answer(*_NO)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for at in range(0, len(SAYS), 8):
            self._event({"index": 0, "delta": {"content": SAYS[at : at + 8]}, "finish_reason": None})
        self._event({"index": 0, "delta": {}, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, choice: dict[str, Any]) -> None:
        chunk = {"object": "chat.completion.chunk", "choices": [choice], "model": _NAME}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _may(self) -> bool:
        key = self.server.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._answer(401, {"error": {"message": "Invalid API Key"}})
        return False

    def _answer(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


_NO = (404, {"error": {"message": "no such place"}})


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run it in a thread; gives its base URL, which ends in /v1."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def script() -> bytes:
    """Return a program for POSIX systems that runs it, as a llamafile is one."""
    command = shlex.join([sys.executable, "-IS", str(Path(__file__).resolve())])
    return f'#!/bin/sh\nexec {command} "$@"\n'.encode()


def main() -> None:
    """Serve with the flags of llama-server."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    flags.add_argument("--api-key-file")
    # What the hub asks each model first, and waits for.
    flags.add_argument("--version", action="version", version=f"version: 0 ({_NAME})")
    given, _ = flags.parse_known_args()
    server = _Server((given.host, given.port), _Handler)
    if given.api_key_file:
        server.key = Path(given.api_key_file).read_text(encoding="utf-8").strip()
    server.serve_forever()


if __name__ == "__main__":
    main()
