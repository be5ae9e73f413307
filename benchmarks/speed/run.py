"""One run: every system builds the same stores and is asked the same, in rounds that take the systems in turn."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from .adding import adds, writers
from .asking import KINDS, questions
from .catalogue import SYSTEMS
from .environments import python_for
from .loading import load, open_again, weigh_files
from .results import Results
from .shapes import shapes
from .stage import K, Options, Stage, Trial, say
from .workload import Truth, Workload

__all__ = ["Run"]


class Run:
    """Measures everything, and keeps what was found and why something was not."""

    def __init__(self, options: Options, workload: Workload, work: Path, cache: Path) -> None:
        self.options, self.workload, self.work = options, workload, work
        self.results = Results()
        self.versions: dict[str, dict[str, str]] = {}
        self._pythons: dict[str, str] = {}
        self._out: dict[str, str] = {}  # systems that could not be installed, and why
        for name in options.systems:
            try:
                self._pythons[name] = python_for(SYSTEMS[name].packages, cache, options.install_limit)
            except (RuntimeError, OSError) as exc:
                self._out[name] = str(exc)
                say(f"{name} is out: {exc}")

    def at(self, size: int, after: Callable[[], object] = lambda: None) -> None:
        """Measure at one size; *after* is called now and then, so that what was measured can be kept."""
        folder = self.work / str(size)
        trials = [
            Trial(name, self._pythons.get(name, ""), folder / name, self.workload.dim, self._out.get(name, ""))
            for name in self.options.systems
        ]
        stage = Stage(size, trials, self.options, self.workload, self.results, after)
        asked = self.workload.questions(size, self.options.questions * self.options.rounds)
        truth = Truth(asked, K)
        steps: list[tuple[set[str], Callable[[], None]]] = [
            ({"disk"}, lambda: weigh_files(stage)),
            ({"open", "memory"}, lambda: open_again(stage, asked)),
            (set(KINDS), lambda: questions(stage, asked, truth)),
            ({"add"}, lambda: adds(stage)),
            ({"writers"}, lambda: writers(stage)),
            ({"shapes"}, lambda: shapes(stage)),
        ]
        try:
            load(stage, truth, self.versions)
            after()
            for measures, step in steps:
                if wanted := sorted(measures & set(self.options.measures)):
                    say(f"{size:,} rows: {', '.join(wanted)}")
                    step()
                    after()
        finally:
            for trial in trials:
                trial.end()
            shutil.rmtree(folder, ignore_errors=True)
