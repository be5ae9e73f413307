"""The power goes: what was acknowledged survives whatever the disk had not been told to keep.

See `power` for how the states are made. Each opens as what was acknowledged by then, or as that and the one change
under way: never a mix, and without any help.
"""

from __future__ import annotations

import shutil
import sys

import pytest
from faults import POINTS, STORES, acknowledged, check_after, rounds, tools
from outside import contents, open_memory
from power import OPTIONS, crash_states, record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="strace is of Linux")


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


def lived(strace, base, life, *args):
    """Record *life* in the folder *base*, with all that is in there already."""
    before = contents(base)
    child, log = strace.run(OPTIONS, life, *args)
    assert child.code == 0, child.err
    found = record(log, base, before)
    # The record is complete: with everything kept, it gives what is there.
    *_, (_, _, said, files) = [state for state in crash_states(base, found) if state[1] == "everything"]
    put(base.with_name("rebuilt"), files)
    assert contents(base.with_name("rebuilt")) == contents(base)
    assert acknowledged(said) == acknowledged(child.out)
    return found


def sample(states, few):
    """Return every state, or about *few*, spread over the record and over the ways in which it was cut short."""
    states = list(states)
    if POINTS == "all" or len(states) <= few:
        return states
    variants: dict[str, list] = {}
    for state in states:
        variants.setdefault(state[1], []).append(state)
    each = -(-few // len(variants))
    return [several[i * len(several) // each] for several in variants.values() for i in range(min(each, len(several)))]


def put(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, raw in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(raw)


def replay(kind, name, base, recorded, folder, few, check):
    """Put every state of *recorded* into *folder* and *check* it."""
    with rounds(kind, name) as count:
        for where, variant, said, files in sample(crash_states(base, recorded), few):
            put(folder, files)
            acked = acknowledged(said)
            before = recorded.events[where - 1] if where else None
            what = before and (before.kind, before.what, before.at, len(before.data), before.to)
            with count.round(f"event {where} {what}, {variant}", acknowledged=len(acked)):
                check(acked)


@pytest.mark.parametrize("name", STORES)
def test_power_lost_while_several_share_a_sync(strace, name, tmp_path):
    """Of those under way some may be there, whole and in their order; of those before all."""
    base = tmp_path / "base"
    base.mkdir()
    recorded = lived(strace, base, "group_life", base / "new" / name, 3, 4)
    if name.endswith(".json"):
        assert (base / "new" / f"{name}.journal").read_bytes().count(b',"joined":true,') == 9
    folder = tmp_path / "after"

    def check(acked):
        check_after(folder / "new" / name, acked, 4)
        if acked:
            with open_memory(folder / "new" / name, read_only=True) as memory:
                there = [node.id for node in memory.nodes("prompt")]
            assert there == [f"p{number}" for number in range(len(there))]
            assert name.endswith(".json") or len(there) % 4 == 0  # one transaction

    replay("power lost, shared", name, base, recorded, folder, 60, check)


@pytest.mark.parametrize("name", STORES)
def test_power_lost_in_a_short_life(strace, name, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    # In a folder that the library makes: its name, too, has to survive.
    recorded = lived(strace, base, "life", base / "new" / name, 10)
    assert sum(event.kind.startswith("sync") for event in recorded.events) >= 10
    folder = tmp_path / "after"
    replay("power lost", name, base, recorded, folder, 60, lambda acked: check_after(folder / "new" / name, acked, 1))
