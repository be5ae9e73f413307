"""Looking at a whole memory without changing a byte."""

from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..embed import BUILTIN, open_embedder
from ..errors import MemoryGraphError
from ..store import is_postgres
from ..store._files import SWITCHING, alive, write_failed
from .content import Content, check_content
from .generation import parts_of
from .index_files import check_indexes
from .json_files import check_files
from .model import fits, width_of
from .place import Place, find
from .report import Report
from .sqlite_file import check_database, stamps

if TYPE_CHECKING:
    from ..embed import Embedder

__all__ = ["examine", "leftovers", "verify"]

_TRIES = 5
_OLD = 3600.0


def verify(path: Any, *, embedding_model: Any = None) -> Report:
    """Look at every file of the memory at *path*, and at everything it holds, and report what is wrong.

    Nothing is written, so that it works on files and in folders that are read-only, and while others use the memory.
    *embedding_model* is the model of the memory, if it is not `"builtin"`; it is asked only whether texts that have no
    vector could have one. What cannot be told is whether a text in a SQLite memory is another one than was written:
    SQLite keeps no checksums. Compare `digests` with those of an earlier report for that. Of a memory in a PostgreSQL
    server its rows are looked at, as of one moment; its files are the server's business (data checksums, pg_amcheck).

    Raises:
        StoreMissing: Nothing is there.
        NotAStore: What is there is no memory.
        StoreTooNew: A newer version of this library wrote it.
        StoreWriteFailed: The system refused to read a file.
    """
    if is_postgres(path):
        with extra("postgres", module="psycopg"):
            from .postgres_server import examine_server

        return examine_server(path, lambda content, report: _embedder(content, embedding_model, report))
    return examine(find(path), embedding_model)


def examine(place: Place, embedding_model: Any = None) -> Report:
    """Do what `verify` does, for a place that is known."""
    for _ in range(_TRIES):
        before = [stamps(name) for name in (place.name, place.name + ".journal")]
        try:
            report = _once(place, embedding_model)
        except MemoryGraphError:
            raise  # some of ours are OSErrors, too
        except OSError as exc:  # that a file cannot be read now does not say that it is damaged
            raise write_failed("read", str(exc.filename or place.name), exc) from exc
        if report.sound or before == [stamps(name) for name in (place.name, place.name + ".journal")]:
            break
        time.sleep(0.05)  # somebody wrote meanwhile: what was read may have been of two moments
    return report


def _once(place: Place, embedding_model: Any) -> Report:
    report = Report(place.name, place.backend)
    if os.path.lexists(place.name + SWITCHING):
        report.add(
            "error", "switch-interrupted", f"{place.name!r} was being repaired or restored, and that was interrupted. "
            f"Run repair to finish it."
        )  # fmt: skip
        return report
    _check_modes(place, report)
    if not os.path.lexists(place.name):
        report.add("error", "graph-missing", f"{place.name!r} is not there, though other files of it are.")
    elif not os.path.isfile(place.name):
        report.add("error", "not-a-file", f"{place.name!r} is a folder, a pipe, a device or a link in a circle.")
    elif not os.path.getsize(place.name):
        report.add("error", "empty", f"{place.name!r} is empty.")
    elif place.backend == "json":
        content = check_files(place.path, report)
        if content is not None:
            check_content(content, report, _embedder(content, embedding_model, report))
        check_indexes(place.name, content, report)
    else:
        looked = False

        def use(content: Content) -> None:
            nonlocal looked
            looked = True
            check_content(content, report, _embedder(content, embedding_model, report))
            check_indexes(place.name, content, report)

        check_database(place.name, report, use)
        if not looked:
            check_indexes(place.name, None, report)
    _check_leftovers(place, report)
    return report


def _embedder(content: Content, model: Any, report: Report) -> Embedder | None:
    """Return the model of the memory, if it is here without asking anybody for it."""
    record = content.meta.get("embedder")
    name = record.get("name") if isinstance(record, dict) else None
    if model is None and name == BUILTIN:
        model = BUILTIN
    if model is None or not isinstance(record, dict):
        return None
    try:
        embedder = open_embedder(model)
        if width_of(record) is not None and fits(record, embedder):
            return embedder
        report.add("note", "embedder", f"{embedder.name!r} is not the model that is recorded, {name!r}.")
    except MemoryGraphError as exc:
        report.add("note", "embedder", f"The model {name!r} cannot be asked: {exc}")
    return None


# --- what lies around -------------------------------------------------------------------------------------------


def _check_modes(place: Place, report: Report) -> None:
    for name in parts_of(place.name, place.backend):
        try:
            mode = os.stat(name).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
            message = f"{name!r} can be written by everybody (mode {stat.S_IMODE(mode):04o})."
            report.add("warning", "mode", message)
        if stat.S_ISREG(mode) and not os.access(name, os.R_OK):
            report.add("error", "unreadable", f"{name!r} cannot be read by this user (mode {stat.S_IMODE(mode):04o}).")


def leftovers(path: str) -> list[str]:
    """Return the temporary files beside the store at *path* that nobody works on any more."""
    folder, name = os.path.split(path)
    found = []
    for entry in os.listdir(folder):
        if not entry.startswith(name + "."):
            continue
        rest, path = entry[len(name) :], os.path.join(folder, entry)
        temporary = re.search(r"\.tmp-(\d+)", rest)
        if (temporary is not None and not alive(int(temporary[1]))) or (
            re.fullmatch(r"\..*\.index\.\w+\.tmp", rest) and time.time() - _modified(path) > _OLD
        ):
            found.append(path)
    return sorted(found)


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # gone meanwhile
        return time.time()


def _check_leftovers(place: Place, report: Report) -> None:
    for name in leftovers(place.name):
        report.add("warning", "leftover", f"{name!r} was left by a process that is gone.")
    folder, base = os.path.split(place.name)
    aside = re.compile(re.escape(base) + r".*\.(damaged|before-restore)-\d{8}T\d{6}.*")
    kept = sorted(entry for entry in os.listdir(folder) if aside.fullmatch(entry))
    if kept:
        report.add("note", "set-aside", f"Files of before are kept: {', '.join(kept)}.")
