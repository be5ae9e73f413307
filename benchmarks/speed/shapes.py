"""What our own systems find when vectors are of other shapes than those of a well-behaved model."""

from __future__ import annotations

import shutil
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .catalogue import SYSTEMS
from .client import Failed
from .rows import Rows
from .stage import K, Stage, Trial, say
from .workload import BLOCK, Clustered, Questions, Truth, blocks_of

__all__ = ["SHAPES", "shaped", "shapes"]

SHAPES = ("clustered", "one topic", "random", "near-duplicates", "uneven dimensions", "strong mean")
_GROUPS = 500  # rows that are nearly the same


def shaped(shape: str, block: int, count: int, dim: int) -> NDArray[np.float32]:
    """Return *count* vectors of length 1 of a shape; *block* -1 is that of the questions."""
    if shape not in SHAPES:
        raise ValueError(f"{shape!r} is no shape. Choose one of: {', '.join(SHAPES)}.")
    rng = np.random.default_rng([SHAPES.index(shape), block + 1])
    always = np.random.default_rng(SHAPES.index(shape))
    if shape == "clustered":
        return Clustered(0, dim).vectors(count, rng)
    noise = rng.standard_normal((count, dim)) / np.sqrt(dim)
    centre = always.standard_normal(dim) / np.sqrt(dim)
    if shape == "one topic":  # cosines around 0.9
        rows = centre / np.linalg.norm(centre) + noise / 3
    elif shape == "random":
        rows = noise
    elif shape == "near-duplicates":
        around = np.random.default_rng([7, max(block, 0)]).standard_normal((BLOCK // _GROUPS, dim)) / np.sqrt(dim)
        rows = around[rng.integers(0, len(around), count)] + noise / 20
    elif shape == "uneven dimensions":
        rows = noise * np.exp(always.standard_normal(dim))
    else:  # a strong mean
        rows = Clustered(0, dim).vectors(count, rng) + 1.5 * centre / np.linalg.norm(centre)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def shapes(stage: Stage) -> None:
    """Compare what our own systems find with what is nearest."""
    for trial in stage.trials:
        if SYSTEMS[trial.name].module != "ours":
            continue
        result = stage.result(trial, "shapes")
        for shape in SHAPES:
            say(f"{stage.size:,} rows: {trial.name}, {shape}")
            other = Trial(trial.name, trial.python, trial.folder / shape, trial.dim, trial.out)
            try:
                result.detail[shape] = _found(stage, other, shape)
                other.stop(stage.options.limit)
            except Failed as exc:
                result.detail[shape] = {"reason": str(exc)}
                result.reason = result.reason or f"{shape}: {exc}"
            finally:
                other.end()
                shutil.rmtree(other.folder, ignore_errors=True)
        result.figures = [one["recall"] for one in result.detail.values() if "recall" in one]


def _found(stage: Stage, trial: Trial, shape: str) -> dict[str, Any]:
    """Return the mean and the least recall of some questions."""
    limit, begun = stage.options.limit, time.monotonic()
    worker = trial.worker(limit)
    asked = shaped(shape, -1, stage.options.questions, trial.dim)
    count = len(asked)
    truth = Truth(Questions(asked, [[]] * count, [""] * count, [(0, 0)] * count), K)
    for rows in blocks_of(stage.workload, stage.size):
        vectors = shaped(shape, rows.ids[0] // BLOCK, len(rows), trial.dim)
        own = Rows(rows.ids, rows.texts, rows.sessions, rows.agents, rows.times, vectors)
        truth.see(own)
        worker.send_rows("bulk", own, max(limit - (time.monotonic() - begun), 1))
    given: list[list[Any]] = [[] for _ in asked]
    reply = worker.do(
        "ask", limit, asked.tobytes(), what="vector", k=K, dim=trial.dim, arguments=given, seconds=limit
    )  # fmt: skip
    right = [truth.recall("vector", at, ids) for at, ids in enumerate(reply["ids"])]
    return {"recall": float(np.mean(right)), "least": min(right), "questions": len(right)}
