"""Full-text search: the texts that hold the words of a question, best first by BM25, and nothing else.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). Words are taken from the rarest
to the most common, as in MaxScore (Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995): once
enough texts are found that no text with common words alone can beat, the texts that hold these are not gone through.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .evidence import Places
    from .index.lexical import LexicalIndex

    Floats = NDArray[np.floating[Any]]
    Numbers = NDArray[np.integer[Any]]

__all__ = ["Matches", "Word", "looked_for", "matches"]

_K1, _B = 0.9, 0.4
_SEARCHED = (
    16  # where so many times more texts hold a word than are in question, those in question are looked up in them
)
_EQUAL = 1 - 1e-5  # scores that differ by less are compared again, with more digits
_QUOTED = re.compile('"([^"]*)"')


class Word(NamedTuple):
    """A word, or several that stand side by side, as it was *written*.

    With its idf, the texts that hold it (ascending), how often each does, and the most that it adds to a score.
    """

    written: str
    idf: float
    texts: Numbers
    often: Numbers
    most: float


class Matches(NamedTuple):
    """Texts, best first: their numbers, scores from 0 to 1, and of each word (by rows) whether each text holds it."""

    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    held: NDArray[np.bool_]


def looked_for(index: LexicalIndex, asked: str) -> list[Word]:
    """Return the words of *asked*, each once; what stands there in double quotes is one, however many words it has."""
    quoted = {some: index.words.of(some) for some in _QUOTED.findall(asked)}
    phrases = {tuple(words): " ".join(some.split()) for some, words in quoted.items() if len(words) > 1}
    single = [some for some, words in quoted.items() if len(words) == 1]
    question = index.question(" ".join([_QUOTED.sub(" ", asked), *single]) if quoted else asked)
    words = [
        _word(written, float(idf), *index.postings(term))
        for written, term, idf in zip(question.written, question.terms, question.idf, strict=True)
    ]
    for phrase, written in phrases.items():
        texts, often = _side_by_side(index, phrase)
        words.append(_word(written, float(index.idf(len(texts))), texts, often))
    return words


def _word(written: str, idf: float, texts: Numbers, often: Numbers) -> Word:
    texts, often = _ascending(texts, often)
    top = float(often.max(initial=0))
    return Word(written, idf, texts, often, idf * (_K1 + 1) * top / (top + _K1 * (1 - _B)))


def _ascending(texts: Numbers, often: Numbers) -> tuple[Numbers, Numbers]:
    if (texts[1:] > texts[:-1]).all():
        return texts, often
    order = np.argsort(texts)  # of texts that were replaced, what came last is behind the others
    return texts[order], often[order]


def _side_by_side(index: LexicalIndex, words: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return the texts in which *words* stand one after the other, and how often."""
    terms = [index.term(word) for word in words]
    rarest, *others = sorted((_ascending(*index.postings(term)) for term in set(terms)), key=lambda one: len(one[0]))
    numbers = rarest[0].astype(np.int64)
    for texts, often in others:
        numbers = numbers[_often(texts, often, numbers) > 0]
    stream, ends = index.streams_of(numbers)
    owners = np.repeat(np.arange(len(numbers)), np.diff(ends, prepend=0))
    begins = max(len(stream) - len(terms) + 1, 0)
    there = owners[:begins] == owners[len(terms) - 1 :]
    for place, term in enumerate(terms):
        there &= stream[place : place + begins] == term
    often = np.bincount(owners[:begins][there], minlength=len(numbers))
    return numbers[often > 0], often[often > 0]


def matches(
    index: LexicalIndex,
    words: Sequence[Word],
    k: int,
    allowed: NDArray[np.bool_] | None,
    places: Places,
    *,
    every: bool,
) -> Matches:
    """Return the *k* texts of *index* that match *words* best: that hold any of them, or *every* one.

    *allowed* says of each text whether it may be found, None if all may; *places* is written on. A score is the share
    of what no text can reach. Of equal ones the text with the smaller number comes first.
    """
    lengths, slope = index.lengths(), _K1 * _B * max(index.held, 1) / max(index.total, 1)
    ordered = sorted(words, key=lambda word: len(word.texts))
    if every:
        numbers = _in_all(ordered, allowed)
    else:
        numbers = _in_any([word for word in ordered if len(word.texts)], k, lengths, slope, allowed, places)
    # Once more for the few that are left, in full precision, so that the order of adding does not matter.
    often = np.array([_often(word.texts, word.often, numbers) for word in words], np.float64)
    idf = np.array([[word.idf] for word in words])
    scores = _added(idf, often, lengths[numbers], slope).sum(axis=0) / ((_K1 + 1) * max(float(idf.sum()), 1e-9))
    best = np.lexsort((numbers, -scores))[:k]
    return Matches(numbers[best], scores[best], often[:, best] > 0)


def _added(idf: Any, often: Floats, lengths: Numbers, slope: float) -> Any:
    """Return what a word adds to texts: nothing where it stands 0 times."""
    slowness = lengths * often.dtype.type(slope) + often.dtype.type(_K1 * (1 - _B))
    return often / (often + slowness) * (idf * (_K1 + 1))


def _often(texts: Numbers, often: Numbers, numbers: Numbers) -> Numbers:
    """Return how often some texts are in postings (ascending)."""
    if not len(texts):
        return np.zeros(len(numbers), np.int32)
    at = np.searchsorted(texts, numbers.astype(texts.dtype))
    at[at == len(texts)] = 0
    return np.where(texts[at] == numbers, often[at], 0)


def _in_all(words: Sequence[Word], allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the texts that hold all *words*, of which the rarest is the first."""
    numbers = words[0].texts.astype(np.int64)
    if allowed is not None:
        numbers = numbers[allowed[numbers]]
    for word in words[1:]:
        numbers = numbers[_often(word.texts, word.often, numbers) > 0]
    return numbers


def _in_any(
    words: Sequence[Word],
    k: int,
    lengths: NDArray[np.int32],
    slope: float,
    allowed: NDArray[np.bool_] | None,
    places: Places,
) -> NDArray[np.int64]:
    """Return the texts that may be among the best *k*, from the *words* that some text holds, the rarest first."""
    numbers, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    still = sum(word.most for word in words)  # what a text can yet get
    for word in words:
        enough = _enough(scores, k)
        if enough > still:  # nobody new can be among them
            left = np.flatnonzero(scores + np.float32(still) >= enough)
            numbers, scores = numbers[left], scores[left]
            if len(numbers) * _SEARCHED < len(word.texts):
                scores += _added(
                    word.idf, _often(word.texts, word.often, numbers).astype(np.float32), lengths[numbers], slope
                )
            else:
                places.put(numbers, len(lengths))
                at = places.of(word.texts)
                held = np.flatnonzero(at >= 0)
                often, at = word.often[held].astype(np.float32), at[held]
                scores[at] += _added(word.idf, often, lengths[numbers[at]], slope)
        else:
            texts, often = word.texts.astype(np.int64), word.often.astype(np.float32)
            if allowed is not None:
                may = allowed[texts]
                texts, often = texts[may], often[may]
            parts = _added(word.idf, often, lengths[texts], slope)
            if len(numbers):
                places.put(numbers, len(lengths))
                at = places.of(texts)
                there = at >= 0
                scores[at[there]] += parts[there]
                texts, parts = np.concatenate([numbers, texts[~there]]), np.concatenate([scores, parts[~there]])
            numbers, scores = texts, parts
        still -= word.most
    return numbers[scores >= _enough(scores, k)]


def _enough(scores: NDArray[np.float32], k: int) -> float:
    """Return what the k-th best of some scores is, a trace less for what was rounded off; nothing where fewer are."""
    if not 0 < k <= len(scores):
        return 0.0
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) * _EQUAL
