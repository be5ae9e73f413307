"""What keeping a folder of many small files up to date costs.

    python -m benchmarks.ingest [--files 10000] [--stores sqlite,json] [--rounds 3]

A folder of made-up Markdown files is taken in by the builtin model, then again with nothing changed, then with 20 files
changed, each of these two *rounds* times, the least counts. Printed are seconds of CPU and of the clock, and what share
of the first sync they are; the last row is what each changed file costs beyond a sync with nothing changed, as a share
of what each file cost at first. Shares say more than seconds: both halves ran in the same minutes on the same machine.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from raeburnmemory import MemoryGraph
from raeburnmemory.hub import Ingestor
from raeburnmemory.hub.reports import IngestReport

TEXT = """memory graph prompt answer session vector index journal store question note garden doctor city allergy
password travel invoice meeting recipe weather engine bridge letter music school river mountain"""
WORDS = TEXT.split()
_AGES_AGO = 1_600_000_000
CHANGED = 20  # files: one alone is lost in the noise of looking through the rest


class Cost(NamedTuple):
    """Seconds of CPU and of the clock."""

    cpu: float
    clock: float


class Costs(NamedTuple):
    """What the syncs of one folder cost: the first, one with nothing changed, one with some files changed."""

    files: int
    first: Cost
    nothing: Cost
    some: Cost

    def shares(self) -> dict[str, float]:
        """Return what the later syncs cost, as shares of the CPU time of the first."""
        return {
            "nothing changed, of the first sync": self.nothing.cpu / self.first.cpu,
            f"{CHANGED} files changed, of the first sync": self.some.cpu / self.first.cpu,
            "each of these, of a file at first": (self.some.cpu - self.nothing.cpu)
            / CHANGED
            / (self.first.cpu / self.files),
        }


def made(folder: Path, files: int, seed: int = 0) -> None:
    """Write *files* small files, a hundred to a folder, as if long ago."""
    chosen = random.Random(seed)
    for number in range(files):
        path = folder / f"{number // 100:04}" / f"{number:06}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = " ".join(f"{chosen.choice(WORDS)}{chosen.randrange(100)}" for _ in range(60))
        path.write_text(f"# File {number}\n\n{text}\n", encoding="utf-8")
        os.utime(path, (_AGES_AGO + seed, _AGES_AGO + seed))


def timed(run: Callable[[], IngestReport], **expected: int) -> Cost:
    """Run a sync, and return what it cost; it must have done what was expected."""
    cpu, clock = time.process_time(), time.perf_counter()
    report = run()
    cost = Cost(time.process_time() - cpu, time.perf_counter() - clock)
    found = {outcome: count for outcome, count in report.counts.items() if count}
    if found != {outcome: count for outcome, count in expected.items() if count}:
        raise RuntimeError(f"The sync was to give {expected}, and gave {found}.")
    return cost


def measured(place: Path, store: str, files: int, rounds: int) -> Costs:
    """Measure the syncs of a folder of *files* with a memory of its own."""
    folder = place / "files"
    made(folder, files)
    with MemoryGraph(place / {"sqlite": "memory.db", "json": "memory.json"}[store], "builtin") as memory:
        ingestor = Ingestor(memory)
        first = timed(lambda: ingestor.sync(folder), added=files)
        nothing, some = [], []
        for number in range(rounds):
            nothing.append(timed(lambda: ingestor.sync(folder), unchanged=files))
            made(folder, CHANGED, number + 1)
            some.append(timed(lambda: ingestor.sync(folder), updated=CHANGED, unchanged=files - CHANGED))
    return Costs(files, first, min(nothing), min(some))


def report(store: str, costs: Costs) -> str:
    """Return the costs as lines of text."""
    lines = [f"{store}, {costs.files:,} files"]
    for name, cost in zip(("first sync", "nothing changed", f"{CHANGED} files changed"), costs[1:], strict=True):
        lines.append(f"  {name:36} {cost.cpu:8.2f} s CPU  {cost.clock:8.2f} s")
    lines += [f"  {name:36} {share:8.1%}" for name, share in costs.shares().items()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--stores", default="sqlite,json")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    for store in given.stores.split(","):
        with tempfile.TemporaryDirectory(prefix="raeburnmemory-ingest-") as folder:
            print(report(store, measured(Path(folder), store, given.files, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
