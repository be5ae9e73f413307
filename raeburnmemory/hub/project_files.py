"""The files of projects: uploads and summaries in a folder of the hub, and those in directories where they lie.

Nothing is copied from a directory. What was seen in it by the last sync is kept in a file beside the uploads, which
the next sync makes anew.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import FolderMissing, NotThere
from .models.store import write_json
from .project_paths import checked_path, directory_part, escaped_name, is_growing, write_within
from .scanning import scan, shown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .projects import Directory

__all__ = ["ProjectFiles"]

UPLOADS, SUMMARIES = "uploads", "summaries"
SUMMARY = ".summary.md"
_LISTING = "listing.json"


class ProjectFiles:
    """The folder *root*, with one folder for each project by its number; *private* is what is never given away."""

    def __init__(self, root: str | os.PathLike[str], *, private: str | os.PathLike[str]) -> None:
        self.root = os.path.realpath(os.path.expanduser(root))
        self._private = os.path.join(os.path.realpath(os.path.expanduser(private)), "")
        self._lock = threading.Lock()

    def of(self, project_id: int) -> str:
        """Return the folder of a project."""
        return os.path.join(self.root, str(int(project_id)))

    def uploads(self, project_id: int) -> str:
        """Return the folder of its uploads."""
        return os.path.join(self.of(project_id), UPLOADS)

    def summaries(self, project_id: int) -> str:
        """Return the folder of its summaries."""
        return os.path.join(self.of(project_id), SUMMARIES)

    def is_private(self, path: str) -> bool:
        """Tell whether a real path is one of the hub's own files, and no upload."""
        within = os.path.join(path, "")
        roots = (os.path.join(self.root, ""), self._private)
        if not within.startswith(roots):
            return False
        parts = os.path.relpath(path, self.root).split(os.sep)
        return not (len(parts) > 2 and parts[0].isdecimal() and parts[1] == UPLOADS)

    def delete(self, project_id: int) -> None:
        """Delete the folder of a project."""
        shutil.rmtree(self.of(project_id), ignore_errors=True)

    # --- uploads and summaries ----------------------------------------------------------------------------------

    def upload(self, project_id: int, path: str, data: Any) -> str:
        """Write an upload; see `Projects.upload`."""
        path = checked_path(path)
        write_within(self.uploads(project_id), path, data)
        return path

    def summarised(self, project_id: int, path: str, text: str) -> str:
        """Write a summary of the file at *path*, relative to the uploads; return its path among the summaries."""
        path = checked_path(path) + SUMMARY
        write_within(self.summaries(project_id), path, text.encode())
        return path

    # --- directories --------------------------------------------------------------------------------------------

    def look_through(self, project_id: int, directories: Iterable[Directory]) -> int:
        """Note which files the directories hold, but for those that are ignored; return how many there are.

        Raises:
            FolderMissing: One of them is not there; of that one what is known stays.
        """
        missing, count = [], 0
        for directory in directories:
            if not os.path.isdir(directory.path):
                missing.append(directory.path)
                continue
            root = os.path.realpath(directory.path)
            found = scan(root, self.is_private)
            names = [os.path.relpath(file.path, root) for file in found.files.values()]
            count += len(names)
            self._note(project_id, directory.id, {"root": _packed(root), "files": [_packed(name) for name in names]})
        if missing:
            raise FolderMissing(
                f"There is no directory {', '.join(map(repr, missing))}.", remedy="Make it, or remove it here."
            )
        return count

    def forget_listing(self, project_id: int, directory_id: int) -> None:
        """Forget what was seen in a directory."""
        self._note(project_id, directory_id, None)

    def _note(self, project_id: int, directory_id: int, seen: dict[str, Any] | None) -> None:
        with self._lock:
            known = self._listing(project_id)
            known.pop(str(directory_id), None)
            if seen is not None:
                known[str(directory_id)] = seen
            os.makedirs(self.of(project_id), mode=0o700, exist_ok=True)
            write_json(Path(self.of(project_id), _LISTING), known)

    def _listing(self, project_id: int) -> dict[str, Any]:
        try:
            with open(os.path.join(self.of(project_id), _LISTING), encoding="utf-8") as file:
                found = json.load(file)
        except (FileNotFoundError, ValueError):  # made anew by the next sync
            return {}
        return found if isinstance(found, dict) else {}

    # --- what files are called ----------------------------------------------------------------------------------

    @staticmethod
    def project_part(name: str, number: int | None) -> str:
        """Return what stands before the files of a project; a number tells it from another of the same name."""
        return escaped_name(name) if number is None else f"{escaped_name(name)}={number}"

    def named(self, project: str, project_id: int, directories: Iterable[Directory]) -> dict[str, str]:
        """Return what each file is called, and where it lies: uploads, what directories hold, then summaries.

        *project* is what stands before all of them.
        """
        found = {f"{project}/{UPLOADS}/{name}": path for name, path in _below(self.uploads(project_id))}
        listing = self._listing(project_id)
        for directory in directories:
            seen = listing.get(str(directory.id), {})
            root = _unpacked(seen.get("root", ""))
            before = f"{project}/{UPLOADS}/{directory_part(directory.path)}"
            for name in map(_unpacked, seen.get("files", ())):
                called = f"{before}/{shown_name(name).replace(os.sep, '/')}"
                found.setdefault(called, os.path.join(root, name))
        for name, path in _below(self.summaries(project_id)):
            found[f"{project}/{SUMMARIES}/{name}"] = path
        return found

    def called(self, project: str, project_id: int, directories: Iterable[Directory], path: str) -> str:
        """Return what the file at a real *path* is called, without looking whether it is there.

        Raises:
            NotThere: It lies in no folder of the project.
        """
        own = os.path.join(self.uploads(project_id), "")
        if path.startswith(own):
            return f"{project}/{UPLOADS}/{shown_name(path[len(own) :]).replace(os.sep, '/')}"
        for directory in directories:
            root = os.path.join(os.path.realpath(directory.path), "")
            if path.startswith(root):
                name = shown_name(path[len(root) :]).replace(os.sep, "/")
                return f"{project}/{UPLOADS}/{directory_part(directory.path)}/{name}"
        raise NotThere(f"The file {shown_name(path)!r} is in no directory of the project.")


def _below(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the plain files below a folder of our own, each with its path within it; links are left out."""
    for at, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(at, name)
            if not os.path.islink(path) and not is_growing(name):
                yield os.path.relpath(path, folder).replace(os.sep, "/"), path


# Names may hold bytes that are no text.


def _packed(path: str) -> str:
    return quote_from_bytes(os.fsencode(path), safe="/ ~!$&'()*+,;=:@")


def _unpacked(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))
