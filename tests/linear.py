"""Is there an order of these operations on one key, each between its start and its end, that explains every answer?

The search of Wing and Gong (1993), with what was tried remembered as Lowe (2017) does. Keys do not depend on each
other, so that a history is checked key by key.
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """One call: "put" stores *value*, "get" answered *value* (None: nothing there), "delete" answered whether there was."""

    kind: str
    value: object
    start: float
    end: float


def explains(operation, state):
    """Return (whether *state* can answer so, the state after it)."""
    if operation.kind == "put":
        return True, operation.value
    if operation.kind == "get":
        return operation.value == state, state
    return operation.value == (state is not None), None


def linearizable(operations, state=None):
    """Tell whether there is such an order, from *state* on."""
    operations = sorted(operations, key=lambda each: each.start)
    everything = (1 << len(operations)) - 1
    tried = set()
    stack = [(0, state)]
    while stack:
        done, now = stack.pop()
        if done == everything:
            return True
        if (done, now) in tried:
            continue
        tried.add((done, now))
        # What began after another one had ended cannot come before it.
        first_end = min(each.end for i, each in enumerate(operations) if not done >> i & 1)
        for i, each in enumerate(operations):
            if each.start > first_end:
                break
            if not done >> i & 1:
                fits, after = explains(each, now)
                if fits:
                    stack.append((done | 1 << i, after))
    return False
