"""The memory for programs made with LangGraph: a store of items for agents and for LangMem's tools."""

from __future__ import annotations

from .store import RaeburnStore

__all__ = ["RaeburnStore"]
