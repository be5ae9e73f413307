"""Files that stand for llamafiles: of each dialect, with the faults that real ones have been seen to have.

`make_model` writes one. It is what a llamafile is, an executable that takes a llamafile's flags and serves HTTP; what
answers is a small server of the standard library, or with `real` the llama.cpp server over a tiny GGUF file.
"""

import json
import os
import signal
import socketserver
import sys
import threading
import time

# What only some stand-ins need is imported there: they are started by the hundred.

HERE = os.path.abspath(__file__)
SCRIPT = "#!/bin/sh\n"
# The beginning of every llamafile: for Windows a program, for a shell an assignment, for Linux alone nothing at all.
APE = "MZqFpD='\n'\n"
VERSIONS = {"v1": "llamafile v0.8.13", "v2": "llamafiler v0.9.3", "llama-server": "llamafile v0.10.0"}


def make_model(path, dialect="llama-server", *, begins=SCRIPT, built_in_args=None, python=sys.executable, **faults):
    """Write an executable to *path* that behaves like a llamafile of *dialect*; *faults* are those of `Server`."""
    import shlex
    import zipfile

    order = json.dumps({"dialect": dialect, "has_archive": built_in_args is not None, **faults})
    line = f'exec {shlex.quote(python)} -IS {shlex.quote(HERE)} {shlex.quote(order)} "$0" "$@"\n'
    path.write_bytes((begins + line).encode())
    if built_in_args is not None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(".args", "\n".join([*built_in_args, "..."]))
    path.chmod(0o700)
    return path


class Refused(Exception):
    """A flag that the dialect does not know."""


def parse(dialect, arguments, order):
    """Read *arguments* as the server of *dialect* does; of a flag given twice, the last one counts."""
    known = {
        "v1": {
            "-m": 1, "-c": 1, "-t": 1, "-b": 1, "-np": 1, "-ngl": 1, "--gpu": 1, "--host": 1, "--port": 1,
            "--alias": 1, "--api-key": 1, "--api-key-file": 1, "--server": 0, "--nobrowser": 0, "--embedding": 0,
        },
        "v2": {
            "-m": 1, "-c": 1, "-t": 1, "-b": 1, "-ub": 1, "-ngl": 1, "--gpu": 1, "-l": 1, "--server": 0, "--v2": 0,
        },
        "llama-server": {
            "-m": 1, "-c": 1, "-t": 1, "-b": 1, "-ub": 1, "-np": 1, "-ngl": 1, "--gpu": 1, "--host": 1, "--port": 1,
            "--alias": 1, "--api-key": 1, "--api-key-file": 1, "--server": 0, "--embeddings": 0, "--pooling": 1,
            "--temp": 1, "-p": 1,
        },
    }[dialect]  # fmt: skip
    if order.get("plain"):  # llama.cpp's own, outside of a llamafile
        known = {flag: count for flag, count in known.items() if flag not in {"--server", "--gpu"}}
    found, rest = {}, list(arguments)
    while rest:
        flag = rest.pop(0)
        if flag not in known:
            raise Refused(flag)
        found[flag] = rest.pop(0) if known[flag] else True
    if dialect == "v2":
        host, _, port = found.get("-l", "0.0.0.0:8080").rpartition(":")
        found["--host"], found["--port"] = host, port
    return found


def say(text):
    os.write(2, f"{text}\n".encode())


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Server:
    """The process: what it does is in *order*."""

    def __init__(self, order, path, arguments):
        self.order, self.dialect, self.path = order, order["dialect"], path
        self.arguments = arguments
        self.requests = 0
        self.loaded = threading.Event()
        self.asked = threading.Event()

    def run(self):
        order = self.order
        if "--version" in self.arguments:
            self.version()
        if "--help" in self.arguments:
            print(order.get("help", ""))
            return 0
        if order.get("note"):
            with open(order["note"], "w", encoding="utf-8") as file:
                json.dump({"argv": self.arguments, "env": dict(os.environ), "pid": os.getpid()}, file)
        if order.get("ignores_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        self.grandchild()
        if self.is_first():
            say(order["says_first"])
            return 1
        for line in order.get("says", []):
            say(line)
        if "exits" in order:
            return order["exits"]
        if "dies_of" in order:
            os.kill(os.getpid(), order["dies_of"])
        if order.get("prints"):
            self.print_much(order["prints"])
        built_in = []
        if self.order.get("has_archive"):
            import zipfile

            with zipfile.ZipFile(self.path) as archive:
                built_in = archive.read(".args").decode().split("\n")
                built_in.remove("...")
        try:
            flags = parse(self.dialect, [*built_in, *self.arguments], order)
        except Refused as exc:
            say(f"error: unknown argument: {exc}")
            return 1
        if order.get("real"):
            return self.become_real(flags)
        if flags.get("--gpu") == "nvidia" and not order.get("gpu"):
            say("fatal error: support for --gpu nvidia was explicitly requested, but it wasn't available")
            return 1
        return self.serve(flags)

    def version(self):
        if self.order.get("hangs_when_asked"):
            time.sleep(60)
        print(self.order.get("version", VERSIONS[self.dialect]))
        raise SystemExit(0)

    def is_first(self):
        """Tell whether this is the first start of a model that is to fail then, with its own words."""
        started = f"{self.path}.started"
        if "says_first" not in self.order or os.path.exists(started):
            return False
        with open(started, "wb"):
            return True

    def grandchild(self):
        kind = self.order.get("grandchild")
        if kind:
            import subprocess

            ignore = {"stubborn": "trap '' TERM; ", "tidy": "trap 'sleep 0.5; echo tidied >>\"$0\"; exit' TERM; "}.get(
                kind, ""
            )
            child = subprocess.Popen(
                ["/bin/sh", "-c", f"{ignore}while :; do sleep 0.1; done", self.order["grandchild_note"]],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a shell tells of its children's end, which nobody may be there to read
            )
            with open(self.order["grandchild_note"], "w", encoding="ascii") as file:
                file.write(str(child.pid))

    def print_much(self, count):
        line = b"x" * 99 + b"\n"
        for _ in range(count // 100):
            os.write(2, line)

    def become_real(self, flags):
        """Replace this process with the real server, told the same in its own flags."""
        here = os.path.dirname(HERE)
        command = [
            sys.executable,
            os.path.join(here, "tiny_model.py"),
            "serve",
            "--model",
            flags.get("-m", self.order["real"]),
        ]
        for flag in ("--host", "--port", "--alias", "--api-key-file", "-c", "-np", "-b", "-ub", "--pooling"):
            if flag in flags:
                command += [flag, flags[flag]]
        if self.dialect == "v2" or "--embedding" in flags or "--embeddings" in flags:
            command.append("--embeddings")
        if self.dialect == "v1":
            command[command.index("--port") + 1] = str(self.moved(int(flags["--port"])))
            say(f"llama server listening at http://{flags['--host']}:{command[command.index('--port') + 1]}")
        os.execv(command[0], command)

    def moved(self, port):
        """Return the port that the old server takes: the next one of ten, without a word."""
        import socket

        for number in range(port, port + 11):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", number))
                except OSError:
                    continue
                return number
        raise SystemExit(1)

    def serve(self, flags):
        order = self.order
        host, port = flags.get("--host", "127.0.0.1"), int(flags.get("--port", 8080))
        loading = order.get("loads", 0.0)
        if self.dialect == "v1":
            self.load(loading)  # listens only afterwards
            if not order.get("stays"):
                port = self.moved(port)
        try:
            server = Listener((host, port), self.handler(flags))
        except OSError as exc:
            say(f"couldn't bind to server socket: hostname={host} port={port}: {exc}")
            return 1
        if self.dialect == "v1":
            say(f'{{"function":"server_cli","level":"INFO","line":2847,"msg":"HTTP server listening","port":"{port}"}}')
            if not order.get("quiet"):
                say(f"\nllama server listening at http://{host}:{port}\n")
            self.loaded.set()
        else:
            threading.Thread(target=self.load, args=(loading,), daemon=True).start()
        if "dies_ready" in order:
            threading.Thread(target=self.die_when_asked, daemon=True).start()
        server.serve_forever()
        return 0

    def load(self, seconds):
        if self.order.get("never_ready"):
            while True:
                if self.order.get("talks"):
                    say("still loading")
                time.sleep(0.1)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if not self.order.get("silent"):
                say(f"loading, {time.monotonic() - begun:.1f} s")
            time.sleep(0.1)
        self.loaded.set()

    def die_when_asked(self):
        """End some time after the last question of whoever waits for this to be ready."""
        self.asked.wait()
        time.sleep(self.order["dies_ready"])
        say("GGML_ASSERT(n_tokens <= n_batch) failed")
        os.kill(os.getpid(), signal.SIGKILL if self.order.get("killed") else signal.SIGABRT)

    def handler(self, flags):
        outer = self
        key = flags.get("--api-key")
        if "--api-key-file" in flags:
            with open(flags["--api-key-file"], encoding="utf-8") as file:
                key = file.read().strip()
        if key and self.order.get("tells_key"):
            mode = os.stat(flags["--api-key-file"]).st_mode
            say(f"the key is {key}, --api-key {key}")
            say(f"its file has the mode {mode & 0o777:o}")
        open_paths = {"/health", "/v1/health"} | ({"/v1/models"} if self.dialect == "v1" else set())
        model = flags.get("--alias", "tiny")

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                words = self.rfile.readline().decode().split()
                if len(words) < 2:
                    return  # only to see whether somebody listens
                method, self.path = words[:2]
                self.headers = {}
                while line := self.rfile.readline().decode().strip():
                    name, _, value = line.partition(":")
                    self.headers[name.lower()] = value.strip()
                self.post() if method == "POST" else self.get()

            def answer(self, status, data):
                text = json.dumps(data).encode()
                head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
                self.wfile.write(head.encode() + b"Connection: close\r\n\r\n" + text)

            def allowed(self):
                if not outer.loaded.is_set():
                    self.answer(503, {"error": {"message": "Loading model", "code": 503}})
                elif key and self.path not in open_paths and self.headers.get("authorization") != f"Bearer {key}":
                    self.answer(401, {"error": {"message": "Invalid API Key"}})
                else:
                    return True
                return False

            def get(self):
                if self.path == "/health" and outer.dialect == "v2":
                    self.answer(404, {})
                elif self.allowed():
                    if self.path == "/v1/models":
                        self.answer(200, {"data": [{"id": model}]})
                        outer.asked.set()
                    else:
                        self.answer(200, {"status": "ok"})

            def stream(self, text, model):
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
                deltas = [{"content": word + " "} for word in text.split()]
                parts = [{"choices": [{"index": 0, "delta": one}], "model": model} for one in deltas]
                parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "model": model})
                events = "".join(f"data: {json.dumps(one)}\n\n" for one in parts)
                self.wfile.write(head + events.encode() + b"data: [DONE]\n\n")

            def post(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if not self.allowed():
                    return
                outer.requests += 1
                if outer.requests > outer.order.get("crashes_after", float("inf")):
                    say("CUDA error: out of memory")
                    os._exit(1)
                if outer.order.get("hangs"):
                    time.sleep(60)
                time.sleep(outer.order.get("thinks", 0.0))
                if self.path == "/v1/embeddings":
                    self.answer(200, {"data": [{"embedding": outer.order.get("vector", [0.6, 0.8])}]})
                elif "messages" not in body:  # it has no tokenizer to ask
                    self.answer(404, {"error": {"message": "File Not Found", "code": 404}})
                else:
                    text = f"{outer.dialect} heard {body['messages'][-1]['content']}"
                    if body.get("stream"):
                        self.stream(text, model)
                        return
                    self.answer(200, {"choices": [{"message": {"content": text}}], "model": model})

        return Handler


if __name__ == "__main__":
    raise SystemExit(Server(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]).run())
