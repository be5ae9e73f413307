"""What every store does when it is written to, copied and closed.

Each check takes a function that opens one and the same, at first empty, place every time it is called, and raises
AssertionError with a message where the store breaks the contract.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from ..errors import GraphClosed, InvalidInput, ReadOnly
from ..nodes import Batch, Link, Node, Where
from ..store import copy_store, open_store
from ._expect import equal, refused, that
from ._ledger import Follower, Ledger, batches, ends_of, ids_of, node, node_facts, vector
from .reading import READING_CHECKS
from .vectors import VECTOR_CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..store import Store

__all__ = ["STORE_CHECKS"]

_FUTURE = 4e9  # seconds since 1970


# --- writing ----------------------------------------------------------------------------------------------------


def check_store_versions(open_store: Callable[[], Store]) -> None:
    """Versions grow by one with every batch that is not empty, whatever is in it."""
    store = open_store()
    equal((store.version(), store.read_only), (0, False), "the version of a new store, and read_only")
    equal(store.write(Batch()), 0, "the version after an empty batch")
    batch = Batch(nodes=[node("a", "x")])
    for number, each in enumerate(
        [batch, batch, Batch(removed_nodes=[("default", "nobody")]), Batch(meta={"x": None})]
    ):
        equal(store.write(each), number + 1, f"the version after batch {number}")
    equal(store.write(Batch()), 4, "the version after an empty batch")
    equal(store.version(), 4, "version()")


def check_store_atomic(open_store: Callable[[], Store]) -> None:
    """A batch of which any part is refused changes nothing at all."""
    store, ledger = open_store(), Ledger()
    ledger.write(
        store,
        Batch(
            nodes=[node("a", "x"), node("b", "y")],
            links=[Link("a", "b", "r", {"n": 1})],
            vectors=[vector("a", 1, 0)],
            meta={"one": 1},
        ),
    )
    rest: dict[str, Any] = {
        "nodes": [node("a", "other"), node("new", "z")],
        "removed_nodes": [("default", "b")],
        "removed_links": [("default", "a", "b", "r")],
        "meta": {"one": None, "two": 2},
    }
    for what, more in (
        ("a link to a missing node", {"links": [Link("a", "new", "r"), Link("a", "nobody", "r")]}),
        ("a link from a missing node", {"links": [Link("nobody", "a", "r")]}),
        ("a link to a node that the batch removes", {"links": [Link("a", "b", "r")]}),
        ("a link into another namespace", {"links": [Link("a", "new", "r", {}, "elsewhere")]}),
        ("a vector of a missing node", {"vectors": [vector("new", 0, 1), vector("nobody", 1, 0)]}),
        ("a vector of a node that the batch removes", {"vectors": [vector("b", 1, 0)]}),
    ):
        before = ledger.version
        refused(InvalidInput, lambda more=more: store.write(Batch(**rest, **more)), what)  # type: ignore[misc]
        equal(store.version(), before, f"the version after {what}")
        ledger.compare(store)
    ledger.write(store, Batch(**rest))
    ledger.compare(store)


def check_store_rows(open_store: Callable[[], Store]) -> None:
    """Rows grow in the order of first writing, stay when a node is replaced, and are never given again."""
    store = open_store()

    def rows() -> dict[str, int]:
        return {found.id: found.row for found in store.nodes(Where())}

    store.write(Batch(nodes=[node("b"), node("a"), node("c")]))
    first = rows()
    equal(list(first), ["b", "a", "c"], "the order of writing")
    store.write(Batch(nodes=[node("a", "new", kind="response"), node("d")]))
    second = rows()
    equal(list(second), ["b", "a", "c", "d"], "the order after replacing")
    equal({name: second[name] for name in first}, first, "rows after replacing")
    store.write(Batch(removed_nodes=[("default", "d"), ("default", "a")]))
    store.write(Batch(nodes=[node("a")]))
    store.write(Batch(nodes=[node("c")], removed_nodes=[("default", "c")]))  # removed and written anew in one
    third = rows()
    equal(list(third), ["b", "a", "c"], "the order after removing")
    that(min(third["a"], third["c"]) > max(second.values()), f"a row was given again: {second}, then {third}")


def check_store_replacing(open_store: Callable[[], Store]) -> None:
    """Replacing a node keeps its row and its links, moves the old one to the history and drops its vectors."""
    store = open_store()
    versions = [Node("a", "prompt", f"text {n}", {"n": n}, expires_at=_FUTURE + n) for n in range(3)]
    store.write(Batch(nodes=[versions[0], node("b")], links=[Link("a", "b", "r")], vectors=[vector("a", 1, 0)]))
    row = store.get(["a"], "default")["a"].row
    equal(store.history("a", "default"), [], "the history of a new node")
    store.write(Batch(nodes=versions[1:], vectors=[vector("a", 0, 1)]))  # twice in one batch: each counts
    now = store.get(["a"], "default")["a"]
    equal((node_facts(now), now.row), (node_facts(versions[2]), row), "the node after replacing")
    past = store.history("a", "default")
    equal([*map(node_facts, past)], [*map(node_facts, versions[:2])], "the history")
    equal({old.row for old in past}, {row}, "the rows of the history")
    equal(ends_of(store.links(None, "default")), ["a-r-b"], "links after replacing")
    blocks = list(store.vectors("prompt", -1).blocks)
    equal([block.values.tolist() for block in blocks], [[[0.0, 1.0]]], "vectors after replacing")
    equal(store.history("nobody", "default"), [], "the history of nobody")


def check_store_removing(open_store: Callable[[], Store]) -> None:
    """Removing a node takes its links, vectors and history along; written again, it starts afresh."""
    store = open_store()
    links = [Link("a", "b", "r"), Link("b", "a", "r"), Link("a", "a", "self"), Link("b", "c", "r")]
    store.write(Batch(nodes=[node(name) for name in "abc"]))
    vectors = [vector("a", 1, 0), vector("a", 0, 1, field="fact"), vector("b", 0, 1)]
    store.write(Batch(nodes=[node("a", "again")], links=links, vectors=vectors))
    gone = ("default", "a")
    store.write(Batch(removed_nodes=[gone, gone, ("default", "nobody"), ("elsewhere", "b")]))
    equal(ids_of(store.nodes(Where())), ["b", "c"], "the nodes left")
    equal(ends_of(store.links(None, None)), ["b-r-c"], "the links left")
    for direction in ("out", "in", "both"):
        equal(store.links(["a"], "default", direction=direction), [], f"links of a removed node, {direction}")
    equal(store.counts(None)["vectors"], {"prompt": 1}, "the vectors left")
    equal(store.history("a", "default"), [], "the history of a removed node")
    store.write(Batch(nodes=[node("a")]))
    equal(store.history("a", "default"), [], "the history of a node written anew")
    equal(store.links(["a"], "default", direction="both"), [], "links of a node written anew")
    key = ("default", "b", "c", "r")
    store.write(Batch(removed_links=[key, key, ("default", "c", "b", "r"), ("elsewhere", "b", "c", "r")]))
    equal(store.links(None, None), [], "links after removing the last")


def check_store_keeps_its_own(open_store: Callable[[], Store]) -> None:
    """What was handed in or out and is changed afterwards changes nothing in the store."""
    store = open_store()
    given: dict[str, Any] = {"list": [1], "n": 1}
    batch = Batch(
        nodes=[Node("a", "prompt", "x", given)],
        links=[Link("a", "a", "r", given)],
        vectors=[vector("a", 1, 0)],
        meta={"m": given},
    )
    values = batch.vectors[0].values
    store.write(batch)
    store.write(Batch(nodes=[Node("a", "prompt", "y", given)], vectors=[vector("a", 1, 0)]))

    def readings() -> Iterator[tuple[str, Any]]:
        yield "get()", store.get(["a"], "default")["a"].attributes
        yield "nodes()", next(iter(store.nodes(Where()))).attributes
        yield "at_rows()", next(iter(store.at_rows(store.rows(Where()).tolist()).values())).attributes
        yield "links()", store.links(["a"], "default")[0].data
        yield "history()", store.history("a", "default")[0].attributes
        yield "meta()", store.meta("m")

    given["list"].append(2)
    given["n"] = 2
    values[:] = 9
    for what, found in readings():
        equal(found, {"list": [1], "n": 1}, f"{what} after the dict handed in was changed")
    for what, found in readings():
        # A store may hand out something that refuses to be changed.
        with contextlib.suppress(TypeError, AttributeError, ReadOnly):
            found["list"].append(3)
        with contextlib.suppress(TypeError, ReadOnly):
            found["n"] = 3
        for again, now in readings():
            equal(now, {"list": [1], "n": 1}, f"{again} after what {what} gave was changed")
    for block in store.vectors("prompt", -1).blocks:
        equal(block.values.tolist(), [[1.0, 0.0]], "a vector after the array handed in was changed")


# --- the life of a store ----------------------------------------------------------------------------------------


def check_store_closed(open_store: Callable[[], Store]) -> None:
    """Whatever is asked of a closed store, it says that it is closed; closing twice is fine."""
    store = open_store()
    store.write(Batch(nodes=[node("a")]))
    store.close()
    store.close()
    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: store.write(Batch(nodes=[node("b")])),
        "exclusive": lambda: store.exclusive().__enter__(),
        "snapshot": lambda: store.snapshot().__enter__(),
        "version": store.version,
        "changes": lambda: store.changes(0),
        "get": lambda: store.get(["a"], "default"),
        "at_rows": lambda: store.at_rows([0]),
        "nodes": lambda: list(store.nodes(Where())),
        "rows": lambda: store.rows(Where()),
        "links": lambda: store.links(None, None),
        "history": lambda: store.history("a", "default"),
        "vectors": lambda: [*store.vectors("prompt", -1).blocks],
        "vector_fields": store.vector_fields,
        "vector_slots": lambda: store.vector_slots("prompt"),
        "counts": lambda: store.counts(None),
        "namespaces": store.namespaces,
        "meta": lambda: store.meta("x"),
    }
    for name, call in calls.items():
        message = refused(GraphClosed, call, f"{name}() of a closed store")
        that(store.location in message, f"the message of {name}() does not name the store: {message!r}")


def check_store_exclusive(open_store: Callable[[], Store]) -> None:
    """exclusive() can be entered again by its thread, and keeps the writes of other threads waiting."""
    store = open_store()
    started, finished = threading.Event(), threading.Event()

    def write() -> None:
        started.set()
        store.write(Batch(nodes=[node("other")]))
        finished.set()

    thread = threading.Thread(target=write)
    with store.exclusive():
        with store.exclusive():
            thread.start()
            started.wait(10)
            store.write(Batch(nodes=[node("a")]))
        that(not finished.wait(0.05), "another thread wrote into the block")
        equal(store.write(Batch(nodes=[node("b")])), 2, "the version in the block")
        equal(ids_of(store.nodes(Where())), ["a", "b"], "the nodes in the block")
    thread.join(10)
    that(finished.is_set(), "the other thread still waits after the block")
    equal(store.version(), 3, "the version after the block")
    with contextlib.suppress(ZeroDivisionError), store.exclusive():
        store.write(Batch(nodes=[node("c")]))
        raise ZeroDivisionError
    equal(store.version(), 4, "what was written before an error is written")


def check_store_snapshot(open_store: Callable[[], Store]) -> None:
    """What is read in a snapshot is of one version, whatever other threads write; they go on after it."""
    store = open_store()
    store.write(Batch(nodes=[node("a", "old")]))
    thread = threading.Thread(target=lambda: store.write(Batch(nodes=[node("a", "new"), node("b")])))
    with store.snapshot():
        before = store.version(), ids_of(store.nodes(Where()))
        thread.start()
        thread.join(0.05)
        with store.snapshot():
            equal((store.version(), ids_of(store.nodes(Where()))), before, "the version and nodes in the block")
            equal(store.get(["a"], "default")["a"].text, "old", "the text in the block")
    thread.join(10)
    that(not thread.is_alive(), "the other thread still waits after the block")
    equal((store.version(), ids_of(store.nodes(Where()))), (2, ["a", "b"]), "the version and nodes after the block")


def check_store_copy(open_store: Callable[[], Store]) -> None:
    """copy_store from a store and into a store loses nothing, and keeps the order."""
    store, ledger = open_store(), Ledger()
    for batch in batches(5, ledger, 25):
        ledger.write(store, batch)
        ledger.compare(store)
    record = {"name": "m", "dim": 4, "probe": "x"}
    ledger.write(store, Batch(meta={"embedder": record}))
    memory = open_memory()
    copy_store(store, memory)
    back = open_memory()
    copy_store(memory, back, block=7)
    for other in (memory, back):
        ledger.version = other.version()
        ledger.rows, ledger.last_row, ledger.link_rows, ledger.last_link_row = {}, -1, {}, -1
        ledger.meta = {"embedder": record}
        ledger.compare(other)


def open_memory() -> Store:
    """Return a new store of this library that lives in memory."""
    return open_store(":memory:")


def check_store_any_history(open_store: Callable[[], Store]) -> None:
    """After any batches the store holds what plain dicts hold, and whoever follows it, at any pace, too."""
    store, ledger = open_store(), Ledger()
    followers = {pace: Follower(store) for pace in (1, 3, 10)}
    for number, batch in enumerate(batches(3, ledger, 40)):
        ledger.write(store, batch)
        ledger.compare(store)
        for pace, follower in followers.items():
            if number % pace == 0:
                follower.catch_up()
                follower.compare(ledger)


def check_store_erasing(open_store: Callable[[], Store]) -> None:
    """Erasing does what writing does, and lets whoever follows start over; there is nothing to be left in copies."""
    store, ledger = open_store(), Ledger()
    follower = Follower(store)
    for number, batch in enumerate(batches(9, ledger, 30)):
        before = store.version()
        if number % 6 == 5:
            ledger.apply(batch)
            equal(store.erase(batch, backups=number % 4 == 1).left, (), "what was left")
            that(store.version() > before, f"the version was {before}, and is {store.version()} after erasing")
            that(store.changes(before).reset, "changes() tells what was erased instead of starting over")
            that(store.vectors("prompt", before).reset, "vectors() tells what was erased instead of starting over")
            ledger.version = store.version()
        else:
            ledger.write(store, batch)
        ledger.compare(store)
        if number % 5 == 0:
            follower.catch_up()
            follower.compare(ledger)
    equal(store.erase(Batch()).left, (), "what was left when nothing was to be erased")
    ledger.version = store.version()
    ledger.compare(store)
    store.close()
    refused(GraphClosed, lambda: store.erase(Batch()), "erasing after close()")


STORE_CHECKS = (
    check_store_versions,
    check_store_atomic,
    check_store_rows,
    check_store_replacing,
    check_store_removing,
    check_store_keeps_its_own,
    check_store_closed,
    check_store_exclusive,
    check_store_snapshot,
    check_store_copy,
    check_store_erasing,
    check_store_any_history,
    *READING_CHECKS,
    *VECTOR_CHECKS,
)
"""What a store does with one handle, be it in memory or on disk."""
