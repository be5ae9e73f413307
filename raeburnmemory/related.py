"""Words of the vocabulary that mean nearly the same as a word of a question.

By the cosine between their static vectors, those of the `builtin` embedder, whatever model the store has. A text that
says "puppy" is then found for "dog" by the lexical leg too.
"""

from __future__ import annotations

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
_PARTS = ("begins", "lengths", "rests", "seconds", "left")
_MANY = 128  # likely words of a word from which it pays to find out first which of them can be among the best
_TRIED = 32  # of these, words that are compared whole to begin with
_SECOND = 48  # numbers of the rests by which others are left out
_DOUBT = 1e-5  # more than rounding adds to a cosine


class _Vectors:
    """Vectors of words, cut in two: the first numbers, of length 1, with the lengths that these had, and the rests.

    The beginnings of the rests are there once more, near each other, and so are the lengths of the rests, and of these
    without their beginnings.
    """

    def __init__(self, arrays: Sequence[Floats]) -> None:
        self._arrays = tuple(arrays)
        self._count = len(self._arrays[1])

    def __len__(self) -> int:
        return self._count

    @property
    def arrays(self) -> tuple[Floats, ...]:
        """Begins, lengths, rests, seconds and what is left; not to be changed."""
        return tuple(array[: self._count] for array in self._arrays)

    def add(self, begins: Floats, lengths: Floats, rests: Floats) -> None:
        """Copy some behind the others."""
        begun, self._count = self._count, self._count + len(lengths)
        self._arrays = tuple(grown(old, begun, len(lengths)) for old in self._arrays)
        new = (begins, lengths, rests, rests[:, :_SECOND], _left(rests))
        for room, values in zip(self._arrays, new, strict=True):
            room[begun : self._count] = values

    def related(
        self, start: int, columns: Floats, lengths: Floats, rests: Floats
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Compare those from *start* on with the words asked for, whose beginnings are the *columns*.

        Return which may be related to which word, and their cosines.
        """
        own, own_lengths, own_rests, _, _ = self.arrays
        promise = _products(own[start:], columns)
        likely = promise >= _PROMISING
        if np.count_nonzero(likely) > _MANY * len(lengths):
            near, asked, cosines = self._possible(promise, start, lengths, rests)
        else:
            near, asked = np.divmod(np.flatnonzero(likely), columns.shape[1])
            cosines = promise[near, asked]
            near += start
            cosines *= own_lengths[near]
            cosines *= lengths[asked]
        cosines += np.einsum("ij,ij->i", own_rests.take(near, axis=0), rests.take(asked, axis=0))
        return near, asked, cosines

    def _possible(
        self, promise: Floats, start: int, lengths: Floats, rests: Floats
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return which words can be among the best of which word asked for, and what is known of their cosines.

        What the first numbers promise is known. The rests add no more than the product of their lengths (Cauchy and
        Schwarz), and a few whole cosines say what has to be reached.
        """
        _, own_lengths, own_rests, own_seconds, own_left = self.arrays
        left, found = _left(rests), []
        for word, promised in enumerate(np.ascontiguousarray(promise.T[: len(rests)])):
            rest, least = rests[word], LEAST
            near = np.flatnonzero(promised >= _PROMISING)
            begun = promised[near]
            near += start
            begun *= own_lengths[near]
            begun *= lengths[word]
            if len(near) > _MANY:
                tried = np.argpartition(begun, len(begun) - _TRIED)[len(begun) - _TRIED :]
                whole = np.partition(begun[tried] + own_rests[near[tried]] @ rest, _TRIED - MOST - 1)
                least = max(LEAST, float(whole[_TRIED - MOST - 1])) - _DOUBT
                keep = np.flatnonzero(begun + own_left[near, 0] * left[word, 0] >= least)
                near, begun = near[keep], begun[keep]
                some = own_seconds.take(near, axis=0) @ rest[:_SECOND]
                keep = np.flatnonzero(begun + some + own_left[near, 1] * left[word, 1] >= least)
                near, begun = near[keep], begun[keep]
            found.append((near, np.full(len(near), word), begun))
        near, asked, begun = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return near, asked, begun


class RelatedWords:
    """The vectors of an index's vocabulary, made as it grows. For one thread at a time.

    Static vectors have their weight in their first numbers, so these alone choose the words that are compared whole:
    of all that the ten related words of a word weigh, that overlooks about 1 %.
    """

    def __init__(self, index: LexicalIndex, parts: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begin with what `to_parts` gave for the same index; these arrays are not changed."""
        self.index = index
        self._embedder = BuiltinEmbedder()
        widths = (_FIRST, None, self._embedder.dim - _FIRST, _SECOND, 2)
        none = dict.fromkeys((f"related.{name}" for name in _PARTS), np.empty(0, np.float32))
        self._saved, self._new = (
            _Vectors(
                [
                    given[f"related.{name}"] if width is None else given[f"related.{name}"].reshape(-1, width)
                    for name, width in zip(_PARTS, widths, strict=True)
                ]
            )
            for given in (none if parts is None else parts, none)
        )
        self._n = len(self._saved)
        self._known: dict[str, tuple[int, list[tuple[int, float]]]] = {}

    def _catch_up(self) -> None:
        new = self.index.written[self._n :]
        for start in range(0, len(new), _BLOCK):
            self._new.add(*self._embed(new[start : start + _BLOCK]))
        self._n += len(new)

    def to_parts(self) -> dict[str, Floats]:
        """Return the vectors of all words of the index, as arrays of one dimension."""
        self._catch_up()
        arrays = zip(_PARTS, self._saved.arrays, self._new.arrays, strict=True)
        return {f"related.{name}": np.concatenate([old, new]).reshape(-1) for name, old, new in arrays}

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
        begins, lengths, rests = self._embed(words)
        columns = -(-len(words) // _COLUMNS) * _COLUMNS
        padded = np.zeros((_FIRST, columns), np.float32)  # with nothing, which is related to nothing
        padded[:, : len(words)] = begins.T
        parts = []
        for vectors, first in ((self._saved, 0), (self._new, len(self._saved))):
            start = max(since - first, 0)
            if start >= len(vectors):
                continue
            near, asked, cosines = vectors.related(start, padded, lengths, rests)
            parts.append((near + first, asked, cosines))
        near, asked, cosines = (np.concatenate(some) for some in zip(*parts, strict=True))
        related = np.flatnonzero(cosines >= LEAST)
        asked, near, weights = (
            asked[related],
            near[related],
            (cosines[related].astype(np.float64) - LEAST) / (1 - LEAST),
        )
        order = np.lexsort((near, -weights, asked))
        pairs = list(zip(near[order].tolist(), weights[order].tolist(), strict=True))
        ends = np.searchsorted(asked[order], np.arange(len(words)), "right").tolist()
        start = 0
        for word, end in zip(words, ends, strict=True):
            before = self._known.get(word, (0, []))[1]
            found = pairs[start : min(end, start + MOST + 1)]  # the word itself may be among them
            if before:
                found = sorted([*before, *found], key=lambda pair: (-pair[1], pair[0]))[: MOST + 1]
            self._known[word] = (self._n, found)
            start = end


def _left(rests: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lengths of *rests*, and of these without their beginnings."""
    parts = np.stack([np.linalg.norm(some, axis=1) for some in (rests, rests[:, _SECOND:])], axis=1)
    return np.asarray(parts, np.float32)


def _products(table: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *table* @ *columns*, in blocks that one thread of BLAS takes.

    Where another process keeps a core busy, the threads of one such product wait for each other ten times as long as
    the whole takes one of them.
    """
    step = max(_ALONE // columns.size, 1)
    whole = len(table) // step * step
    found = np.empty((len(table), columns.shape[1]), np.float32)
    np.matmul(
        table[:whole].reshape(-1, step, len(columns)), columns, out=found[:whole].reshape(-1, step, columns.shape[1])
    )
    np.matmul(table[whole:], columns, out=found[whole:])
    return found
