"""What every store does with vectors. Each check takes an opener; see `store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DimensionMismatch
from ..nodes import Batch, Node, Vector, Where
from ._expect import equal, refused, that
from ._ledger import Ledger, vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import Store

__all__ = ["VECTOR_CHECKS"]


def _nodes(names: str) -> list[Node]:
    return [Node(name, "prompt", f"text of {name}") for name in names]


def _slots(store: Store, field: str = "prompt") -> list[int]:
    slots: list[int] = store.vector_slots(field)[0].tolist()
    return slots


def check_vectors_slots(open_store: Callable[[], Store]) -> None:
    """Slots are dense and append-only for each field, and never given again, whatever happens to their vectors."""
    store = open_store()
    equal((_slots(store), store.vector_slots("prompt")[1].tolist()), ([], []), "the slots of a new store")
    equal(store.vector_fields(), set(), "vector_fields() of a new store")
    first = [vector(name, 1, n) for n, name in enumerate("abc")]
    store.write(Batch(nodes=_nodes("abc"), vectors=[*first, vector("b", 1, 1, field="fact")]))
    equal((_slots(store), _slots(store, "fact")), ([0, 1, 2], [0]), "the first slots")
    equal(store.vector_fields(), {"prompt", "fact"}, "vector_fields()")
    store.write(Batch(nodes=_nodes("a"), vectors=[vector("a", 5, 5)]))
    equal(_slots(store), [1, 2, 3], "slots after replacing a node")
    store.write(Batch(removed_nodes=[("default", "a"), ("default", "c")]))
    equal(_slots(store), [1], "slots after removing nodes")
    store.write(Batch(nodes=_nodes("d"), vectors=[vector("d", 1, 2), vector("b", 3, 2)]))
    equal(_slots(store), [1, 4, 5], "slots after writing more: a slot was given again, or one was left out")
    rows = {node.id: node.row for node in store.nodes(Where())}
    equal(store.vector_slots("prompt")[1].tolist(), [rows[name] for name in "bdb"], "the rows of the slots")
    store.write(Batch(removed_nodes=[("default", "b"), ("default", "d")]))
    equal((_slots(store), _slots(store, "fact")), ([], []), "slots after removing all")
    for name in "ef":  # between the two nothing of the field is left but its count
        store.write(Batch(nodes=_nodes(name)))
    store.write(Batch(vectors=[vector("e", 1, 2)]))
    equal(_slots(store), [6], "the slot after all were gone")


def check_vectors_values(open_store: Callable[[], Store]) -> None:
    """Numbers, spans and fields come back bit for bit, in the order of slots."""
    store = open_store()
    values = np.random.default_rng(0).standard_normal((50, 33)).astype(np.float32)
    values[3, :4] = (-0.0, 1e-42, 3e38, 1 / 3)  # a negative zero, a denormal, a huge one, one that is rounded
    spans = [(i % 3, i, i + 7 if i % 2 else -1) for i in range(50)]
    vectors = [Vector("a", "prompt", row, *span) for row, span in zip(values, spans, strict=True)]
    store.write(Batch(nodes=_nodes("a"), vectors=vectors))
    blocks = list(store.vectors("prompt", -1).blocks)
    found = np.concatenate([block.values for block in blocks])
    equal(found.tobytes(), values.tobytes(), "the numbers")
    equal([tuple(span) for block in blocks for span in block.spans.tolist()], spans, "the spans")
    for block in blocks:
        kinds = tuple(column.dtype for column in block)
        equal(kinds, (np.int64, np.int64, np.float32, np.int64), "the types of a block")
    equal([*store.vectors("nothing", -1).blocks], [], "blocks of a field that is not there")
    equal(store.counts(None)["vectors"], {"prompt": 50}, "the number of vectors")


def check_vectors_many(open_store: Callable[[], Store]) -> None:
    """Many vectors come in blocks, each slot once, ascending."""
    store = open_store()
    values = np.random.default_rng(1).standard_normal((9000, 2)).astype(np.float32)
    store.write(Batch(nodes=_nodes("ab"), vectors=[Vector("ab"[i % 2], "prompt", row) for i, row in enumerate(values)]))
    changes = store.vectors("prompt", -1)
    slots = np.concatenate([block.slots for block in changes.blocks])
    equal(slots.tolist(), list(range(9000)), "the slots of 9,000 vectors")
    store.write(Batch(nodes=_nodes("a"), vectors=[Vector("a", "prompt", values[0])]))
    blocks = list(store.vectors("prompt", -1).blocks)
    equal(np.concatenate([b.slots for b in blocks]).tolist(), [*range(1, 9000, 2), 9000], "the slots left")
    left = np.concatenate([values[1::2], values[:1]])
    equal(np.concatenate([b.values for b in blocks]).tobytes(), left.tobytes(), "the vectors left")


def check_vectors_since(open_store: Callable[[], Store]) -> None:
    """vectors(field, since) tells from every version on what to take away and what to add."""
    store = open_store()
    states: list[dict[int, list[float]]] = [{}]  # by version: what somebody who followed so far holds
    steps: list[Batch] = [
        Batch(nodes=_nodes("abc"), vectors=[vector("a", 1, 0), vector("b", 0, 1)]),
        Batch(meta={"x": 1}),  # says nothing about vectors
        Batch(vectors=[vector("c", 1, 1)]),
        Batch(nodes=_nodes("b")),  # loses its vector
        Batch(nodes=_nodes("a"), vectors=[vector("a", 1, 2), vector("b", 2, 1)]),
        Batch(removed_nodes=[("default", "a")]),
        Batch(vectors=[vector("b", 3, 1, field="fact")]),
        Batch(removed_nodes=[("default", "b"), ("default", "c")]),
        Batch(nodes=_nodes("a"), vectors=[vector("a", 7, 1)]),
    ]
    for number, batch in enumerate(steps, 1):
        store.write(batch)
        for since in range(-1, number + 1):
            changes = store.vectors("prompt", since)
            equal(changes.version, number, f"the version of vectors('prompt', {since})")
            held = {} if changes.reset or since < 0 else dict(states[since])
            for slot in changes.removed.tolist():
                held.pop(slot, None)
            for block in changes.blocks:
                held.update(zip(block.slots.tolist(), block.values.tolist(), strict=True))
            if since == -1:
                states.append(held)
                equal(sorted(held), _slots(store), f"the slots at version {number}")
            equal(held, states[number], f"what follows from version {since} to {number}")


def check_vectors_dimension(open_store: Callable[[], Store]) -> None:
    """A field holds vectors of one length; another length is refused, and nothing of its batch is written."""
    store, ledger = open_store(), Ledger()
    ledger.write(store, Batch(nodes=_nodes("ab"), vectors=[vector("a", 1, 0, 0), vector("b", 1, 0, field="fact")]))
    rest: dict[str, Any] = {"nodes": _nodes("c"), "meta": {"m": 1}, "removed_nodes": [("default", "b")]}
    for what, vectors in (
        ("a longer vector", [vector("c", 1, 0, 0), vector("c", 1, 0, 0, 0)]),
        ("a shorter vector", [vector("c", 1, 0)]),
    ):
        wrong = len(vectors[-1].values)
        call = lambda vectors=vectors: store.write(Batch(**rest, vectors=vectors))  # noqa: E731
        message = refused(DimensionMismatch, call, what)
        that(str(wrong) in message and "3" in message, f"the message does not name both lengths: {message!r}")
        ledger.compare(store)
    two = [vector("c", 1, 0, field="new"), vector("c", 1, 0, 0, field="new")]
    refused(DimensionMismatch, lambda: store.write(Batch(**rest, vectors=two)), "two lengths in a new field")
    ledger.compare(store)
    # Once none is left, or the only one goes in the same batch, any length may begin.
    ledger.write(store, Batch(nodes=_nodes("a"), vectors=[vector("a", 1, 2, 3, 4)]))
    ledger.compare(store)
    ledger.write(store, Batch(removed_nodes=[("default", "a")]))
    ledger.write(store, Batch(nodes=_nodes("a"), vectors=[vector("a", 1, 2)]))
    ledger.compare(store)


def check_vectors_staged(open_store: Callable[[], Store]) -> None:
    """The vectors of `X.next` wait apart from those of `X`, then replace all there are at once, or go."""
    store, ledger = open_store(), Ledger()

    def step(**changes: Any) -> None:
        ledger.write(store, Batch(**changes))
        ledger.compare(store)

    step(nodes=_nodes("abc"), vectors=[vector("a", 1, 0), vector("b", 0, 1), vector("b", 2, 3, field="fact")])
    step(vectors=[vector("a", 1, 0, 5, field="prompt.next")])  # of another length
    step(staged="discard")
    equal(store.counts(None)["vectors"], {"fact": 1, "prompt": 2}, "the vectors after discarding")
    step(vectors=[vector("a", 1, 0, 5, field="prompt.next"), vector("c", 1, 2, 5, field="prompt.next")])
    step(nodes=_nodes("c"))  # replaced: what waited for it goes as well
    version = store.version()
    step(vectors=[vector("c", 5, 5, 5, field="prompt.next")], staged="promote", meta={"one": "new"})
    equal(store.counts(None)["vectors"], {"prompt": 2}, "the vectors after promoting: none of the old model stay")
    changes = store.vectors("prompt", version)
    that(changes.reset, "vectors() tells no reset to whoever holds vectors of the old length")
    equal(sum(len(block.slots) for block in changes.blocks), 2, "the vectors after the reset")
    that(store.vectors("fact", version).reset, "vectors() tells no reset to whoever holds vectors of a dropped field")
    step(vectors=[vector("b", 1, 1, 1), vector("b", 1, 1, 1, 1, field="fact")])
    step(staged="discard")  # nothing waits
    step(staged="promote")
    step(vectors=[vector("b", 1, 1, 1, 1)])
    step(removed_nodes=[("default", name) for name in "abc"])


VECTOR_CHECKS = (
    check_vectors_slots,
    check_vectors_values,
    check_vectors_many,
    check_vectors_since,
    check_vectors_dimension,
    check_vectors_staged,
)
