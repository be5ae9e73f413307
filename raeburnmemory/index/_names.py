"""Numbered texts: those of a saved index as bytes that stay where they are, those that came since as strings.

A list of a million strings takes a hundred megabytes, and a dictionary of them as much again. Bytes and where each
text ends take what they take in the file, may be mapped, and need no work when a memory is opened.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["Names", "Texts"]


class Texts:
    """Texts by their numbers, which are those of their coming."""

    def __init__(self, parts: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begin with what `to_parts` gave; these arrays must not change."""
        self._bytes: NDArray[np.uint8] = np.empty(0, np.uint8) if parts is None else parts["bytes"]
        self._ends: NDArray[np.int64] = np.empty(0, np.int64) if parts is None else parts["ends"]
        self._new: list[str] = []

    def __len__(self) -> int:
        return len(self._ends) + len(self._new)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        kept = len(self._ends)
        if place >= kept:
            return self._new[place - kept]
        if place < 0:
            raise IndexError(f"No text has the number {place}.")
        return _text(self._raw_at(place))

    def _raw_at(self, place: int) -> bytes:
        return self._bytes[self._ends.item(place - 1) if place else 0 : self._ends.item(place)].tobytes()

    def append(self, text: str) -> None:
        """Add a text behind the others."""
        self._new.append(text)

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays."""
        new = [_raw(text) for text in self._new]
        ends = np.cumsum([len(raw) for raw in new], dtype=np.int64) + len(self._bytes)
        return {
            "bytes": np.concatenate([self._bytes, np.frombuffer(b"".join(new), np.uint8)]),
            "ends": np.concatenate([self._ends, ends]),
        }


class Names(Texts):
    """Texts that are found again by what they say. Several may say the same."""

    def __init__(self, parts: Mapping[str, NDArray[Any]] | None = None) -> None:
        super().__init__(parts)
        self._hashes: NDArray[np.int64] = np.empty(0, np.int64) if parts is None else parts["hashes"]  # ascending
        self._order: NDArray[np.int32] = np.empty(0, np.int32) if parts is None else parts["order"]  # whose they are
        self._steps = self._hashes.data  # in which a step of a search takes a tenth of what it takes in an array
        self._places: dict[str, int] = {}  # of what came since the latest that says it, and what `place` found

    def append(self, text: str) -> None:
        """Add a text behind the others."""
        self._places[text] = len(self)
        super().append(text)

    def place(self, text: str) -> int:
        """Return the number of one that says *text*, -1 if none does, and remember it."""
        found = self._places.get(text)
        if found is None:
            found = next(self._saved(text), -1)
            if found >= 0:
                self._places[text] = found
        return found

    def find(self, text: str) -> Iterable[int]:
        """Return the numbers of those that say *text*, of those that came since only the latest, that first."""
        found = self._places.get(text)
        new = () if found is None else (found,)
        return chain(new, self._saved(text)) if len(self._steps) else new

    def _saved(self, text: str) -> Iterator[int]:
        if not len(self._steps):
            return
        raw = _raw(text)
        wanted = _hash(raw)
        at = bisect_left(self._steps, wanted)
        while at < len(self._steps) and self._steps[at] == wanted:
            place = self._order.item(at)
            if self._raw_at(place) == raw:  # two texts may have one hash
                yield place
            at += 1

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays."""
        kept = len(self._ends)
        hashes = np.concatenate([self._hashes, np.array([_hash(_raw(text)) for text in self._new], np.int64)])
        places = np.concatenate([self._order, np.arange(kept, len(self), dtype=np.int32)])
        order = np.argsort(hashes, kind="stable")
        return {**super().to_parts(), "hashes": hashes[order], "order": places[order]}


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _hash(raw: bytes) -> int:
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)
