"""Which words stand in which texts: postings in memory, for BM25 and what else a ranking wants to know of them.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf that is never
negative, log(1 + (N - n + 0.5) / (n + 0.5)), as Lucene has it.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["LexicalIndex", "Question"]


class Question(NamedTuple):
    """The words of a question, each once: its number in the index (-1 for one that no text holds) and its idf.

    `written` is how the question has it, `pairs` the positions in `terms` of words that stand side by side in it.
    """

    words: list[str]
    terms: list[int]
    idf: NDArray[np.float64]
    written: list[str]
    pairs: list[tuple[int, int]]

    @property
    def total(self) -> float:
        """The idf of all words together, of those that no text holds as well."""
        return float(self.idf.sum())


class LexicalIndex:
    """The words of numbered texts, which may be replaced and dropped. For one thread at a time."""

    def __init__(self, language: str = "english") -> None:
        self.words = Words(language)
        self._vocabulary: dict[str, int] = {}
        self.written: list[str] = []  # of each word, how it was first written
        self._texts: list[array[int]] = []  # of each word, the numbers of the texts that hold it
        self._counts: list[array[int]] = []  # likewise, how often each does
        self._stream: array[int] = array("i")  # the words of all texts, one after the other
        self._starts = array("q")  # of each text, where its words begin in there
        self._lengths = array("i")  # and how many they are
        self._lengths_now: NDArray[np.int32] | None = None  # a copy of the lengths, once somebody asked
        self._waste = 0  # words in the stream that belong to no text any more
        self.held = 0  # texts with words
        self.total = 0  # words of all texts

    def __len__(self) -> int:
        return len(self._lengths)

    def put(self, number: int, text: str | None) -> None:
        """Make *text* the text with that *number*: one that is there, or the next one. None is a text without words."""
        self._lengths_now = None
        if number == len(self):
            self._starts.append(0)
            self._lengths.append(0)
        elif self._lengths[number]:
            self._drop(number)
        words = self.words.of(text) if text else []
        if not words:
            return
        vocabulary = self._vocabulary
        # How the text has them, not how somebody asked for them before: what is found must not hang on old questions.
        new = {word for word in words if word not in vocabulary}
        written = self.words.shown(text, new) if new and text else {}
        terms: list[int] = []
        for word in words:
            term = vocabulary.get(word)
            if term is None:
                term = vocabulary[word] = len(vocabulary)
                self.written.append(written.get(word, word))
                self._texts.append(array("i"))
                self._counts.append(array("i"))
            terms.append(term)
        counts: dict[int, int] = {}
        for term in terms:
            counts[term] = counts.get(term, 0) + 1
        for term, count in counts.items():
            self._texts[term].append(number)
            self._counts[term].append(count)
        self._starts[number] = len(self._stream)
        self._lengths[number] = len(terms)
        self._stream.extend(terms)
        self.held += 1
        self.total += len(terms)

    def _drop(self, number: int) -> None:
        for term in set(self.stream_of(number).tolist()):
            at = int(np.flatnonzero(np.frombuffer(self._texts[term], np.int32) == number)[0])
            del self._texts[term][at], self._counts[term][at]
        self.held -= 1
        self.total -= self._lengths[number]
        self._waste += self._lengths[number]
        self._lengths[number] = 0
        if self._waste > max(100_000, self.total):
            self._compact()

    def _compact(self) -> None:
        stream: array[int] = array("i")
        for number, length in enumerate(self._lengths):
            start, self._starts[number] = self._starts[number], len(stream)
            stream.extend(self._stream[start : start + length])
        self._stream, self._waste = stream, 0

    # --- as arrays ----------------------------------------------------------------------------------------------

    def to_parts(self) -> dict[str, NDArray[Any] | list[str]]:
        """Return all of it as arrays and lists, from which `from_parts` makes it again."""
        texts, counts, sizes = self.postings_of(range(len(self._texts)))
        return {
            "vocabulary": list(self._vocabulary),
            "written": self.written,
            "texts": texts,
            "counts": counts,
            "sizes": sizes,
            "stream": np.array(self._stream, np.int32),
            "starts": np.array(self._starts, np.int64),
            "lengths": np.array(self._lengths, np.int32),
        }

    @classmethod
    def from_parts(cls, language: str, parts: Mapping[str, Any]) -> LexicalIndex:
        """Return the index that gave *parts*."""
        made = cls(language)
        made._vocabulary = {word: term for term, word in enumerate(parts["vocabulary"])}
        made.written = list(parts["written"])
        ends = np.cumsum(parts["sizes"]).tolist()
        bounds = list(zip([0, *ends], ends, strict=False))
        for lists, values in ((made._texts, parts["texts"]), (made._counts, parts["counts"])):
            raw = np.ascontiguousarray(values, np.int32).tobytes()
            lists += [array("i", raw[4 * start : 4 * end]) for start, end in bounds]
        for own, values, kind in (
            (made._stream, parts["stream"], np.int32),
            (made._starts, parts["starts"], np.int64),
            (made._lengths, parts["lengths"], np.int32),
        ):
            own.frombytes(np.ascontiguousarray(values, kind).tobytes())
        made.held, made.total = int(np.count_nonzero(parts["lengths"])), int(parts["lengths"].sum(dtype=np.int64))
        made._waste = len(made._stream) - made.total
        return made

    # --- asking -------------------------------------------------------------------------------------------------

    def question(self, text: str) -> Question:
        """Return the words of *text*, with their idf in this index."""
        order = self.words.of(text)
        words = list(dict.fromkeys(order))
        place = {word: at for at, word in enumerate(words)}
        terms = [self._vocabulary.get(word, -1) for word in words]
        texts = np.array([len(self._texts[term]) if term >= 0 else 0 for term in terms], np.float64)
        written = self.words.shown(text)
        pairs = dict.fromkeys((place[one], place[two]) for one, two in pairwise(order))
        return Question(
            words,
            terms,
            np.log1p((self.held - texts + 0.5) / (texts + 0.5)),
            [written.get(word, word) for word in words],
            [pair for pair in pairs if pair[0] != pair[1]],
        )

    def postings(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the numbers of the texts that hold a word, in no order, and how often each does."""
        if term < 0:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        # Copies, because an array that is looked at from elsewhere cannot grow.
        return np.array(self._texts[term], np.int32), np.array(self._counts[term], np.int32)

    def postings_of(self, terms: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        """Return the `postings` of several words one after the other, and how many there are of each."""
        # The views are gone when this returns.
        texts, counts = (
            np.concatenate([np.empty(0, np.int32), *(np.frombuffer(lists[term], np.int32) for term in terms)])
            for lists in (self._texts, self._counts)
        )
        return texts, counts, np.array([len(self._texts[term]) for term in terms], np.int64)

    def lengths(self) -> NDArray[np.int32]:
        """Return how many words each text has; not to be changed."""
        if self._lengths_now is None:
            self._lengths_now = np.array(self._lengths, np.int32)
        return self._lengths_now

    def stream_of(self, number: int) -> NDArray[np.int32]:
        """Return the words of one text, by their numbers, in their order."""
        start = self._starts[number]
        return np.array(self._stream[start : start + self._lengths[number]], np.int32)

    def streams_of(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the words of several texts, one text after the other, and of each word the place of its text."""
        starts, lengths = np.array(self._starts, np.int64)[numbers], self.lengths()[numbers]
        owners = np.repeat(np.arange(len(numbers)), lengths)
        before = np.cumsum(lengths) - lengths
        # A view that is gone at the end of this line: while it is there, the stream cannot grow.
        return np.frombuffer(self._stream, np.int32)[np.arange(len(owners)) + (starts - before)[owners]], owners

    def term(self, word: str) -> int:
        """Return the number of a word, ready as `Words` makes it; -1 if no text ever held it."""
        return self._vocabulary.get(word, -1)
