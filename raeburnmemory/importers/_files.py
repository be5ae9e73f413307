"""The files of an import: a single one, those of a folder, those inside a zip archive; and their lines."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidInput
from ..store import checked_path
from ._json_stream import MOST
from ._report import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import BinaryIO

__all__ = ["Part", "Source", "lines", "objects", "only_file", "parts"]

_SMALL = 1 << 26  # bytes that a member of an archive may have whatever it was packed to
_TIMES = 200  # JSON is packed to a tenth; what unpacks to 200 times itself was made to do harm


class Part(NamedTuple):
    """One file to read: how it is called in messages, and a function that opens it."""

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Source:
    """What is to be imported, and where to say what was left out.

    `session`, `collection` and `columns` are what was asked for, by readers that can do without.
    """

    path: str
    log: Log = field(default_factory=Log)
    session: str | None = None
    collection: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name of the file without its suffix."""
        return os.path.splitext(os.path.basename(os.path.abspath(self.path)))[0]


def parts(path: str, pattern: str, what: str, *, deep: bool = False) -> list[Part]:
    """Return the files at *path* whose names match *pattern*: it is one itself, or a folder or zip that holds them.

    With *deep* they may lie anywhere below a folder. *what* says in an error what was looked for.

    Raises:
        InvalidInput: There are none, or an archive is not to be trusted.
    """
    wanted = re.compile(pattern)
    if os.path.isdir(path):
        found = sorted(_below(path, wanted, deep=deep))
        made = [Part(name, _opener(name)) for name in found]
    elif zipfile.is_zipfile(path):
        made = _members(path, wanted)
    else:
        return [only_file(path)]
    if not made:
        raise InvalidInput(f"There is no {what} in {path!r}. Name the file itself, or the folder or zip that holds it.")
    return made


def only_file(path: str) -> Part:
    """Return the file at *path*.

    Raises:
        InvalidInput: It is a folder.
        FileNotFoundError: There is none.
    """
    if os.path.isdir(checked_path(path)):
        raise InvalidInput(f"{path!r} is a folder. Name the file in it that is to be imported.")
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "There is no such file. Check the path", path)
    return Part(path, _opener(path))


def _opener(path: str) -> Callable[[], AbstractContextManager[BinaryIO]]:
    return lambda: open(path, "rb")


def _below(path: str, wanted: re.Pattern[str], *, deep: bool) -> Iterator[str]:
    for folder, folders, names in os.walk(path):
        if not deep:
            folders.clear()
        yield from (os.path.join(folder, name) for name in names if wanted.fullmatch(name))


def _members(path: str, wanted: re.Pattern[str]) -> list[Part]:
    """Return the members of an archive that are wanted. They are read in place: nothing is ever unpacked to a disk."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not wanted.fullmatch(member.filename.rpartition("/")[2]) or "__MACOSX" in member.filename:
                continue
            if member.flag_bits & 1:
                raise InvalidInput(f"{member.filename!r} in {path!r} is encrypted. Unpack it, and import the file.")
            if member.file_size > max(_SMALL, _TIMES * member.compress_size):
                raise InvalidInput(
                    f"{member.filename!r} in {path!r} would unpack from {member.compress_size} to {member.file_size} "
                    f"bytes, as nothing does that people wrote. If you trust it, unpack it, and import the file."
                )
            found.append(Part(f"{path}/{member.filename}", _member_opener(path, member.filename)))
    return sorted(found)


def _member_opener(path: str, member: str) -> Callable[[], AbstractContextManager[BinaryIO]]:
    @contextlib.contextmanager
    def opened() -> Iterator[Any]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
            raise InvalidInput(
                f"{member!r} in {path!r} is damaged: {exc}. Nothing was imported. Fetch the archive once more."
            ) from exc

    return opened


def lines(part: Part, log: Log) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file that are not blank, each after its place; those that are no UTF-8 are left out."""
    with part.open() as file:
        number = 0
        while raw := file.readline(MOST):
            number += 1
            place = f"{part.name}, line {number}"
            if len(raw) == MOST and not raw.endswith(b"\n"):
                log.skip(f"a line of more than {MOST} bytes", place)
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MOST)
                continue
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                log.skip("no UTF-8", place, raw[:40])
                continue
            if text.strip():
                yield place, text


def objects(part: Part, log: Log) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects of a file that has one on each line, each after its place; others are left out."""
    for place, text in lines(part, log):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            ended = text.endswith("\n")
            log.skip("no JSON" if ended else "cut short, perhaps still being written", place, text.strip() or str(exc))
            continue
        if isinstance(value, dict):
            yield place, value
        else:
            log.skip("no JSON object", place, value)
