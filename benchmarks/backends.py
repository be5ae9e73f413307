"""Every store with every index: what adding and finding cost, and whether the nearest are found.

    python -m benchmarks.backends [--size 10000] [--stores json,sqlite] [--indexes exact,faiss,qdrant] [--out FILE]

`--postgres URL` adds a PostgreSQL store (and the index `pgvector`, which only that has), `--qdrant URL` is where Qdrant
is, `":memory:"` if left out: then it is the local mode of qdrant-client, which compares in Python and says nothing of
a server. What is left out for want of a package or a server is named below the table.

Vectors are made up: of length 1, `--dim` numbers, in as many clusters as the square root of their number; a question
is a stored vector with as much noise again. They are handed in, so that no model is measured. Of each store the last
`--singly` prompts are added one by one, the others a thousand at a time. An index is filled at the first search after
that. Then all indexes are asked the same `--questions`, in turn, `--rounds` times, and each question's least time
counts. The nearest are known from a product in float64; a hit counts if it scores as well as the k-th of these, for
equals are equals.

Times are wall times; the columns in passes divide by what numpy takes for the inner products of one question with all
vectors, least of many, so that figures of different machines can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import MemoryGraphError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_BULK = 1000
_ALIKE = 1e-6  # of cosines
_FILES = {"json": "memory.json", "sqlite": "memory.db"}


class Given:
    """A model in name only: every vector is handed in."""

    def __init__(self, dim: int) -> None:
        self.name, self.dim = "given", dim

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the same vector for every text; one is asked for to know the model by."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        rows[:, 0] = 1
        return rows


class Line(NamedTuple):
    """A line of the table: seconds for one search, least of the rounds, for each question."""

    store: str
    index: str
    fill: float
    after: float
    times: list[float]
    recall: float


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return *rows* scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def made_up(size: int, dim: int, questions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors in clusters, and questions near some of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, round(size**0.5)), dim))
    vectors = unit(centres[rng.integers(len(centres), size=size)] + rng.standard_normal((size, dim)))
    picked = vectors[rng.choice(size, questions)].astype(np.float64)
    return vectors, unit(picked + unit(rng.standard_normal(picked.shape)))


def expected(vectors: NDArray[np.float32], questions: NDArray[np.float32], k: int) -> list[float]:
    """Return the score of the k-th nearest of each question."""
    return [float(np.sort(vectors.astype(np.float64) @ one.astype(np.float64))[-k]) for one in questions]


def one_pass(vectors: NDArray[np.float32], question: NDArray[np.float32]) -> float:
    """Return how many seconds numpy takes for one question, least of many."""
    return min(_timed(lambda: vectors @ question)[0] for _ in range(200))


def _timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def filled(memory: MemoryGraph, vectors: NDArray[np.float32], singly: int) -> tuple[float, float]:
    """Add prompts with these vectors; return how many were added in a second, in bulk and one by one."""
    many = len(vectors) - singly
    items = [{"prompt": {"id": f"p{n}", "text": f"prompt {n}"}, "vector": row} for n, row in enumerate(vectors)]
    bulk, _ = _timed(lambda: [memory.add_many(items[at : min(at + _BULK, many)]) for at in range(0, many, _BULK)])
    one_by_one, _ = _timed(lambda: [memory.add_interaction(**item) for item in items[many:]])
    return many / bulk, singly / one_by_one


def measured(
    location: str, store: str, indexes: dict[str, Any], options: argparse.Namespace, made: Sequence[Any]
) -> Iterator[Line | str]:
    """Yield a line for each index over one store, or why there is none."""
    vectors, questions, least = made
    opened: dict[str, MemoryGraph] = {}
    results: dict[str, tuple[float, float]] = {}
    with contextlib.ExitStack() as closing:
        for name, index in indexes.items():
            try:
                memory = closing.enter_context(MemoryGraph(location, Given(options.dim), vector_backend=index))
                before, _ = _timed(lambda m=memory: m.similar(questions[0], options.k))
                memory.add_interaction({"id": f"extra {name}", "text": "extra"}, vector=-vectors[0])
                after, _ = _timed(lambda m=memory: m.similar(questions[0], options.k))
                memory.forget(f"extra {name}")
                opened[name], results[name] = memory, (len(vectors) / before, after)
            except MemoryGraphError as exc:
                yield f"{store}, {name}: {exc}"
        times = {name: [np.inf] * len(questions) for name in opened}
        found = dict.fromkeys(opened, 0)
        for number in range(options.rounds):
            for at, question in enumerate(questions):
                for name, memory in opened.items():
                    taken, hits = _timed(lambda m=memory, q=question: m.similar(q, options.k))
                    times[name][at] = min(times[name][at], taken)
                    if not number:
                        found[name] += sum(hit.score >= least[at] - _ALIKE for hit in hits)
        for name, (fill, after) in results.items():
            yield Line(store, name, fill, after, times[name], found[name] / (options.k * len(questions)))


def report(lines: Sequence[Line], added: dict[str, tuple[float, float]], single: float, k: int) -> str:
    """Return the table."""
    head = ("adds/s", 9), ("in bulk/s", 11), ("filled/s", 10), ("after add ms", 14)
    more = ("p50 ms", 9), ("p95 ms", 9), ("p50 passes", 12), (f"recall@{k}", 11)
    text = ["".join([f"{'store':10}{'index':10}", *(f"{name:>{width}}" for name, width in (*head, *more))])]
    for line in lines:
        middle, late = statistics.median(line.times), float(np.quantile(line.times, 0.95))
        bulk, one_by_one = added[line.store]
        text.append(
            f"{line.store:10}{line.index:10}{one_by_one:9,.0f}{bulk:11,.0f}{line.fill:10,.0f}{line.after * 1e3:14.2f}"
            f"{middle * 1e3:9.2f}{late * 1e3:9.2f}{middle / single:12.1f}{line.recall:11.3f}"
        )
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, help="vectors")
    parser.add_argument("--dim", type=int, default=384, help="numbers in each")
    parser.add_argument("--stores", default="", help="names separated by commas")
    parser.add_argument("--indexes", default="", help="names separated by commas")
    parser.add_argument("--postgres", default="", help="URL of a database that may be written")
    parser.add_argument("--qdrant", default=":memory:", help="where Qdrant is")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singly", type=int, default=500, help="prompts that are added one by one")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a file for all figures, as JSON")
    options = parser.parse_args(arguments)
    places = {**_FILES, **({"postgres": options.postgres} if options.postgres else {})}
    stores = options.stores.split(",") if options.stores else list(places)
    names = options.indexes.split(",") if options.indexes else ["exact", "faiss", "qdrant", "pgvector"]
    if unknown := [store for store in stores if store not in places]:
        parser.error(f"{unknown[0]!r} is no store here. Choose from: {', '.join(places)}; postgres needs --postgres.")
    vectors, questions = made_up(options.size, options.dim, options.questions)
    made = vectors, questions, expected(vectors, questions, options.k)
    single = one_pass(vectors, questions[0])
    added: dict[str, tuple[float, float]] = {}
    lines: list[Line] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for store in stores:
            location = str(Path(folder, places[store])) if store in _FILES else places[store]
            try:
                with MemoryGraph(location, Given(options.dim), vector_backend="exact") as memory:
                    added[store] = filled(memory, vectors, min(options.singly, options.size // 2))
            except MemoryGraphError as exc:
                missing.append(f"{store}: {exc}")
                continue
            indexes: dict[str, Any] = {name: name for name in names if name != "pgvector" or store == "postgres"}
            if "qdrant" in indexes and options.qdrant != ":memory:":
                try:
                    from raeburnmemory.index.qdrant import Qdrant
                except ModuleNotFoundError:
                    pass  # which opening the memory says as well
                else:
                    indexes["qdrant"] = Qdrant(options.qdrant)
            for line in measured(location, store, indexes, options, made):
                (missing if isinstance(line, str) else lines).append(line)
    print(
        f"{options.size:,} vectors of {options.dim} numbers, {options.questions} questions, k={options.k}, Qdrant at "
        f"{options.qdrant}; one pass of numpy takes {single * 1e3:.2f} ms"
    )
    print(report(lines, added, single, options.k))
    for line in missing:
        print(f"left out: {line}")
    if options.out is not None:
        figures = {"options": {**vars(options), "out": str(options.out)}, "pass": single, "added": added}
        found = {**figures, "lines": [line._asdict() for line in lines], "missing": missing}
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
