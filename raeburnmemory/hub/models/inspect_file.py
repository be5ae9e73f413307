"""What a model's file is, by what it begins with, and what its SHA-256 is."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from .errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .spec import Format

__all__ = ["CHUNK", "checked_beginning", "digest_of", "magic_of", "open_file"]

CHUNK = 1 << 20  # bytes read at once
_MAGICS = (
    (b"GGUF", "gguf"),
    (b"MZqFpD", "ape"),  # a program for six systems, which most of them take for a shell script
    (b"jartsr", "ape"),
    (b"\x7fELF", "elf"),
    (b"#!", "script"),
    (b"MZ", "pe"),
)


def magic_of(beginning: bytes) -> str:
    """Return what begins so: gguf, ape, elf, script or pe, or `""` where it is none of them."""
    return next((name for magic, name in _MAGICS if beginning.startswith(magic)), "")


def checked_beginning(name: str, model_format: Format, beginning: bytes) -> str:
    """Return the magic of what begins so, if it is of the format that it should have.

    Raises:
        InvalidSpec: It is something else, such as a page of the web.
    """
    magic = magic_of(beginning)
    if (model_format == "gguf") == (magic == "gguf") and magic:
        return magic
    if model_format == "llamafile" and magic == "gguf":
        found, remedy = "is a GGUF file", "Describe it with format='gguf'."
    else:
        found, remedy = f"begins with {beginning[:12]!r}", "Check the URL or the path."
    raise InvalidSpec(f"The file of model {name!r} is no {model_format}: it {found}.", model=name, remedy=remedy)


def open_file(path: str | os.PathLike[str], *, follow: bool) -> BinaryIO | None:
    """Open a file for reading, or return None if it is something else; a pipe is not waited for.

    Raises:
        OSError: It is not there, cannot be read, or is a link that is not to be followed.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return open(fd, "rb")


def digest_of(
    file: BinaryIO, length: int | None = None, progress: Callable[[int], None] | None = None
) -> hashlib._Hash:
    """Return the hash of *file* from where it stands, of *length* bytes or to its end."""
    digest = hashlib.sha256()
    done = 0
    while length is None or done < length:
        chunk = file.read(CHUNK if length is None else min(CHUNK, length - done))
        if not chunk:
            break
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done)
    return digest
