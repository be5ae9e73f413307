"""Nearest vectors with numpy alone: the measure of the other indexes, and the one that needs no faiss."""

from __future__ import annotations

from ._flat import FlatIndex

__all__ = ["ExactIndex"]


class ExactIndex(FlatIndex):
    """All rows in one float32 table, every one of them compared.

    numpy multiplies whole numbers of 8 bits more slowly than float32, and reading rows from a file costs three times
    the comparing: so they stay where they can be compared in place.
    """

    name = "exact"
    _spills = False
    _held = None
