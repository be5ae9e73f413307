"""The ingestor of a project, which leaves alone what the hub keeps for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ingestor import Ingestor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph

__all__ = ["ProjectIngestor"]


class ProjectIngestor(Ingestor):
    """An `Ingestor` that reads no file of which *is_private* says that it is the hub's own."""

    def __init__(self, memory: MemoryGraph, is_private: Callable[[str], bool], **options: Any) -> None:
        super().__init__(memory, **options)
        self._is_private = is_private

    def _is_own(self, path: str) -> bool:
        return super()._is_own(path) or self._is_private(path)
