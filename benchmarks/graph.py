"""What reading around a node costs as a memory grows, and what walking over all of it costs.

    python -m benchmarks.graph [--sizes 10000,100000] [--stores sqlite,json] [--rounds 5] [--folder FOLDER]
                               [--only NAME,NAME] [--link]

Sizes count nodes: prompts, responses and sessions of 50 exchanges, with eight agents, so that an agent has an eighth of
all responses. Texts and vectors are made up; one prompt in 50 is nearly the same as another. The stores are made first,
and kept if *folder* is given: the next run finds them there.

For each call it prints CPU time, the least of the rounds; for SQLite also the statements, the steps of SQLite's machine
(in hundreds: what it looks at, whether or not it comes out), and the nodes and links made of them; and how far the
anonymous memory of the process rose above what it was, watched every two milliseconds. What does not grow with the size
is flat; the last column is the time at this size divided by that at the one before.

`--link` also measures `link_similar_prompts`, which is quadratic in its comparisons: a minute for 100,000 nodes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import tempfile
import threading
import time
import zlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import raeburnmemory.store.sqlite_reading as reading
from raeburnmemory import MemoryGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

_DIM = 384
_SESSION = 50
_TEXT = """memory graph prompt response agent session vector index journal store answer question note garden doctor city
allergy password travel invoice meeting recipe weather engine bridge letter music school river mountain"""
_WORDS = _TEXT.split()


class MadeUp:
    """Vectors without meaning, in no time: two rows of a table, chosen by the text."""

    name, dim = "made-up", _DIM

    def __init__(self) -> None:
        self._table = np.random.default_rng(1).standard_normal((4096, _DIM)).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text."""
        sums = np.array([zlib.crc32(text.encode()) for text in texts], np.int64)
        return self._table[sums & 4095] + self._table[sums >> 12 & 4095]


def interactions(first: int, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return made-up exchanges of 10 and 20 words, with vectors for the prompts."""
    vectors = rng.standard_normal((count, _DIM)).astype(np.float32)
    twins = np.arange(50, count, 50)
    vectors[twins] = vectors[twins - 7] + 0.4 * vectors[twins]
    words = rng.integers(0, len(_WORDS), (count, 30))
    return [
        {
            "prompt": {"id": f"p{first + i}", "text": " ".join(_WORDS[w] for w in words[i, :10])},
            "response": {"id": f"r{first + i}", "text": " ".join(_WORDS[w] for w in words[i, 10:]) + f" {first + i}"},
            "agent": {"id": f"a{i % 8}", "name": f"Agent {i % 8}"},
            "session_id": f"s{(first + i) // _SESSION}",
            "vector": vectors[i],
        }
        for i in range(count)
    ]


def build(path: Path, size: int) -> None:
    """Make a store of about *size* nodes, unless it is there."""
    if path.exists():
        return
    rng, count = np.random.default_rng(0), exchanges(size)
    with MemoryGraph(path, embedding_model=MadeUp()) as memory:
        for first in range(0, count, 5000):
            memory.add_many(interactions(first, min(5000, count - first), rng))
        for version in range(10):
            memory.update("p7", text=f"version {version}")
        memory.link("p3", "p9", "links_to")


def exchanges(size: int) -> int:
    """Return how many exchanges make *size* nodes, with their sessions."""
    return size * _SESSION // (2 * _SESSION + 1)


def calls(memory: MemoryGraph, size: int, out: str) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name: first what should be flat, then what walks over everything."""
    middle = exchanges(size) // 2
    prompt, response, session = f"p{middle}", f"r{middle}", f"s{middle // _SESSION}"
    return {
        "get": lambda: memory.get(prompt),
        "in": lambda: prompt in memory,
        "neighbours": lambda: memory.neighbours(prompt, direction="both"),
        "links": lambda: memory.links(response),
        "thread": lambda: memory.thread(session),
        "why": lambda: memory.why(response),
        "why (agent)": lambda: memory.why("a3"),
        "trace": lambda: memory.trace(response),
        "history": lambda: memory.history("p7"),
        "visualise_prompt_chain": lambda: memory.visualise_prompt_chain(prompt, 5),
        "nodes(limit=10)": lambda: list(memory.nodes(limit=10)),
        "nodes(after=...)": lambda: list(memory.nodes(limit=10, after=prompt)),
        "nodes(session=...)": lambda: list(memory.nodes(session=session)),
        "nodes('agent')": lambda: list(memory.nodes("agent")),
        "nodes('fact') (none)": lambda: list(memory.nodes("fact")),
        "first 10 of iteration": lambda: list(islice(memory, 10)),
        "len": lambda: len(memory),
        "stats": memory.stats,
        "links of a hub (none)": lambda: memory.links("a3", "supersedes", "in"),
        "neighbours of a hub": lambda: memory.neighbours("a3", direction="in"),
        "iteration": lambda: sum(1 for _ in memory),
        "nodes(since=...)": lambda: list(memory.nodes(since="2100-01-01")),
        "export(False)": lambda: memory.export(False),
        "export(path)": lambda: memory.export(out),
        "to_networkx": memory.to_networkx,
        "graph": lambda: memory._view._bring(memory._view._graph or memory.graph),
    }


class Watched:
    """What the process holds, and what SQLite does, from the beginning of a block to its end."""

    def __init__(self, memory: MemoryGraph) -> None:
        self._store = memory._store
        self.statements = self.steps = self.decoded = 0
        self.megabytes = 0.0

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """Watch what happens in the block."""
        over = threading.Event()
        settle()
        base = self._top = anonymous()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        with self._counting():
            yield
        self._top = max(self._top, anonymous())
        over.set()
        watcher.join()
        self.megabytes = (self._top - base) / 1024

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.002):
            self._top = max(self._top, anonymous())

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        if self._store.name != "sqlite":
            yield
            return
        made, db = {name: getattr(reading, name) for name in ("_node", "_link")}, self._store._db  # type: ignore[attr-defined]
        for name, real in made.items():
            setattr(reading, name, self._counted(real))
        db.set_trace_callback(self._statement)
        db.set_progress_handler(self._step, 100)
        try:
            yield
        finally:
            db.set_progress_handler(None, 0)
            db.set_trace_callback(None)
            for name, real in made.items():
                setattr(reading, name, real)

    def _counted(self, real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def decode(row: Any) -> Any:
            self.decoded += 1
            return real(row)

        return decode

    def _statement(self, _sql: str) -> None:
        self.statements += 1

    def _step(self) -> int:
        self.steps += 1
        return 0


def anonymous() -> int:
    """Return the anonymous memory of this process in kB (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0])


def settle() -> None:
    """Give free memory back to the system, so that a rise can be seen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def least(call: Callable[[], Any], rounds: int) -> float:
    """Return the CPU time of a call in milliseconds; of a slow one it is taken once."""
    times: list[float] = []
    while len(times) < rounds and sum(times) < 5:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--stores", default="sqlite,json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--only")
    parser.add_argument("--link", action="store_true")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="raeburnmemory-graph-"))
        for store in options.stores.split(","):
            before: dict[str, float] = {}
            for size in sizes:
                path = Path(folder, f"{size}.{'db' if store == 'sqlite' else store}")
                build(path, size)
                before = measured(path, size, options, before)


def measured(path: Path, size: int, options: argparse.Namespace, before: dict[str, float]) -> dict[str, float]:
    """Measure one store and print its table; return the times."""
    start = time.process_time()
    memory = MemoryGraph(path, embedding_model=MadeUp())
    print(f"\n{memory.storage_backend}, {size:,} nodes: opening takes {time.process_time() - start:.2f} s of CPU time")
    print("call                           CPU ms  statements  100 steps       made   MB above    ratio")
    times, out = {}, str(path.with_name("exported.json"))
    chosen = calls(memory, size, out)
    if options.link:
        chosen["link_similar_prompts"] = lambda: memory.link_similar_prompts(0.85)
    for name, call in chosen.items():
        if options.only and name not in options.only.split(","):
            continue
        watched = Watched(memory)
        rebuilt = name == "graph"
        with watched.block():
            call()
        if rebuilt:
            memory._view._version = -1
        times[name] = least(call, 1 if rebuilt or name.startswith("link_") else options.rounds)
        ratio = f"{times[name] / before[name]:9.1f}" if name in before else ""
        print(
            f"{name:27}{times[name]:10.3f}{watched.statements:12,}{watched.steps:11,}{watched.decoded:11,}"
            f"{watched.megabytes:11.1f}{ratio}",
            flush=True,
        )
    Path(out).unlink(missing_ok=True)
    memory.close()
    return times


if __name__ == "__main__":
    logging.getLogger("raeburnmemory").setLevel(logging.ERROR)  # what a large graph costs is in the table
    main()
