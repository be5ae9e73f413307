"""A man in the middle of PostgreSQL connections, who gives one session of the server to all of his clients in turn.

As PgBouncer does with `pool_mode = transaction`: what one client sets there, the next one finds.
"""

import contextlib
import socket
import struct
import threading


class Pool:
    """Listens in *folder*, and passes on what each client says once the one before has heard its answer.

    The server's socket asks for no password, and transactions are not told apart: who begins one has to end it before
    anybody else says a word.
    """

    def __init__(self, folder, server):
        self._server, self._greeting = socket.socket(socket.AF_UNIX), None
        self._server.connect(str(server))
        self._turn = threading.Lock()
        self._clients = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/.s.PGSQL.5432")
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError, EOFError):
            begun = _message(client, b"")
            with self._turn:
                if self._greeting is None:
                    self._server.sendall(begun)
                    self._greeting = self._answer()
                # Another number for the process, as every pool has to give each of its clients one.
                at = self._greeting.index(b"K\0\0\0")
                client.sendall(self._greeting[: at + 5] + struct.pack(">i", 1) + self._greeting[at + 9 :])
            while (said := _message(client))[:1] != b"X":
                if said[:1] == b"H":  # after an answer that was whole
                    continue
                with self._turn:
                    while said[:1] not in {b"Q", b"S"}:  # until an answer is asked for
                        self._server.sendall(said)
                        said = _message(client)
                    self._server.sendall(said)
                    client.sendall(self._answer())

    def _answer(self):
        """Return all that the server says until it is ready again."""
        heard = b""
        while True:
            heard += (message := _message(self._server))
            if message[:1] == b"Z":
                return heard

    def close(self):
        for each in (self._listening, self._server, *self._clients):
            each.close()


def _message(source, kind=None):
    """Return the next message; the first of a client has no letter for its *kind*."""
    head = _exactly(source, 1) if kind is None else kind
    size = _exactly(source, 4)
    return head + size + _exactly(source, struct.unpack(">i", size)[0] - 4)


def _exactly(source, size):
    found = b""
    while len(found) < size:
        if not (part := source.recv(size - len(found))):
            raise EOFError
        found += part
    return found
