"""How long a search takes as a memory grows.

    python -m benchmarks.latency [--sizes 1000,10000,100000] [--k 10,100] [--rounds 3] [--questions 60] [--store sqlite]

Sizes count prompts and responses. The texts are made up: words of the `builtin` vocabulary as often as words are in
languages (Zipf), 12 in a prompt, 40 in a response, ten exchanges to a session, seven in a question. Times are wall
times of `recall` without encoding: the vectors of the questions are made before. Every round asks all questions at
every size; printed is the median of the rounds with their spread. A first time, most words of a question were never
asked before, and what is related to them is looked up; asked *again* they are known.

The last column divides by what numpy needs for the inner products of one question with every vector, on the same
machine in the same round, so that figures of different machines can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raeburnmemory import MemoryGraph
from raeburnmemory.embed.builtin import BuiltinEmbedder, _vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WORDS = 20_000
_ZIPF = 0.8


class Prepared(BuiltinEmbedder):
    """The `builtin` model, with the vectors of some texts made before."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, NDArray[np.float32]] = {}

    def prepare(self, texts: Sequence[str]) -> None:
        """Make the vectors of *texts* now."""
        self.known.update(zip(texts, super().embed(texts)[:, None], strict=True))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text."""
        found = self.known.get(texts[0]) if len(texts) == 1 else None
        return super().embed(texts) if found is None else found


class Writer:
    """Makes up texts."""

    def __init__(self) -> None:
        words = [word for word in _vocabulary() if word.isalpha() and len(word) > 2][:_WORDS]
        self.words = np.array(words)
        odds = np.arange(1, len(words) + 1) ** -_ZIPF
        self.odds, self._rng = odds / odds.sum(), np.random.default_rng(0)

    def texts(self, count: int, words: int) -> list[str]:
        """Return *count* texts of as many *words*."""
        return [" ".join(row) for row in self._rng.choice(self.words, (count, words), p=self.odds)]

    def interactions(self, first: int, count: int) -> list[dict[str, Any]]:
        """Return *count* exchanges."""
        prompts, responses = self.texts(count, 12), self.texts(count, 40)
        return [
            {"prompt": f"{prompt}?", "response": response, "session_id": f"s{(first + at) // 10}"}
            for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]


def build(path: str, size: int, writer: Writer, embedder: Prepared) -> MemoryGraph:
    """Return a memory of *size* prompts and responses."""
    memory = MemoryGraph(path, embedding_model=embedder)
    for first in range(0, size // 2, 5000):
        memory.add_many(writer.interactions(first, min(5000, size // 2 - first)))
    return memory


def asked(memory: MemoryGraph, questions: Sequence[str], k: int) -> float:
    """Return the median wall time of a search, in milliseconds."""
    taken = []
    for question in questions:
        start = time.perf_counter()
        memory.recall(question, k)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def scanned(vectors: NDArray[np.float32]) -> float:
    """Return the median wall time of one pass over *vectors*, in milliseconds."""
    taken = []
    for row in vectors[:20]:
        start = time.perf_counter()
        vectors @ row
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def measured(memory: MemoryGraph, size: int, ks: Sequence[int], questions: Sequence[str]) -> dict[str, float]:
    """Return the times of one round: for each k of new and of known questions, and of one pass over the vectors."""
    times = {}
    for at, k in enumerate(ks):
        some = questions[at :: len(ks)]
        times[f"{k} new"], times[f"{k} again"] = asked(memory, some, k), asked(memory, some, k)
    vectors = np.random.default_rng(1).standard_normal((size, BuiltinEmbedder().dim)).astype(np.float32)
    return {**times, "pass": scanned(vectors)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--k", default="10,100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--store", choices=["memory", "json", "sqlite"], default="sqlite")
    options = parser.parse_args()
    sizes, ks = ([int(one) for one in given.split(",")] for given in (options.sizes, options.k))
    writer, embedder, results = Writer(), Prepared(), {}
    with tempfile.TemporaryDirectory(prefix="raeburnmemory-latency-") as folder:
        memories = {}
        for size in sizes:
            name = {"memory": ":memory:", "json": f"{size}.json", "sqlite": f"{size}.db"}[options.store]
            path = name if name == ":memory:" else str(Path(folder, name))
            memories[size] = build(path, size, writer, embedder)
            start = time.perf_counter()
            memories[size].recall("first question of this process")
            print(
                f"{size:9,} texts: the first search of a process takes {time.perf_counter() - start:.1f} s", flush=True
            )
        for _ in range(options.rounds):
            questions = writer.texts(options.questions * len(ks), 7)
            embedder.prepare(questions)
            for size, memory in memories.items():
                for name, value in measured(memory, size, ks, questions).items():
                    results.setdefault((size, name), []).append(value)
        for memory in memories.values():
            memory.close()
    print(f"{options.store}, median of {options.rounds} rounds of {options.questions} questions [least-most]")
    print("    texts     k  words   p50 ms [spread]        passes over the vectors")
    for (size, name), times in results.items():
        if name == "pass":
            continue
        k, words = name.split()
        middle, one = statistics.median(times), statistics.median(results[size, "pass"])
        print(f"{size:9,} {k:>5}  {words:5} {middle:8.2f} [{min(times):.2f}-{max(times):.2f}] {middle / one:14.1f}")


if __name__ == "__main__":
    main()
