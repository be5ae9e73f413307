"""One size of a run: the systems with their processes, and the rule that whatever fails leaves its reason."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .client import Client, Failed
from .results import Result, Results
from .workload import Questions, Workload

__all__ = ["K", "Options", "Stage", "Trial", "ask", "say"]

K = 10


@dataclass(frozen=True)
class Options:
    """How much of everything."""

    sizes: Sequence[int]
    systems: Sequence[str]
    measures: Sequence[str]
    rounds: int = 5
    questions: int = 20  # per round and kind
    adds: int = 200  # per round
    limit: float = 300.0  # seconds for one measure of one system at one size
    install_limit: float = 900.0


@dataclass
class Trial:
    """One system at one size: its process, and why it is out if it is."""

    name: str
    python: str
    folder: Path
    dim: int
    out: str = ""
    client: Client | None = None
    written: int = 0  # rows of the workload that it was given so far
    spent: dict[str, float] = field(default_factory=dict)  # seconds of each measure

    def worker(self, limit: float) -> Client:
        """Return a process in which the system is open.

        Raises:
            Failed: It is out, or cannot be opened.
        """
        if self.out:
            raise Failed(self.out)
        if self.client is not None and self.client.process.poll() is not None:
            self.client.end()
            self.client = None
        if self.client is None:
            self.client = self.another(limit)
        return self.client

    def another(self, limit: float) -> Client:
        """Return one more process in which the system is open.

        Raises:
            Failed: It cannot be opened.
        """
        client = Client(self.name, self.python, self.folder, self.dim)
        try:
            client.open(limit)
        except Failed:
            client.end()
            raise
        return client

    def stop(self, limit: float) -> None:
        """Close the system if it is open."""
        client, self.client = self.client, None
        if client is not None:
            client.close(limit)

    def end(self) -> None:
        """End its process, whatever it does."""
        if self.client is not None:
            self.client.end()


@dataclass
class Stage:
    """One size of a run."""

    size: int
    trials: list[Trial]
    options: Options
    workload: Workload
    results: Results
    keep: Callable[[], object] = lambda: None  # called after every round and step, so that nothing measured is lost

    def result(self, trial: Trial, measure: str) -> Result:
        """Return the result to fill in."""
        return self.results.of(self.size, trial.name, measure)

    def turned(self, number: int) -> Iterator[Trial]:
        """Yield the systems in an order of that round's own, so that none always follows the same one."""
        at = number % len(self.trials)
        yield from self.trials[at:] + self.trials[:at]

    def try_(
        self, trial: Trial, measure: str, work: Callable[[Result, Client], None], *, decides: bool = False
    ) -> None:
        """Do *work* with the system's worker; if that fails, note why, and do not try this measure again.

        What *decides* is needed by all that follows: then the system is out at this size.
        """
        self.try_closed(trial, measure, lambda result: work(result, trial.worker(self.options.limit)), decides=decides)

    def try_closed(self, trial: Trial, measure: str, work: Callable[[Result], None], *, decides: bool = False) -> None:
        """Do the same for what does without a worker."""
        result = self.result(trial, measure)
        if result.reason:
            return
        try:
            if trial.out:
                raise Failed(trial.out)
            work(result)
        except (Failed, OSError) as exc:
            result.reason = str(exc)
            say(f"{self.size:,} rows: {trial.name}: no {measure}: {exc}")
            if decides:
                trial.out = trial.out or result.reason


def ask(worker: Client, kind: str, asked: Questions, numbers: Sequence[int], seconds: float) -> dict[str, Any]:
    """Ask the questions with those numbers, for about so many *seconds*."""
    given: list[list[Any]] = {
        "vector": [[] for _ in numbers],
        "session": [[asked.sessions[at]] for at in numbers],
        "time": [list(asked.spans[at]) for at in numbers],
        "text": [[asked.words[at]] for at in numbers],
        "hybrid": [[asked.words[at]] for at in numbers],
    }[kind]
    vectors = b"" if kind == "text" else np.ascontiguousarray(asked.vectors[list(numbers)], "<f4").tobytes()
    dim = asked.vectors.shape[1]
    return worker.do("ask", 2 * seconds + 10, vectors, what=kind, k=K, dim=dim, arguments=given, seconds=seconds)


def say(what: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
