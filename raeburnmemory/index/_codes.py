"""Short forms of vectors, and what they prove: whole numbers of 8 bits, signs, checksums.

What all rows have in common is taken out first: from here on a row x is what is left of it without the centre c, so
that its score is q.c + q.x. It says nothing about which is nearest, and would take most of the bits where a memory
is about one topic.

**8 bits.** A row x is rounded to X = step * whole numbers, a query q to Q likewise; the product of the whole numbers
is exact. With rx and rq for what rounding took off,

    q.x = Q.X + rq.x + Q.rx        so        |q.x - Q.X| <= |rq| |x| + |Q| |rx|        (Cauchy and Schwarz)

so a row whose product lies further below the k-th exact score than that cannot be among the k nearest. One step
serves all rows, which orders them by their whole numbers alone. It covers all but one row in a thousand; the
numbers of those that stand out are cut off at 127, which only makes their rx longer. The few with a long rx are
known by their positions, and always compared exactly.

**Signs.** One bit a number. The share of bits in which two vectors differ estimates their angle (Charikar,
"Similarity estimation techniques from rounding algorithms", 2002): enough to propose candidates where the data
allows it, and no proof.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = 127
_MOST = 0.999  # the share of rows whose numbers all fit the scale
_WHOLE = 2**24  # whole numbers up to here are exact in float32
_MARGIN = 1.05  # by how much a row's rounding may be worse than that of most without standing out


class Scale(NamedTuple):
    """How rows are rounded: less the *centre*, in steps of *step*.

    Those that do not stand out are no longer than *length* then, and lose no more than *limit* (|rx|).
    """

    centre: NDArray[np.float32]
    step: float
    length: float
    limit: float

    @classmethod
    def fitting(cls, sample: NDArray[np.float32]) -> Scale:
        """Return the scale for rows like those of *sample* (not none)."""
        centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        tops = np.abs(sample - centre).max(axis=1)
        step = max(float(np.quantile(tops, _MOST)) / _TOP, 1e-35)
        _, errors, lengths = cls(centre, step, math.inf, math.inf).encode(sample)
        most = [float(np.quantile(each, _MOST)) * _MARGIN for each in (lengths, errors)]
        return cls(centre, step, *most)

    def encode(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Return the codes of *rows*, 128 added to each number, and |rx| and |x| of each row, rounded up."""
        left = rows - self.centre
        with np.errstate(over="ignore"):
            whole = np.rint(left * np.float32(1 / self.step))
        np.clip(whole, -_TOP, _TOP, out=whole)
        rest = left - whole * np.float32(self.step)
        # More than computing it in float32 may lose.
        largest = np.abs(rows).max(axis=1) + np.abs(self.centre).max() + self.step * _TOP
        slack = rows.shape[1] ** 0.5 * 2.0**-21 * largest
        codes = whole.astype(np.int8).view(np.uint8) ^ 128
        return codes, _lengths(rest, slack), _lengths(left, slack)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return rows that have these *codes*: what was rounded off is missing."""
        rows = codes.astype(np.float32)
        rows -= np.float32(128)
        rows *= np.float32(self.step)
        rows += self.centre
        return rows


def _lengths(rows: NDArray[np.float32], slack: NDArray[np.float32]) -> NDArray[np.float32]:
    found = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)) * (1 + 1e-6) + slack
    return np.asarray(found * (1 + 1e-6), np.float32)


class Rounded(NamedTuple):
    """A query in whole numbers (as float32, each within 127), and what they say."""

    whole: NDArray[np.float32]
    worth: float  # of one: a product times that is Q.X
    common: float  # q.c, which the score has besides
    doubt: float  # |q.x - Q.X| is larger for no row that does not stand out


def rounded(query: NDArray[np.float32], scale: Scale) -> Rounded:
    """Round *query* for rows of *scale*. It must not be all zero."""
    exact = query.astype(np.float64)
    step = float(np.abs(exact).max()) / _TOP
    whole = np.rint(exact / step)
    kept = whole * step
    lost = exact - kept
    doubt = math.sqrt(lost @ lost) * scale.length + math.sqrt(kept @ kept) * scale.limit
    # A sum of long vectors may leave what float32 holds of whole numbers, and be rounded.
    if _TOP**2 * len(whole) > _WHOLE and (reach := _TOP * float(np.abs(whole).sum())) > _WHOLE:
        doubt += step * scale.step * reach * len(whole) / _WHOLE
    common = float(exact @ scale.centre.astype(np.float64))
    return Rounded(whole.astype(np.float32), step * scale.step, common, doubt * (1 + 1e-6))


def signs_width(dim: int) -> int:
    """Return the bytes that the signs of *dim* numbers take: whole words of 64 bits."""
    return -(-dim // 64) * 8


def signs(rows: NDArray[np.float32], centre: NDArray[np.float32] | float = 0) -> NDArray[np.uint8]:
    """Return the sign bits of *rows* (n, d) less *centre*, filled up with zeros."""
    found = np.zeros((len(rows), signs_width(rows.shape[1])), np.uint8)
    packed = np.packbits(rows > centre, axis=1)
    found[:, : packed.shape[1]] = packed
    return found


def checksums(rows: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a checksum for each of *rows*, words of 64 bits (n, w), and its number: where it belongs.

    A sum of the words, each times an odd number of its own, modulo 2 ** 64: no change of one word leaves it as it is,
    other damage by a chance of 2 ** -64. Made for every row that is read; a CRC of each costs five times as much.
    """
    factors, last = _factors(rows.shape[1])
    sums: NDArray[np.uint64] = np.einsum("ij,j->i", rows, factors)
    sums += (numbers.astype(np.uint64) + np.uint64(1)) * last
    return sums


@lru_cache(maxsize=16)
def _factors(words: int) -> tuple[NDArray[np.uint64], np.uint64]:
    """Return an odd number for each of so many words, and one for the number of the row; not to be changed."""
    at = np.arange(1, words + 2, dtype=np.uint64)
    factors = (at * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    return factors[:-1], factors[-1]
