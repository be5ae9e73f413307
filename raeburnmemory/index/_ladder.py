"""The search ladder: compare as much of every row as it takes to know, or to have checked, which are the nearest.

Filter first. Then, by how many rows are left:

- few: every row in float32;
- more: 8 bits a number, a quarter of the memory to go through, and a proof (see `_codes`) that no row that was left
  out can be among the nearest. The hits are those of float32, to the last bit;
- many: one bit a number tells what is too far, 8 bits choose the best of the rest, which are compared exactly, if a
  check on this very data has found by how much signs may mislead, and that they tell enough. Data of one topic, or
  vectors that mean nothing, fail it, and stay with the proof. So do questions to which too many rows may be near;
- very many: as before, and where too many rows may be near, those that differ in the fewest signs are looked at, as
  many as found nearly all in the check.

Who only wants most of the nearest (`rough`) gets them by signs, if the check allows it, from the second step on.

The limits are where each step began to win on two cores of 2026, at 384 numbers a row; see the page on benchmarks.
"""

from __future__ import annotations

import base64
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import fewest, floats, low, scores, scores_of
from ._codes import Scale, rounded, signs
from ._columns import Column
from ._file import DamagedError, not_used
from ._flat import FlatIndex
from ._given import checked_allowed
from ._self_check import ENOUGH, FIRST, REACHED, WORTH, checked, expected, lean
from ._signs import Signs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ._codes import Rounded
    from ._file import Saved

FEW = 8192  # rows that are compared in float32 where they are in place
FILED = 1024  # and where they have to be read from the cache file
TOLD = 100_000  # rows from which signs may tell what is too far
BITS = 300_000  # rows from which signs are tried, whatever they tell
CANDIDATES = 1000  # rows that signs propose at least
PATIENCE = 32  # searches among rows in place before these get short forms
EARLY = 8  # searches by signs before the codes are read from the file
_PER_HIT = 4  # and for each hit
_VAIN, _PAUSE = 8, 16  # after so many searches in a row of which signs tell too little, so many do without
_ROUGH_OF = 100  # where a rough search is enough, one row in so many is proposed
_PER_ROUGH = 20  # and for each of those that are many: the last of them are harder to tell by signs
_RARE = 20  # with fewer rows than that for each hit that is wanted, leaving rows out does not pay
_SPREAD = 4  # allowed rows are copied to be compared if all rows are at least so many times as many
_GATHERED = 16_384  # rows copied at a time
_ODD = (64, 100)  # rows that stand out: so many, and one in so many, before a new scale is looked for
_KEPT = 2048  # rows that stand out up to which they are kept in memory
_GROWN = 1.1  # by how much an index has to have grown for that
_GROWTH = 1.5  # by which an index has to grow before it is checked again
_WIDTH = 64  # candidates that a proof takes at least
_WIDEST_PROOF = 4096  # and that it begins with at most
_SAMPLE = 20_000  # rows that a scale is fitted to
_CHECKED = 32_768  # rows that a check compares where hits do not depend on its outcome
_WIDEST = 8192  # numbers a row; of longer ones, codes and signs are made anew after loading


class Ladder(FlatIndex):
    """An index that leaves out what cannot be near. A subclass says how codes and signs are compared."""

    def __init__(
        self,
        dim: int,
        *,
        few: int = FEW,
        filed: int = FILED,
        told: int = TOLD,
        bits: int = BITS,
        candidates: int = CANDIDATES,
        patience: int = PATIENCE,
    ) -> None:
        super().__init__(dim)
        self._in_place, self._in_file, self._candidates = few, min(few, filed), candidates
        self._told_of, self._many = min(told, bits), bits
        self._patience, self._compared_whole = patience, 0
        self._signs: Signs | None = None
        self._codes: Column | None = None
        self._unread: Saved | None = None  # the file that has the codes, until somebody needs them
        self._searched_early = 0  # without these
        self._centre: NDArray[np.float32] | None = None  # which the signs are without
        self._scale: Scale | None = None
        self._fitted = 0  # rows there were when the scale was chosen
        self._odd: NDArray[np.int64] = np.empty(0, np.int64)  # positions of rows that stand out, ascending
        self._odd_rows: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None  # these, once somebody asked
        self._width = _WIDTH  # candidates that the next proof probably needs
        self._in_vain = 0  # searches of late of which signs told too little
        # Rows there were at the last check, the share it found, with how many candidates, and how far signs reach.
        self._checked: tuple[int, float, int, float | None] | None = None

    # --- what a subclass does -----------------------------------------------------------------------------------

    @abstractmethod
    def _best(
        self, codes: NDArray[np.uint8], whole: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the *k* greatest products of *codes* (less 128) with *whole*, in descending order, and where they are.

        *among* (ascending) restricts them; fewer come back when there are fewer.
        """

    @abstractmethod
    def _differences(self, table: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
        """Return in how many bits each row of *table* differs from *query* (1, width); it is the caller's."""

    # --- which step ---------------------------------------------------------------------------------------------

    @property
    def _few(self) -> int:
        return self._in_place if self._table.table is not None else self._in_file

    @property
    def mode(self) -> str:
        """How a search without `allowed` compares now: "float32" (every row), "int8" (proven) or "bits" (checked)."""
        if len(self) <= self._few:
            return "float32"
        return "bits" if self._by_signs() else "int8"

    def _by_signs(self) -> bool:
        """Tell whether signs choose what is looked at: of very many rows, and of many, if they tell enough."""
        if len(self) < self._told_of or not self._trusted():
            return False
        assert self._checked is not None
        return len(self) >= self._many or self._checked[3] is not None

    def _near(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None, slack: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        available, few = self._count - len(self._dead) if within is None else len(within), self._few
        if available <= few or k * _RARE > available or not self._worth_it():
            self._compared_whole += available > few
            return super()._near(query, k, within, slack)
        if self._by_signs():
            within = self._reached(query, k, within)
            if within is not None and self._early():
                return super()._near(query, k, within, slack)
        return self._by_codes(query, k, within, slack)

    def rough(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what `search` does, or less for less: most of the *k* nearest, with scores within some hundredths.

        Raises:
            DimensionMismatch, InvalidInput, StoreCorrupt: As `search`.
        """
        self._settle()
        query = floats(vector)
        if self.mode == "float32" or k * _RARE > len(self) or query.shape != (self.dim,) or not query.any():
            return self.search(vector, k, allowed)
        return self._mending(lambda: self._rough(query, k, allowed))

    def _rough(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        within = None if allowed is None else self._positions(checked_allowed(allowed))
        if (within is not None and len(within) <= max(self._few, k * _RARE)) or not self._worth_it():
            return self.search(query, k, allowed)
        among = within
        if self._trusted():
            among = self._proposed(query, max(self._count // _ROUGH_OF, _PER_ROUGH * k), within)
        if among is not within and among is not None and self._early():
            found, values = super()._near(query, k, among, 0.0)
        else:
            found, values = self._promising(query, k, among)
        order = np.argsort(-values, kind="stable")[:k]
        return self._slots[found[order]], values[order]

    def _early(self) -> bool:
        """Tell whether what signs propose is compared whole: for some searches that reads less than all codes."""
        early = self._unread is not None and self._searched_early < EARLY
        self._searched_early += early
        return early

    def _worth_it(self) -> bool:
        """Tell whether short forms are there, or worth making: that takes as long as some whole comparisons."""
        return self._codes is not None or self._table.table is None or self._compared_whole >= self._patience

    # --- 8 bits -------------------------------------------------------------------------------------------------

    def _promising(
        self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return, ascending, the positions (*among* some, ascending) of the *k* best by their codes, and their scores.

        Those that stand out are there as well. The scores are those of the codes.
        """
        codes, odd = self._encoded(), self._odd
        assert self._scale is not None
        asked = rounded(query, self._scale)
        if among is None:
            k += len(self._dead)
        else:
            k, odd = min(k, len(among)), _both(among, odd)
        products, at = self._highest(codes, asked, k, among)
        living = self._alive(at)
        found, values = at[living], products[living] * np.float32(asked.worth) + np.float32(asked.common)
        rest = _without(np.sort(found), self._living(odd))
        found, values = np.append(found, rest), np.append(values, self._told(query, rest))
        order = np.argsort(found)
        return found[order], values[order]

    def _by_codes(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None, slack: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return, ascending, positions that hold the k nearest (of *within*) for certain, and their scores."""
        codes = self._encoded()
        assert self._scale is not None
        asked = rounded(query, self._scale)
        odd, copied = self._odd, None
        if within is not None:
            odd = _both(within, odd)
            if _scattered(within) and len(within) <= _GATHERED:  # copied once, however often they are asked
                copied = codes.take(within, axis=0)
        odd = self._living(odd)
        wanted, floor = max(2 * k, self._width) + len(self._dead), None
        while wanted * 2 < (self._count if within is None else len(within)):
            if within is None or copied is None:
                products, at = self._highest(codes, asked, wanted, within)
            else:
                products, at = self._best(copied, asked.whole, wanted, None)
                at = within[at]
            last, living = float(products[-1]), self._alive(at)
            if floor is None:
                # The k-th is about as near as its code says: what then reaches the floor is read together.
                likely = living & (products >= products[living][k - 1] - asked.doubt / asked.worth)
                first = _without(odd, np.sort(at[likely]))
                sure, best = np.append(first, odd), np.append(scores(self._table, query, first), self._told(query, odd))
                kth = float(np.partition(best, len(best) - k)[len(best) - k])
                floor = (kth - slack - asked.common - asked.doubt) / asked.worth
            if last < floor:  # so nothing that is not among them reaches it
                found = at[living & (products >= floor)]
                self._width = min(max(len(found) * 3 // 2, _WIDTH), _WIDEST_PROOF)
                rest = _without(first, _without(odd, np.sort(found)))
                if len(rest):
                    sure, best = np.append(sure, rest), np.append(best, scores(self._table, query, rest))
                order = np.argsort(sure)
                return sure[order], best[order]
            wanted *= 4
        return super()._near(query, k, within, slack)

    def _told(self, query: NDArray[np.float32], odd: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of those rows among the odd ones: every query asks for them, so they are kept."""
        if not len(odd):
            return np.empty(0, np.float32)
        if len(self._odd) > _KEPT:
            return scores(self._table, query, odd)
        if self._odd_rows is None or self._odd_rows[0] is not self._odd:
            self._odd_rows = self._odd, self._table.take(self._odd)
        rows = self._odd_rows[1]
        return scores_of(rows if len(odd) == len(self._odd) else rows[np.searchsorted(self._odd, odd)], query)

    def _alive(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(self._dead):
            return np.ones(len(positions), np.bool_)
        return np.isin(positions, self._dead, invert=True)

    def _highest(
        self, codes: NDArray[np.uint8], asked: Rounded, wanted: int, within: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if within is None:
            return self._best(codes, asked.whole, wanted, None)
        first, last = int(within[0]), int(within[-1])
        if last - first == len(within) - 1:
            products, at = self._best(codes[first : last + 1], asked.whole, wanted, None)
            return products, at + first
        if not _scattered(within):
            products, at = self._best(codes[first : last + 1], asked.whole, wanted, within - first)
            return products, at + first
        parts = []
        for block in _blocks(within):
            products, at = self._best(codes.take(block, axis=0), asked.whole, wanted, None)
            parts.append((products, block[at]))
        products, at = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(-products, kind="stable")[:wanted]
        return products[order], at[order]

    def _encoded(self) -> NDArray[np.uint8]:
        """Return the codes of all rows, made now where they are missing."""
        limit, share = _ODD
        self._read_codes()
        while True:
            if self._codes is None or self._scale is None:
                self._fit()
            assert self._codes is not None
            for _, block in self._table.blocks(len(self._codes)):
                self._encode(block)
            if len(self._odd) <= limit + self._count // share or self._count <= _GROWN * self._fitted:
                return self._codes.rows
            self._codes = None  # too many stand out of the rows that came since

    def _read_codes(self) -> None:
        """Take the codes from the file they are still in; damaged ones are made anew."""
        saved, self._unread = self._unread, None
        if saved is not None:
            try:
                self._codes = self._code_column(saved)
            except DamagedError as exc:
                not_used("in use", exc)
                self.mended = True

    def _fit(self) -> None:
        """Choose a scale for the rows that there are, and start the codes anew."""
        self._scale = Scale.fitting(self._sample())
        self._fitted = self._count
        self._codes = Column(self.dim, np.uint8, self._folder)
        self._odd = np.empty(0, np.int64)

    def _sample(self) -> NDArray[np.float32]:
        """Return rows from all over the index."""
        return self._table.take(np.arange(0, self._count, -(-self._count // _SAMPLE)))

    def _encode(self, rows: NDArray[np.float32]) -> None:
        assert self._codes is not None
        assert self._scale is not None
        codes, errors, lengths = self._scale.encode(rows)
        odd = np.flatnonzero((errors > self._scale.limit) | (lengths > self._scale.length))
        if len(odd):
            self._odd = np.concatenate([self._odd, len(self._codes) + odd])
        self._codes.append(codes)

    # --- signs --------------------------------------------------------------------------------------------------

    def _proposed(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Return, ascending, positions (of *within*) of *k* candidates or more; *within* if that has few more."""
        if (self._count if within is None else len(within)) < WORTH * k:
            return within
        some = self._some(within)
        return self._living(_at(some, fewest(self._differing(query, some), k + len(self._dead))))

    def _reached(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Return, ascending, positions (of *within*) of all that may be among the *k* nearest, as far as signs tell.

        *within* if it does not pay to leave rows out.
        """
        assert self._checked is not None
        _, _, candidates, reach = self._checked
        candidates = max(candidates, _PER_HIT * k)
        size = self._count if within is None else len(within)
        worth = len(self) >= self._many and size >= WORTH * candidates
        if not worth and (reach is None or size < self._told_of):
            return within
        if not worth and _VAIN <= self._in_vain < _VAIN + _PAUSE:
            self._in_vain += 1
            return within
        some = self._some(within)
        differ = self._differing(query, some)
        if reach is not None:
            assert self._centre is not None
            wanted = max(FIRST, 2 * k) + len(self._dead)
            near, limit = low(differ, min(wanted, len(differ)))
            few = differ[near]
            least = near[fewest(few, wanted)[: 2 * wanted]]
            usual, deviation = expected(query, self._centre, self._rows_near(_at(some, least)), k)
            # A whole number, as they are: compared with another one, each of them would be made a float first.
            most = max(int(usual + reach * deviation), int(differ[least].max()))
            found = near[few <= most] if most <= limit else np.flatnonzero(differ <= most)
            if len(found) <= (candidates if worth else size // REACHED):
                self._in_vain = 0
                return self._living(_at(some, found))
        if worth:
            return self._living(_at(some, fewest(differ, candidates + len(self._dead))))
        self._in_vain = min(self._in_vain, _VAIN - 1) + 1
        return within

    def _rows_near(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows at *positions* that are there, of their codes where these have been read."""
        living = self._living(positions)
        if self._unread is not None:
            return self._table.take(living)
        codes = self._encoded()
        assert self._scale is not None
        return self._scale.decode(codes.take(living, axis=0))

    def _some(self, within: NDArray[np.int64] | None) -> slice | NDArray[np.int64]:
        """Return *within*, or None for all, as a slice, if it is one."""
        if within is None:
            return slice(0, self._count)
        first, last = int(within[0]), int(within[-1])
        return slice(first, last + 1) if last - first == len(within) - 1 else within

    def _differing(self, query: NDArray[np.float32], within: slice | NDArray[np.int64]) -> NDArray[np.int32]:
        """Return in how many signs the rows at the positions *within* differ from *query*."""
        table = self._signed()
        return table.differences(self._asked(query), within, self._differences)

    def _asked(self, query: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the signs of *query*, for `_signed` rows."""
        assert self._centre is not None
        return signs(lean(query, self._centre)[np.newaxis])

    def _signed(self) -> Signs:
        """Return the signs of all rows, made now where they are missing."""
        if self._signs is None or self._centre is None:
            self._signs = Signs(self.dim, self._folder)
            self._centre = self._sample().mean(axis=0, dtype=np.float64).astype(np.float32)
        for _, block in self._table.blocks(len(self._signs)):
            self._signs.append(signs(block, self._centre))
        return self._signs

    def _trusted(self) -> bool:
        """Tell whether signs find what is to be found, by a check that is repeated when the index has grown."""
        if self._checked is None or self._count > _GROWTH * self._checked[0]:
            if self._checked is not None:
                self._signs = None  # made anew: what rows have in common has changed with them
            self._checked = (self._count, *self._check())
            if self._checked[1] < ENOUGH:
                self._signs = None
        return self._checked[1] >= ENOUGH

    def _check(self) -> tuple[float, int, float | None]:
        """Return the share of the nearest that signs find, with how many candidates, and how far signs reach."""
        step = 1 if self._count >= self._many else -(-self._count // _CHECKED)

        def differences(query: NDArray[np.float32]) -> NDArray[np.int32]:
            return self._differing(query, slice(0, self._count))

        self._signed()
        assert self._centre is not None
        return checked(self._table, self._dead, differences, self._centre, self._candidates, step)

    # --- removals and the file ----------------------------------------------------------------------------------

    def _drop(self, positions: NDArray[np.int64]) -> None:
        self._read_codes()
        super()._drop(positions)
        self._forget(positions)

    def _forget(self, lost: NDArray[np.int64]) -> None:
        self._unread = None  # a file that is given up is closed
        if self._signs is not None and len(made := lost[: np.searchsorted(lost, len(self._signs))]):
            self._signs.drop(made)
        if self._codes is not None and len(made := lost[: np.searchsorted(lost, len(self._codes))]):
            self._codes.drop(made)
            left = self._odd[np.isin(self._odd, made, invert=True)]
            self._odd = left - np.searchsorted(made, left)

    def _findings(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        mode = self.mode  # which may take a check: all vectors are read for it, and whoever loads this is spared that
        if self._checked is not None:
            found["check"] = self._checked
        if self.dim > _WIDEST:
            return found
        if self._signs_too(mode) and len(self._signed()):
            assert self._centre is not None
            found["centre"] = _packed(self._centre)
        if mode != "float32" and len(self._encoded()):
            assert self._scale is not None
            centre, *numbers = self._scale
            found["scale"] = [_packed(centre), *numbers]
            found["fitted"], found["odd"] = self._fitted, _packed(self._odd.astype("<i4"))
        return found

    def _signs_too(self, mode: str) -> bool:
        """Tell whether signs are to be saved: where they are used, and where somebody has used them."""
        return mode == "bits" or (mode == "int8" and self._signs is not None)

    def _columns(self, start: int) -> dict[str, Iterable[NDArray[Any]]]:
        columns, mode = super()._columns(start), self.mode
        if self._signs_too(mode) and self.dim <= _WIDEST:
            columns["signs"] = self._signed().blocks(start)
        if mode != "float32" and self.dim <= _WIDEST:
            columns["codes"] = _pieces(self._encoded()[start:])
        return columns

    def _adopt(self, saved: Saved, *, kept: bool) -> None:
        found = saved.found
        try:
            if "check" in found:
                count, share, candidates, reach = found["check"]
                self._checked = int(count), float(share), int(candidates), None if reach is None else float(reach)
            if saved.has("signs") and "centre" in found:
                self._centre = _unpacked(found["centre"], np.float32, self.dim)
                self._signs = Signs(self.dim, self._folder)
                for piece in saved.column("signs"):
                    self._signs.append(piece)
            if saved.has("codes") and "scale" in found:
                centre, *numbers = found["scale"]
                self._scale = Scale(_unpacked(centre, np.float32, self.dim), *map(float, numbers))
                self._fitted, self._odd = int(found["fitted"]), _unpacked(found["odd"], np.int32).astype(np.int64)
                if kept:
                    self._unread = saved
                else:
                    self._codes = self._code_column(saved)
        except (KeyError, TypeError, ValueError) as exc:  # what a checksum vouches for can only be wrong by intent
            raise DamagedError("its header is incomplete") from exc

    def _code_column(self, saved: Saved) -> Column:
        column = Column(self.dim, np.uint8, self._folder)
        for piece in saved.column("codes"):
            column.append(piece)
        return column


def _at(some: slice | NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions at *places* of *some*."""
    return some.start + places if isinstance(some, slice) else some[places]


def _both(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of *others* that are among *some* (ascending, not none)."""
    found: NDArray[np.int64] = others[some[np.minimum(np.searchsorted(some, others), len(some) - 1)] == others]
    return found


def _scattered(within: NDArray[np.int64]) -> bool:
    """Tell whether rows are so few of those between the first and the last that it pays to copy them."""
    return len(within) * _SPREAD <= int(within[-1]) - int(within[0])


def _without(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of *others* that are not among *some* (ascending); for a few, `np.setdiff1d` takes longer."""
    if not len(some):
        return others
    found: NDArray[np.int64] = others[some[np.minimum(np.searchsorted(some, others), len(some) - 1)] != others]
    return found


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _unpacked(text: str, kind: type, count: int = -1) -> NDArray[Any]:
    values: NDArray[Any] = np.frombuffer(base64.b64decode(text), np.dtype(kind).newbyteorder("<")).astype(kind)
    if count >= 0 and len(values) != count:
        raise ValueError("another length")
    return values


def _blocks(within: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(within), _GATHERED):
        yield within[start : start + _GATHERED]


def _pieces(table: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(table), _GATHERED):
        yield table[start : start + _GATHERED]
