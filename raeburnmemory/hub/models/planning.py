"""What a download would take, before a byte of it is fetched."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ..errors import LlamafileError
from .download import room_for
from .fetch import Facts, Fetcher
from .machine import memory_free, memory_needed, problems
from .spec import Plan

if TYPE_CHECKING:
    from .files import ModelFiles

__all__ = ["planned"]


def planned(files: ModelFiles, name: str, *, ask: bool, stall: float, runtime: str | None) -> Plan:
    """Return what the download of a model would take; with *ask*, its server is asked for what is not known."""
    spec, status = files.spec(name), files.status(name)
    found: list[str] = []
    facts = Facts()
    if status.file_state != "ready" and spec.url is None:
        found.append("No URL is known: bring the file in with import_file().")
    elif status.file_state != "ready" and ask and spec.url is not None:
        try:
            facts = Fetcher(name, spec.url, stall=stall).facts()
        except LlamafileError as exc:
            found.append(str(exc))
        if spec.size is not None and facts.size not in {None, spec.size}:
            found.append(f"The server has {facts.size} bytes, the catalogue says {spec.size}.")
    total = spec.size or facts.size or status.bytes_total
    missing = 0 if status.file_state == "ready" else None
    if missing is None and total is not None:
        missing = max(total - status.bytes_done, 0)
    folder = files.folder.root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = missing and room_for(missing)
    fits = needed is None or needed <= free
    if not fits:
        found.append(f"The disk has {free} free bytes, {needed} are needed.")
    memory, there = memory_needed(total), memory_free()
    if memory is not None and there is not None and memory > there:
        found.append(f"About {memory} bytes of memory are needed, {there} are free.")
    return Plan(
        name, total, missing, free, needed, memory, there, fits,
        (*found, *problems(spec, files.folder.root, size=total, runtime=runtime)),
    )  # fmt: skip
