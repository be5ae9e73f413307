"""A server of one file, on this machine, that fails in the ways it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import random
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("this_machine.pem")  # for https in tests; its key is no secret


def model_bytes(size, seed=0):
    """Return *size* bytes that begin like a program of the shell and are otherwise noise."""
    head = b"#!/bin/sh\nexit 0\n"
    return head + random.Random(seed).randbytes(size - len(head))


@dataclass
class Asked:
    """A request that came, and how many bytes of the file were sent for it."""

    method: str
    path: str
    headers: dict
    sent: int = 0


@dataclass
class FileServer:
    """Serves *payload* at every path. `script` has what to do with the next GETs, one after the other; then "ok".

    What to do: "ok"; "whole" (as if it knew no ranges); ("status", code, headers); ("short", n): break off after n bytes;
    ("reset", n): likewise, and rudely; ("stall", n): send no more after n; ("trickle", n): a byte now and then;
    "longer"; "other" (the same length, other bytes); ("body", bytes, headers); "unsized" (no length); "shifted" (206
    from another byte); ("changed", payload, etag); ("slow", piece, seconds): in pieces, with pauses.
    """

    payload: bytes
    etag: str | None = '"one"'
    script: list = field(default_factory=list)
    head: object = "ok"  # or ("status", code, headers)
    tls: bool = False
    asked: list = field(default_factory=list)

    def __post_init__(self):
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.ending = threading.Event()
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/models/file.llamafile"

    @property
    def sha256(self):
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def gets(self):
        return [each for each in self.asked if each.method == "GET"]

    def ranges(self):
        """Return from which byte each GET asked for the file."""
        return [int(each.headers.get("range", "bytes=0-")[6:-1]) for each in self.gets]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of = None

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()

    def _note(self):
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.server_of.asked.append(asked)
        return asked

    def _begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def do_HEAD(self):
        self._note()
        server = self.server_of
        if server.head == "ok":
            self._begin(200, {"Content-Length": len(server.payload), "ETag": server.etag})
        else:
            _, status, headers = server.head
            self._begin(status, {"Content-Length": 0, **headers})

    def do_GET(self):
        asked = self._note()
        server = self.server_of
        what = server.script.pop(0) if server.script else "ok"
        kind, *rest = (what,) if isinstance(what, str) else what
        if kind == "status":
            self._begin(rest[0], {"Content-Length": 0, **(rest[1] if len(rest) > 1 else {})})
            return
        if kind == "body":
            self._begin(200, {"Content-Length": len(rest[0]), **rest[1]})
            self.wfile.write(rest[0])
            return
        if kind == "changed":
            server.payload, server.etag = rest
        payload = server.payload if kind != "other" else server.payload[:-64] + bytes(64)
        first = self._first(asked, len(payload)) if kind != "whole" else 0
        if first >= len(payload):
            self._begin(416, {"Content-Range": f"bytes */{len(payload)}", "Content-Length": 0})
            return
        if kind == "shifted":
            first //= 2
        body = payload[first:]
        headers = {"Content-Length": len(body), "ETag": server.etag, "Accept-Ranges": "bytes"}
        if kind == "longer":
            body += bytes(4096)
            headers["Content-Length"] = len(body)
        if kind == "unsized":
            headers["Content-Length"] = None
            headers["Connection"] = "close"
            self.close_connection = True
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(payload) - 1}/{len(payload)}"
        self._begin(206 if "Content-Range" in headers else 200, headers)
        self._send(asked, kind, rest, body)

    def _first(self, asked, whole):
        """Return from where to send: a range counts if the file is still the one that was meant."""
        wanted = asked.headers.get("range")
        if wanted is None or asked.headers.get("if-range", self.server_of.etag) != self.server_of.etag:
            return 0
        return min(int(wanted.removeprefix("bytes=").rstrip("-")), whole)

    def _send(self, asked, kind, rest, body):
        stop = rest[0] if kind in {"short", "reset", "stall", "trickle"} else len(body)
        piece, pause = rest if kind == "slow" else (64 << 10, 0.0)
        for at in range(0, stop, piece):
            part = body[at : min(at + piece, stop)]
            self.wfile.write(part)
            asked.sent += len(part)
            if pause:
                time.sleep(pause)
        if kind == "reset":
            # An end with this option is a reset instead of a goodbye.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if kind in {"short", "reset"}:
            self.close_connection = True
            self.connection.close()
        elif kind == "stall":
            self.server_of.ending.wait(60)
        elif kind == "trickle":
            while not self.server_of.ending.wait(0.05):
                self.wfile.write(body[stop : stop + 1])
                stop += 1
