"""Questions: how long they take, and whether the answers are right."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from .client import Client, Failed
from .results import Result
from .stage import Stage, Trial, ask
from .workload import Questions, Truth, Workload

__all__ = ["KINDS", "questions"]

KINDS = ("vector", "session", "time", "text", "hybrid")


def questions(stage: Stage, asked: Questions, truth: Truth) -> None:
    """Ask every system the same questions of every kind, in rounds."""
    options, rights = stage.options, {}
    for number in range(options.rounds):
        numbers = range(number * options.questions, (number + 1) * options.questions)
        for kind in [kind for kind in KINDS if kind in options.measures]:
            for trial in stage.turned(number):

                def once(
                    result: Result,
                    worker: Client,
                    trial: Trial = trial,
                    kind: str = kind,
                    number: int = number,
                    numbers: Sequence[int] = numbers,
                ) -> None:
                    if not number:  # what the first question builds is in no figure
                        ask(worker, kind, asked, numbers[:1], options.limit)
                    left = (options.limit - trial.spent.get(kind, 0)) / (options.rounds - number)
                    begun = time.monotonic()
                    reply = ask(worker, kind, asked, numbers, max(left, 1))
                    trial.spent[kind] = trial.spent.get(kind, 0) + time.monotonic() - begun
                    result.figures.append(float(np.median(reply["wall_ms"])))
                    result.cpu_ms.append(reply["cpu_ms"])
                    if not reply["complete"]:
                        raise Failed("hits came without their texts")
                    for at, ids in zip(numbers, reply["ids"], strict=False):  # the time may have run out
                        _check(stage.workload, kind, asked.words[at], ids)
                        if kind in Truth.KINDS:
                            rights.setdefault((trial.name, kind), []).append(truth.recall(kind, at, ids))
                    if kind in Truth.KINDS:
                        result.recall = float(np.mean(rights[trial.name, kind]))

                stage.try_(trial, kind, once)
        stage.keep()


def _check(workload: Workload, kind: str, words: Sequence[str], ids: list[int]) -> None:
    """Make sure that hits differ, and that what was found first for words has one of them.

    Raises:
        Failed: It is not so.
    """
    if len(ids) != len(set(ids)):
        raise Failed(f"the same row was found twice: {ids}")
    if kind == "text":
        if not ids:
            raise Failed(f"nothing was found for {' '.join(words)!r}")
        text = workload.rows(ids[0], 1).texts[0]
        if not set(text.split()) & set(words):
            raise Failed(f"{text!r} was found first for {' '.join(words)!r}")
