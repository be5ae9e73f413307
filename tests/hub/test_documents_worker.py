"""The process that parses: what it may do wrong, and that whoever asked it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from raeburnmemory.hub.documents import Limits, LoaderError, ParseTimeout, TooLarge, load, parsing
from raeburnmemory.hub.documents.source import Source

PAGE = b"<html><body><p>hello</p></body></html>"


def test_modules_of_the_working_folder_are_not_taken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "raeburnmemory.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    parsing.close()
    assert load(PAGE).text == "hello"


def asked(kind, **limits):
    """Read something by a loader that the process has for tests only: see `misbehaving`."""
    return parsing.parse(Source(b"", mime=kind, limits=Limits(**limits)))


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory):
    """Let the process that parses know a loader that does what the name of a type says."""
    folder = tmp_path_factory.mktemp("misbehaving")
    (folder / "misbehaviour.py").write_text(MISBEHAVIOUR)
    begin = "import sys; sys.path[:] = {paths!r}; import misbehaviour; from {module} import main; main()"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_BEGIN", begin)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        parsing.close()
        yield
        parsing.close()


MISBEHAVIOUR = """
import os, signal, socket, subprocess, sys, time
from raeburnmemory.hub.documents import registry
from raeburnmemory.hub.documents.source import Loaded

def act(source):
    kind = source.mime.partition("/")[2]
    if kind == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit": os._exit(0)
    if kind == "spin":
        while True: pass
    if kind == "sleep": time.sleep(600)
    if kind == "memory": return Loaded("x" * len(bytearray(10 ** 10)))
    if kind == "recursion": return act(source)
    if kind == "print":
        print("noise" * 10000); sys.stderr.write("noise" * 10000); os.write(1, b"noise")
        return Loaded("quiet")
    if kind == "write": open("written", "w")
    if kind == "connect": socket.create_connection(("127.0.0.1", 9))
    if kind == "start": subprocess.Popen(["true"])
    if kind == "secret": return Loaded(repr(sorted(os.environ)))
    if kind == "surrogate": return Loaded("\\ud800")
    if kind == "lies":
        loaded = Loaded("short"); object.__setattr__(loaded, "title", 7); return loaded
    if kind == "huge": return Loaded("x" * 100)
    return Loaded(f"{os.getpid()}")

registry.loader_of = lambda kind: act
import raeburnmemory.hub.documents.worker as worker
worker.loader_of = lambda kind: act
"""


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("crash", LoaderError, f"signal {int(signal.SIGSEGV)}"),
        ("exit", LoaderError, "exit code 0"),
        ("recursion", LoaderError, "nested too deeply"),
        ("memory", TooLarge, "GB of memory"),
        ("write", LoaderError, "may not"),
        ("connect", LoaderError, "may not"),
        ("start", LoaderError, "may not"),
        ("lies", LoaderError, "makes no sense"),
        ("huge", TooLarge, "100 characters"),
    ],
)
def test_what_a_parser_may_do_wrong(misbehaving, kind, error, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=match) as caught:
        asked(f"test/{kind}", characters=50 if kind == "huge" else 1000)
    assert type(caught.value) is error
    assert not (tmp_path / "written").exists()
    assert asked("test/well").text.isdigit()


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_a_parser_that_does_not_end_is_ended(misbehaving, kind):
    asked("test/well")
    begun = time.monotonic()
    with pytest.raises(ParseTimeout, match=r"longer than 0\.5 s"):
        asked(f"test/{kind}", seconds=0.5)
    assert time.monotonic() - begun < 15
    assert asked("test/well").text.isdigit()


@pytest.mark.long
def test_the_processor_is_limited_where_the_parent_does_not_watch(misbehaving, monkeypatch):
    monkeypatch.setattr(threading.Timer, "start", lambda self: None)
    with pytest.raises(ParseTimeout):
        asked("test/spin", seconds=0.5)


def test_what_a_parser_prints_goes_nowhere(misbehaving, capfd):
    assert asked("test/print").text == "quiet"
    assert capfd.readouterr() == ("", "")


def test_half_characters_do_not_break_the_answer(misbehaving):
    with pytest.raises(LoaderError):
        asked("test/surrogate")


def test_our_keys_stay_here(misbehaving, monkeypatch):
    monkeypatch.setenv("RAEBURN_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    parsing.close()
    names = asked("test/secret").text
    assert "PATH" in names
    assert "KEY" not in names


def test_a_process_is_kept_and_asked_again(misbehaving):
    first = asked("test/well").text
    assert asked("test/well").text == first
    with pytest.raises(LoaderError):
        asked("test/crash")
    assert asked("test/well").text != first


def test_a_process_that_ended_while_it_waited_is_replaced(misbehaving):
    first = int(asked("test/well").text)
    os.kill(first, signal.SIGKILL)
    assert int(asked("test/well").text) != first


def test_threads_ask_processes_of_their_own(misbehaving):
    found = []
    threads = [threading.Thread(target=lambda: found.append(asked("test/well").text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(text.isdigit() for text in found)
    assert len(parsing._waiting) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_does_not_share_the_parser():
    script = """
import os, sys, warnings
from raeburnmemory.hub.documents import load, parsing
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # of the threads that numpy starts
page = b"<html><body><p>x</p></body></html>"
assert load(page).text == "x"
ours = parsing._waiting[0]._child.pid
child = os.fork()
if not child:
    assert parsing._waiting == []
    assert load(page).text == "x"
    assert parsing._waiting[0]._child.pid != ours
    parsing.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert load(page).text == "x"
assert parsing._waiting[0]._child.pid == ours
print("well")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_no_process_is_left_behind():
    script = "from raeburnmemory.hub.documents import load, parsing\nload(b'<html><body><p>x</p></body></html>')\nprint(parsing._waiting[0]._child.pid)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_frozen_program_starts_itself(tmp_path):
    """A frozen program is its own interpreter: here a script that runs under the name of one."""
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:] = {[path for path in sys.path if path]!r}\n"
        f"sys.frozen, sys.executable = True, {str(program)!r}\n"
        "from raeburnmemory.hub.documents import freeze_support, load\nfreeze_support()\n"
        'print(load(b"<html><body><p>frozen</p></body></html>").text)\n'
    )
    program.chmod(0o755)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("frozen\n", "")
