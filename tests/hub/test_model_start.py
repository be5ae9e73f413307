"""Starting models: each dialect, each way to fail (G5), and what is handed over to them (G7)."""

import json
import os
import signal
import socket
import threading
import time

import pytest
from running_models import QUICK, alive, python, runnable, wait_for, zombies
from stand_in import APE, SCRIPT

from raeburnmemory.hub.models import errors, ports, readiness, system
from raeburnmemory.hub.models.dialect import Traits
from raeburnmemory.hub.models.limits import Limits

DIALECTS = ["v1", "v2", "llama-server"]
long = pytest.mark.long


@pytest.fixture
def taken():
    """A port on which somebody else's server listens, one that answers everything with 200."""
    import http.server

    heard = []

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok", "data": [{"id": "tiny"}]}')

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.heard = heard
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


# --- each dialect


@pytest.mark.parametrize("begins", [SCRIPT, APE], ids=["script", "llamafile"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_model_of_each_dialect_is_found_out_started_and_stopped(bench, dialect, begins):
    manager = bench.manager()

    found = manager.start(bench.file(dialect=dialect, begins=begins, detect=True))

    assert found.dialect == dialect
    assert found.base_url == f"http://127.0.0.1:{found.port}"
    assert (found.key is None) == (dialect == "v2")
    assert manager.health("tiny").ok
    assert manager.health("tiny", deep=True).ok
    answer = ports.ask(found.port, "/v1/chat/completions", key=found.key, body={"messages": [{"content": "you"}]})
    assert answer.data["choices"][0]["message"]["content"] == f"{dialect} heard you"
    assert manager.status("tiny").process_state == "ready"
    assert manager.stop("tiny")
    assert not alive(found.pid)
    assert manager.status("tiny").process_state == "stopped"
    states = [event.state for event in bench.events if event.state != "loading"]  # it may be too quick for that one
    assert states == ["starting", "ready", "stopping", "stopped"]


def test_the_system_itself_refuses_a_file_that_begins_like_a_llamafile(bench):
    """What the shell is for: without it, this is ENOEXEC."""
    file = bench.file(begins=APE)
    with pytest.raises(OSError, match="Exec format error"):
        os.posix_spawn(file.path, [file.path], {})
    assert bench.manager().start(file).pid


def test_a_port_that_somebody_else_has_is_told_from_ones_own_and_another_one_is_taken(bench, taken, monkeypatch):
    chosen = [taken.server_port, ports.free_port()]
    monkeypatch.setattr(ports, "free_port", lambda: chosen.pop(0))
    manager = bench.manager()

    found = manager.start(bench.file())

    assert chosen == []
    assert found.port != taken.server_port
    assert taken.heard == []  # nobody told it our key
    assert any("Trying another port" in line for line in manager.logs("tiny"))


def test_the_old_server_moves_to_the_next_port_and_is_found_there(bench, taken, monkeypatch):
    monkeypatch.setattr(ports, "free_port", lambda: taken.server_port)

    found = bench.manager().start(bench.file(dialect="v1"))

    assert taken.server_port < found.port <= taken.server_port + 10
    assert taken.heard == []


def test_the_old_server_is_found_without_its_line_by_asking_the_system(bench, taken, monkeypatch):
    monkeypatch.setattr(ports, "free_port", lambda: taken.server_port)
    monkeypatch.setattr(readiness, "printed_port", lambda lines: None)

    assert bench.manager().start(bench.file(dialect="v1", quiet=True)).port != taken.server_port


@pytest.mark.parametrize("dialect", DIALECTS)
def test_where_the_system_does_not_tell_whose_a_port_is_the_server_must_prove_itself(bench, dialect, monkeypatch):
    monkeypatch.setattr(system, "owns_port", lambda group, port: None)
    manager = bench.manager(limits=Limits(stall=1.5, grace=0.5))
    if dialect == "v2":  # it has neither key nor name to be known by
        with pytest.raises(errors.StartTimeout):
            manager.start(bench.file(dialect=dialect))
    else:
        assert manager.start(bench.file(dialect=dialect)).port


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_foreign_server_proves_nothing(bench, dialect, taken, monkeypatch):
    monkeypatch.setattr(system, "owns_port", lambda group, port: None)
    traits = bench_traits(dialect)
    assert not readiness.is_ours(traits, taken.server_port, "our-key", "tiny-12345678", os.getpid())


def test_whose_port_it_is_outweighs_what_is_said_there(bench, monkeypatch):
    found = bench.manager().start(bench.file())
    traits = bench_traits("llama-server")
    assert readiness.is_ours(traits, found.port, found.key, found.alias, found.pid)
    monkeypatch.setattr(system, "owns_port", lambda group, port: False)
    assert not readiness.is_ours(traits, found.port, found.key, found.alias, found.pid)


def bench_traits(dialect):
    return Traits(dialect, llamafile=True)


def test_a_port_by_name_that_is_taken_is_refused_before_anything_runs(bench, taken):
    with pytest.raises(errors.PortUnavailable, match=f"port {taken.server_port}"):
        bench.manager().start(bench.file(), port=taken.server_port)
    assert bench.events[-1].state == "failed"
    assert {event.state for event in bench.events} == {"failed"}


def test_a_port_by_name_is_used(bench):
    port = ports.free_port()
    assert bench.manager().start(bench.file(), port=port).port == port


# --- two at once


def test_two_threads_that_start_one_model_get_one_process(bench):
    manager, file = bench.manager(), bench.file(loads=0.5)
    found = []
    threads = [threading.Thread(target=lambda: found.append(manager.start(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({each.pid for each in found}) == 1


START = """
import json, sys
from running_models import *
from pathlib import Path
folder = Path(sys.argv[1])
manager = Processes(ModelFolder(folder), limits=QUICK)
print(manager.start(runnable(folder / "tiny.llamafile", dialect="llama-server")).pid, flush=True)
sys.stdin.read()
manager.close()
"""


def test_two_processes_that_start_one_model_get_one_process(bench):
    import subprocess

    bench.file(loads=0.5)
    others = [python(START, bench.folder, stdin=subprocess.PIPE) for _ in range(3)]
    try:
        pids = {int(other.stdout.readline()) for other in others}
        assert len(pids) == 1
        assert bench.manager().running("tiny").pid == pids.pop()
    finally:
        for other in others:
            other.communicate("")
    assert bench.manager().running("tiny") is None


# --- how it can fail


def test_a_file_that_is_not_there(bench):
    with pytest.raises(errors.NotDownloaded, match="There is no file"):
        bench.manager().start(runnable(bench.folder / "no.llamafile"))


def test_a_file_that_may_not_be_executed(bench):
    file = bench.file()
    os.chmod(file.path, 0o600)
    with pytest.raises(errors.ExecFormatError, match="not executable"):
        bench.manager().start(file)


def test_a_program_for_another_processor(bench):
    path = bench.folder / "other.llamafile"
    other = 183 if os.uname().machine == "x86_64" else 62
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + other.to_bytes(2, "little") + bytes(44))
    path.chmod(0o700)
    with pytest.raises(errors.ExecFormatError, match="is for the processor"):
        bench.manager().start(runnable(path))


def test_a_script_whose_interpreter_is_not_here(bench):
    path = bench.folder / "tiny.llamafile"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o700)
    with pytest.raises(errors.PlatformUnsupported, match="/no/such/interpreter"):
        bench.manager().start(runnable(path))


@pytest.mark.parametrize(
    ("order", "error", "code", "words"),
    [
        ({"exits": 0}, errors.ProcessExited, 0, "exit code 0"),
        ({"exits": 1}, errors.ProcessExited, 1, "exit code 1"),
        (
            {"exits": 1, "says": ["error: unknown argument: --temp"]},
            errors.ProcessExited,
            1,
            "does not know an argument",
        ),
        ({"exits": 1, "says": ["ggml_cuda: out of memory"]}, errors.InsufficientMemory, 1, "not enough memory"),
        pytest.param(
            {"exits": 1, "says": ["llama_model_load: error loading model: x"]},
            errors.ModelLoadFailed,
            1,
            "weights",
            marks=long,
        ),
        pytest.param(
            {"exits": 1, "says": ["gguf_init: invalid magic characters 'oops'"]},
            errors.ModelLoadFailed,
            1,
            "damaged",
            marks=long,
        ),
        pytest.param(
            {"exits": 1, "says": ["fatal: this CPU lacks AVX2, which is needed"]},
            errors.PlatformUnsupported,
            1,
            "instruction",
            marks=long,
        ),
        pytest.param(
            {"exits": 126, "says": ["Exec format error"]},
            errors.ExecFormatError,
            126,
            "could not run the file",
            marks=long,
        ),
        pytest.param(
            {"exits": 1, "says": ["mmap: Operation not permitted"]},
            errors.ProcessExited,
            1,
            "refused a right",
            marks=long,
        ),
        ({"dies_of": signal.SIGKILL}, errors.InsufficientMemory, -9, "SIGKILL"),
        pytest.param({"dies_of": signal.SIGILL}, errors.PlatformUnsupported, -4, "SIGILL", marks=long),
        ({"dies_of": signal.SIGSEGV}, errors.ProcessExited, -11, "SIGSEGV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_that_ends_at_once_is_reported_with_its_cause(bench, order, error, code, words):
    manager = bench.manager()
    with pytest.raises(error, match=words) as caught:
        manager.start(bench.file(**order))
    assert type(caught.value) is error
    assert caught.value.model == "tiny"
    assert caught.value.remedy
    for line in order.get("says", []):
        assert line in caught.value.log_tail
        assert line in str(caught.value)
    status = manager.status("tiny")
    assert (status.process_state, status.exit_code) == ("failed", code)
    assert status.last_error == str(caught.value)
    assert bench.manager().status("tiny").last_error == status.last_error  # another manager knows it, too
    assert bench.left() == []
    assert zombies() == []


def test_what_an_earlier_try_printed_is_not_taken_for_the_cause(bench):
    taken, later = "couldn't bind to server socket", "all is lost"
    manager = bench.manager()
    with pytest.raises(errors.ProcessExited, match="all is lost") as caught:
        manager.start(bench.file(says_first=taken, says=[later], exits=7))
    assert caught.value.exit_code == 7
    assert taken in manager.logs("tiny")


@pytest.mark.parametrize("size", [2_000_000, pytest.param(10_000_000, marks=long)])
def test_one_that_prints_megabytes_before_it_is_ready_does_not_wait_for_a_reader(bench, size):
    manager = bench.manager()
    assert manager.start(bench.file(prints=size)).pid
    assert len(manager.logs("tiny", 5000)) == 2000
    logs = list((bench.folder / ".raeburn" / "logs").iterdir())
    assert sum(path.stat().st_size for path in logs) < 9 * 2**20  # two files of 4 MiB


def test_one_that_never_gets_ready_is_ended_after_a_silence(bench):
    manager = bench.manager(limits=Limits(stall=0.8, grace=0.5))
    begun = time.monotonic()
    with pytest.raises(errors.StartTimeout, match="was silent for") as caught:
        manager.start(bench.file(never_ready=True, says=["loading the weights"]))
    assert time.monotonic() - begun < 15
    assert "loading the weights" in caught.value.log_tail
    assert bench.left() == []
    assert zombies() == []


def test_signs_of_life_are_waited_for_longer_than_a_silence_may_last(bench):
    manager = bench.manager(limits=Limits(stall=1.0, grace=0.5))
    assert manager.start(bench.file(loads=2.5)).pid
    assert "loading" in [event.state for event in bench.events]


def test_one_that_talks_and_never_gets_ready_is_ended_in_the_end(bench):
    with pytest.raises(errors.StartTimeout, match="took"):
        bench.manager().start(bench.file(never_ready=True, talks=True), timeout=1.5)


def test_one_that_says_ready_and_then_dies_is_a_crash_with_its_last_lines(bench):
    manager = bench.manager()
    manager.start(bench.file(dies_ready=0.3))
    wait_for(lambda: manager.status("tiny").process_state == "crashed")
    status = manager.status("tiny")
    assert status.exit_code == -signal.SIGABRT
    assert "GGML_ASSERT(n_tokens <= n_batch) failed" in status.last_error
    with pytest.raises(errors.NotRunning, match="crashed") as caught, manager.in_use("tiny"):
        pass
    assert "GGML_ASSERT(n_tokens <= n_batch) failed" in caught.value.log_tail
    assert not manager.health("tiny").ok
    assert bench.left() == []
    assert zombies() == []


def test_a_start_can_be_broken_off(bench):
    manager, file = bench.manager(), bench.file(never_ready=True, talks=True)
    outcome = []

    def start():
        try:
            manager.start(file)
        except errors.LlamafileError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    wait_for(lambda: manager.status("tiny").process_state == "loading")
    manager.stop("tiny")
    thread.join(20)
    assert [type(each) for each in outcome] == [errors.NotRunning]
    assert manager.status("tiny").process_state == "stopped"
    assert bench.left() == []


# --- what is handed over (G7)


def handed_over(bench, **options):
    note = bench.folder / "note.json"
    found = bench.manager().start(bench.file(options.pop("name", "tiny"), note=str(note)), **options)
    return found, json.loads(note.read_text())


def test_arguments_arrive_as_they_are_and_no_shell_reads_them(bench):
    values = [
        "-rf",
        "--server",
        "two words",
        'it\'s "quoted"',
        "$(touch canary); `touch canary` & | > canary",
        "a\nb",
        "*",
        "",
    ]
    args = tuple(word for value in values for word in ("-p", value))
    _, got = handed_over(bench, args=args)
    begin = got["argv"].index("-p")
    assert got["argv"][begin : begin + len(args)] == list(args)
    assert not list(bench.folder.rglob("canary"))


@pytest.mark.parametrize("name", ['it\'s "two words" 模型', "$(touch canary)"])
def test_a_model_may_have_any_name(bench, name):
    found, got = handed_over(bench, name=name)
    assert found.alias == name == got["argv"][got["argv"].index("--alias") + 1]
    assert not list(bench.folder.rglob("canary"))


def test_the_key_is_in_no_argument_no_log_and_no_file_that_others_may_read(bench):
    manager = bench.manager()
    found = manager.start(bench.file(tells_key=True))

    assert len(found.key) >= 32
    assert found.key not in repr(found)
    for pid in system.members(found.pid):
        for what in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{what}", "rb") as file:
                assert found.key.encode() not in file.read()
    assert manager.logs("tiny")[-2:] == ["the key is [hidden], --api-key [hidden]", "its file has the mode 600"]
    for path in (bench.folder / ".raeburn").rglob("*"):
        if path.is_file() and found.key in path.read_text(errors="replace"):
            assert path.name == "tiny.json"  # by which another process finds it
            assert path.stat().st_mode & 0o077 == 0
            assert path.parent.parent.stat().st_mode & 0o077 == 0
    assert ports.ask(found.port, "/props", key="wrong").status == 401


def test_the_environment_has_no_secrets_of_ours_and_nothing_that_changes_the_server(bench, monkeypatch):
    for name in (
        "RAEBURN_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "LLAMA_ARG_HOST",
        "LLAMA_API_KEY",
    ):  # fmt: skip
        monkeypatch.setenv(name, "secret-of-ours")
    monkeypatch.setenv("HARMLESS", "kept")

    _, got = handed_over(bench, env={"ADDED": "yes"})

    assert "secret-of-ours" not in got["env"].values()
    assert (got["env"]["HARMLESS"], got["env"]["ADDED"]) == ("kept", "yes")


@pytest.mark.parametrize(("before", "expected"), [(None, None), ("/old/lib", "/old/lib")])
def test_a_frozen_applications_libraries_are_not_the_models(monkeypatch, before, expected):
    import sys

    from raeburnmemory.hub.models.launcher import child_environment

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/_MEIabc")
    if before:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", before)
    got = child_environment()
    assert got.get("LD_LIBRARY_PATH") == expected
    assert "LD_LIBRARY_PATH_ORIG" not in got


def test_what_a_llamafile_has_built_in_does_not_open_it_to_the_network(bench):
    built_in = ["-m", "inner.gguf", "--host", "0.0.0.0", "--port", "1"]
    found = bench.manager().start(bench.file(begins=APE, built_in_args=built_in))
    with open("/proc/net/tcp", encoding="ascii") as file:
        lines = [line.split()[1] for line in file if line.split()[3] == "0A"]
    assert f"0100007F:{found.port:04X}" in lines
    assert f"00000000:{found.port:04X}" not in lines


@pytest.mark.parametrize("key", ["", "  ", 5, "a\nb"])
def test_a_key_that_is_none_is_refused(bench, key):
    with pytest.raises(errors.InvalidSpec):
        bench.manager().start(bench.file(), api_key=key)


def test_a_key_of_ones_own_and_none_at_all(bench):
    manager = bench.manager()
    own = manager.start(bench.file("own"), api_key="my-own-key")
    none = manager.start(bench.file("none"), api_key=None)
    assert ports.ask(own.port, "/props", key="my-own-key").status == 200
    careless = manager.start(bench.file("careless"), args=("--api-key", "in-the-arguments"))
    assert "in-the-arguments" not in "\n".join(manager.logs("careless"))  # all see it, but it is not kept
    assert careless.key
    assert (none.key, ports.ask(none.port, "/props").status) == (None, 200)


@pytest.mark.parametrize(
    "option", [{"port": -1}, {"port": 70000}, {"ctx": 0}, {"threads": "4"}, {"ngl": -1}, {"gpu": "any"}]
)
def test_settings_that_make_no_sense_are_refused(bench, option):
    with pytest.raises(errors.InvalidSpec):
        bench.manager().start(bench.file(), **option)


def test_a_foreign_server_in_the_way_never_sees_the_limits_of_a_port(bench):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert ports.is_free(probe.getsockname()[1]) == "Address already in use"
    assert ports.is_free(1) in {"", "Permission denied"}
    assert QUICK.grace == 1.0
