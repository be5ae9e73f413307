"""What may be run: told by what a file begins with, never by its name."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
import struct
import sys
from typing import Literal, cast

from .errors import ExecFormatError, NotDownloaded, PlatformUnsupported, UnsafePath
from .gguf import check_gguf
from .inspect_file import magic_of

__all__ = ["SHELL", "Magic", "check_runnable", "command_for"]

Magic = Literal["gguf", "ape", "elf", "script", "pe"]
SHELL = "/bin/sh"

_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}  # ELF's e_machine
_SAME = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i686": "i386", "armv7l": "arm"}
_HEAD = 512  # bytes; a line after #! is at most 255 on Linux


def check_runnable(path: str, *, model: str | None = None) -> Magic:
    """Check that the program or the weights at *path* can be run by this system; return which it is.

    Raises:
        NotDownloaded: There is no such file.
        ExecFormatError: It is for another processor, nothing that can be run, or not marked as executable.
        PlatformUnsupported: It is for another system, or needs a program that is not here.
        UnsafePath: Anybody may write to it.
        ModelLoadFailed: It is GGUF, and not whole.
    """
    head = _head(path, model)
    found = magic_of(head)
    if not found:
        looks = "an HTML page" if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")) else "something else"
        raise ExecFormatError(
            f"{path!r} begins with {head[:8]!r}: neither GGUF nor a llamafile nor a program, but {looks}.",
            model=model,
            remedy="Download it again, or verify it.",
        )
    magic = cast("Magic", found)
    if os.stat(path).st_mode & stat.S_IWOTH:
        raise UnsafePath(
            f"Anybody may write to {path!r}, so it will not be run.", model=model, remedy=f"chmod o-w {path!r}"
        )
    if magic == "gguf":
        check_gguf(path, model=model)
        return magic
    if magic == "pe":
        raise PlatformUnsupported(
            f"{path!r} is a program for Windows, and this is {sys.platform}.",
            model=model,
            remedy="Take a llamafile, or a GGUF file and a server for it.",
        )
    if magic == "elf":
        _check_elf(path, model)
    if magic == "script":
        _check_script(path, model)
    if not os.access(path, os.X_OK if magic != "ape" else os.R_OK):
        raise ExecFormatError(
            f"{path!r} is not executable for this user, or lies on a file system mounted with noexec.",
            model=model,
            remedy=f"chmod u+x {path!r}, or move it.",
        )
    return magic


def command_for(path: str, magic: Magic) -> list[str]:
    """Return the beginning of the command that runs the program at *path*, which is absolute.

    A llamafile has no `#!`: the system refuses it (ENOEXEC), and every shell then reads it as the script that it also
    is. It goes to the shell at once here, for where Wine or another loader has claimed files that begin with `MZ`,
    there is no refusal, but a foreign program that opens it.
    """
    return [SHELL, path] if magic == "ape" else [path]


def _head(path: str | os.PathLike[str], model: str | None) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except FileNotFoundError:
        raise NotDownloaded(
            f"There is no file {os.fspath(path)!r}.", model=model, remedy="Download the model first."
        ) from None
    except IsADirectoryError:
        raise ExecFormatError(f"{os.fspath(path)!r} is a folder.", model=model) from None
    except PermissionError as exc:
        raise ExecFormatError(
            f"{os.fspath(path)!r} cannot be read: {exc.strerror}.", model=model, remedy="Give yourself the right to."
        ) from exc


def _check_elf(path: str, model: str | None) -> None:
    if sys.platform != "linux":
        raise PlatformUnsupported(f"{path!r} is a program for Linux, and this is {sys.platform}.", model=model)
    head = _head(path, model)
    if len(head) < 20:
        raise ExecFormatError(f"{path!r} has {len(head)} bytes, too few for a program.", model=model)
    order = "<" if head[5] == 1 else ">"
    machine = _MACHINES.get(number := struct.unpack(f"{order}H", head[18:20])[0], f"machine {number}")
    here = platform.machine().lower()
    here = _SAME.get(here, here)
    if machine != here and not (machine == "i386" and here == "x86_64"):
        raise ExecFormatError(
            f"{path!r} is for the processor {machine}, and this one is {here}.",
            model=model,
            remedy="Take a llamafile, which runs on both, or a program for this processor.",
        )


def _check_script(path: str, model: str | None) -> None:
    line = _head(path, model).split(b"\n", 1)[0][2:].decode("utf-8", "replace")
    words = shlex.split(line) if '"' not in line and "'" not in line else line.split()
    if not words or not shutil.which(words[0]):
        raise PlatformUnsupported(
            f"{path!r} wants to be run by {line.strip()!r}, which is not here.", model=model, remedy="Install that."
        )
