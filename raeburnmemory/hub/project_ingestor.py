"""The ingestor of a project, which leaves alone what the hub keeps for itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency
from .documents import DocumentError
from .documents.model import digest
from .ingestor import Ingestor
from .intake import read_file
from .reports import IngestReport
from .scanning import file_uri, shown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph
    from .reports import IngestItem

__all__ = ["ProjectIngestor"]


class ProjectIngestor(Ingestor):
    """An `Ingestor` that reads no file of which *is_private* says that it is the hub's own."""

    def __init__(self, memory: MemoryGraph, is_private: Callable[[str], bool], **options: Any) -> None:
        super().__init__(memory, **options)
        self._is_private = is_private

    def add_upload(self, path: str, root: str) -> IngestItem:
        """Take in a file below the folder *root* as a sync of that folder does: by its name, and noted if it fails.

        Raises:
            DocumentError: It cannot be read.
            MissingDependency: A package that reads it is not installed.
            OSError: It is gone, or may not be read.
        """
        intake, uri = self._intake(IngestReport()), file_uri(path)
        read = read_file(path, self.settings.limits.size)
        seen = {"size": len(read.data), "mtime_ns": read.mtime_ns}
        name = shown_name(os.path.relpath(path, os.path.dirname(root))).replace(os.sep, "/")
        about = {"name": name, "source": "file", "root": file_uri(root), **seen}
        try:
            return intake.take(uri, read.data, about, name=os.path.basename(path))
        except (DocumentError, MissingDependency) as exc:
            intake.fail(uri, exc, about, name=name, **seen, content_hash=digest(read.data))
            raise

    def _is_own(self, path: str) -> bool:
        return super()._is_own(path) or self._is_private(path)
