"""What the commands share besides the terminal: which memory they are about, and how their options are written."""

from __future__ import annotations

import errno
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import InvalidInput, ReadOnly, StoreMissing
from .store import is_postgres

if TYPE_CHECKING:
    from .memory_graph import MemoryGraph

__all__ = ["HOME", "Json", "Target", "command_for", "existing", "option"]

HOME = "~/.raeburnbrain/graph.json"

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def option(help_text: str, *names: str, **more: Any) -> Any:
    """Return an option of a command, its help before its names."""
    return typer.Option(*names, help=help_text, **more)


@dataclass(frozen=True)
class Target:
    """Which memory a command is about."""

    db: str | None
    namespace: str
    timeout: float
    by_option: bool  # `--db` was given; RAEBURN_DB does not count

    @property
    def path(self) -> str:
        """The file that was named, or the one that is meant where none was."""
        return HOME if self.db is None else self.db

    @property
    def shown(self) -> str:
        """The path for a message: of a URL without its password."""
        if not is_postgres(self.path):
            return self.path
        from .store.postgres_url import parse

        return parse(self.path).shown

    def open(self, *, read_only: bool = False, **options: Any) -> MemoryGraph:
        """Open the memory, creating it unless *read_only*."""
        from .memory_graph import MemoryGraph

        if self.path == ":memory:":
            raise InvalidInput("':memory:' would be gone when this command ends. Name a file: --db memory.db")
        options |= {"namespace": self.namespace, "timeout": self.timeout}
        try:
            return MemoryGraph(self.path, read_only=read_only, **options)
        except ReadOnly:  # a file of an older version, to be brought up to date before anything can be read
            return MemoryGraph(self.path, **options)

    def exists(self) -> bool:
        """Tell whether there is a memory to open."""
        from .store import store_exists

        return store_exists(self.path)


def existing(ctx: typer.Context, *, read_only: bool) -> MemoryGraph:
    """Open a memory that must be there: a mistyped path is an error, not a new memory."""
    target: Target = ctx.obj
    # Of what is no place for a memory, opening says what is wrong.
    is_place = target.path not in {"", ":memory:"} and ("://" not in target.path or is_postgres(target.path))
    if is_place and not target.exists():
        raise StoreMissing(
            errno.ENOENT,
            f"There is no memory at {target.shown!r}. Check the path, or make one with: "
            f"{command_for(target.shown)} add --prompt-text 'Hello'",
        )
    return target.open(read_only=read_only)


def command_for(path: str) -> str:
    """Return how to call this program on the memory at *path*, for somebody to paste."""
    return f"raeburnmemory --db {shlex.quote(path)}"
