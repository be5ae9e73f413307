"""What could keep a model from running on this machine, as far as that can be told without running it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..._optional import extra

if TYPE_CHECKING:
    from .spec import ModelSpec

__all__ = ["memory_free", "memory_needed", "problems"]

_WORKING_MEMORY = 512 << 20  # bytes: context and buffers of a small model
_WINDOWS_LIMIT = 4 << 30  # bytes that a program may have there


def memory_needed(size: int | None) -> int | None:
    """Estimate how much memory a model needs whose file has *size* bytes: its weights, and what they work on."""
    return None if size is None else size + _WORKING_MEMORY


def memory_free() -> int | None:
    """Return how many bytes of memory could be had, None where that is not known.

    Raises:
        MissingDependency: `psutil` is not installed.
    """
    with extra("hub", module="psutil"):
        import psutil
    return int(psutil.virtual_memory().available)


def problems(spec: ModelSpec, folder: Path, *, size: int | None, runtime: str | None) -> list[str]:
    """Return, as sentences, what speaks against running a model here."""
    found = []
    if spec.format == "gguf" and runtime is None:
        found.append("A GGUF file needs a program that runs it: name one with runtime=.")
    if platform.machine().lower() not in {"x86_64", "amd64", "arm64", "aarch64"}:
        found.append(f"Llamafiles run on x86-64 and ARM64 processors, this is {platform.machine()!r}.")
    if spec.format == "llamafile" and sys.platform == "win32" and size is not None and size >= _WINDOWS_LIMIT:
        found.append("Windows runs no programs of 4 GiB or more: use the weights as a GGUF file, with runtime=.")
    if spec.format == "llamafile" and os.name == "posix":
        if _mounted_noexec(folder):
            found.append(f"Nothing can be run from {str(folder)!r}: its file system is mounted with noexec.")
        if shutil.which("sh", path="/bin:/usr/bin") is None:
            found.append("There is no /bin/sh, through which llamafiles start where the system does not know them.")
        found += [f"{name!r} is registered for programs of Windows and may catch llamafiles." for name in _catchers()]
    if _lacks_avx():
        found.append("This processor has no AVX, which llamafiles need.")
    return found


def _mounted_noexec(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def _catchers() -> list[str]:
    """Return which interpreters Linux starts for files that begin like those of Windows, as llamafiles do."""
    folder = Path("/proc/sys/fs/binfmt_misc")
    found = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    for entry in entries:
        if entry.name in {"register", "status"}:
            continue
        try:
            lines = entry.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        if "enabled" in lines and "magic 4d5a" in lines:
            found.append(entry.name)
    return found


def _lacks_avx() -> bool:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(flags) and "avx" not in flags.split()
