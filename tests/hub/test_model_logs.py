"""What a model prints, and the causes that are recognised in it."""

import os
import signal
import threading

import pytest
from running_models import wait_for

from raeburnmemory.hub.models.causes import cause_of, error_for, said_how
from raeburnmemory.hub.models.logs import HIDDEN, ModelLog, follow_file, read_tail

KEY = "a-key-of-forty-characters-0123456789abcde"


@pytest.fixture
def written(tmp_path):
    """Return a log, and a function that writes to it and one that ends it."""
    logs = []

    def make(**options):
        log = ModelLog(tmp_path / "model.log", secrets=[KEY], **options)
        reader, writer = os.pipe()
        log.drain(reader)
        logs.append((log, writer))

        def end():
            os.close(writer)
            assert log.join(10)

        return log, lambda data: os.write(writer, data), end

    return make


def test_the_last_lines_are_kept_and_the_file_has_them_all(written, tmp_path):
    log, write, end = written(lines=3)
    write(b"one\ntwo\r\nthree\rfour\nfi")
    write(b"ve\n\xff\xfe no utf-8\nno end")
    end()
    assert log.tail(9) == ["five", "\ufffd\ufffd no utf-8", "no end"]
    assert read_tail(tmp_path / "model.log", 99) == [
        "one",
        "two",
        "three",
        "four",
        "five",
        "\ufffd\ufffd no utf-8",
        "no end",
    ]
    assert (tmp_path / "model.log").stat().st_mode & 0o777 == 0o600
    log.close()


def test_escape_sequences_and_letters_that_cannot_be_seen_are_taken_out(written):
    log, write, end = written()
    write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x08\x00 \xe2\x80\xaeback\n")
    end()
    assert log.tail(1) == ["red bell back"]


@pytest.mark.parametrize("cut", [1, 5, len(KEY) - 1])
def test_a_key_is_hidden_wherever_the_pipe_cuts_it(written, tmp_path, cut):
    log, write, end = written()
    write(b"key=" + KEY[:cut].encode())
    wait_for(lambda: log.bytes == 4 + cut)
    write(KEY[cut:].encode() + b" end\n")
    end()
    assert log.tail(1) == [f"key={HIDDEN} end"]
    assert KEY not in (tmp_path / "model.log").read_text()


def test_a_key_is_hidden_in_a_line_that_never_ends(written, tmp_path):
    log, write, end = written()
    sent = 0
    for before in range(8 * 1024 - len(KEY) - 2, 8 * 1024 + 2):  # around the length at which lines are cut
        sent += write(b"x" * before + KEY.encode())
    end()
    kept = "".join(log.tail(99999))
    for part in (KEY, KEY[:20], KEY[-20:]):
        assert part not in kept
        assert part not in (tmp_path / "model.log").read_text()
    assert kept.count(HIDDEN) == 4 + len(KEY)
    assert log.bytes == sent


@pytest.mark.parametrize(
    "line",
    ["Authorization: Bearer {}", "--api-key {}", "--api-key={}", 'api_key: "{}"', "API-KEY={}", "token hf_{}", "sk-{}"],
)
def test_keys_of_others_are_hidden_by_what_is_around_them(written, line):
    log, write, end = written()
    write(line.format("abcdefghijklmnopqrstuvwx").encode() + b"\n")
    end()
    assert "ijklmnop" not in log.tail(1)[0]
    assert HIDDEN in log.tail(1)[0]


def test_the_files_do_not_grow_for_ever(written, tmp_path):
    log, write, end = written(file_bytes=10_000)
    sent = 0
    for number in range(1000):
        sent += write(f"line {number:04d} {'x' * 40}\n".encode())
        wait_for(lambda sent=sent: log.bytes > sent - 5_000)
    end()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"model.log", "model.log.1"}
    assert all(size <= 10_000 for size in sizes.values())
    numbers = [int(line.split()[1]) for line in read_tail(tmp_path / "model.log", 99999)]
    assert numbers == list(range(numbers[0], 1000))  # the last ones, with no gap
    log.close()


def test_a_full_disk_does_not_stop_the_reading(written, tmp_path):
    (tmp_path / "model.log").mkdir()
    log, write, end = written()
    for _ in range(100):
        write(b"y" * 9999 + b"\n")
    end()
    assert any("no longer written" in line for line in log.tail(2000))
    assert len(log.tail(2000)) > 100


def test_following_gives_each_line_once_and_says_what_was_too_fast(written):
    log, write, end = written(lines=5)
    write(b"a\nb\n")
    wait_for(lambda: len(log.tail(9)) == 2)
    following = log.follow(1)
    assert next(following) == "b"
    write(b"c\n")
    assert next(following) == "c"
    write(b"".join(b"%d\n" % number for number in range(20)))
    end()
    rest = list(following)
    assert rest[-5:] == ["15", "16", "17", "18", "19"]
    assert len(rest) == 20 or "15 lines came too fast" in rest[0]


def test_following_waits_and_ends(written):
    log, write, end = written()
    got = []
    thread = threading.Thread(target=lambda: got.extend(log.follow(0)))
    thread.start()
    write(b"later\n")
    wait_for(lambda: got == ["later"])
    end()
    thread.join(5)
    assert not thread.is_alive()


def test_a_file_is_followed_over_its_change(tmp_path):
    path = tmp_path / "model.log"
    (tmp_path / "model.log.1").write_text("old\n")
    path.write_text("one\ntwo\n")
    alive = [True]
    following = follow_file(path, 3, lambda: alive[0], every=0.01)
    assert [next(following) for _ in range(3)] == ["old", "one", "two"]
    with path.open("a") as file:
        file.write("three\n")
    assert next(following) == "three"
    with path.open("a") as file:
        file.write("four\n")
    os.replace(path, tmp_path / "model.log.1")
    path.write_text("five\n")
    assert [next(following), next(following)] == ["four", "five"]
    alive[0] = False
    assert list(following) == []


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.0 MiB on device 0: cudaMalloc failed: out of memory",
            "memory",
        ),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory"),
        ("error: unknown argument: --nobrowser", "argument"),
        ("llama-server: error: unrecognized arguments: --v2", "argument"),
        ("error: invalid argument: --server", "argument"),
        ("couldn't bind to server socket: hostname=127.0.0.1 port=8080", "port"),
        ("bind: Address already in use", "port"),
        ("gguf_init_from_file: invalid magic characters 'PK'", "magic"),
        (
            "llama_model_load: error loading model: tensor 'x' data is not within the file bounds, model is corrupted",
            "magic",
        ),
        ("llama_model_load: error loading model: unknown model architecture: 'new'", "load"),
        ("error: failed to load model 'x.gguf'", "load"),
        ("fatal error: this llamafile requires AVX", "cpu"),
        ("/tmp/.ape-1.10: Permission denied", "permission"),
        ("run-detectors: unable to find an interpreter for ./x.llamafile", "architecture"),
        ("./x.llamafile: cannot execute binary file: Exec format error", "architecture"),
        ("all went well", ""),
    ],
)
def test_the_cause_is_recognised(line, key):
    assert cause_of(["before", line, "after"], 1)[0] == key


def test_complaints_about_the_gpu_count_only_if_one_was_asked_for():
    lines = ["warning: no usable GPU found", "error: unknown argument: --x"]
    assert cause_of(lines[:1], 1)[0] == ""
    assert cause_of(lines[:1], 1, gpu=True)[0] == "gpu"
    assert cause_of(lines, 1, gpu=True)[0] == "argument"


def test_a_signal_that_says_something_by_itself():
    assert cause_of([], -signal.SIGKILL)[0] == "memory"
    assert cause_of([], -signal.SIGILL)[0] == "cpu"
    assert cause_of([], 127)[0] == "architecture"
    assert (said_how(3), said_how(-11), said_how(-250)) == (
        "ended with exit code 3",
        "was ended by SIGSEGV",
        "was ended by signal 250",
    )


def test_an_error_has_all_that_is_known():
    found = error_for("tiny", -11, ["one", "two", "  "], when="while it ran")
    assert (found.signal, found.exit_code, found.model, found.log_tail) == (11, None, "tiny", ("one", "two", "  "))
    assert str(found) == "Model 'tiny' was ended by SIGSEGV while it ran. Its last line: 'two'. Look at its log."
    assert isinstance(found, ChildProcessError)
