"""Where a memory is and what it is made of, also where its files are damaged."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import InvalidInput, NotAStore, StoreMissing, UnknownBackend
from ..store import checked_path, is_postgres
from ..store._files import SWITCHING, database_is_free, write_failed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Backend", "Place", "find"]

Backend = Literal["json", "sqlite"]
_SUFFIXES = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".json": "json"}


class Place(NamedTuple):
    """A path without links in it, and the kind of store that is there, or belongs there."""

    path: Path
    backend: Backend

    @property
    def name(self) -> str:
        """The path as a string."""
        return str(self.path)


def find(location: Any, *, must_exist: bool = True) -> Place:
    """Return the place of a memory.

    What lies beside it tells more than its first bytes, which may be damaged; its name tells least.

    Raises:
        InvalidInput, UnknownBackend: It is no path of a file.
        StoreMissing: Nothing is there.
        NotAStore: What is there is no memory, and nothing beside it says that it was one.
        StoreWriteFailed: The system refused to open it.
    """
    from pathlib import Path

    name = checked_path(location)
    if name == ":memory:":
        raise InvalidInput("':memory:' has no files. Name the file of a memory.")
    if is_postgres(name):
        from .postgres_server import no_files

        raise no_files(name)
    if "://" in name:
        raise UnknownBackend(f"{name.split('@')[-1]!r} is no file. Name the file of a memory.")
    # A link that leads in a circle cannot be followed: then it is the link itself that is damaged.
    name = os.path.realpath(name) if os.path.exists(name) or not os.path.islink(name) else os.path.abspath(name)
    path = Path(name)
    told = _neighbours(name) or _first_bytes(name)
    there = os.path.lexists(name) or os.path.lexists(name + SWITCHING)
    if told is None and there and must_exist and path.suffix.lower() not in _SUFFIXES:
        raise NotAStore(f"{name!r} is neither JSON nor a SQLite database, and no memory. Choose another path.")
    if told is None and not there and must_exist:
        raise StoreMissing(errno.ENOENT, f"There is no memory at {name!r}. Check the path")
    backend = told or _SUFFIXES.get(path.suffix.lower(), "json")
    return Place(path, "sqlite" if backend == "sqlite" else "json")


def _neighbours(name: str) -> str | None:
    if os.path.lexists(name + ".journal") or os.path.lexists(name + ".vectors.json"):
        return "json"
    return "sqlite" if any(os.path.lexists(name + end) for end in ("-wal", ".prompt.index")) else None


def _first_bytes(name: str) -> str | None:
    if not os.path.isfile(name):
        return None
    with database_is_free(name) as free:
        if not free:
            return "sqlite"
        try:
            with open(name, "rb") as file:
                head = file.read(64)
        except OSError as exc:
            raise write_failed("read", name, exc) from exc
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["} else None
