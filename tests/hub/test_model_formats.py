"""What may be run, and whether a GGUF file is whole."""

import os
import struct

import pytest
from running_models import runnable

from raeburnmemory.hub.models import errors
from raeburnmemory.hub.models.formats import check_runnable, command_for
from raeburnmemory.hub.models.gguf import BLOCKS, check_gguf

F32, Q4_0 = 0, 2


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(*, entries=(), tensors=(), data=0, version=3, align=32, counts=None):
    counts = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % align) + bytes(data)


GOOD = {
    "entries": [
        entry("general.architecture", 8, text("llama")),
        entry("llama.context_length", 4, struct.pack("<I", 2048)),
        entry("tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        entry("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 2) + bytes(8)),
    ],
    "tensors": [tensor("one", [4, 2], F32, 0), tensor("two", [64, 3], Q4_0, 32)],
    "data": 32 + 64 * 3 // 32 * 18,
}


@pytest.fixture
def write(tmp_path):
    def written(data):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return path

    return written


def test_a_whole_file(write):
    data = gguf(**GOOD)
    header = check_gguf(write(data))
    assert (header.ends, header.context, header.pools) == (len(data), 2048, False)
    assert check_gguf(write(data + b"more")).ends == len(data)  # padding, or what a newer writer adds
    pooling = [*GOOD["entries"], entry("bert.pooling_type", 4, struct.pack("<I", 1))]
    assert check_gguf(write(gguf(**GOOD | {"entries": pooling}))).pools


def test_every_shorter_file_is_refused(write):
    path = write(gguf(**GOOD))
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(errors.ModelLoadFailed, match="cannot be a whole GGUF file"):
            check_gguf(path)


HUGE = 2**63
LIES = {
    "version 1": gguf(**GOOD, version=1),
    "version 4": gguf(**GOOD, version=4),
    "the other byte order": b"GGUF" + struct.pack(">I", 3) + bytes(64),
    "tensors": gguf(counts=(HUGE, 0)),
    "entries": gguf(counts=(0, HUGE)),
    "the length of a key": gguf(counts=(0, 1), entries=[struct.pack("<Q", HUGE) + bytes(64)]),
    "the length of a text": gguf(entries=[text("k") + struct.pack("<IQ", 8, HUGE)], data=64),
    "the length of a list": gguf(entries=[entry("k", 9, struct.pack("<IQ", 8, HUGE))], data=64),
    "the length of a list of numbers": gguf(entries=[entry("k", 9, struct.pack("<IQ", 12, HUGE))], data=64),
    "a list in a list in a list": gguf(entries=[entry("k", 9, struct.pack("<IQ", 9, 1) * 9)], data=256),
    "a kind of value": gguf(entries=[entry("k", 99, b"")], data=64),
    "no dimensions": gguf(tensors=[text("t") + struct.pack("<IIQ", 0, F32, 0)], data=64),
    "99 dimensions": gguf(tensors=[tensor("t", [1] * 99, F32, 0)], data=64),
    "an offset behind the end": gguf(tensors=[tensor("t", [4], F32, 1 << 20)], data=64),
    "an offset that is not aligned": gguf(tensors=[tensor("t", [4], F32, 7)], data=64),
    "a shape beyond the end": gguf(tensors=[tensor("t", [4, 5], F32, 0)], data=64),
    "a shape that overflows 64 bits": gguf(tensors=[tensor("t", [2**32, 2**32, 4], F32, 0)], data=64),
    "a row that is no whole block": gguf(tensors=[tensor("t", [33], Q4_0, 0)], data=64),
    "an alignment of nought": gguf(entries=[entry("general.alignment", 4, struct.pack("<I", 0))], data=64),
    "an alignment of 3": gguf(entries=[entry("general.alignment", 4, struct.pack("<I", 3))], data=64),
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(write, data):
    with pytest.raises(errors.ModelLoadFailed):
        check_gguf(write(data), model="tiny")


def test_an_alignment_of_its_own(write):
    entries = [entry("general.alignment", 4, struct.pack("<I", 256))]
    data = gguf(entries=entries, tensors=[tensor("t", [4], F32, 256)], data=256 + 16, align=256)
    assert check_gguf(write(data)).ends == len(data)
    with pytest.raises(errors.ModelLoadFailed):
        check_gguf(write(data[:-1]))


def test_a_kind_of_tensor_of_a_newer_server_is_checked_at_its_beginning(write):
    assert check_gguf(write(gguf(tensors=[tensor("t", [4], 200, 32)], data=64))).ends
    with pytest.raises(errors.ModelLoadFailed):
        check_gguf(write(gguf(tensors=[tensor("t", [4], 200, 4096)], data=64)))


def test_the_sizes_of_blocks_are_those_of_ggml():
    sizes = pytest.importorskip("gguf", reason="compares with the package's table").GGML_QUANT_SIZES
    assert {int(kind): size for kind, size in sizes.items()} == BLOCKS


def test_what_the_package_writes_is_whole_and_every_cut_is_found(tiny_chat_model, write):
    data = tiny_chat_model.read_bytes()
    assert check_gguf(tiny_chat_model).ends <= len(data)
    for length in [*range(0, len(data) - 64, 9973), len(data) - 64]:
        with pytest.raises(errors.ModelLoadFailed):
            check_gguf(write(data[:length]))


def program(tmp_path, data, mode=0o700):
    path = tmp_path / "model"
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("data", "magic"),
    [(b"MZqFpD='\n", "ape"), (b"jartsr='\n", "ape"), (b"#!/bin/sh\n", "script"), (gguf(**GOOD), "gguf")],
    ids=["llamafile", "llamafile without Windows", "script", "gguf"],
)
def test_what_can_be_run(tmp_path, data, magic):
    path = program(tmp_path, data)
    assert check_runnable(path) == magic
    assert command_for(path, magic) == (["/bin/sh", path] if magic == "ape" else [path])


def test_this_interpreter_is_a_program_for_this_machine():
    import sys

    if sys.platform == "linux":
        assert check_runnable(os.path.realpath(sys.executable)) == "elf"


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", errors.ExecFormatError, "begins with b''"),
        (b"<!DOCTYPE html><html>", errors.ExecFormatError, "an HTML page"),
        (b"\n<html>", errors.ExecFormatError, "an HTML page"),
        (b"PK\x03\x04", errors.ExecFormatError, "neither GGUF nor a llamafile"),
        (b"MZ\x90\x00", errors.PlatformUnsupported, "a program for Windows"),
        (b"\x7fELF", errors.ExecFormatError, "too few"),
        (b"#!\n", errors.PlatformUnsupported, "not here"),
        (b"GGUF", errors.ModelLoadFailed, "ends"),
    ],
)
def test_what_cannot_be_run(tmp_path, data, error, words):
    with pytest.raises(error, match=words) as caught:
        check_runnable(program(tmp_path, data), model="tiny")
    assert caught.value.model == "tiny"


def test_what_anybody_may_change_is_not_run(tmp_path):
    with pytest.raises(errors.UnsafePath, match="Anybody may write"):
        check_runnable(program(tmp_path, b"#!/bin/sh\n", 0o777))


def test_a_folder_is_not_run(tmp_path):
    with pytest.raises(errors.ExecFormatError, match="folder"):
        check_runnable(str(tmp_path))


# --- bare weights


def test_bare_weights_need_a_server_for_them(bench):
    path = bench.folder / "tiny.gguf"
    path.write_bytes(gguf(**GOOD))
    with pytest.raises(errors.PlatformUnsupported, match="runtime="):
        bench.manager().start(runnable(path, magic="gguf"))


def test_bare_weights_run_by_the_runtime(bench):
    path = bench.folder / "tiny.gguf"
    path.write_bytes(gguf(**GOOD))
    server = bench.file("runtime", plain=True, version="version: 6090 (abc)")
    manager = bench.manager(runtime=server.path)
    found = manager.start(runnable(path, magic="gguf"))
    assert found.dialect == "llama-server"
    assert manager.health("tiny", deep=True).ok
    assert f"-m {path} " in "\n".join(manager.logs("tiny"))


def test_a_file_of_another_length_than_the_checked_one_is_not_run(bench):
    file = bench.file()
    with open(file.path, "ab") as grown:
        grown.write(b"\nmore")
    with pytest.raises(errors.InvalidSpec, match="when it was checked"):
        bench.manager().start(file)
