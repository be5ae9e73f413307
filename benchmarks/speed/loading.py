"""Loading many rows, what they take on disk, and opening them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .client import Client, Failed
from .results import Result
from .stage import Stage, Trial, ask, say
from .workload import BLOCK, Questions, Truth, blocks_of

__all__ = ["load", "open_again", "weigh_files"]


def load(stage: Stage, truth: Truth, versions: dict[str, dict[str, str]]) -> None:
    """Load every system with the rows, block by block in turn; *truth* sees them, too."""
    size, limit = stage.size, stage.options.limit
    spent: dict[str, list[dict[str, Any]]] = {trial.name: [] for trial in stage.trials}
    for number, rows in enumerate(blocks_of(stage.workload, size, min(BLOCK, max(size // 10, 100)))):
        say(f"{size:,} rows: load from {rows.ids[0]:,}")
        truth.see(rows)

        for trial in stage.turned(number):

            def block(result: Result, worker: Client, trial: Trial = trial) -> None:
                left = limit - sum(one["wall"] for one in spent[trial.name])
                try:
                    reply = worker.send_rows("bulk", rows, max(left, 1))  # noqa: B023 - called at once
                except Failed as exc:
                    raise Failed(f"{exc}, loading from row {rows.ids[0]:,} of {size:,}") from None  # noqa: B023
                spent[trial.name].append(reply)
                result.detail.setdefault("rows_per_s", []).append(len(rows) / reply["wall"])  # noqa: B023
                trial.written += len(rows)  # noqa: B023

            stage.try_(trial, "bulk", block, decides=True)
    for trial in stage.trials:

        def finish(result: Result, worker: Client, trial: Trial = trial) -> None:
            ready = worker.do("ready", limit)
            parts = [*spent[trial.name], ready]
            result.detail["ready_s"] = ready["wall"]
            result.figures = [size / sum(one["wall"] for one in parts)]
            result.cpu_ms = [sum(one["cpu"] for one in parts) * 1e3 / size]
            versions[trial.name] = worker.do("versions", limit)["versions"]

        stage.try_(trial, "bulk", finish, decides=True)


def weigh_files(stage: Stage) -> None:
    """Measure what the closed stores take on disk."""
    for trial in stage.trials:

        def weigh(result: Result, trial: Trial = trial) -> None:
            trial.stop(stage.options.limit)
            result.figures = [allocated(trial.folder) / stage.size]

        stage.try_closed(trial, "disk", weigh)


def allocated(folder: Path) -> int:
    """Return the bytes that the file system set aside for what is below *folder*."""
    files = (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    return sum(os.stat(file).st_blocks * 512 for file in files)


def open_again(stage: Stage, asked: Questions) -> None:
    """Open each system in a process of its own, once per round, and ask it one question.

    The process has started and imported numpy; what the system imports counts.
    """
    limit, rounds = stage.options.limit, stage.options.rounds
    for number in range(rounds):
        for trial in stage.turned(number):

            def once(result: Result, trial: Trial = trial, number: int = number) -> None:
                trial.stop(limit)
                worker = Client(trial.name, trial.python, trial.folder, trial.dim)
                try:
                    opened = worker.open(limit)
                    first = ask(worker, "vector", asked, [number], limit)
                    result.figures.append(opened["wall"] + sum(first["wall_ms"]) / 1e3)
                    result.cpu_ms.append(opened["cpu"] * 1e3 + first["cpu_ms"])
                    if number == rounds - 1 and "memory" in stage.options.measures:
                        _weigh_process(stage, trial, worker, asked)
                    worker.close(limit)
                finally:
                    worker.end()

            stage.try_closed(trial, "open", once)
            if stage.result(trial, "open").reason and "memory" in stage.options.measures:
                stage.result(trial, "memory").reason = stage.result(trial, "open").reason
        stage.keep()


def _weigh_process(stage: Stage, trial: Trial, worker: Client, asked: Questions) -> None:
    """Measure the memory of a process that has answered some questions."""
    result, limit, some = stage.result(trial, "memory"), stage.options.limit, range(min(5, len(asked)))
    ask(worker, "vector", asked, some, limit)
    try:
        ask(worker, "text", asked, some, limit)
    except Failed as exc:
        result.note = f"without words: {exc}"
    result.detail = worker.do("memory", limit)
    result.figures = [result.detail["RssAnon"] / 1e6]
