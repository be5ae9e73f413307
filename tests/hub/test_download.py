"""Fetching models over a network that fails: nothing half under its final name, nothing fetched twice for no reason."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from file_server import CERTIFICATE, FileServer, model_bytes
from outside import environment

from raeburnmemory.hub import LlamafileManager, ModelSpec
from raeburnmemory.hub.models import errors

pytest.importorskip("httpx", reason="models are fetched with httpx")

SIZE = 700_000
MANY = 6  # tries after the first


@pytest.fixture
def server():
    with FileServer(model_bytes(SIZE)) as made:
        yield made


@pytest.fixture
def store(tmp_path):
    return tmp_path / "models"


def spec_of(server, **more):
    return ModelSpec("m", "m.llamafile", url=server.url, **more)


def manager_of(store, *specs, **options):
    options = {"retry_delay": 0.005, "download_timeout": 5.0, **options}
    return LlamafileManager(store, catalogue=specs, **options)


def lies_there(store):
    """Return which files lie in the folder of the models, but for its own."""
    return sorted(each for each in os.listdir(store) if each != ".raeburn")


# --- what comes as it should


@pytest.mark.parametrize("known", ["everything", "by the server", "by a large store", "nothing"])
def test_a_file_comes_whole(server, store, known):
    spec = spec_of(server)
    if known == "everything":
        spec = spec_of(server, size=SIZE, sha256=server.sha256)
    elif known == "by a large store":  # says size and digest, and leads to where the file lies
        there = {
            "Location": server.url + "?signed=1",
            "X-Linked-Size": str(SIZE),
            "X-Linked-Etag": f'"{server.sha256}"',
        }
        server.head = ("status", 302, there)
        server.script = [("status", 302, there)]
    elif known == "nothing":
        server.head = ("status", 405, {})
        server.script = ["unsized"]
    told = []
    with manager_of(store, spec) as manager:
        assert manager.status("m").simple_state == "absent"
        job = manager.download("m", progress=told.append)
        status = job.wait()
    path = store / "m.llamafile"
    assert path.read_bytes() == server.payload
    assert lies_there(store) == ["m.llamafile"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (status.file_state, status.simple_state, status.bytes_done) == ("ready", "idle", SIZE)
    assert status.sha256_verified is (True if known in {"everything", "by a large store"} else None)
    assert told[0].file_state == "downloading"
    assert told[-1].file_state == "ready"
    done = [each.bytes_done for each in told]
    assert done == sorted(done)
    assert len(server.gets) == (2 if known == "by a large store" else 1)
    assert all(each.headers["accept-encoding"] == "identity" for each in server.gets)


def test_it_is_synced_and_marked_before_it_gets_its_name(server, store, monkeypatch):
    """What lies under the final name is whole after a power cut, too; the calls are real, and only noted."""
    calls = []

    def noted(name):
        real = getattr(os, name)

        def call(what, *rest, **more):
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
            calls.append((name, os.path.basename(path)))
            return real(what, *rest, **more)

        monkeypatch.setattr(os, name, call)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("which file is synced is read from /proc")
    for name in ("fsync", "replace", "chmod"):
        noted(name)
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m")
    partial = "m.llamafile.partial"
    named = calls.index(("replace", partial))
    marked = calls.index(("chmod", partial))
    assert marked < calls.index(("fsync", partial), marked) < named
    assert ("fsync", "models") in calls[named:]
    assert [each for each in calls[named + 1 :] if each[1] == "m.llamafile"] == []


def test_a_gguf_file_is_no_program(store):
    with FileServer(b"GGUF" + bytes(3000)) as server:
        spec = ModelSpec("g", "g.gguf", url=server.url, format="gguf")
        with manager_of(store, spec) as manager:
            manager.download("g")
    assert stat.S_IMODE((store / "g.gguf").stat().st_mode) == 0o600


def test_what_is_there_is_not_fetched_again(server, store):
    with manager_of(store, spec_of(server, sha256=server.sha256)) as manager:
        manager.download("m")
        manager.download("m")
        (store / ".raeburn" / "records" / "m.json").unlink()  # as if it had been put there by hand
        manager.download("m")
        assert len(server.gets) == 1
        assert manager.status("m").sha256_verified is True


def test_what_is_damaged_is_fetched_again(server, store):
    with manager_of(store, spec_of(server, sha256=server.sha256)) as manager:
        manager.download("m")
        damaged = bytearray(server.payload)
        damaged[SIZE // 2] ^= 1
        (store / "m.llamafile").write_bytes(damaged)
        with pytest.raises(errors.ChecksumMismatch):
            manager.verify("m")
        assert manager.status("m").file_state == "corrupt"
        assert manager.status("m").simple_state == "error"
        manager.download("m")
        assert manager.status("m").file_state == "ready"
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_a_digest_can_be_demanded_and_waived(server, store):
    with manager_of(store, spec_of(server)) as manager:
        with pytest.raises(errors.InvalidSpec, match="require"):
            manager.download("m", verify="require")
        assert server.asked == []
    with manager_of(store, spec_of(server, sha256="0" * 64)) as manager:
        manager.download("m", verify="none")
        assert manager.status("m").sha256_verified is None
        with pytest.raises(errors.ChecksumMismatch):
            manager.verify("m")


def test_without_a_url_there_is_nothing_to_fetch(store):
    with manager_of(store, ModelSpec("m", "m.gguf", format="gguf")) as manager:
        with pytest.raises(errors.InvalidSpec, match="import_file"):
            manager.download("m")
        with pytest.raises(errors.UnknownModel, match="'other'. Known are: m"):
            manager.download("other")


# --- G1: what comes is not what it should be

WRONG = {
    "truncated": (["(short)"] * 7, errors.DownloadError, 7),
    "longer": (["longer"], errors.SizeMismatch, 1),
    "wrong digest": (["other"], errors.ChecksumMismatch, 1),
    "a page": ([("body", b"<!DOCTYPE html><p>Sign in", {"Content-Type": "text/html"})], errors.DownloadError, 1),
    "404": ([("status", 404)], errors.DownloadError, 1),
    "500": ([("status", 500)] * 7, errors.DownloadError, 7),
    "429": ([("status", 429, {"Retry-After": "0"})] * 7, errors.DownloadError, 7),
    "stalled": ([("stall", 0)] * 2, errors.DownloadStalled, 2),
    "a trickle": ([("trickle", 0)] * 2, errors.DownloadStalled, 2),
    "reset": ([("reset", 0)] * 7, errors.DownloadError, 7),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_answers(server, store, what):
    script, error, tries = WRONG[what]
    server.script = [("short", 0) if each == "(short)" else each for each in script]
    server.head = ("status", 405, {}) if what in {"longer", "a page"} else "ok"
    size = SIZE if what == "longer" else None
    options = {"download_timeout": 0.3, "download_retries": 1} if error is errors.DownloadStalled else {}
    with manager_of(
        store, spec_of(server, size=size, sha256=None if what == "a page" else server.sha256), **options
    ) as m:
        with pytest.raises(error) as failed:
            m.download("m")
        status = m.status("m")
    assert type(failed.value) in {error, *error.__subclasses__()}
    assert failed.value.model == "m"
    assert failed.value.remedy
    assert len(server.gets) == tries
    assert not (store / "m.llamafile").exists()
    assert status.file_state == "failed"
    assert status.last_error
    if what == "wrong digest":
        other = hashlib.sha256(server.payload[:-64] + bytes(64)).hexdigest()
        assert (failed.value.expected, failed.value.actual) == (server.sha256, other)
        assert other in str(failed.value)
        assert lies_there(store) == ["m.llamafile.partial.json"]
    if what in {"404", "500", "429"}:
        assert failed.value.status == int(what)
    # The next try is not marked by this one.
    server.script = []
    with manager_of(store, spec_of(server, sha256=server.sha256)) as m:
        m.download("m")
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_a_server_that_lies_about_the_length_is_not_asked_for_the_file(server, store):
    with manager_of(store, spec_of(server, size=SIZE + 1)) as manager, pytest.raises(errors.SizeMismatch) as failed:
        manager.download("m")
    assert (failed.value.expected, failed.value.actual) == (SIZE + 1, SIZE)
    assert server.gets == []


def test_breaks_at_random_bytes_are_gone_on_after(server, store):
    chance = random.Random(5)
    server.script = [(chance.choice(["short", "reset"]), chance.randrange(SIZE // 8)) for _ in range(MANY)]
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m")
    assert (store / "m.llamafile").read_bytes() == server.payload
    assert len(server.gets) == MANY + 1
    assert server.ranges() == sorted(server.ranges())
    assert server.ranges()[-1] > 0


# --- G2: going on


def begin(server, store, spec, upto=300_000):
    """Leave a beginning of the file behind."""
    server.script = [("short", upto)]
    with manager_of(store, spec, download_retries=0) as manager, pytest.raises(errors.DownloadError):
        manager.download("m")
    there = store / "m.llamafile.partial"
    assert there.read_bytes() == server.payload[: there.stat().st_size]
    return there.stat().st_size


@pytest.mark.parametrize("known", [True, False], ids=["digest known", "digest unknown"])
@pytest.mark.parametrize("then", ["206", "200", "206 wrong start", "changed", "size changed", "too long", "416"])
def test_going_on(server, store, then, known):
    old = server.payload
    spec = spec_of(server, sha256=server.sha256) if known else spec_of(server)
    had = begin(server, store, spec)
    assert had > 0
    partial, about = store / "m.llamafile.partial", store / "m.llamafile.partial.json"
    new = model_bytes(SIZE + (4096 if then == "size changed" else 0), seed=1)
    server.script = []
    expected = [had]
    if then == "200":
        server.script = ["whole"]
    elif then == "206 wrong start":
        server.script = ["shifted"]
        expected = [had, 0]
    elif then in {"changed", "size changed"}:
        server.payload, server.etag = new, '"two"'
        spec = spec_of(server, sha256=server.sha256) if known else spec
        expected = [0] if then == "size changed" else [had]
    elif then == "too long":
        partial.write_bytes(old + b"more")
        expected = [0]
    elif then == "416":
        partial.write_bytes(old)
        noted = json.loads(about.read_text())
        about.write_text(json.dumps({**noted, "size": None}))
        server.head = ("status", 405, {})
        expected = [SIZE]
    seen = len(server.gets)
    with manager_of(store, spec) as manager:
        manager.download("m")
    assert (store / "m.llamafile").read_bytes() == server.payload
    assert server.ranges()[seen:] == expected
    asked = server.gets[seen].headers
    assert asked.get("if-range") == ('"one"' if expected[0] else None)
    assert lies_there(store) == ["m.llamafile"]


def test_resume_can_be_declined(server, store):
    begin(server, store, spec_of(server))
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m", resume=False)
    assert server.ranges() == [0, 0]


def test_an_older_part_that_is_wrong_is_fetched_again(server, store):
    spec = spec_of(server, sha256=server.sha256)
    had = begin(server, store, spec)
    partial = store / "m.llamafile.partial"
    damaged = bytearray(partial.read_bytes())
    damaged[1000] ^= 1
    partial.write_bytes(damaged)
    with manager_of(store, spec) as manager:
        manager.download("m")
    assert server.ranges() == [0, had, 0]
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_what_may_not_have_reached_the_disk_before_a_power_cut_is_not_trusted(server, store):
    begin(server, store, spec_of(server))
    partial, about = store / "m.llamafile.partial", store / "m.llamafile.partial.json"
    partial.write_bytes(partial.read_bytes()[:200_000] + bytes(50_000))  # as after a crash of the machine
    about.write_text(json.dumps({**json.loads(about.read_text()), "boot": "another", "done": 150_000}))
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m")
    assert server.ranges() == [0, 150_000]
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_without_anything_to_know_the_file_by_it_begins_anew(store):
    with FileServer(model_bytes(SIZE), etag=None) as server:
        begin(server, store, spec_of(server))
        with manager_of(store, spec_of(server)) as manager:
            manager.download("m")
        assert server.ranges() == [0, 0]


# --- G3: room, kills, several at once


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)  # fmt: skip
    if tried.returncode:
        pytest.skip(f"this user may not mount: {tried.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are those of Linux")
def test_what_does_not_fit_is_not_begun(server, small_disk):
    pytest.importorskip("psutil", reason="what a model takes and what there is needs psutil")
    with manager_of(small_disk, spec_of(server)) as manager:
        plan = manager.plan("m")
        assert (plan.bytes_missing, plan.fits) == (SIZE, False)
        with pytest.raises(errors.InsufficientDisk) as refused:
            manager.download("m")
    assert refused.value.need == SIZE + (256 << 20)
    assert 0 < refused.value.free <= 1 << 20
    assert server.gets == []


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are those of Linux")
def test_a_disk_that_fills_up_ends_the_download_at_once_and_what_came_is_kept(small_disk):
    with FileServer(model_bytes(3 << 20)) as server:
        server.head = ("status", 405, {})
        server.script = ["unsized"] * 9
        with manager_of(small_disk, spec_of(server, sha256=server.sha256)) as manager:
            with pytest.raises(errors.InsufficientDisk, match="space"):
                manager.download("m")
            assert len(server.gets) == 1
            assert not (small_disk / "m.llamafile").exists()
            had = (small_disk / "m.llamafile.partial").stat().st_size
            assert had > 256 << 10
            subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
            manager.download("m")
        assert server.ranges() == [0, had]
        assert (small_disk / "m.llamafile").read_bytes() == server.payload


HELPER = """
import os, resource, signal, sys
from raeburnmemory.hub import LlamafileManager, ModelSpec
import raeburnmemory.hub.models.download, httpx
def life(store, url, sha256, limit):
    if limit != "-":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    spec = ModelSpec("m", "m.llamafile", url=url, sha256=None if sha256 == "-" else sha256)
    try:
        with LlamafileManager(store, catalogue=[spec], retry_delay=0.005) as manager:
            manager.download("m")
        return "done"
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as exc:
        return type(exc).__name__
print("ready", flush=True)
for line in sys.stdin:
    out, *words = line.split()
    pid = os.fork()
    if not pid:
        said = life(*words)
        with open(out + ".tmp", "w") as file:
            file.write(said)
        os.rename(out + ".tmp", out)
        os._exit(0)
    print(pid, flush=True)
    # The next line comes when somebody has seen to this child.
    sys.stdin.readline()
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


class Child:
    """A download in a process of its own."""

    def __init__(self, pid, out):
        self.pid, self._out = pid, out

    def said(self):
        return self._out.read_text() if self._out.exists() else ""

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Helper:
    """Begins downloads in processes of their own, quickly: they are forks of one that has imported everything."""

    def __init__(self, folder):
        self._folder = folder
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout.readline() == "ready\n"

    @contextlib.contextmanager
    def child(self, store, server, *, sha256="-", limit="-"):
        """Begin a download in another process, which is over at the end of the block, by itself or killed."""
        self._number += 1
        out = self._folder / f"said-{self._number}"
        self._process.stdin.write(f"{out} {store} {server.url} {sha256} {limit}\n")
        self._process.stdin.flush()
        child = Child(int(self._process.stdout.readline()), out)
        try:
            yield child
        finally:
            if not child.said():
                child.send(signal.SIGKILL)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "gone\n"

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def helper(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked here")
    made = Helper(tmp_path_factory.mktemp("helper"))
    yield made
    made.close()


def wait_for(what, seconds=20.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_limit_on_file_sizes_is_a_full_disk(server, store, helper):
    with helper.child(store, server, limit=300_000) as child:
        wait_for(child.said)
    assert child.said() == "InsufficientDisk"
    assert (store / "m.llamafile.partial").stat().st_size == 300_000
    assert len(server.gets) == 1


@pytest.mark.parametrize(
    "kills", [6, pytest.param(20, marks=pytest.mark.long), pytest.param(60, marks=pytest.mark.long)]
)
def test_kills_at_random_points(store, helper, tmp_path, kills):
    chance = random.Random(kills)
    whole, midway, kept = 3 << 20, 0, 0
    with FileServer(model_bytes(whole)) as server:
        for number in range(kills):
            server.script = [("slow", 64 << 10, 0.001)]
            seen = len(server.gets)
            with helper.child(store, server, sha256=server.sha256) as child:
                wait_for(lambda: len(server.gets) > seen or child.said())  # noqa: B023
                if len(server.gets) > seen:  # else everything was here, and only lacked its name
                    asked, left = server.gets[-1], whole - server.ranges()[-1]
                    if number % 4 == 3:  # at the end, where it is checked and gets its name
                        wait_for(lambda: asked.sent == left)  # noqa: B023
                        time.sleep(chance.uniform(0, 0.02))
                    else:
                        point = chance.randrange(min(left, 1 << 20))
                        wait_for(lambda: asked.sent >= point)  # noqa: B023
                child.send(signal.SIGKILL)
            final, partial = store / "m.llamafile", store / "m.llamafile.partial"
            if final.exists():
                assert final.read_bytes() == server.payload
                assert not partial.exists()
                store = tmp_path / f"models-{number}"
            else:
                midway += 1
                there = partial.read_bytes() if partial.exists() else b""
                assert there == server.payload[: len(there)]
                kept += len(there) > 0
        assert midway >= kills * 2 // 3
        server.script = []
        with manager_of(store, spec_of(server, sha256=server.sha256)) as manager:
            manager.download("m")
        assert (store / "m.llamafile").read_bytes() == server.payload
        assert kept >= kills // 4
        assert sum(first > 0 for first in server.ranges()) >= kills // 4


def test_an_interrupt_pauses(store, helper):
    with FileServer(model_bytes(2 << 20)) as server:
        server.script = [("slow", 64 << 10, 0.02)]
        with helper.child(store, server) as child:
            wait_for(lambda: server.gets and server.gets[-1].sent > 800_000)
            child.send(signal.SIGINT)
            wait_for(child.said)
        assert child.said() == "interrupted"
        had = (store / "m.llamafile.partial").stat().st_size
        assert had >= 256 << 10
        with manager_of(store, spec_of(server)) as manager:
            assert manager.status("m").file_state == "paused"
            manager.download("m")
        assert server.ranges() == [0, had]
        assert (store / "m.llamafile").read_bytes() == server.payload


@pytest.mark.parametrize("where", ["one manager", "two managers", "two processes"])
def test_two_downloads_of_one_file_are_one(server, store, helper, where):
    server.script = [("slow", 64 << 10, 0.02)]
    spec = spec_of(server, sha256=server.sha256)
    with manager_of(store, spec) as one, manager_of(store, spec) as two:
        first = one.download("m", wait=False)
        wait_for(lambda: server.gets)
        if where == "one manager":
            assert one.download("m", wait=False) is first
        elif where == "two managers":
            second = two.download("m", wait=False)
            assert second.status().file_state == "queued"
            assert two.status("m").file_state == "queued"
            second.wait()
        else:
            with helper.child(store, server, sha256=server.sha256) as child:
                wait_for(child.said)
            assert child.said() == "done"
        first.wait()
    assert len(server.gets) == 1
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_nobody_removes_what_is_being_downloaded(server, store):
    server.script = [("stall", SIZE // 2)]
    with manager_of(store, spec_of(server)) as one, manager_of(store, spec_of(server)) as other:
        job = one.download("m", wait=False)
        wait_for(lambda: server.gets and server.gets[-1].sent)
        assert other.status("m").file_state == "downloading"
        with pytest.raises(errors.ModelInUse, match="downloaded"):
            one.remove("m")
        with pytest.raises(errors.StoreLocked, match=str(os.getpid())):
            other.remove("m")
        assert one.remove("m", force=True) is False
        with pytest.raises(errors.DownloadCancelled):
            job.wait()
        assert lies_there(store) == []
        assert one.status("m").file_state == "absent"


def test_a_file_deleted_under_the_download_is_fetched_anew(server, store):
    server.script = [("slow", 64 << 10, 0.02)]
    with manager_of(store, spec_of(server)) as manager:
        job = manager.download("m", wait=False)
        wait_for(lambda: server.gets and server.gets[-1].sent > SIZE // 2)
        (store / "m.llamafile.partial").unlink()
        job.wait()
    assert server.ranges() == [0, 0]
    assert (store / "m.llamafile").read_bytes() == server.payload


def test_pausing_and_cancelling(server, store):
    server.script = [("stall", 400_000), ("stall", 100_000)]
    with manager_of(store, spec_of(server), download_timeout=30.0) as manager:
        job = manager.download("m", wait=False)
        wait_for(lambda: job.status().bytes_done >= 256 << 10)
        with pytest.raises(TimeoutError):
            job.wait(0.05)
        begun = time.monotonic()
        job.pause()
        assert time.monotonic() - begun < 5  # the read is broken off, not waited for
        with pytest.raises(errors.DownloadCancelled, match="paused"):
            job.wait()
        assert manager.status("m").file_state == "paused"
        assert manager.status("m").simple_state == "absent"
        had = (store / "m.llamafile.partial").stat().st_size
        job = manager.download("m", wait=False)
        wait_for(lambda: len(server.gets) == 2)
        job.cancel()
        with pytest.raises(errors.DownloadCancelled, match="cancelled"):
            job.wait()
        assert manager.status("m").file_state == "absent"
        assert lies_there(store) == []
    assert server.ranges() == [0, had]


def test_a_manager_that_is_closed_pauses(server, store):
    server.script = [("stall", 400_000)]
    with manager_of(store, spec_of(server), download_timeout=30.0) as manager:
        job = manager.download("m", wait=False)
        wait_for(lambda: job.status().bytes_done)
    assert job.done
    with manager_of(store, spec_of(server)) as manager:
        assert manager.status("m").file_state == "paused"


# --- G4: where it leads


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.2:1/m", "is not https"),  # of this machine, but not the host that was named
        ("http://example.org/m", "is not https"),
        ("https://10.0.0.7/m", "no address of the public internet"),
        ("https://[::ffff:192.168.0.1]/m", "no address of the public internet"),
        ("https://[fd00::1]/m", "no address of the public internet"),
        ("https://169.254.169.254/latest/meta-data", "no address of the public internet"),
        ("https://localhost:1/m", "no address of the public internet"),
        ("https://rebound.example/m", "10.9.8.7"),
        ("file:///etc/passwd", "is no"),
        ("https://user:secret@example.org/m", "user name"),
        ("https:///m", "is no URL"),
    ],
)
def test_redirects_that_are_not_followed(server, store, location, said, method, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *rest, **more):
        if host == "rebound.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.9.8.7", 443))]
        assert host in {"127.0.0.1", None}
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answer = ("status", 302, {"Location": location})
    server.head, server.script = ("ok", [answer]) if method == "GET" else (answer, [])
    with manager_of(store, spec_of(server)) as manager, pytest.raises(errors.UnsafeRedirect, match=said) as refused:
        manager.download("m")
    assert "secret" not in str(refused.value) or "secret" in location
    assert len(server.asked) == (2 if method == "GET" else 1)
    assert not (store / "m.llamafile").exists()


def test_a_redirect_to_a_name_goes_to_the_address_that_was_looked_at(store, monkeypatch):
    """And the certificate is that of the name. The address is made public here: it is one of this machine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    from raeburnmemory.hub.models import fetch

    asked = []
    real = socket.getaddrinfo

    def resolve(host, port, *rest, **more):
        if host == "cdn.example":
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return real(host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetch, "_is_private", lambda host: False)
    with FileServer(model_bytes(SIZE)) as first, FileServer(first_payload := first.payload, tls=True) as cdn:
        there = {"Location": f"https://cdn.example:{cdn.port}/m?signature=x", "X-Linked-Size": str(SIZE)}
        first.head = ("status", 302, there)
        first.script = [("status", 302, there)]
        with manager_of(store, spec_of(first)) as manager:
            manager.download("m")
        assert [each.headers["host"] for each in cdn.gets] == [f"cdn.example:{cdn.port}"]
    assert asked == ["cdn.example"]
    assert (store / "m.llamafile").read_bytes() == first_payload


def test_pausing_over_https_breaks_off_too(store, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    server = FileServer(model_bytes(SIZE), script=[("stall", 400_000)], tls=True)
    with server, manager_of(store, spec_of(server), download_timeout=30.0) as manager:
        job = manager.download("m", wait=False)
        wait_for(lambda: job.status().bytes_done)
        begun = time.monotonic()
        job.pause()
        assert time.monotonic() - begun < 5
        had = (store / "m.llamafile.partial").stat().st_size
        manager.download("m")
        assert server.ranges() == [0, had]


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_are_checked_and_https_leads_to_no_http(store, trusted, monkeypatch):
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    server = FileServer(model_bytes(SIZE), tls=True)
    with server, manager_of(store, spec_of(server), download_retries=0) as manager:
        if trusted:
            manager.download("m")
            manager.remove("m")
            server.script = [("status", 302, {"Location": f"http://127.0.0.1:{server.port}/m"})]
            with pytest.raises(errors.UnsafeRedirect, match="is not https"):
                manager.download("m")
        else:
            with pytest.raises(errors.DownloadError, match="(?i)certificate"):
                manager.download("m")
            assert server.asked == []


def test_a_circle_of_redirects_ends(server, store):
    server.head = ("status", 405, {})
    server.script = [("status", 302, {"Location": server.url})] * 50
    with manager_of(store, spec_of(server)) as manager, pytest.raises(errors.UnsafeRedirect, match="10 times"):
        manager.download("m")
    assert len(server.gets) == 11


def test_the_name_comes_from_the_catalogue_alone(server, store, tmp_path):
    server.script = [("body", server.payload, {"Content-Disposition": 'attachment; filename="../../evil"'})]
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m")
    assert lies_there(store) == ["m.llamafile"]
    assert lies_there(tmp_path) == ["models"]


@pytest.mark.parametrize("by", ["a new file", "the same file"])
def test_a_file_that_is_exchanged_after_the_check_is_not_run(server, store, by):
    with manager_of(store, spec_of(server, sha256=server.sha256)) as manager:
        manager.download("m")
        checked = manager.files.runnable("m")
        assert os.stat(checked.path).st_ino == os.stat(store / "m.llamafile").st_ino
        assert stat.S_IMODE(os.stat(os.path.dirname(checked.path)).st_mode) == 0o700
        evil = store / "evil"
        evil.write_bytes(b"#!/bin/sh\ntouch /tmp/evil\n")
        if by == "a new file":
            os.replace(evil, store / "m.llamafile")
            assert Path(checked.path).read_bytes() == server.payload  # what would be run
        else:
            os.utime(evil)
            (store / "m.llamafile").write_bytes(evil.read_bytes())
        with pytest.raises((errors.ChecksumMismatch, errors.SizeMismatch)):
            manager.files.runnable("m")
        with pytest.raises((errors.ChecksumMismatch, errors.SizeMismatch)):
            manager.files.runnable("m")  # and not only once


def test_links_are_not_written_through(server, store, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    store.mkdir()
    os.symlink(victim, store / "m.llamafile.partial")
    with manager_of(store, spec_of(server)) as manager, pytest.raises(errors.UnsafePath):
        manager.download("m")
    assert victim.read_bytes() == b"mine"


# --- G7, and what else is typed

NAMES = [
    "-rf",
    "--help",
    "../m",
    "a/b",
    "a\\b",
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "nul",
    "x" * 201,
    7,
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_are_refused(name):
    with pytest.raises(errors.UnsafePath) as refused:
        ModelSpec(name, "m.gguf")
    assert repr(name) in str(refused.value)
    with pytest.raises(errors.UnsafePath):
        ModelSpec("m", name)


@pytest.mark.parametrize(
    "name", ["two words", 'it\'s "quoted"', "$(touch x)", "ärger", "100%", "a;b|c&d", "*"], ids=repr
)
def test_names_that_are_allowed_stay_within_the_folder(server, store, tmp_path, name):
    with manager_of(store, ModelSpec(name, f"{name}.llamafile", url=server.url)) as manager:
        manager.download(name)
        assert manager.verify(name).file_state == "ready"
        assert Path(manager.files.runnable(name).path).read_bytes() == server.payload
        assert [each.name for each in manager.list()] == [name]
        assert lies_there(store) == [f"{name}.llamafile"]
        assert manager.remove(name)
    assert lies_there(store) == []
    assert lies_there(tmp_path) == ["models"]


@pytest.mark.parametrize(
    "url",
    ["http://example.org/m", "ftp://example.org/m", "https://", "https://a b/", "https://me:pw@example.org/m", "m", "",
     "https://[::1/m", "https://example.org:x/m", "http://127.0.0.1.example.org/m", "file:///etc/passwd"],
)  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(errors.InvalidSpec) as refused:
        ModelSpec("m", "m.gguf", url=url)
    assert "pw" not in str(refused.value)


def test_a_download_in_a_thread_of_its_own_reports_to_whoever_asked(server, store):
    threads = set()
    with manager_of(store, spec_of(server)) as manager:
        manager.download("m", progress=lambda _: threads.add(threading.get_ident()))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_progress_raises_ends_the_download(server, store):
    def fail(_):
        raise RuntimeError("no")

    with manager_of(store, spec_of(server)) as manager:
        with pytest.raises(RuntimeError, match="no"):
            manager.download("m", progress=fail)
        assert manager.download("m").status().file_state == "ready"
