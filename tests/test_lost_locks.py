"""A process that opens and closes the database file by other means loses SQLite's locks on it, and no memory."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import sys

import pytest
from outside import add, check_whole, open_memory, run

from raeburnmemory import doctor
from raeburnmemory.errors import StoreError, StoreWriteFailed
from raeburnmemory.store.sqlite_connection import Connection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks are those of a process, not of a file")

# From then on SQLite asks another lock, too, before it takes the log away (sqlite.org/releaselog/3_51_0.html).
breakable = pytest.mark.skipif(sqlite3.sqlite_version_info >= (3, 51), reason="this SQLite leaves the log in its place")

OTHER = """
import sys
from outside import add, open_memory
with open_memory(sys.argv[1], timeout=60) as memory:
    for name in sys.argv[2:]:
        add(memory, name)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "g.db"


def lose(path):
    """Do what ends this process's locks on the database."""
    path.read_bytes()


def another(path, *names):
    """Let another process add to the memory, and close it as if it were the last one to have it open."""
    run(OTHER, path, *names)


def check(path, names):
    """Another process finds all of them, and no damage."""
    run(
        "import sys; from outside import *; m = open_memory(sys.argv[1]); check_whole(m, sys.argv[2:]); m.close()",
        path,
        *names,
    )
    assert not doctor.verify(path).codes("error")


@pytest.mark.parametrize("how", ["read", "copy", "tree", "archive"])
def test_nothing_is_lost_beside_others(path, tmp_path, how):
    expected = []
    with open_memory(path, timeout=30) as memory:
        add(memory, "first")
        for number in range(3):
            if how == "read":
                lose(path)
            elif how == "copy":
                shutil.copy(path, tmp_path / "copy.db")
            elif how == "tree":
                shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{number}"))
            else:
                shutil.make_archive(str(tmp_path.with_name(f"{tmp_path.name}-{number}")), "zip", tmp_path)
            names = [f"other-{number}-{n}" for n in range(20)]
            another(path, *names)
            assert memory.get(f"pother-{number}-7"), "what others wrote is not seen"
            another(path, f"again-{number}")
            add(memory, f"mine-{number}")
            expected += [f"p{name}" for name in [*names, f"again-{number}", f"mine-{number}"]]
            check_whole(memory, ["pfirst", *expected])
        lose(path)
        another(path, "last")
    check(path, ["pfirst", *expected, "plast"])


@pytest.mark.parametrize("ending", ["close", "collect", "exit"])
def test_closing_leaves_the_database_to_others(path, ending):
    """It would write old pages over new ones."""
    code = f"""
import gc, pathlib, subprocess, sys
from outside import *
memory = open_memory(sys.argv[1])
add(memory, "first")
pathlib.Path(sys.argv[1]).read_bytes()
for names in (["one", "two"], [f"more-{{n}}" for n in range(30)]):
    run({OTHER!r}, sys.argv[1], *names)
if {ending!r} == "close":
    memory.close()
elif {ending!r} == "collect":
    del memory
    gc.collect()
"""
    run(code, path)
    check(path, ["pfirst", "pone", "ptwo", *(f"pmore-{n}" for n in range(30))])


def test_a_new_log_of_a_process_that_died_is_kept(path):
    memory = open_memory(path)
    add(memory, "first")
    lose(path)
    another(path, "other")
    run(
        OTHER.replace("with open_memory", "memory = open_memory").replace(" as memory:", "\nif True:")
        + "import os; os._exit(0)",
        path,
        "dead",
    )
    assert path.with_name("g.db-wal").stat().st_size
    memory.close()
    check(path, ["pfirst", "pother", "pdead"])


def test_readers_see_what_others_write(path):
    with open_memory(path) as memory:
        add(memory, "first")
    with open_memory(path, read_only=True) as reader:
        assert reader.get("pfirst")
        lose(path)
        for number in range(3):
            another(path, f"other-{number}")
            assert reader.get(f"pother-{number}")
            assert reader.similar(f"thing other-{number}", 1)[0].id == f"pother-{number}"
    check(path, ["pfirst", *(f"pother-{n}" for n in range(3))])


@breakable
def test_several_memories_of_one_file(path):
    first, second = open_memory(path), open_memory(path)
    add(first, "first")
    add(second, "second")
    lose(path)
    another(path, "other")
    with pytest.raises(StoreError, match=r"backup\(\)"):
        open_memory(path)
    with pytest.raises(StoreError, match="was open here when another program removed its log"):
        add(first, "one")
    add(second, "two")
    add(first, "three")
    assert first.get("ptwo")
    first.close()
    second.close()
    check(path, ["pfirst", "psecond", "pother", "ptwo", "pthree"])


def test_a_log_that_somebody_removes_by_hand_is_written_anew(path):
    with open_memory(path) as memory:
        for number in range(30):
            add(memory, f"before-{number}")
        path.with_name("g.db-wal").unlink()
        add(memory, "after")
    check(path, [*(f"pbefore-{n}" for n in range(30)), "pafter"])


PEEK = """
import os, sqlite3, sys
for end in (lambda db: db.close(), lambda db: os._exit(0)):
    db = sqlite3.connect(sys.argv[1])
    assert db.execute("SELECT count(*) FROM nodes").fetchone()
    end(db)
"""


@breakable
def test_a_log_that_is_exchanged_in_the_middle_of_a_write(path):
    def write():
        with memory._store.exclusive():
            add(memory, "lost")
            lose(path)
            run(PEEK, path)

    with open_memory(path) as memory:
        add(memory, "first")
        with pytest.raises(StoreWriteFailed, match="another program removed its log"):
            write()
        add(memory, "again")
        assert "plost" not in memory
    check(path, ["pfirst", "pagain"])


@breakable
def test_a_limit_that_keeps_the_old_log_open_for_now(path, monkeypatch):
    def refused(self):
        raise StoreWriteFailed(24, "Could not open it")

    with open_memory(path) as memory:
        add(memory, "first")
        lose(path)
        another(path, "other")
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_close_apart", refused)
            with pytest.raises(StoreWriteFailed, match="Could not open it"):
                add(memory, "refused")
        add(memory, "again")
    check(path, ["pfirst", "pother", "pagain"])


@breakable
def test_where_the_old_log_cannot_be_left_apart(path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "_close_apart", lambda self: False)  # as on some systems before Python 3.12
        memory = open_memory(path)
        add(memory, "first")
        lose(path)
        another(path, "other")
        for _ in range(2):
            with pytest.raises(StoreError, match="start this program again"):
                add(memory, "refused")
        memory.close()
        del memory
        gc.collect()
        with pytest.raises(StoreError, match="start this program again"):
            open_memory(path)
        check_in_another = (
            "import sys; from outside import *; m = open_memory(sys.argv[1]); check_whole(m, sys.argv[2:]); m.close()"
        )
        run(check_in_another, path, "pfirst", "pother")
    # Only for what follows here: the connection that was left for good is about to go after all.
    from raeburnmemory.store.sqlite_connection import open_connections

    for connection in open_connections:
        if connection.path == str(path):
            connection.close()


def test_a_connection_that_was_closed_before_is_closed_again(path):
    """As forks do, which close whatever there is."""
    memory = open_memory(path)
    add(memory, "first")
    connection = memory._store._db
    memory.close()
    assert not path.with_name("g.db-wal").exists()
    connection.close()
    assert not connection.astray()
