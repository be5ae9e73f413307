"""What every embedder does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..embed import PROBE, same_model
from ._expect import equal, that

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..embed import Embedder

__all__ = ["check_embedder"]

_TEXTS = [
    "How do I reset my password?",
    "The cat sat on the mat.",
    "",
    "word " * 600,
    "Ünïcödé, emoji \U0001f468\u200d\U0001f469\u200d\U0001f467, \u05d0\u05d1\u05d2, 漢字, nul \0 and\nlines",
    PROBE,
    "?!… —",
    "a",
]


def check_embedder(embedder: Embedder, *, tolerance: float = 1e-6) -> None:
    """Raise AssertionError where *embedder* breaks the contract.

    *tolerance* bounds how far a number of a vector may move when its text is embedded in other company: a runtime
    may add in another order there. Asked the same again, it must answer the same to the last bit.
    """
    that(isinstance(embedder.name, str) and embedder.name, f"the name is {embedder.name!r}")
    dim = embedder.dim
    that(isinstance(dim, int) and dim > 0, f"the dim is {dim!r}")
    rows = embedder.embed(_TEXTS)
    _check_rows(rows, len(_TEXTS), dim)
    equal(embedder.dim, dim, "dim after embedding")
    that(rows[0].any(), "the vector of an English question is zero, which means none")
    that(not same_model(rows[0], rows[1]), "two sentences about different things have one vector")
    that(embedder.embed(_TEXTS).tobytes() == rows.tobytes(), "the same texts give other numbers the second time")

    def near(found: NDArray[np.float32], wanted: NDArray[np.float32], what: str) -> None:
        equal(found.shape, wanted.shape, f"the shape of {what}")
        apart = float(np.abs(found - wanted).max(initial=0))
        that(apart <= tolerance, f"{what} differ by {apart}, more than {tolerance}")

    near(embedder.embed(_TEXTS[::-1]), rows[::-1], "vectors of the texts in another order")
    near(np.concatenate([embedder.embed([text]) for text in _TEXTS]), rows, "vectors of the texts one by one")
    near(embedder.embed(_TEXTS * 3)[: len(_TEXTS)], rows, "vectors in a larger batch")
    near(embedder.embed(tuple(_TEXTS)), rows, "vectors of a tuple of texts")
    equal(embedder.embed([]).shape, (0, dim), "the shape for no texts")
    if hasattr(embedder, "embed_queries"):
        questions = embedder.embed_queries(_TEXTS)
        _check_rows(questions, len(_TEXTS), dim)
        near(np.concatenate([embedder.embed_queries([text]) for text in _TEXTS]), questions, "questions one by one")
        equal(embedder.embed_queries([]).shape, (0, dim), "the shape for no questions")
    given = list(_TEXTS)
    embedder.embed(given)
    equal(given, _TEXTS, "the list of texts after embedding it")


def _check_rows(rows: NDArray[np.float32], count: int, dim: int) -> None:
    that(isinstance(rows, np.ndarray), f"the vectors are a {type(rows).__name__}, not an array")
    equal((rows.dtype, rows.shape), (np.dtype(np.float32), (count, dim)), "the type and shape of the vectors")
    that(np.isfinite(rows).all(), "some numbers are not finite")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    odd = [float(length) for length in lengths if length != 0 and abs(length - 1) > 1e-5]
    equal(odd, [], "lengths of vectors that are neither 1 nor 0")
