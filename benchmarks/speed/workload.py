"""What is stored and asked: clustered vectors, words as often as in languages, sessions, agents, rising time.

Everything follows from a seed and the number of the row, so that every system gets the same and nothing has to be kept:
a million rows are made in blocks of ten thousand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .rows import Rows

__all__ = ["BLOCK", "DIM", "Clustered", "Questions", "Truth", "Workload", "Written"]

BLOCK = 10_000
DIM = 384
WORDS = 20_000
WORDS_PER_TEXT = 29
COMMON = 20  # the most common words are in no question, as stop words would be
START = 1_704_067_200  # 2024-01-01
SECONDS_PER_ROW = 60
AGENTS = 8
TOPICS = 2_000
SHARED = 64  # directions in which most of the noise within topics lies
SHARED_NOISE, OWN_NOISE = 0.7, 0.35  # lengths, where the topic itself has 1: cosine within a topic about 0.6


@dataclass(frozen=True)
class Questions:
    """What is asked: vectors, three words each, a session each, and a time from which to before which."""

    vectors: NDArray[np.float32]
    words: list[list[str]]
    sessions: list[str]
    spans: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.words)


class Workload(Protocol):
    """Rows by number, and questions about the first so many of them."""

    name: str
    dim: int

    def rows(self, first: int, count: int) -> Rows:
        """Return *count* rows from number *first* on."""

    def questions(self, size: int, count: int) -> Questions:
        """Return *count* questions to a store of the first *size* rows."""


class _Blocks:
    """Rows out of blocks, of which the last one is kept."""

    _number = -1
    _rows: Rows

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def rows(self, first: int, count: int) -> Rows:
        parts = []
        for number in range(first // BLOCK, (first + count - 1) // BLOCK + 1):
            if number != self._number:
                self._number, self._rows = number, self.block(number)
            parts.append(self._rows.cut(max(0, first - number * BLOCK), first + count - number * BLOCK))
        return parts[0] if len(parts) == 1 else Rows.joined(parts)

    def block(self, number: int) -> Rows:
        raise NotImplementedError

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])

    def _around(self, number: int, rng: np.random.Generator) -> tuple[list[str], list[str], list[int]]:
        """Return the sessions, agents and times of a block; sessions of 30 to 70 rows end with it."""
        ends = np.cumsum(rng.integers(30, 71, BLOCK // 30))
        sessions = [f"s{number}-{at}" for at in np.searchsorted(ends, np.arange(BLOCK), "right").tolist()]
        agents = [f"agent-{at}" for at in rng.integers(0, AGENTS, BLOCK).tolist()]
        start = START + number * BLOCK * SECONDS_PER_ROW
        times = np.sort(rng.integers(start, start + BLOCK * SECONDS_PER_ROW, BLOCK)).tolist()
        return sessions, agents, times

    def _about(
        self, size: int, count: int, common: set[str]
    ) -> tuple[list[list[str]], list[str], list[tuple[int, int]]]:
        """Return words, sessions and spans of a tenth of the time, taken from some of the first *size* rows."""
        rng = self._rng(3, size)
        words, sessions = [], []
        for at in np.sort(rng.integers(0, size, count)).tolist():  # sorted, so that each block is made once
            row = self.rows(at, 1)
            known = sorted({word for word in row.texts[0].split() if word not in common})
            words.append([known[one] for one in rng.permutation(len(known))[:3].tolist()])
            sessions.append(row.sessions[0])
        whole = size * SECONDS_PER_ROW
        starts = START + rng.integers(0, whole - whole // 10 + 1, count)
        return words, sessions, [(int(start), int(start) + whole // 10) for start in starts]


class Clustered(_Blocks):
    """Vectors of uneven topics whose noise lies mostly in shared directions, and words drawn by Zipf's law."""

    name = "clustered"

    def __init__(self, seed: int = 0, dim: int = DIM) -> None:
        super().__init__(seed)
        self.dim = dim
        rng = self._rng(0)
        self._topics = _unit(rng.standard_normal((TOPICS, dim), np.float32))
        self._odds = _zipf(TOPICS)
        self._shared = np.linalg.qr(rng.standard_normal((dim, min(SHARED, dim))))[0].T.astype(np.float32)
        self._words = made_up_words(WORDS)
        self._word_odds = np.cumsum(_zipf(WORDS))

    def vectors(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return *count* vectors of length 1."""
        topics = np.searchsorted(np.cumsum(self._odds), rng.random(count)).clip(max=TOPICS - 1)
        shared = rng.standard_normal((count, len(self._shared)), np.float32) @ self._shared
        rows = rng.standard_normal((count, self.dim), np.float32)
        rows *= np.float32(OWN_NOISE / np.sqrt(self.dim))
        rows += self._topics[topics]
        rows += np.float32(SHARED_NOISE / np.sqrt(len(self._shared))) * shared
        return _unit(rows)

    def block(self, number: int) -> Rows:
        rng = self._rng(1, number)
        places = np.searchsorted(self._word_odds, rng.random((BLOCK, WORDS_PER_TEXT))).clip(max=WORDS - 1)
        texts = [" ".join(row) for row in self._words[places].tolist()]
        first = number * BLOCK
        return Rows(list(range(first, first + BLOCK)), texts, *self._around(number, rng), self.vectors(BLOCK, rng))

    def questions(self, size: int, count: int) -> Questions:
        vectors = self.vectors(count, self._rng(2, size))
        return Questions(vectors, *self._about(size, count, set(self._words[:COMMON].tolist())))


class Written(_Blocks):
    """Texts of real words, about one matter each, with the vectors that the builtin embedder gives them."""

    name = "written"

    def __init__(self, seed: int = 0) -> None:
        from raeburnmemory.embed.builtin import BuiltinEmbedder

        from ..latency import Writer

        super().__init__(seed)
        self._embedder, self._writer = BuiltinEmbedder(), Writer()
        self.dim = self._embedder.dim
        self._matters = self._rng(0).integers(COMMON, len(self._writer.words), (TOPICS, 40))

    def _texts(self, count: int, rng: np.random.Generator) -> list[str]:
        words = rng.choice(len(self._writer.words), (count, WORDS_PER_TEXT), p=self._writer.odds)
        matters = self._matters[rng.choice(TOPICS, count, p=_zipf(TOPICS))]
        of_matter = np.take_along_axis(matters, rng.integers(0, matters.shape[1], (count, WORDS_PER_TEXT)), axis=1)
        places = np.where(rng.random((count, WORDS_PER_TEXT)) < 0.3, of_matter, words)
        return [" ".join(row) for row in self._writer.words[places].tolist()]

    def block(self, number: int) -> Rows:
        rng = self._rng(1, number)
        texts, first = self._texts(BLOCK, rng), number * BLOCK
        return Rows(list(range(first, first + BLOCK)), texts, *self._around(number, rng), self._embedder.embed(texts))

    def questions(self, size: int, count: int) -> Questions:
        texts = [" ".join(text.split()[:8]) for text in self._texts(count, self._rng(2, size))]
        common = set(self._writer.words[:COMMON].tolist())
        return Questions(self._embedder.embed(texts), *self._about(size, count, common))


def made_up_words(count: int) -> NDArray[np.str_]:
    """Return *count* words that are in no language's list of stop words, and that no stemmer shortens to the same."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprtvz", "aiou")]
    words = ("".join(three) for three in itertools.product(syllables, repeat=3))
    step = 7  # neighbours in the list, and so in frequency, should not look alike
    some = list(itertools.islice(words, count * step))[::step]
    return np.array(np.random.default_rng(0).permutation(some))


def _zipf(count: int) -> NDArray[np.float64]:
    odds = 1 / np.arange(1, count + 1)
    return odds / odds.sum()


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


class Truth:
    """The nearest rows of each question by exact cosine: of all, of one session, and of one span of time."""

    KINDS = ("vector", "session", "time")
    _SPARE = 10  # rows kept beyond the k-th: ties count as found
    _SAME = 1e-6

    def __init__(self, questions: Questions, k: int = 10) -> None:
        self.k = k
        self._questions = questions
        self._best: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
            kind: (
                np.full((len(questions), k + self._SPARE), -np.inf, np.float32),
                np.full((len(questions), k + self._SPARE), -1, np.int64),
            )
            for kind in self.KINDS
        }

    def see(self, rows: Rows) -> None:
        """Take more rows into account."""
        asked = self._questions
        scores = asked.vectors @ rows.vectors.T
        sessions, times = np.array(rows.sessions), np.array(rows.times)
        inside = {
            "vector": np.ones((len(asked), len(rows)), np.bool_),
            "session": np.array(asked.sessions)[:, None] == sessions,
            "time": np.array([(times >= since) & (times < until) for since, until in asked.spans]),
        }
        ids = np.broadcast_to(np.array(rows.ids), scores.shape)
        for kind, mask in inside.items():
            old_scores, old_ids = self._best[kind]
            all_scores = np.concatenate([old_scores, np.where(mask, scores, -np.inf)], axis=1)
            all_ids = np.concatenate([old_ids, np.where(mask, ids, -1)], axis=1)
            width = old_scores.shape[1]
            at = np.argpartition(-all_scores, width - 1, axis=1)[:, :width]
            at = np.take_along_axis(at, np.argsort(-np.take_along_axis(all_scores, at, 1), axis=1, kind="stable"), 1)
            self._best[kind] = (np.take_along_axis(all_scores, at, 1), np.take_along_axis(all_ids, at, 1))

    def recall(self, kind: str, number: int, found: list[int]) -> float:
        """Return the share of the right answers to question *number* that are in *found*."""
        scores, ids = (part[number] for part in self._best[kind])
        there = int((ids >= 0).sum())
        if not there:
            return 1.0
        wanted = min(self.k, there)
        right = set(ids[(ids >= 0) & (scores >= scores[wanted - 1] - self._SAME)].tolist())
        return min(len(right & set(found[: self.k])), wanted) / wanted


def blocks_of(workload: Workload, size: int, step: int = BLOCK) -> Iterator[Rows]:
    """Yield the first *size* rows, at most *step* at a time."""
    for first in range(0, size, step):
        yield workload.rows(first, min(step, size - first))
