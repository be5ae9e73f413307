"""A man in the middle of a PostgreSQL connection, who cuts it where he is told to."""

import contextlib
import socket
import threading


class Cutter:
    """Listens in *folder*, passes everything on to the server's socket, and cuts when the client says *word*.

    *before*: what was said is not passed on. Else it is, and *wait* is called, which returns once the server has done
    it; its answer is not passed on. Each word is cut *times* times.
    """

    def __init__(self, folder, server, word=b"COMMIT", *, before, wait=lambda: None, times=1):
        self._server, self._word, self._before, self._wait, self.left = str(server), word, before, wait, times
        self.cut = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/.s.PGSQL.5432")
        self._listening.listen()
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._pairs.append((client, server))
            silent = threading.Event()
            for source, target, way in ((client, server, self._to_server), (server, client, self._to_client)):
                threading.Thread(target=way, args=(source, target, silent), daemon=True).start()

    def _to_server(self, client, server, silent):
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self.left and self._word in data:
                    self.left -= 1
                    if not self._before:
                        silent.set()
                        server.sendall(data)
                        self._wait()
                    self.cut += 1
                    break
                server.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _to_client(self, server, client, silent):
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if not silent.is_set():
                    client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self):
        for each in (self._listening, *(end for pair in self._pairs for end in pair)):
            each.close()
