"""Words of the vocabulary that mean nearly the same as a word of a question.

By the cosine between their static vectors, those of the `builtin` embedder, whatever model the store has. A text that
says "puppy" is then found for "dog" by the lexical leg too.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .embed.builtin import BuiltinEmbedder
from .index._arrays import grown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .index.lexical import LexicalIndex

    Floats = NDArray[np.float32]

__all__ = ["RelatedWords"]

LEAST = 0.4  # cosine from which a word counts as related; its weight grows from 0 there to 1 for the same meaning
MOST = 10  # related words of a word
_BLOCK = 4096
_FIRST = 64  # numbers of a vector by which words are chosen
_PROMISING = 0.4  # cosine between these from which words are compared whole
_COLUMNS = 8  # BLAS needs less time for so many columns, or a multiple, than for seven
_ALONE = 1 << 18  # multiplications up to which OpenBLAS starts no threads
_AT_ONCE = 64  # words of a question, which may be a book
_REMEMBERED = 20_000  # words of questions
_PARTS = ("numbers", "begins", "lengths", "rests", "seconds", "first_left", "second_left")
_MANY = 512  # likely words of a word from which it pays to find out first which of them can be among the best
_TRIED = 32  # of these, words that are compared whole to begin with
_SECOND = 48  # numbers of the rests by which others are left out
_DOUBT = 1e-5  # more than rounding adds to a cosine
_NOTHING = np.empty(0, np.int64), np.empty(0, np.float32)


class _Vectors:
    """The vectors of numbered words, of those that have one: numbers and codes have none.

    They are cut in two: the first numbers, of length 1, with the lengths that these had, and the rests. The beginnings
    of the rests are there once more, near each other, and so are the lengths of the rests, and of these without their
    beginnings.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = tuple(arrays)
        self._count = len(self._arrays[0])

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What `_PARTS` lists; not to be changed."""
        return tuple(array[: self._count] for array in self._arrays)

    def add(self, numbers: NDArray[np.int32], begins: Floats, lengths: Floats, rests: Floats) -> None:
        """Copy some behind the others."""
        begun, self._count = self._count, self._count + len(numbers)
        self._arrays = tuple(grown(old, begun, len(numbers)) for old in self._arrays)
        new = (numbers, begins, lengths, rests, rests[:, :_SECOND], *_left(rests))
        for room, values in zip(self._arrays, new, strict=True):
            room[begun : self._count] = values

    def related(
        self, since: int, begins: Floats, lengths: Floats, rests: Floats
    ) -> list[tuple[NDArray[np.int64], Floats]]:
        """Compare those with numbers from *since* on with words asked for, cut as they are.

        Return for each the numbers (ascending) of those related to it, at least of the best, and their cosines.
        """
        numbers, own, own_lengths, own_rests, *_ = self.arrays
        start = int(np.searchsorted(numbers, since)) if since else 0
        n = len(numbers) - start
        if not n:
            return [_NOTHING] * len(begins)
        promise = _products(own[start:], begins)
        likely = np.flatnonzero(promise >= _PROMISING)
        ends, found = np.searchsorted(likely, np.arange(len(begins) + 1) * n).tolist(), []
        for word, (first, last) in enumerate(pairwise(ends)):
            if first == last:  # as mostly, where a few words came since
                found.append(_NOTHING)
                continue
            near = likely[first:last]
            begun = promise.ravel().take(near)
            near += start - word * n
            begun *= own_lengths.take(near)
            begun *= lengths[word]
            if len(near) > _MANY:
                near, begun = self._possible(near, begun, rests[word])
            begun += np.einsum("ij,j->i", own_rests.take(near, axis=0), rests[word])
            there = np.flatnonzero(begun >= LEAST)
            found.append((numbers.take(near[there]), begun[there]))
        return found

    def _possible(self, near: NDArray[np.int64], begun: Floats, rest: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Return which of many words can be among the best for one, and what had *begun* of their cosines.

        The rests add no more than the product of their lengths (Cauchy and Schwarz), and a few whole cosines say what
        has to be reached.
        """
        _, _, _, rests, seconds, first_left, second_left = self.arrays
        first, second = (np.float32(math.sqrt(some @ some)) for some in (rest, rest[_SECOND:]))
        tried = np.argpartition(begun, len(begun) - _TRIED)[len(begun) - _TRIED :]
        whole = np.partition(begun[tried] + rests.take(near[tried], axis=0) @ rest, _TRIED - MOST - 1)
        least = max(LEAST, float(whole[_TRIED - MOST - 1])) - _DOUBT
        keep = np.flatnonzero(begun + first_left.take(near) * first >= least)
        near, begun = near[keep], begun[keep]
        some = seconds.take(near, axis=0) @ rest[:_SECOND]
        keep = np.flatnonzero(begun + some + second_left.take(near) * second >= least)
        return near[keep], begun[keep]


class RelatedWords:
    """The vectors of an index's vocabulary, made as it grows. For one thread at a time.

    Static vectors have their weight in their first numbers, so these alone choose the words that are compared whole:
    of all that the ten related words of a word weigh, that overlooks about 1 %.
    """

    def __init__(self, index: LexicalIndex, parts: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begin with what `to_parts` gave for the same index; these arrays are not changed."""
        self.index = index
        self._embedder = BuiltinEmbedder()
        none = {f"related.{name}": np.empty(0, np.float32) for name in _PARTS}
        none["related.numbers"] = np.empty(0, np.int32)
        widths = (0, _FIRST, 0, self._embedder.dim - _FIRST, _SECOND, 0, 0)  # 0: numbers, not rows of them
        self._saved, self._new = (
            _Vectors(
                [
                    given[f"related.{name}"].reshape(-1, width) if width else given[f"related.{name}"]
                    for name, width in zip(_PARTS, widths, strict=True)
                ]
            )
            for given in (none if parts is None else parts, none)
        )
        self._n = 0 if parts is None else int(parts["related.count"][0])  # words of the index that were looked at
        self._known: dict[str, tuple[int, list[tuple[int, float]]]] = {}

    def _catch_up(self) -> None:
        new = self.index.written[self._n :]
        for start in range(0, len(new), _BLOCK):
            begins, lengths, rests = self._embed(new[start : start + _BLOCK])
            there = np.flatnonzero(lengths)
            numbers = (there + (self._n + start)).astype(np.int32)
            self._new.add(numbers, begins[there], lengths[there], rests[there])
        self._n += len(new)

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """Return the vectors of all words of the index, as arrays of one dimension."""
        self._catch_up()
        arrays = zip(_PARTS, self._saved.arrays, self._new.arrays, strict=True)
        found = {f"related.{name}": np.concatenate([old, new]).reshape(-1) for name, old, new in arrays}
        return {**found, "related.count": np.array([self._n], np.int64)}

    def _embed(self, words: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Return the beginnings of the vectors, of length 1, the lengths that these had, and the rests."""
        # Numbers and codes are related to nothing.
        vectors = self._embedder.embed([word if word.isalpha() else "" for word in words])
        begins = vectors[:, :_FIRST]
        lengths = np.linalg.norm(begins, axis=1).astype(np.float32)
        return begins / np.maximum(lengths, np.float32(1e-12))[:, None], lengths, vectors[:, _FIRST:]

    def of(self, words: Sequence[str]) -> list[list[tuple[int, float]]]:
        """Return for each of *words* the numbers of related words in the index, each with a weight up to 1."""
        self._catch_up()
        if len(self._known) > _REMEMBERED:
            self._known = {}
        behind: dict[int, list[str]] = {}  # the vocabulary that a word was compared with already
        for word in dict.fromkeys(words):
            behind.setdefault(self._known.get(word, (0, []))[0], []).append(word)
        for since, some in behind.items():
            if since < self._n:
                for start in range(0, len(some), _AT_ONCE):
                    self._compare(some[start : start + _AT_ONCE], since)
        return [self._known[word][1] for word in words] if self._n else [[] for _ in words]

    def _compare(self, words: list[str], since: int) -> None:
        asked = self._embed(words)
        both = zip(words, self._saved.related(since, *asked), self._new.related(since, *asked), strict=True)
        for word, (old, old_cosines), (new, new_cosines) in both:
            found = self._known.get(word, (0, []))[1]
            if len(old) or len(new):
                cosines = np.concatenate([old_cosines, new_cosines])
                best = np.argsort(-cosines, kind="stable")[: MOST + 1]  # the word itself may be among them
                numbers = np.concatenate([old, new])[best].tolist()
                weights = [(cosine - LEAST) / (1 - LEAST) for cosine in cosines[best].tolist()]
                more = list(zip(numbers, weights, strict=True))
                found = sorted([*found, *more], key=lambda pair: (-pair[1], pair[0]))[: MOST + 1] if found else more
            self._known[word] = (self._n, found)


def _left(rests: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lengths of *rests*, and of these without their beginnings."""
    first, second = (np.linalg.norm(some, axis=1).astype(np.float32) for some in (rests, rests[:, _SECOND:]))
    return first, second


def _products(table: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *others* @ *table*.T, in blocks that one thread of BLAS takes.

    Where another process keeps a core busy, the threads of one such product wait for each other ten times as long as
    the whole takes one of them.
    """
    n, width = table.shape
    columns = np.zeros((width, -(-len(others) // _COLUMNS) * _COLUMNS), np.float32)
    columns[:, : len(others)] = others.T
    step = max(_ALONE // columns.size, 1)
    whole = n // step * step
    found = np.empty((n, columns.shape[1]), np.float32)
    np.matmul(table[:whole].reshape(-1, step, width), columns, out=found[:whole].reshape(-1, step, columns.shape[1]))
    np.matmul(table[whole:], columns, out=found[whole:])
    return np.ascontiguousarray(found.T[: len(others)])
