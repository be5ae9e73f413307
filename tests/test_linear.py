"""Four processes on a few keys: every answer is one that some order of the calls explains."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest
from faults import rounds
from hypothesis import given
from hypothesis import strategies as st
from linear import Operation, explains, linearizable
from outside import end, open_memory, start

HISTORIES = int(os.environ.get("RAEBURN_HISTORIES", "6"))
PROCESSES, CALLS, KEYS = 4, 50, 5

WORKER = """
import json, random, sys, time
from outside import open_memory
from raeburnmemory.errors import NodeNotFound
path, who = sys.argv[1], int(sys.argv[2])
memory = open_memory(path, timeout=60)
print("ready", flush=True)
for line in sys.stdin:
    number, calls, keys = json.loads(line)
    dice, told = random.Random(f"{number}-{who}"), []
    for call in range(calls):
        key, kind = f"p{number}-{dice.randrange(keys)}", dice.choice(["put", "put", "get", "get", "get", "delete"])
        value = f"value {who} {call}"
        start = time.monotonic()
        if kind == "put":
            memory.add_interaction({"id": key, "text": value})
        elif kind == "get":
            try:
                value = memory.get(key).text
            except NodeNotFound:
                value = None
        else:
            value = key in memory.forget(key).ids
        told.append([key, kind, value, start, time.monotonic()])
    print(json.dumps(told), flush=True)
memory.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="clocks of several processes agree on POSIX systems")
@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_every_answer_is_explained_by_some_order(tmp_path, name):
    open_memory(tmp_path / name).close()
    workers = [start(WORKER, tmp_path / name, who, stdin=subprocess.PIPE) for who in range(PROCESSES)]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n", worker.stderr.read()
        with rounds("history of four processes", name) as count:
            for number in range(HISTORIES):
                for worker in workers:
                    worker.stdin.write(json.dumps([number, CALLS, KEYS]) + "\n")
                    worker.stdin.flush()
                told = [json.loads(worker.stdout.readline()) for worker in workers]
                history: dict[str, list[Operation]] = {}
                for key, *fields in itertools.chain(*told):
                    history.setdefault(key, []).append(Operation(*fields))
                assert sum(map(len, history.values())) == PROCESSES * CALLS
                with count.round(f"history {number}", faults=0, acknowledged=PROCESSES * CALLS):
                    for key, operations in history.items():
                        assert linearizable(operations), (key, sorted(operations, key=lambda each: each.start))
    finally:
        for worker in workers:
            end(worker)


# --- the checker itself -----------------------------------------------------------------------------------------


def by_trying_everything(operations):
    for order in itertools.permutations(operations):
        if any(a.start > b.end for a, b in itertools.combinations(order, 2)):
            continue
        state = None
        for each in order:
            fits, state = explains(each, state)
            if not fits:
                break
        else:
            return True
    return False


times = st.tuples(st.integers(0, 9), st.integers(0, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))
operations = st.one_of(
    st.builds(lambda v, t: Operation("put", v, *t), st.sampled_from("ab"), times),
    st.builds(lambda v, t: Operation("get", v, *t), st.sampled_from(["a", "b", None]), times),
    st.builds(lambda v, t: Operation("delete", v, *t), st.booleans(), times),
)


@given(st.lists(operations, max_size=6))
def test_the_checker_agrees_with_trying_every_order(history):
    assert linearizable(history) == by_trying_everything(history)


@pytest.mark.parametrize(
    ("history", "fine"),
    [
        ([("put", "a", 0, 1), ("get", None, 2, 3)], False),  # a lost write
        ([("put", "a", 0, 1), ("put", "b", 2, 3), ("get", "a", 4, 5)], False),  # a stale answer
        ([("put", "a", 0, 1), ("put", "b", 2, 6), ("get", "b", 3, 4), ("get", "a", 5, 6)], False),  # back in time
        ([("put", "a", 0, 1), ("delete", True, 2, 3), ("delete", True, 4, 5)], False),  # deleted twice
        ([("put", "a", 0, 1), ("put", "b", 2, 6), ("get", "a", 3, 4), ("get", "b", 5, 6)], True),
        ([("put", "a", 0, 9), ("get", None, 1, 2), ("get", "a", 3, 4), ("delete", True, 5, 6)], True),
    ],
)
def test_what_the_checker_is_for(history, fine):
    assert linearizable([Operation(*each) for each in history]) == fine
