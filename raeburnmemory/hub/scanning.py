"""What is under a folder: which files to read, which to leave alone and why, and where it could not be looked.

Rules are those of git: a `.gitignore` holds for the folder that it lies in and all below, the nearest one decides, and
what is in an ignored folder is not looked at. `.raeburnignore` has the same form and is heard after it, so that it may
also bring back what git ignores. Links are never followed: what they lead to is read where it lies, or not at all.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .._optional import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Found", "Scan", "file_uri", "scan", "shown_name"]

IGNORE_FILES = (".gitignore", ".raeburnignore")


class Found(NamedTuple):
    """A file: its path, what it goes by in citations, its size in bytes and when it was changed (`st_mtime_ns`)."""

    path: str
    name: str
    size: int
    mtime_ns: int


@dataclass
class Scan:
    """What was seen under one root, a folder or a file.

    `files` are those to read, by their URIs. `skipped` are paths that are left alone, each with the reason, `ignored`
    those of them that an ignore file names. `errors` are paths that could not be looked at.
    """

    root: str
    files: dict[str, Found] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def leaves_alone(self, path: str) -> bool:
        """Tell whether *path*, or a folder it is in, is ignored."""
        while len(path) > len(self.root):
            if path in self.ignored:
                return True
            path = os.path.dirname(path)
        return False


def file_uri(path: str) -> str:
    """Return the address of a file, whatever bytes its name is made of."""
    from urllib.parse import quote_from_bytes

    return "file://" + quote_from_bytes(os.fsencode(path), safe="/~!$&'()*+,;=:@")


def shown_name(path: str) -> str:
    """Return *path* as text that can be stored: bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def scan(root: str, own: Callable[[str], bool], cancelled: Callable[[], bool] = lambda: False) -> Scan:
    """Look through *root*, a real path; *own* tells which files are those of the memory itself."""
    found = Scan(root)
    try:
        about = os.lstat(root)
    except OSError as exc:
        found.errors.append((root, exc.strerror or str(exc)))
        return found
    if not stat.S_ISDIR(about.st_mode):
        _file(found, root, os.path.basename(root), about, own)
        return found
    name = os.path.basename(root) or root
    _folder(found, root, name, _above(root), own, cancelled)
    return found


# Of each ignore file where it lies, with a slash behind it, its name, and what it says; the nearest last.
Rules = tuple[tuple[str, str, Any], ...]


def _folder(
    found: Scan, top: str, name: str, rules: Rules, own: Callable[[str], bool], cancelled: Callable[[], bool]
) -> None:
    waiting = [(top, name, rules)]  # by hand, because folders may be nested deeper than Python calls
    while waiting and not cancelled():
        folder, shown, above = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                there = sorted(entries, key=lambda entry: entry.name)
        except OSError as exc:
            found.errors.append((folder, exc.strerror or str(exc)))
            continue
        try:
            heard = above + tuple(_rules_in(folder, {entry.name for entry in there}))
        except OSError as exc:  # what it says to leave alone must not be read
            found.errors.append((str(exc.filename or folder), exc.strerror or str(exc)))
            continue
        deeper = []
        for entry in there:
            path, label = entry.path, f"{shown}/{shown_name(entry.name)}"
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went meanwhile
            except OSError as exc:
                found.errors.append((path, exc.strerror or str(exc)))
                continue
            is_folder = stat.S_ISDIR(about.st_mode)
            if is_folder and entry.name == ".git":
                continue
            if (rule := _ignored(path, is_folder=is_folder, rules=heard)) is not None:
                found.ignored.add(path)
                found.skipped.append((path, f"ignored by {rule}"))
            elif is_folder:
                deeper.append((path, label, heard))
            else:
                _file(found, path, label, about, own)
        waiting += reversed(deeper)


def _file(found: Scan, path: str, name: str, about: os.stat_result, own: Callable[[str], bool]) -> None:
    mode = about.st_mode
    if stat.S_ISLNK(mode):
        target = os.path.realpath(path)
        inside = target == found.root or target.startswith(found.root.rstrip(os.sep) + os.sep)
        where = "what it leads to is read where it lies" if inside else "it leads out of the folder"
        found.skipped.append((path, f"a link: {where}"))
    elif not stat.S_ISREG(mode):
        found.skipped.append((path, "no file, but a device, pipe or socket"))
    elif os.path.basename(path) in IGNORE_FILES and path != found.root:
        found.skipped.append((path, "it says what to leave alone"))
    elif own(path):
        found.skipped.append((path, "a file of the memory itself"))
    else:
        found.files[file_uri(path)] = Found(path, shown_name(name), about.st_size, about.st_mtime_ns)


def _rules_in(folder: str, names: set[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield what the ignore files in *folder* say, in the order in which they are heard."""
    for name in IGNORE_FILES:
        if name not in names:
            continue
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:  # git passes over the mark, too
            lines = file.read().splitlines()
        if any(line.strip() and not line.startswith("#") for line in lines):
            yield os.path.join(folder, ""), name, _spec(lines)


def _spec(lines: list[str]) -> Any:
    with extra("hub", module="pathspec"):
        from pathspec import GitIgnoreSpec
    try:
        return GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error):  # git passes over a line that is no pattern, such as `build\`
        return GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _above(root: str) -> Rules:
    """Return the rules of the folders above *root* that are in one working tree of git with it."""
    folders = []
    folder = root
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return ()
        folders.append(parent)
        folder = parent
    rules: list[tuple[str, str, Any]] = []
    for each in reversed(folders):
        try:
            rules += _rules_in(each, set(os.listdir(each)))
        except OSError:  # a folder above that may not be read says nothing
            continue
    return tuple(rules)


def _ignored(path: str, *, is_folder: bool, rules: Sequence[tuple[str, str, Any]]) -> str | None:
    """Return which ignore file says to leave *path* alone, None if none does."""
    for folder, name, rule in reversed(rules):
        relative = path[len(folder) :].replace(os.sep, "/")
        said = rule.check_file(f"{relative}/" if is_folder else relative).include
        if said is not None:
            return name if said else None
    return None
