"""How files of projects are called, and which paths from outside are taken.

A file that a project's directory holds is answered as `NAME/uploads/DIRECTORY/REST`: NAME is the escaped name of the
project, DIRECTORY the path of the directory with `/` replaced by `__`. The browser client shows what stands behind the
first `__`, so nothing before it may hold one.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from typing import BinaryIO

from ..records import shown
from .errors import PathRefused

__all__ = ["checked_path", "directory_part", "escaped_name", "is_growing", "write_within"]

_ODD = re.compile(r"[^\w .,()@!'+-]|(?<=_)_|\A[. ]|[. ]\Z")
_DEEPEST, _LONGEST = 40, 1000  # folders; bytes of the whole path
_LONGEST_PART = 240  # bytes: file systems take 255, and a summary's ending comes behind
_GROWING = re.compile(r"\.\d+\.[0-9a-f]{12}\.partial")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def escaped_name(name: str) -> str:
    """Return the name of a project as one part of a path: odd letters as `=` and their bytes, never two `_` together.

    >>> escaped_name("My notes"), escaped_name("a__b/../c")
    ('My notes', 'a_=5Fb=2F..=2Fc')
    """
    return _ODD.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode("utf-8", "replace")), name)


def directory_part(path: str) -> str:
    """Return the path of a directory as one part of a path, as the client expects it.

    >>> directory_part("/home/ana/notes")
    '__home__ana__notes'
    """
    return path.replace(os.sep, "__").replace("/", "__")


def checked_path(path: str) -> str:
    """Return a path that came from outside, with `/` between its parts, if it leads nowhere but down.

    Backslashes count as slashes. Nothing is decoded: a name may hold `%2e`, which then is just that.

    Raises:
        PathRefused: It is absolute, climbs, or has a part that is no plain name.
    """
    parts = path.replace("\\", "/").split("/")
    wrong = ""
    if len(parts) > _DEEPEST or len(path.encode("utf-8", "replace")) > _LONGEST:
        wrong = "is too long"
    for part in parts:
        if not part:
            wrong = wrong or ("begins with a slash" if not parts[0] else "has an empty part")
        elif part in {".", ".."}:
            wrong = wrong or "climbs out of its folder"
        elif any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for letter in part):
            wrong = wrong or "has letters that cannot be seen"
        elif ":" in part:
            wrong = wrong or "has a colon"
        elif part != part.strip() or part.endswith("."):
            wrong = wrong or "has a part that begins or ends with a space, or ends with a dot"
        elif part.partition(".")[0].lower() in _DEVICES:
            wrong = wrong or "has the name of a device on Windows"
        elif len(part.encode()) > _LONGEST_PART:
            wrong = wrong or "has a part that is too long"
    if wrong:
        raise PathRefused(f"The path {shown(path)} {wrong}.", remedy="Give a plain one, such as 'notes/today.md'.")
    return "/".join(parts)


def is_growing(name: str) -> bool:
    """Tell whether a file is one that `write_within` has not finished."""
    return _GROWING.fullmatch(name) is not None


def write_within(root: str, path: str, data: bytes | BinaryIO) -> str:
    """Write *data*, bytes or an open file, below the folder *root*, and return where it lies.

    *path* is one that `checked_path` let through. The file appears whole or not at all; links on the way are refused.

    Raises:
        OSError: It cannot be written.
        PathRefused: Something on the way is a link or a file, or there is a folder of that name.
    """
    os.makedirs(root, mode=0o700, exist_ok=True)
    folder = root
    *folders, name = path.split("/")
    for part in folders:
        folder = os.path.join(folder, part)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if os.path.islink(folder) or not os.path.isdir(folder):
                raise PathRefused(f"The path {shown(path)} leads through what is no folder.") from None
    target = os.path.join(folder, name)
    if os.path.islink(target) or os.path.isdir(target):
        raise PathRefused(f"The path {shown(path)} is that of a folder or link.")
    growing = os.path.join(folder, f".{os.getpid()}.{os.urandom(6).hex()}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(growing, flags, 0o600), "wb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(growing, target)
    except BaseException:
        if os.path.lexists(growing):
            os.unlink(growing)
        raise
    return target
