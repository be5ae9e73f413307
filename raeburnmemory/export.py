"""Writing a memory out as node-link JSON: whole or not at all, and nothing that is erased meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from ._collector import no_collections
from .errors import StoreWriteFailed
from .nodes import DEFAULT_NAMESPACE, Where
from .store import checked_path
from .store.nodelink import node_link_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .store import Store

__all__ = ["encoded", "export"]

_PAGE = 1000  # nodes or edges encoded at a time


def export(
    store: Store, namespace: str, path: str | os.PathLike[str] | bool | None, *, all_namespaces: bool
) -> dict[str, Any]:
    """Return a namespace, or all of them, as node-link data, and write it; see `MemoryGraph.export`."""
    data, known = _node_link(store, namespace, all_namespaces=all_namespaces)
    if path is None or path is True:
        if store.name == "sqlite":
            lock = contextlib.nullcontext if store.read_only else store.exclusive
            while not _write_json(f"{store.location}.json", data, known, lock):
                data, known = _node_link(store, namespace, all_namespaces=all_namespaces)
        elif not store.read_only:
            store.checkpoint()
    elif path is not False:
        target = os.path.realpath(checked_path(path))
        if target == store.location:
            store.checkpoint()
        else:
            _write_json(target, data)
    return data


def _node_link(store: Store, namespace: str, *, all_namespaces: bool) -> tuple[dict[str, Any], Callable[[], bool]]:
    """Return the graph as node-link data, and what tells whether none of it was erased since."""
    with store.snapshot(), no_collections():
        # Of several namespaces the default one stands at the top, where a reader looks for it, even if it is empty.
        names = [DEFAULT_NAMESPACE, *store.namespaces()] if all_namespaces else [namespace]
        spaces = {name: (store.nodes(Where(name)), store.all_links(name)) for name in dict.fromkeys(names)}
        data = node_link_data(spaces, names[0])
        version = store.version()
        mark = store.mark(version)
    return data, lambda: store.mark(version) == mark


def encoded(data: dict[str, Any]) -> Iterator[str]:
    """Yield *data* as `json.dumps` has it, a page at a time: `json.dump` would go through every key in Python."""
    yield "{"
    for number, (key, value) in enumerate(data.items()):
        yield f"{', ' if number else ''}{json.dumps(key)}: "
        if isinstance(value, dict):
            yield from encoded(value)
        elif isinstance(value, list):
            yield "["
            for start in range(0, len(value), _PAGE):
                yield (", " if start else "") + json.dumps(value[start : start + _PAGE])[1:-1]
            yield "]"
        else:
            yield json.dumps(value)
    yield "}"


def _write_json(
    path: str,
    data: dict[str, Any],
    wanted: Callable[[], bool] = lambda: True,
    lock: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> bool:
    """Write a JSON file, replacing what is there at once or not at all; tell whether it was done.

    *wanted* is asked once the file is there and still empty, and under *lock* before it is put in place. So whoever
    erases something first makes it unwanted, and then deletes unfinished files, finds it or is found out.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            if not wanted():
                return False
            file.writelines(encoded(data))
            file.flush()
            os.fsync(file.fileno())
        with lock():
            if not wanted():
                return False
            os.replace(temporary, path)
            return True
    except StoreWriteFailed:
        raise  # it is an OSError, too
    except OSError as exc:
        raise StoreWriteFailed(exc.errno, f"Could not write {path!r}: {exc.strerror}. Choose another path") from exc
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
