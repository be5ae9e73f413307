"""Which words stand in which texts: postings in memory, for BM25 and what else a ranking wants to know of them.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf that is never
negative, log(1 + (N - n + 0.5) / (n + 0.5)), as Lucene has it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._arrays import grown
from ._names import Names, Texts
from ._words import LONG, Words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["LexicalIndex", "Question"]

_CACHED = 1 << 17  # chunks of texts whose words are remembered
_FEW = 1000  # chunks of a text that comes alone
_BLOCK = 1 << 14  # texts whose words are copied at once


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


class _Chunks(dict[str, int]):
    """Numbers of chunks of text, which is what stands between two white spaces; one that is new gets the next.

    It knows nothing of the index, so that both are gone as soon as nobody has the index any more.
    """

    def __init__(self, words: Words, vocabulary: Names, written: Texts, tell: Callable[[str], int] | None) -> None:
        super().__init__()
        self._words, self._vocabulary, self._written, self._tell = words, vocabulary, written, tell
        self.terms: array[int] = array("i")  # the words of all chunks, one chunk after the other
        self.stops: array[int] = array("q", [0])  # where the words of each end, behind where those of the first begin
        self.said = bytearray()  # of each chunk, what *tell* says

    def __missing__(self, chunk: str) -> int:
        for word, written in self._words.pairs(chunk):
            term = self._vocabulary.place(word)
            if term < 0:
                # How the text has it, not how somebody asked for it: what is found must not hang on old questions.
                term = len(self._vocabulary)
                self._vocabulary.append(word)
                self._written.append(written)
            self.terms.append(term)
        number = len(self.said)
        self.stops.append(len(self.terms))
        self.said.append(self._tell(chunk) if self._tell is not None else 0)
        if len(chunk) <= LONG:
            self[chunk] = number
        return number


class LexicalIndex:
    """The words of numbered texts, which may be replaced and dropped. For one thread at a time.

    What was saved stays as it is, in arrays that may be mapped, and what came since is beside it. Of saved texts that
    were replaced or dropped, the postings are skipped.
    """

    def __init__(
        self,
        language: str = "english",
        parts: Mapping[str, Any] | None = None,
        tell: Callable[[str], int] | None = None,
    ) -> None:
        """Begin with what `to_parts` gave; of these arrays only "starts" and "lengths" are changed.

        *tell* says in bits, eight at most, what else is to be known of a chunk of text; see `extend`.
        """
        self.words = Words(language)
        parts = parts or _EMPTY
        self._vocabulary = Names(_of("vocabulary", parts))
        self.written = Texts(_of("written", parts))  # of each word, how it was first written
        self._saved_texts: NDArray[np.int32] = parts["texts"]  # of each saved word the texts, one word after the other
        self._saved_counts: NDArray[np.int32] = parts["counts"]  # and how often each of them has it
        self._saved_ends = parts["ends"].data  # where each word's postings end; an array takes longer to look one up
        self._saved_stream: NDArray[np.int32] = parts["stream"]  # the words of all texts, one after the other
        self._new: dict[int, array[int]] = {}  # of each word, the texts that came since, each with how often it has it
        self._stream: array[int] = array("i")  # goes on where the saved one ends
        self._starts: NDArray[np.int64] = parts["starts"]  # of each text, where its words begin in both
        self._lengths: NDArray[np.int32] = parts["lengths"]  # and how many they are
        self._count = len(self._lengths)  # of these arrays the first so many are in use
        self._gone: NDArray[np.bool_] | None = None  # which saved texts are gone, once one is
        self._missing: dict[int, int] = {}  # of each word, how many of its saved texts are gone
        self._tell = tell
        self._forget_chunks()
        self._waste = 0  # words in the new stream that belong to no text any more
        self.held = int(np.count_nonzero(self._lengths))  # texts with words
        self.total = int(self._lengths.sum(dtype=np.int64))  # words of all texts

    def __len__(self) -> int:
        return self._count

    def put(self, number: int, text: str | None, before: str = "") -> int:
        """Make *text* the text with that *number*: one that is there, or the next one. None is a text without words.

        For *before* and what is returned, see `extend`.
        """
        if number == self._count:
            return int(self.extend([text], [before])[0])
        if self._lengths[number]:
            self._drop(number)
        return int(self._write([number], [text], [before])[0])

    def extend(self, texts: Sequence[str | None], before: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Take *texts* behind those that are there. Many at once cost less.

        A text that is not empty is also found by what stands *before* it, which ends with white space. What `tell`
        says of the chunks of each text, of those before it not, is returned together.
        """
        begun, self._count = self._count, self._count + len(texts)
        self._starts = grown(self._starts, begun, len(texts))
        self._lengths = grown(self._lengths, begun, len(texts))
        self._starts[begun : self._count] = self._lengths[begun : self._count] = 0
        return self._write(range(begun, self._count), texts, before or [""] * len(texts))

    def _write(self, numbers: Sequence[int], texts: Sequence[str | None], before: Sequence[str]) -> NDArray[np.uint8]:
        """Write *texts* under *numbers* (ascending), which have no words now."""
        if len(self._chunks.stops) > _CACHED:
            self._forget_chunks()
        # As `Words` takes texts apart, where every chunk is known as a rule.
        known = self._chunks.__getitem__
        chunks: list[int] = []
        bounds: list[int] = []
        for text, above in zip(texts, before, strict=True):
            if text and above:
                chunks += map(known, above.split())
            bounds.append(len(chunks))
            if text:
                chunks += map(known, text.split())
            bounds.append(len(chunks))
        if len(texts) == 1 and len(chunks) <= _FEW:
            return np.array([self._write_one(numbers[0], chunks, bounds[0])], np.uint8)
        found, at = np.array(chunks, np.int64), np.array(numbers)
        begins, ends = np.array(bounds, np.int64).reshape(-1, 2).T
        told = _together(np.frombuffer(self._chunks.said, np.uint8)[found], begins, ends)
        if not len(found):
            return told
        stream, sizes = self._words_of(found, ends)
        if not len(stream):
            return told
        self._starts[at] = len(self._saved_stream) + len(self._stream) + np.cumsum(sizes) - sizes
        self._lengths[at] = sizes
        self._stream.frombytes(stream.tobytes())
        self.held += int(np.count_nonzero(sizes))
        self.total += len(stream)

        # How often each word stands in each text, by word and then by text.
        keys = stream.astype(np.int64) * len(at) + np.repeat(np.arange(len(at)), sizes)
        keys.sort()
        firsts = np.flatnonzero(np.diff(keys, prepend=-1))
        terms_of, texts_of = np.divmod(keys[firsts], len(at))
        pairs = np.empty((len(firsts), 2), np.int32)
        pairs[:, 0], pairs[:, 1] = at[texts_of], np.diff(firsts, append=len(keys))
        begins = np.flatnonzero(np.diff(terms_of, prepend=-1))
        raw, ends = pairs.tobytes(), [*(begins[1:] * 8).tolist(), 8 * len(pairs)]
        for term, start, end in zip(terms_of[begins].tolist(), (begins * 8).tolist(), ends, strict=True):
            if term not in self._new:
                self._new[term] = array("i")
            self._new[term].frombytes(raw[start:end])
        return told

    def _write_one(self, number: int, chunks: Sequence[int], begin: int) -> int:
        """Do what `_write` does for a text of few *chunks*, its own from *begin* on; numpy takes longer than these."""
        terms, stops, told = self._chunks.terms, self._chunks.stops, 0
        for chunk in chunks[begin:]:
            told |= self._chunks.said[chunk]
        words = [word for chunk in chunks for word in terms[stops[chunk] : stops[chunk + 1]]]
        if words:
            self._starts[number] = len(self._saved_stream) + len(self._stream)
            self._lengths[number] = len(words)
            self._stream.extend(words)
            self.held += 1
            self.total += len(words)
            for term, count in Counter(words).items():
                if term not in self._new:
                    self._new[term] = array("i")
                self._new[term].extend((number, count))
        return told

    def _words_of(
        self, chunks: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the words of *chunks*, one chunk after the other, and how many there are up to each of *ends*."""
        # Views that are gone when this returns: until then, nothing can be learnt.
        terms, stops = np.frombuffer(self._chunks.terms, np.int32), np.frombuffer(self._chunks.stops, np.int64)
        begins = stops[chunks]
        each = stops[chunks + 1] - begins
        whole = np.cumsum(each)
        places = np.repeat(begins - whole + each, each)
        places += np.arange(len(places))
        return terms[places], np.diff(np.append(whole, 0)[ends - 1], prepend=0)

    def _forget_chunks(self) -> None:
        """Know no chunk of text any more."""
        self._chunks = _Chunks(self.words, self._vocabulary, self.written, self._tell)

    def _drop(self, number: int) -> None:
        length, terms = int(self._lengths[number]), set(self.stream_of(number).tolist())
        if self._starts[number] < len(self._saved_stream):
            if self._gone is None:
                self._gone = np.zeros(self._count, np.bool_)
            self._gone[number] = True
            for term in terms:
                self._missing[term] = self._missing.get(term, 0) + 1
        else:
            for term in terms:
                at = 2 * int(np.flatnonzero(np.frombuffer(self._new[term], np.int32)[::2] == number)[0])
                del self._new[term][at : at + 2]
            self._waste += length
        self.held -= 1
        self.total -= length
        self._lengths[number] = 0
        if self._waste > max(100_000, self.total):
            self._compact()

    def _compact(self) -> None:
        stream, kept = array("i"), len(self._saved_stream)
        for number in np.flatnonzero((self._starts[: self._count] >= kept) & (self.lengths() > 0)).tolist():
            start = int(self._starts[number]) - kept
            self._starts[number] = kept + len(stream)
            stream.extend(self._stream[start : start + int(self._lengths[number])])
        self._stream, self._waste = stream, 0

    # --- as arrays ----------------------------------------------------------------------------------------------

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, with which another index can begin."""
        texts, counts, sizes = self.postings_of(range(len(self._vocabulary)))
        lengths = self.lengths()
        blocks = [
            self.streams_of(np.arange(start, min(start + _BLOCK, self._count)))[0]
            for start in range(0, self._count, _BLOCK)
        ]
        return {
            **_named("vocabulary", self._vocabulary),
            **_named("written", self.written),
            "texts": texts,
            "counts": counts,
            "ends": np.cumsum(sizes),
            "stream": np.concatenate([np.empty(0, np.int32), *blocks]),
            "starts": np.cumsum(lengths, dtype=np.int64) - lengths,
            "lengths": lengths,
        }

    # --- asking -------------------------------------------------------------------------------------------------

    def question(self, text: str) -> Question:
        """Return the words of *text*, with their idf in this index."""
        order = self.words.of(text)
        words = list(dict.fromkeys(order))
        place = {word: at for at, word in enumerate(words)}
        terms = [self.term(word) for word in words]
        texts = np.array([self._spread(term) if term >= 0 else 0 for term in terms], np.float64)
        written = self.words.shown(text)
        pairs = dict.fromkeys((place[one], place[two]) for one, two in pairwise(order))
        return Question(
            words,
            terms,
            self.idf(texts),
            [written.get(word, word) for word in words],
            [pair for pair in pairs if pair[0] != pair[1]],
        )

    def idf(self, texts: Any) -> Any:
        """Return the idf of what so many *texts* hold: a number, or one for each of an array."""
        return np.log1p((self.held - texts + 0.5) / (texts + 0.5))

    def _spread(self, term: int) -> int:
        """Return how many texts hold a word."""
        start, end = self._saved_span(term)
        return end - start - self._missing.get(term, 0) + len(self._new.get(term, ())) // 2

    def _saved_span(self, term: int) -> tuple[int, int]:
        if term >= len(self._saved_ends):
            return 0, 0
        return (self._saved_ends[term - 1] if term else 0), self._saved_ends[term]

    def postings(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the numbers of the texts that hold a word, in no order, and how often each does; not to be changed."""
        if 0 <= term < len(self._saved_ends) and term not in self._new and term not in self._missing:
            start, end = self._saved_span(term)
            return self._saved_texts[start:end], self._saved_counts[start:end]
        texts, counts, _ = self.postings_of([term] if term >= 0 else [])
        return texts, counts

    def postings_of(self, terms: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        """Return the `postings` of several words one after the other, and how many there are of each."""
        texts, counts, sizes = [_NO_WORDS], [_NO_WORDS], []
        for term in terms:
            start, end = self._saved_span(term)
            size = end - start
            if size:
                held, often = self._saved_texts[start:end], self._saved_counts[start:end]
                if self._gone is not None and term in self._missing:
                    there = ~self._gone[held]
                    held, often = held[there], often[there]
                    size = len(held)
                texts.append(held)
                counts.append(often)
            new = self._new.get(term)
            if new:
                pairs = np.frombuffer(
                    new, np.int32
                )  # a view that is gone when this returns: until then, it cannot grow
                texts.append(pairs[::2])
                counts.append(pairs[1::2])
                size += len(new) // 2
            sizes.append(size)
        return np.concatenate(texts), np.concatenate(counts), np.array(sizes, np.int64)

    def lengths(self) -> NDArray[np.int32]:
        """Return how many words each text has; not to be changed, and valid until the next change."""
        return self._lengths[: self._count]

    def stream_of(self, number: int) -> NDArray[np.int32]:
        """Return the words of one text, by their numbers, in their order."""
        start, length = int(self._starts[number]), int(self._lengths[number])
        if start < len(self._saved_stream):
            return np.array(self._saved_stream[start : start + length])
        start -= len(self._saved_stream)
        return np.array(self._stream[start : start + length], np.int32)

    def streams_of(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the words of several texts, one text after the other, and where in there each text ends."""
        starts, lengths = self._starts[numbers], self._lengths[numbers]
        ends = np.cumsum(lengths, dtype=np.int64)
        places = np.repeat(starts - (ends - lengths), lengths)
        places += np.arange(len(places))
        kept = len(self._saved_stream)
        if not self._stream:
            return self._saved_stream.take(places), ends
        # Views that are gone when this returns: while they are there, the stream cannot grow.
        if not kept:
            return np.frombuffer(self._stream, np.int32).take(places), ends
        new = places >= kept
        found = np.empty(len(places), np.int32)
        found[~new] = self._saved_stream[places[~new]]
        found[new] = np.frombuffer(self._stream, np.int32)[places[new] - kept]
        return found, ends

    def term(self, word: str) -> int:
        """Return the number of a word, ready as `Words` makes it; -1 if no text ever held it."""
        return self._vocabulary.place(word)


_NO_WORDS = np.empty(0, np.int32)
_EMPTY: dict[str, NDArray[Any]] = {
    **dict.fromkeys(("texts", "counts", "stream", "lengths"), _NO_WORDS),
    **{name: np.empty(0, np.int64) for name in ("ends", "starts")},
}


def _together(bits: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return all bits from each of *begins* up to its end, together; these ascend."""
    if not bits.any():
        return np.zeros(len(begins), np.uint8)
    # Two by two, every other of them from an end to the next begin; a zero is there for what begins at the very end.
    pairs = np.stack([begins, ends], axis=1).reshape(-1)
    found = np.bitwise_or.reduceat(np.append(bits, np.uint8(0)), pairs)[::2]
    return np.where(begins < ends, found, np.uint8(0))


def _named(name: str, texts: Texts) -> dict[str, NDArray[Any]]:
    return {f"{name}.{part}": values for part, values in texts.to_parts().items()}


def _of(name: str, parts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return those of *parts* that belong to *name*, without it; None if there are none."""
    return {part[len(name) + 1 :]: values for part, values in parts.items() if part.startswith(f"{name}.")} or None
