"""Adding one by one: alone, and with a second process that adds to the same store."""

from __future__ import annotations

import time
from typing import Any

from .client import Client, Failed
from .results import Result
from .rows import Rows
from .stage import Stage, Trial
from .syncs import counted

__all__ = ["adds", "writers"]

_FIRST = 1_000_000_000  # numbers of rows that no workload has reached
_TRACED = 40  # adds while the syncs are counted
_AT_ONCE = 500  # ids in one question whether they are there


def adds(stage: Stage) -> None:
    """Add rows one by one, in rounds; count the syncs of some more afterwards."""
    options = stage.options
    for number in range(options.rounds):
        for trial in stage.turned(number):

            def once(result: Result, worker: Client, trial: Trial = trial, number: int = number) -> None:
                if not number:  # the first write makes files, and reads what only writers need
                    _add(stage, trial, worker, 5)
                reply = _add(stage, trial, worker, options.adds)
                result.figures.append(reply["done"] / reply["wall"])
                result.cpu_ms.append(reply["cpu"] * 1e3 / reply["done"])
                if reply["done"] < options.adds:
                    result.note = f"{reply['done']} adds a round"

            stage.try_(trial, "add", once)
        stage.keep()
    for trial in stage.trials:

        def traced(result: Result, worker: Client, trial: Trial = trial) -> None:
            result.syncs = counted(worker.process.pid, lambda: int(_add(stage, trial, worker, _TRACED)["done"]))

        stage.try_(trial, "add", traced)


def _add(stage: Stage, trial: Trial, worker: Client, count: int) -> dict[str, Any]:
    seconds = stage.options.limit / (stage.options.rounds + 2)
    rows = stage.workload.rows(trial.written, count)
    reply = worker.send_rows("add", rows, 2 * seconds + 10, seconds=seconds)
    trial.written += count  # also those that there was no time for: numbers need not follow each other
    return reply


def writers(stage: Stage) -> None:
    """Let two processes add to each store at the same time, and count what is there afterwards."""
    limit, acked = stage.options.limit, {trial.name: [] for trial in stage.trials}
    for number in range(stage.options.rounds):
        for trial in stage.turned(number):

            def once(result: Result, one: Client, trial: Trial = trial, number: int = number) -> None:
                try:
                    other = trial.another(limit)
                except Failed as exc:
                    raise Failed(f"a second process cannot open it: {exc}") from None
                try:
                    acked[trial.name] += _together(stage, number, [one, other], result)
                    other.close(limit)
                finally:
                    other.end()

            stage.try_(trial, "writers", once)
        stage.keep()
    for trial in stage.trials:

        def count(result: Result, trial: Trial = trial) -> None:
            trial.stop(limit)
            worker, ids = trial.worker(limit), acked[trial.name]  # a process that has seen none of it
            some = (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))
            lost = len(ids) - sum(worker.do("count", limit, ids=part)["count"] for part in some)
            result.detail |= {"acknowledged": len(ids), "lost": lost}
            result.note = f"{lost:,} of {len(ids):,} lost"

        stage.try_closed(trial, "writers", count)


def _together(stage: Stage, number: int, workers: list[Client], result: Result) -> list[int]:
    """Let all *workers* add, from the same moment on; return the numbers of the rows that were acknowledged."""
    count, seconds = stage.options.adds, stage.options.limit / stage.options.rounds / 2
    first = _FIRST + number * len(workers) * count
    batches = [_numbered(stage, first + place * count, place * count, count) for place in range(len(workers))]
    at = time.time() + 0.3
    for worker, rows in zip(workers, batches, strict=True):
        fields, data = rows.to_wire()
        worker.tell("add", data, rows=fields, seconds=seconds, at=at)
    replies, errors, acked = [], [], []
    for worker, rows in zip(workers, batches, strict=True):
        try:
            replies.append(worker.hear(2 * seconds + 10))
        except Failed as exc:
            errors.append(str(exc))
        else:
            acked += rows.ids[: replies[-1]["done"]]
    if errors:
        raise Failed(f"with two writers: {errors[0]}")
    spent = max(one["ended"] for one in replies) - min(one["begun"] for one in replies)
    done = sum(one["done"] for one in replies)
    result.figures.append(done / spent)
    result.cpu_ms.append(sum(one["cpu"] for one in replies) * 1e3 / done)
    return acked


def _numbered(stage: Stage, first: int, like: int, count: int) -> Rows:
    """Return rows with other numbers, and the contents of those from *like* on."""
    rows = stage.workload.rows(like, count)
    return Rows(list(range(first, first + count)), rows.texts, rows.sessions, rows.agents, rows.times, rows.vectors)
