"""What the HTTP service adds to a call.

    python -m benchmarks.service [--messages 10000] [--rounds 5] [--calls 50] [--clients 4] [--workers 1]

The same calls are made in three ways, by as many *clients* at once, in turns within one run: in this process; through
the service; and through a bare FastAPI route that does nothing but return the bytes the service returned. Both servers
are uvicorn with as many *workers* each, asked over connections that stay open. `adds` is what the service takes beyond
the call in process and the bare route: its own part of the way. It is less than nothing where several workers compute
at once what the threads of one process do in turns. *cpu* is processor time of the server for one call, which other
programs on the machine do not change as much.

Texts and memory are those of `benchmarks.latency`: words as often as in languages, ten exchanges to a session. Of each
way the median of all calls of a round is taken; printed is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raeburnmemory import MemoryGraph

from .latency import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

_BARE = """
import json, os
from fastapi import FastAPI, Request, Response
app = FastAPI()
BODIES = {name: body.encode() for name, body in json.load(open(os.environ["BARE_BODIES"])).items()}

@app.api_route("/{name}", methods=["GET", "POST"])
def bare(name: str) -> Response:
    return Response(BODIES[name], media_type="application/json")
"""


class Server:
    """A uvicorn."""

    def __init__(self, app: str, folder: str, workers: int, **told: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        paths = os.pathsep.join([folder, os.getcwd()])
        arguments = [app, "--port", str(port), "--workers", str(workers), "--no-access-log", "--log-level", "error"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **told, "PYTHONPATH": paths},
        )
        self.url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError(f"{app} did not start.")

    def seconds(self) -> float:
        """Return the processor time that it and its workers have taken."""
        ticks, looked = 0, [self.process.pid]
        for pid in looked:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                looked += map(int, children.read_text().split())
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


def spread(call: Callable[[int], Any], clients: int, calls: int) -> list[float]:
    """Return how long each of the calls took, in ms, made by as many clients at once."""
    taken: list[float] = []
    lock = threading.Lock()

    def one(client: int) -> None:
        own = []
        for number in range(calls):
            start = time.perf_counter()
            call(client * calls + number)
            own.append((time.perf_counter() - start) * 1e3)
        with lock:
            taken.extend(own)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
    return taken


def asked(
    memory: MemoryGraph, client: httpx.Client, bare: httpx.Client, questions: list[str], sessions: int
) -> Iterator[tuple[str, Any]]:
    """Yield the name of each call and the three ways of making it."""

    def question(number: int) -> str:
        return questions[number % len(questions)]

    def checked(answer: httpx.Response) -> None:
        answer.raise_for_status()

    yield (
        "recall",
        (
            # Hits are made when somebody looks at them, as the service does.
            lambda n: [(hit.node.to_dict(), hit.why.to_dict()) for hit in memory.recall(question(n))],
            lambda n: checked(client.post("/v1/recall", json={"query": question(n)})),
            lambda n: checked(bare.post("/recall", json={"query": question(n)})),
        ),
    )
    yield (
        "add",
        (
            lambda n: memory.add_interaction(question(n), "noted"),
            lambda n: checked(client.post("/v1/interactions", json={"prompt": question(n), "response": "noted"})),
            lambda n: checked(bare.post("/add", json={"prompt": question(n), "response": "noted"})),
        ),
    )
    yield (
        "session",
        (
            lambda n: memory.thread(f"s{n % sessions}"),
            lambda n: checked(client.get(f"/v1/sessions/s{n % sessions}")),
            lambda _: checked(bare.get("/session")),
        ),
    )


def main() -> None:
    """Measure and print."""
    import httpx

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    writer = Writer()
    questions = writer.texts(200, 7)
    with tempfile.TemporaryDirectory(prefix="raeburnmemory-service-") as folder, ExitStack() as started:
        path = str(Path(folder, "memory.db"))
        own = started.enter_context(MemoryGraph(str(Path(folder, "own.db")), embedding_model="builtin"))
        own.add_many(writer.interactions(0, options.messages // 2))
        own.backup(path)
        Path(folder, "bare_route.py").write_text(_BARE)
        told = {"RAEBURN_DB": path, "RAEBURN_EMBED_MODEL": "builtin"}
        service = Server("raeburnmemory.api:app", folder, options.workers, **told)
        started.callback(service.stop)
        plain = {"Accept-Encoding": "identity"}
        with httpx.Client(base_url=service.url, timeout=120, headers=plain) as client:
            bodies = {
                "recall": client.post("/v1/recall", json={"query": questions[0]}).text,
                "add": json.dumps(
                    {"recorded": [{"prompt": "p" * 36, "response": "r" * 36, "agent": None, "session": None}]}
                ),
                "session": client.get("/v1/sessions/s0").text,
            }
            Path(folder, "bodies.json").write_text(json.dumps(bodies))
            told = {"BARE_BODIES": str(Path(folder, "bodies.json"))}
            bare_server = Server("bare_route:app", folder, options.workers, **told)
            started.callback(bare_server.stop)
            own.recall(questions[0])
            with httpx.Client(base_url=bare_server.url, timeout=120, headers=plain) as bare:
                results = measured(
                    list(asked(own, client, bare, questions, max(options.messages // 25, 1))),
                    (None, service, bare_server),
                    options,
                )
    show(results, options)


Figures = dict[tuple[str, int], list[tuple[float, float, float]]]


def measured(calls: list[tuple[str, Any]], servers: tuple[Server | None, ...], options: argparse.Namespace) -> Figures:
    """Return p50, p95 and processor time a call, in ms, of every round by call and way."""
    results: Figures = {}
    for _, ways in calls:
        for way in ways:
            spread(way, options.clients, 5)
    for _ in range(options.rounds):
        for name, ways in calls:
            for number, way in enumerate(ways):
                server = servers[number]
                began = time.process_time() if server is None else server.seconds()
                taken = sorted(spread(way, options.clients, options.calls))
                ended = time.process_time() if server is None else server.seconds()
                results.setdefault((name, number), []).append(
                    (statistics.median(taken), taken[int(len(taken) * 0.95)], (ended - began) * 1e3 / len(taken))
                )
    return results


def show(results: Figures, options: argparse.Namespace) -> None:
    """Print a table."""
    print(
        f"{options.messages:,} messages, {options.clients} clients, workers: {options.workers}, median of "
        f"{options.rounds} rounds of {options.clients * options.calls} calls, ms"
    )
    print(
        "call      in process p50 p95      service p50 p95         bare p50 p95   adds   cpu: own service   bare   adds"
    )
    for name in dict.fromkeys(name for name, _ in results):
        (own, own95, own_cpu), (service, service95, service_cpu), (bare, bare95, bare_cpu) = (
            tuple(statistics.median(column) for column in zip(*results[name, way], strict=True)) for way in range(3)
        )
        print(
            f"{name:8} {own:11.2f} {own95:8.2f} {service:12.2f} {service95:8.2f} {bare:11.2f} {bare95:8.2f} "
            f"{service - own - bare:7.2f} {own_cpu:12.2f} {service_cpu:7.2f} {bare_cpu:6.2f} "
            f"{service_cpu - own_cpu - bare_cpu:6.2f}"
        )


if __name__ == "__main__":
    main()
