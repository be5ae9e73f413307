"""Projects: names under which directories, uploads and what was made of them belong together.

A project is an item of the memory, see `raeburnmemory.items`, and so is each of its directories. Their numbers are
never used again. What is removed stays as an item that says so. The documents of a project are one collection of an
`Ingestor`; its uploads and summaries lie in a folder that bears its number.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..items import Get, Put, Search
from ..records import checked_text, shown, utc
from .errors import NotThere, PathRefused
from .project_files import ProjectFiles

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph
    from .fetching import UrlPolicy
    from .ingestor import IngestReport
    from .project_ingestor import ProjectIngestor

__all__ = ["Directory", "Project", "Projects"]

COLLECTION = "raeburnmemory.hub"  # of the items that are projects and directories
UNNAMED = "New Project"

_PROJECTS, _DIRECTORIES, _COUNTERS = ("projects",), ("directories",), ("counters",)
_ALL = 1_000_000
_LONGEST = 200  # letters of a name


@dataclass(frozen=True)
class Project:
    """A project; times are in UTC, ISO 8601."""

    id: int
    name: str
    is_removed: bool = False
    created_at: str = ""

    @property
    def collection(self) -> str:
        """The collection that its documents are in."""
        return f"project-{self.id}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Directory:
    """A directory whose files belong to a project; `path` is absolute."""

    id: int
    path: str
    project_id: int
    is_removed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Projects:
    """The projects of one namespace of *memory*; files of theirs lie in *folder*.

    Several processes may work on them at once. Nothing below *private* is ever read as a file of a project but what
    was uploaded. *url_policy* and *chunker* are those of `Ingestor`.
    """

    def __init__(
        self,
        memory: MemoryGraph,
        folder: str | os.PathLike[str],
        *,
        private: str | os.PathLike[str] | None = None,
        url_policy: UrlPolicy | None = None,
        chunker: Any = "auto",
    ) -> None:
        self.memory = memory
        self.files = ProjectFiles(folder, private=folder if private is None else private)
        self._items = memory._items(COLLECTION)  # noqa: SLF001 - its door for such
        self._url_policy, self._chunker = url_policy, chunker

    # --- projects -----------------------------------------------------------------------------------------------

    def list(self, *, removed: bool = False) -> builtins.list[Project]:
        """Return the projects, the oldest first; with *removed* those too that were removed."""
        found = [Project(**value) for value in self._values(_PROJECTS)]
        return sorted((one for one in found if removed or not one.is_removed), key=lambda one: one.id)

    def get(self, project_id: int) -> Project:
        """Return a project.

        Raises:
            NotThere: There is none of that number, or it was removed.
        """
        value = self._value(_PROJECTS, project_id)
        if value is None or value["is_removed"]:
            raise NotThere(f"There is no project {project_id}.", remedy="List them to see which there are.")
        return Project(**value)

    def named(self, name: str) -> Project:
        """Return the project of that name.

        Raises:
            NotThere: There is none, or there are several.
        """
        found = [one for one in self.list() if one.name == name]
        if len(found) != 1:
            many = "Several projects are" if found else "No project is"
            raise NotThere(f"{many} called {shown(name)}.", remedy="Name one that is there once.")
        return found[0]

    def create(self, name: str = "") -> Project:
        """Make a project; without a name it is called `New Project`.

        Raises:
            InvalidInput: The name cannot be stored.
        """
        name = _checked_name(name)
        with self.memory.exclusive():
            project = Project(self._next("project"), name, created_at=utc(None))
            self._write(_PROJECTS, project, "project")
        return project

    def rename(self, project_id: int, name: str) -> Project:
        """Give a project another name.

        Raises:
            InvalidInput: The name cannot be stored.
            NotThere: There is no such project.
        """
        name = _checked_name(name)
        with self.memory.exclusive():
            project = replace(self.get(project_id), name=name)
            self._write(_PROJECTS, project)
        return project

    def remove(self, project_id: int, *, files: bool = False) -> Project:
        """Remove a project: its documents leave the memory. Uploads and summaries stay on the disk unless *files*.

        The directories of others are never touched.

        Raises:
            NotThere: There is no such project.
        """
        with self.memory.exclusive():
            project = replace(self.get(project_id), is_removed=True)
            self._write(_PROJECTS, project)
        documents = self.memory._documents(project.collection)  # noqa: SLF001 - its door for such
        documents.remove([entry.id for entry in documents.all()])
        if files:
            self.files.delete(project.id)
        return project

    # --- directories --------------------------------------------------------------------------------------------

    def directories(self, project_id: int) -> builtins.list[Directory]:
        """Return the directories of a project, the oldest first.

        Raises:
            NotThere: There is no such project.
        """
        self.get(project_id)
        found = [Directory(**value) for value in self._values(_DIRECTORIES) if value["project_id"] == project_id]
        return sorted((one for one in found if not one.is_removed), key=lambda one: one.id)

    def directory(self, directory_id: int) -> Directory:
        """Return a directory of a project.

        Raises:
            NotThere: There is none of that number, or it was removed.
        """
        value = self._value(_DIRECTORIES, directory_id)
        if value is None or value["is_removed"]:
            raise NotThere(f"There is no directory {directory_id}.", remedy="List those of the project.")
        return Directory(**value)

    def add_directory(self, project_id: int, path: str) -> Directory:
        """Let the files of a directory belong to a project, from the next sync on; the same one twice is once.

        Raises:
            PathRefused: The path is empty or not absolute, or the hub keeps its own files there.
            NotThere: There is no such project.
        """
        path = self._checked_directory(path)
        with self.memory.exclusive():
            for known in self.directories(project_id):
                if known.path == path:
                    return known
            directory = Directory(self._next("directory"), path, project_id)
            self._write(_DIRECTORIES, directory, "directory")
        return directory

    def remove_directory(self, directory_id: int) -> Directory:
        """Let a directory belong to its project no more: the documents from it leave the memory, the files stay.

        Raises:
            NotThere: There is no such directory.
        """
        with self.memory.exclusive():
            directory = replace(self.directory(directory_id), is_removed=True)
            self._write(_DIRECTORIES, directory)
        self.files.forget_listing(directory.project_id, directory.id)
        self._let_go(directory.project_id)
        return directory

    def _checked_directory(self, path: str) -> str:
        checked_text(path, "the path of a directory")
        if not path.strip():
            raise PathRefused("The path is empty.", remedy="Name a directory, such as '/home/ana/notes'.")
        if "\0" in path or not os.path.isabs(os.path.expanduser(path)):
            raise PathRefused(f"The path {shown(path)} is not absolute.", remedy="Write it from its root on.")
        found = os.path.normpath(os.path.expanduser(path))
        if self.files.is_private(os.path.realpath(found)):
            raise PathRefused(f"The hub keeps its own files in {found!r}.", remedy="Name another directory.")
        return found

    # --- files and documents ------------------------------------------------------------------------------------

    def upload(self, project_id: int, path: str, data: Any) -> str:
        """Keep a file, bytes or an open file, at a relative path among the uploads of a project; return that path.

        Raises:
            PathRefused: The path leads elsewhere.
            NotThere: There is no such project.
        """
        self.get(project_id)
        return self.files.upload(project_id, path, data)

    def sync_files(self, project_id: int) -> int:
        """Look through the directories of a project, and return how many files there are.

        Raises:
            FolderMissing: A directory is not there; the others were looked through.
            NotThere: There is no such project.
        """
        return self.files.look_through(project_id, self.directories(project_id))

    def list_files(self, project_id: int) -> dict[str, str]:
        """Return the files of a project as they were at the last `sync_files`: what each is called, and where it lies.

        Raises:
            NotThere: There is no such project.
        """
        project = self.get(project_id)
        return self.files.named(self.shown_name(project), project_id, self.directories(project_id))

    def shown_name(self, project: Project) -> str:
        """Return what stands before the files of a project: its escaped name, and its number where it shares that."""
        first = min((one.id for one in self.list() if one.name == project.name), default=project.id)
        return self.files.project_part(project.name, None if first == project.id else project.id)

    def ingestor(self, project_id: int) -> ProjectIngestor:
        """Return what takes documents into a project.

        Raises:
            NotThere: There is no such project.
        """
        from .project_ingestor import ProjectIngestor

        project = self.get(project_id)
        return ProjectIngestor(
            self.memory,
            self.files.is_private,
            collection=project.collection,
            url_policy=self._url_policy,
            chunker=self._chunker,
        )

    def ingest(
        self,
        project_id: int,
        *,
        progress: Callable[[str, int, int, str], Any] | None = None,
        cancel: Callable[[], bool] | None = None,
        force: bool = False,
    ) -> IngestReport:
        """Bring the documents of a project up to date with its directories and uploads; see `Ingestor.sync`.

        Raises:
            NotThere: There is no such project.
        """
        sources = [one.path for one in self.directories(project_id)]
        if os.path.isdir(uploads := self.files.uploads(project_id)):
            sources.append(uploads)
        self._let_go(project_id)
        return self.ingestor(project_id).sync(sources, progress=progress, cancel=cancel, force=force)

    def _let_go(self, project_id: int) -> None:
        """Remove documents of files that lie in no directory of a project any more."""
        from .syncing import path_of

        roots = [os.path.realpath(one.path) for one in self.directories(project_id)]
        roots.append(self.files.uploads(project_id))
        inside = tuple(os.path.join(root, "") for root in roots)
        documents = self.memory._documents(self.get(project_id).collection)  # noqa: SLF001 - its door for such
        gone = [
            entry.id
            for entry in documents.all()
            if entry.attributes.get("source") == "file"
            and (path := path_of(entry.uri)) is not None
            and not path.startswith(inside)
        ]
        documents.remove(gone)

    # --- items --------------------------------------------------------------------------------------------------

    def _values(self, path: tuple[str, ...]) -> builtins.list[dict[str, Any]]:
        [found] = self._items.read([Search(path, limit=_ALL)])
        return [item.value for item in found]

    def _value(self, path: tuple[str, ...], number: int) -> dict[str, Any] | None:
        [found] = self._items.read([Get(path, str(number))])
        return found[0].value if found else None

    def _next(self, what: str) -> int:
        [found] = self._items.read([Get(_COUNTERS, what)])
        return int(found[0].value["last"]) + 1 if found else 1

    def _write(self, path: tuple[str, ...], value: Project | Directory, counted: str | None = None) -> None:
        """Write an item, and with it the number that is taken now: neither is there without the other."""
        puts = [Put(path, str(value.id), value.to_dict())]
        if counted is not None:
            puts.append(Put(_COUNTERS, counted, {"last": value.id}))
        self._items.write(puts)


def _checked_name(name: str) -> str:
    checked_text(name, "the name of a project")
    if len(name) > _LONGEST or not name.replace(" ", "x").isprintable():
        raise PathRefused(
            f"The name {shown(name)} is longer than {_LONGEST} letters, or has some that cannot be seen.",
            remedy="Give the project a plain name.",
        )
    return name if name.strip() else UNNAMED
