"""Killed or failed at each system call of a short life: what was acknowledged is there, whole, without any help."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest
from faults import CALLS, STORES, acknowledged, check_after, points, rounds, tools
from lives import ADDS

from raeburnmemory._optional import installed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and strace are those of a POSIX system")


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


@pytest.fixture(params=STORES)
def name(request):
    return request.param


@pytest.fixture
def counts(strace, name, tmp_path):
    """How many system calls of each kind a life makes in peace."""
    child, found = strace.count("life", tmp_path / "peace" / name)
    assert acknowledged(child.out) == [f"p{i}" for i in range(ADDS)]
    assert found["fdatasync"] >= ADDS  # one sync per add at least
    assert (tmp_path / "peace" / f"{name}.vectors.npy").exists() == (
        ".npy." in name or (name == "g.json" and not installed("faiss"))
    )
    return found


def test_killed_at_each_system_call(strace, name, counts, tmp_path):
    chosen = points(counts, CALLS, 4)
    killed = 0
    with rounds("killed at a system call", name) as count:
        for call, number in chosen:
            here = tmp_path / f"{call}-{number}"
            inject = f"inject={call}:signal=SIGKILL:when={number}"
            child, _ = strace.run(["-e", f"trace={call}", "-e", inject], "life", here / name)
            acked = acknowledged(child.out)
            with count.round(f"{call} {number}", acknowledged=len(acked)):
                child.clean()
                assert child.code in {0, -9}, child.err
                check_after(here / name, acked, 1)
            killed += child.code == -9
            shutil.rmtree(here, ignore_errors=True)
    assert killed >= 0.9 * len(chosen)  # now and then a life makes a call less than the one that was counted


def judge(path, child, faults):
    """What a life told that went on after *faults* refused system calls, against what it left."""
    child.clean()
    assert child.code == 0, child.err
    said = child.out.splitlines()
    refused = [line.split(None, 3)[1:] for line in said if line.startswith("REFUSED ")]
    acked = acknowledged(child.out)
    assert len(refused) <= faults, refused
    for what, error, text in refused:
        assert error in {"StoreWriteFailed", "StoreMissing", "StoreError"}, (what, error, text)
        assert str(path.parent) in text, text
    assert said[-1] == "END", "the answers were lost"
    if "DONE close" in said[-2:]:
        assert not [name for name in os.listdir(path.parent) if ".tmp" in name], "temporary files are left"
    refused_adds = {f"p{what}" for what, _, _ in refused if what.isdigit()}
    # Where the disk failed once more before anything else could be written, a refused change may be there, whole:
    # what a failed sync has left is known to nobody.
    check_after(path, acked, len(refused_adds) if faults > 1 else 0)
    assert len(acked) + len(refused_adds) == ADDS or [what for what, _, _ in refused].count("open") > 1
    return refused


FAILURES = {
    # error: which calls fail, and how many of them in a row
    "EIO of a sync": ("EIO", ("fsync", "fdatasync"), 1),
    "EIO": ("EIO", ("write", "pwrite64", "openat", "rename", "ftruncate", "unlink"), 1),
    "ENOSPC": ("ENOSPC", ("write", "pwrite64", "openat", "rename", "fsync", "fdatasync"), 5),
    "EDQUOT": ("EDQUOT", ("write", "pwrite64"), 5),  # a real quota is in `test_full_disk`
    "EINTR": ("EINTR", ("write", "pwrite64", "openat", "ftruncate", "fsync", "fdatasync"), 1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_disk_that_refuses(strace, name, counts, tmp_path, failure):
    """A refused call is an error of ours, leaves nothing behind, and the next one goes through."""
    error, calls, several = FAILURES[failure]
    felt = 0
    with rounds(failure, name) as count:
        for call, number in points(counts, calls, 3):
            here = tmp_path / f"{call}-{number}"
            when = f"{number}" if several == 1 else f"{number}..{number + several - 1}"
            options = [
                "-y",
                "-e",
                f"trace={call},close,write,pwrite64",
                "-e",
                f"inject={call}:error={error}:when={when}",
            ]
            child, log = strace.run(options, "stubborn_life", here / name)
            with count.round(f"{call} {when}", faults=several, acknowledged=len(acknowledged(child.out))):
                felt += bool(judge(here / name, child, several))
                if call.endswith("sync") and error == "EIO":
                    check_never_synced_again(log)
            shutil.rmtree(here, ignore_errors=True)
    assert felt or error == "EINTR"


def check_never_synced_again(log):
    """A failed sync is not tried again as if nothing had happened.

    The system may take pages for clean then that are not: what a change added to the journal or the -wal file must
    go through another handle, and every other file must be written again before it is synced again.
    """
    failed: dict[tuple[str, str], bool] = {}  # handle: written to since
    for line in log.splitlines():
        found = re.search(r"\b(fsync|fdatasync|close|write|pwrite64)\((\d+)<(.*?)>.* += (.*)", line)
        if found is None:
            continue
        call, *where, result = found.groups()
        handle = where[0], where[1]
        if call == "close":
            failed.pop(handle, None)
        elif handle in failed and "write" in call:
            failed[handle] = True
        elif "INJECTED" in result:
            failed[handle] = False
        elif handle in failed and ".tmp-" not in handle[1]:  # which is thrown away
            log_of_changes = handle[1].endswith((".journal", "-wal"))
            assert failed[handle] != log_of_changes, f"synced again: {line}"
