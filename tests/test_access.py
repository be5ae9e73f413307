"""What may not be read or written, and what is no file: an error of ours that names it, and every byte as before."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys

import pytest
from outside import contents, fake, open_memory, run, unit

from raeburnmemory._optional import installed
from raeburnmemory.errors import EmbeddingsMissing, MemoryGraphError, StoreError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes, mounts and pipes are those of a POSIX system")

TEXTS = [f"thing {n} of s" for n in range(12)]
VECTORS = ".faiss" if installed("faiss") else ".vectors.npy"


def fill(path):
    """A store with everything beside it: a journal, vectors, commits in a -wal file, a saved index."""
    with open_memory(path) as memory:
        memory.add_many([({"id": f"p{n}", "text": text},) for n, text in enumerate(TEXTS)])
        if path.suffix == ".db":
            memory.add_many([({"id": f"q{n}", "text": f"other {n}"},) for n in range(1100)])
            memory.similar("thing")
    memory = open_memory(path)
    memory.add_interaction({"id": "last", "text": "the last thing"})
    copied = contents(path.parent)
    memory.close()
    shutil.rmtree(path.parent)
    path.parent.mkdir(mode=0o700)
    for name, raw in copied.items():
        (path.parent / name).write_bytes(raw)
        (path.parent / name).chmod(0o600)
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    for name in ("g.json", "g.db"):
        (folder / name).mkdir()
        fill(folder / name / name)
    return folder


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path, filled):
    shutil.copytree(filled / request.param, tmp_path / "here")
    return tmp_path / "here" / request.param


def look(path, **options):
    """Read all there is; return what was found, or the error, which must be one of ours that names a file of the store."""
    try:
        with open_memory(path, **options) as memory:
            found = {node.id: node.text for node in memory.nodes("prompt")}
            try:
                scores = sorted(unit(fake(list(found.values()))) @ unit(fake(["thing 3 of s"]))[0], reverse=True)
                hits = memory.similar("thing 3 of s", 5)
                assert [hit.score for hit in hits] == pytest.approx(scores[:5], abs=1e-5)
            except EmbeddingsMissing as error:
                assert path.name in str(error)
            return found
    except MemoryGraphError as error:
        assert path.name in str(error) or str(path.parent) in str(error), error
        return error


# --- read-only --------------------------------------------------------------------------------------------------

TRY = """
import sys
from outside import add, fake, open_memory
from raeburnmemory.errors import MemoryGraphError
path = sys.argv[1]
try:
    with open_memory(path, read_only=True) as memory:
        assert memory.get("p3").text == "thing 3 of s" and "last" in memory
        assert memory.similar("thing 3 of s", 1).ids == ["p3"]
    print("READ")
except MemoryGraphError as error:
    print("NOT READ", type(error).__name__, error)
try:
    with open_memory(path, timeout=1) as memory:
        add(memory, "more")
    print("WRITTEN")
except MemoryGraphError as error:
    print("NOT WRITTEN", type(error).__name__, error)
"""


def closed(path):
    """Carry the -wal file over, and leave what a closed store leaves."""
    with open_memory(path):
        pass
    for lock in (".lock", ".lock.gate"):
        path.with_name(path.name + lock).unlink()
    return path


@pytest.fixture
def without_power():
    """What to put before a command so that modes count for it, even if whoever runs the tests is root."""
    if os.geteuid():
        return []
    found = shutil.which("setpriv")
    if found is None:
        pytest.skip("modes mean nothing to root, and setpriv is not installed: apt install util-linux")
    return [found, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


def test_a_read_only_file_system(path):
    before = contents(closed(path).parent)
    folder = str(path.parent)
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if bound.returncode:
        pytest.skip(f"this user may not mount: {bound.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        read, written = run(TRY, path).splitlines()
    finally:
        subprocess.run(["umount", folder], check=True)
    assert read == "READ"
    assert written.startswith("NOT WRITTEN StoreWriteFailed")
    assert "Read-only file system" in written
    assert "read_only=True" in written
    assert contents(path.parent) == before


def test_files_that_nobody_may_change(path):
    """Not even root: they are immutable."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not here, which makes files immutable")
    before = contents(closed(path).parent)
    changed = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
    if changed.returncode:
        pytest.skip(f"no file can be made immutable here: {changed.stderr.strip()}")
    try:
        read, written = run(TRY, path).splitlines()
        assert read == "READ"
        if path.suffix == ".db":
            assert written.startswith("NOT WRITTEN StoreWriteFailed")
            assert contents(path.parent) == before
        else:  # it is in the journal, until the graph can be written again
            assert written == "WRITTEN"
            assert {name for name in contents(path.parent) if ".tmp" in name} == set()
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    with open_memory(path) as memory:
        assert ("pmore" in memory) == (written == "WRITTEN")


FORBIDDEN = {
    # what: (mode, what must be named, whether reading works)
    "the folder": (0o000, "here", False),
    "the store": (0o000, "g.", False),
    ".journal": (0o000, ".journal", False),
    ".vectors.json": (0o000, ".vectors.json", False),
    VECTORS: (0o000, VECTORS, False),
    "-wal": (0o000, "g.db", False),
    ".lock": (0o000, ".lock", True),
    ".lock.gate": (0o000, ".lock.gate", True),
    ".prompt.index": (0o000, "", True),
}


OTHERS = {"g.json": {"-wal", ".prompt.index"}, "g.db": {".journal", ".vectors.json", VECTORS}}


@pytest.mark.parametrize(
    ("path", "what"),
    [(name, what) for name, others in OTHERS.items() for what in FORBIDDEN if what not in others],
    indirect=["path"],
)
def test_permission_denied(path, without_power, what):
    mode, named, readable = FORBIDDEN[what]
    target = {"the folder": path.parent, "the store": path}.get(what, path.with_name(path.name + what))
    if what in {".lock", ".lock.gate"}:
        target.touch()
    old = stat.S_IMODE(target.stat().st_mode)
    before = contents(path.parent)
    target.chmod(mode)
    try:
        read, written = run(TRY, path, before=without_power).splitlines()
    finally:
        target.chmod(old)
    assert read.startswith("READ" if readable else "NOT READ Store"), read
    if what == ".prompt.index":
        assert written == "WRITTEN"  # a cache: made anew
        return
    assert written.startswith("NOT WRITTEN Store"), written
    for said in [read, written] if not readable else [written]:
        assert named in said, said
    assert "belongs to user" in written, written
    assert contents(path.parent) == before


# --- no files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def in_time():
    """Fail what takes longer than half a minute: whoever opens a pipe waits for its writer for ever."""

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # their names must be short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


ODD = {
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "a folder": lambda path: path.mkdir(),
    "a socket": a_socket,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /dev/full": lambda path: path.symlink_to("/dev/full"),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: path.touch(),
    "HTML": lambda path: path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>"),
    "UTF-16": lambda path: path.write_text('{"nodes": []}', encoding="utf-16"),
    "brackets without end": lambda path: path.write_bytes(b"[" * 200_000),
    "a number without end": lambda path: path.write_bytes(b"9" * 100_000),
    "a list": lambda path: path.write_text("[1, 2]"),
    "not a number": lambda path: path.write_text('{"format": NaN, "store": 1e999, "fields": {}}'),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
}
FILES = {
    "g.json": [".journal", ".vectors.json", VECTORS, f".prompt{VECTORS}", ".map.json", ".lock", ".lock.gate"],
    "g.db": ["-wal", "-shm", ".prompt.index", ".lock", ".lock.gate"],
}


@pytest.mark.parametrize("odd", ODD)
def test_something_else_where_a_file_of_the_store_should_be(path, odd, in_time, tmp_path):
    """An error of ours that names a file, or the right answers; what is not ours is neither followed nor overwritten."""
    kept = tmp_path / "kept"
    shutil.copytree(path.parent, kept)
    whole = look(path)
    assert len(whole) > len(TEXTS)
    for name in FILES[path.name]:
        for read_only in (True, False):
            shutil.rmtree(path.parent)
            shutil.copytree(kept, path.parent)
            target = path.with_name(path.name + name)
            target.unlink(missing_ok=True)
            ODD[odd](target)
            found = look(path, read_only=read_only, timeout=1)
            if name == "-wal" and not isinstance(found, Exception):
                # SQLite takes a -wal file without a valid header for an empty one: what was only there is lost.
                assert {**found, "last": whole["last"]} == whole
            else:
                assert isinstance(found, StoreError) or found == whole, (name, read_only, found)
            if odd.startswith("a link"):
                assert target.is_symlink() or not read_only
    assert not (path.parent / "nowhere").exists(), "a link was followed"
