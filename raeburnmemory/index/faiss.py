"""Nearest vectors with faiss: its products of whole numbers and its Hamming distances, for the ladder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ._ladder import Ladder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["FaissIndex"]

_BLOCK = 16_384  # rows copied at a time for a faiss that cannot look at ours in place


def _faiss() -> Any:
    """Return faiss, imported when it first has something to compare.

    That takes a third as long as opening a memory and asking it something; those of some thousand vectors go without.
    """
    import faiss  # annotated with the C++ constructors, not with those that it adds in Python

    return faiss


class FaissIndex(Ladder):
    """The ladder of `_ladder`, compared by faiss in place: faiss holds nothing."""

    name = "faiss"

    def _best(
        self, codes: NDArray[np.uint8], whole: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        faiss, parts = _faiss(), []
        for start, index in _viewed(codes):
            params = None
            if among is not None:
                bits = np.zeros(index.ntotal, np.bool_)
                low, high = np.searchsorted(among, (start, start + index.ntotal))
                bits[among[low:high] - start] = True
                packed = np.packbits(bits, bitorder="little")  # a name, so that it lives until the search is over
                selector = faiss.IDSelectorBitmap(packed)
                params = faiss.SearchParameters(sel=selector)
            with _one_thread():
                products, at = index.search(whole[np.newaxis], min(k, index.ntotal), params=params)
            there = at[0] >= 0
            parts.append((products[0][there], at[0][there] + start))
        if len(parts) == 1:
            return parts[0]
        products, at = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(-products, kind="stable")[:k]
        return products[order], at[order]

    def _differences(self, table: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.int32]:
        faiss = _faiss()
        table, query = np.ascontiguousarray(table), np.ascontiguousarray(query)
        found = np.empty(len(table), np.int32)
        faiss.hammings(*map(faiss.swig_ptr, (query, table)), 1, len(table), table.shape[1], faiss.swig_ptr(found))
        return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep faiss from waking threads for one query: they only wait, and where the machine is busy, so do we."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _scalar_index(dim: int) -> Any:
    faiss = _faiss()
    # Queries are cut to whole numbers, too: `whole` holds nothing else.
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)


def _viewed(codes: NDArray[np.uint8]) -> Iterator[tuple[int, Any]]:
    """Yield faiss indexes that together hold *codes*, and where each begins: one that looks at them in place."""
    if _looks():
        yield 0, _look(codes)
        return
    for start in range(0, len(codes), _BLOCK):
        yield start, _copied(codes[start : start + _BLOCK])


def _look(codes: NDArray[np.uint8]) -> Any:
    """Return an index over *codes* where they are; they have to live as long."""
    index = _scalar_index(codes.shape[1])
    view, pointer = index.codes, _faiss().swig_ptr(codes)
    view.is_owned = False
    view.view_data = view.c_ptr = pointer
    view.view_size = view.c_size = codes.size
    index.ntotal = len(codes)
    return index


def _copied(codes: NDArray[np.uint8]) -> Any:
    index = _scalar_index(codes.shape[1])
    index.add_sa_codes(np.ascontiguousarray(codes))
    return index


_can_look: bool | None = None


def _looks() -> bool:
    """Tell whether this faiss can look at codes in place, as those from 1.11 on can, by trying it."""
    global _can_look  # noqa: PLW0603  one answer for all
    if _can_look is None:
        _can_look = hasattr(_faiss(), "MaybeOwnedVectorUInt8")
        if _can_look:
            codes = np.arange(128, 192, dtype=np.uint8).reshape(8, 8)
            whole = np.arange(-4, 4, dtype=np.float32)
            products, at = _look(codes).search(whole[np.newaxis], 8)
            wanted = (codes.astype(np.float32) - 128) @ whole
            _can_look = bool(np.array_equal(products[0], wanted[at[0]])) and len(set(at[0].tolist())) == 8
    return _can_look
