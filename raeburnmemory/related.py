"""Words of the vocabulary that mean nearly the same as a word of a question.

By the cosine between their static vectors, those of the `builtin` embedder, whatever model the store has. A text that
says "puppy" is then found for "dog" by the lexical leg too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .embed.builtin import BuiltinEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .index.lexical import LexicalIndex

__all__ = ["RelatedWords"]

LEAST = 0.4  # cosine from which a word counts as related; its weight grows from 0 there to 1 for the same meaning
MOST = 10  # related words of a word
_BLOCK = 4096
_FIRST = 64  # numbers of a vector by which words are chosen
_TRIED = 384  # words that are chosen, about, to be compared whole
_SAMPLE = 2048
_AT_ONCE = 64  # words of a question, which may be a book
_REMEMBERED = 20_000  # words of questions


class RelatedWords:
    """The vectors of an index's vocabulary, made as it grows. For one thread at a time.

    Static vectors have their weight in their first numbers, so these alone choose the words that are compared whole:
    of all that the ten related words of a word weigh, that overlooks some 0.4 %.
    """

    def __init__(self, index: LexicalIndex) -> None:
        self.index = index
        self._embedder = BuiltinEmbedder()
        self._vectors = np.empty((0, self._embedder.dim), np.float32)
        self._begins = np.empty((_FIRST, 0), np.float32)  # by columns, which is how they are multiplied fastest
        self._n = 0
        self._known: dict[str, tuple[int, list[tuple[int, float]]]] = {}

    def _catch_up(self) -> None:
        new = self.index.written[self._n :]
        if self._n + len(new) > len(self._vectors):
            room = max(self._n + len(new), 2 * len(self._vectors))
            for name, shape in (("_vectors", (room, self._embedder.dim)), ("_begins", (_FIRST, room))):
                old, longer = getattr(self, name), np.zeros(shape, np.float32)
                longer[: old.shape[0], : old.shape[1]] = old
                setattr(self, name, longer)
        for start in range(0, len(new), _BLOCK):
            rows = self._embed(new[start : start + _BLOCK])
            at = slice(self._n, self._n + len(rows))
            self._vectors[at], self._begins[:, at] = rows, _unit(rows[:, :_FIRST]).T
            self._n += len(rows)

    def _embed(self, words: Sequence[str]) -> NDArray[np.float32]:
        # Numbers and codes are related to nothing.
        return self._embedder.embed([word if word.isalpha() else "" for word in words])

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
        vectors = self._embed(words)
        promising = _unit(vectors[:, :_FIRST]) @ self._begins[:, since : self._n]
        for word, vector, promise in zip(words, vectors, promising, strict=True):
            near = self._known.get(word, (0, []))[1]
            if vector.any():
                some = _highest(promise)
                cosines = self._vectors[since + some] @ vector
                best = np.argsort(-cosines)[: MOST + 1]
                weights = (cosines[best].astype(np.float64) - LEAST) / (1 - LEAST)
                found = zip((since + some[best]).tolist(), weights.tolist(), strict=True)
                near = [*near, *(pair for pair in found if pair[1] >= 0)]
                near.sort(key=lambda pair: (-pair[1], pair[0]))
            self._known[word] = (self._n, near[: MOST + 1])  # the word itself may be among them


def _highest(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the places of about `_TRIED` of the highest values; a sample tells how high that is."""
    step = max(len(values) // _SAMPLE, 1)
    sample = values[::step]
    wanted = _TRIED // step
    if len(sample) <= wanted:
        return np.arange(len(values))
    return np.flatnonzero(values >= np.partition(sample, -wanted)[-wanted])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
