"""Finding out a server's dialect, and the flags of each."""

import os
import time

import pytest
from running_models import alive
from stand_in import VERSIONS, make_model

from raeburnmemory.hub.models import dialect as dialects
from raeburnmemory.hub.models import errors
from raeburnmemory.hub.models.dialect import Settings, Traits, arguments, detect, missing_gpu, probe

V1, V2 = Traits("v1", llamafile=True), Traits("v2", llamafile=True)
NEW, PLAIN = Traits(llamafile=True), Traits()
posix = pytest.mark.skipif(os.name != "posix", reason="runs scripts")


@posix
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("llamafile v0.6.2", V1),
        ("llamafile v0.9.3", V1),
        ("llamafiler v0.9.3", V2),
        ("llamafile v0.10.0", NEW),
        ("llamafile v1.2.0", NEW),
        ("version: 6090 (1d72c8418)\nbuilt with cc", PLAIN),
        ("some other server", PLAIN),
    ],
)
def test_a_file_is_asked_for_its_version(tmp_path, version, expected):
    path = make_model(tmp_path / "model", version=version)
    assert probe(str(path), "script") == expected


@posix
@pytest.mark.parametrize(
    ("told", "expected"),
    [("  --nobrowser   do not open", V1), ("usage: x -m MODEL -l [HOST:]PORT", V2), ("-ub, --ubatch-size N", PLAIN)],
)
def test_a_file_whose_version_says_nothing_is_asked_for_its_flags(tmp_path, told, expected):
    assert probe(str(make_model(tmp_path / "model", version="", help=told)), "script") == expected


@posix
def test_a_file_that_hangs_when_asked_is_not_waited_for(tmp_path):
    note = tmp_path / "grandchild"
    path = make_model(tmp_path / "model", hangs_when_asked=True, grandchild="stubborn", grandchild_note=str(note))
    begun = time.monotonic()
    assert probe(str(path), "script", patience=0.5) == PLAIN
    assert time.monotonic() - begun < 10
    assert not note.exists() or not alive(int(note.read_text()))


@posix
def test_what_a_file_said_is_remembered_as_long_as_it_stays_the_same(tmp_path):
    cache, path = tmp_path / "dialects.json", make_model(tmp_path / "model", version=VERSIONS["v1"])
    assert detect(str(path), "script", "auto", cache) == V1
    inode, mode = path.stat().st_ino, path.stat()
    path.write_bytes(path.read_bytes().replace(b"v0.8.13", b"v0.10.1"))
    os.utime(path, ns=(mode.st_atime_ns, mode.st_mtime_ns))
    assert path.stat().st_ino == inode
    assert detect(str(path), "script", "auto", cache) == V1  # by all that is looked at, it is the same file
    os.utime(path, ns=(mode.st_atime_ns, mode.st_mtime_ns + 1))
    assert detect(str(path), "script", "auto", cache) == NEW
    cache.write_text('{"x": {"dialect": 5}, "y"')
    assert detect(str(path), "script", "auto", cache) == NEW
    assert detect("/not/asked", "script", "v2", cache) == V2


CHAT = Settings(alias="tiny")
EMBEDDING = Settings("embedding", "tiny", 512)


def flags(traits, settings, **given):
    return arguments(traits, settings, **{"port": 8081, "key_file": "/run/key", "weights": None, **given})


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (V1, "--server --nobrowser --alias tiny --api-key-file /run/key --host 127.0.0.1 --port 8081"),
        (V2, "--server --v2 -l 127.0.0.1:8081"),
        (NEW, "--server --alias tiny --api-key-file /run/key --host 127.0.0.1 --port 8081"),
        (PLAIN, "--alias tiny --api-key-file /run/key --host 127.0.0.1 --port 8081"),
    ],
    ids=["v1", "v2", "llamafile", "llama-server"],
)
def test_address_mode_and_key_are_always_said(traits, expected):
    assert flags(traits, CHAT) == expected.split()


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (V1, "-c 512 --embedding -np 1 -b 512"),
        (V2, "-c 512 -b 512 -ub 512"),
        (NEW, "-c 512 --embeddings -np 1 -b 512 -ub 512"),
        (PLAIN, "-c 512 --embeddings -np 1 -b 512 -ub 512"),
    ],
    ids=["v1", "v2", "llamafile", "llama-server"],
)
def test_an_embedding_model_has_one_slot_and_batches_as_long_as_its_context(traits, expected):
    assert expected in " ".join(flags(traits, EMBEDDING))


def test_pooling():
    assert "--pooling mean" in " ".join(flags(NEW, Settings("embedding", "tiny", 512, pooling="mean")))
    with pytest.raises(errors.InvalidSpec, match="pooling"):
        flags(NEW, Settings(pooling="mean"))


def test_of_what_a_user_adds_the_address_is_not_taken():
    got = flags(NEW, Settings(alias="tiny", args=("--host", "0.0.0.0", "--port", "1")))
    assert got.index("0.0.0.0") < got.index("127.0.0.1")
    assert got[-2:] == ["--port", "8081"]
    assert flags(V2, Settings(args=("-l", "0.0.0.0:1")))[-2:] == ["-l", "127.0.0.1:8081"]


@pytest.mark.parametrize(
    ("traits", "gpu", "layers", "expected"),
    [
        (V1, "auto", None, []),
        (NEW, "auto", 20, ["-ngl", "20"]),
        (V1, "nvidia", None, ["--gpu", "nvidia", "-ngl", "999"]),
        (V2, "amd", 7, ["--gpu", "amd", "-ngl", "7"]),
        (NEW, "vulkan", None, ["--gpu", "vulkan", "-ngl", "999"]),
        (NEW, "disable", None, ["--gpu", "disable", "-ngl", "0"]),
        (PLAIN, "apple", None, ["-ngl", "999"]),
        (PLAIN, "disable", None, ["-ngl", "0"]),
    ],
)
def test_the_gpu(traits, gpu, layers, expected):
    settings = Settings(gpu=gpu, layers=layers)
    got = flags(traits, settings)
    assert [each for each in got if each in {"--gpu", "-ngl"}] == [each for each in expected if each.startswith("-")]
    assert " ".join(expected) in " ".join(got)


@pytest.mark.parametrize("traits", [V1, V2], ids=["v1", "v2"])
def test_a_gpu_that_a_dialect_cannot_be_asked_for(traits):
    with pytest.raises(errors.PlatformUnsupported, match="vulkan"):
        flags(traits, Settings(gpu="vulkan"))


def test_a_gpu_with_no_layers_on_it_is_refused():
    with pytest.raises(errors.InvalidSpec, match="ngl 0"):
        flags(NEW, Settings(gpu="nvidia", layers=0))


CUDA = [
    "ggml_cuda_init: found 1 CUDA devices:",
    "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA H100 80GB HBM3) - 80534 MiB free",
    "load_tensors: offloaded 33/33 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =  4403.49 MiB",
]
PROCESSOR = [
    "load_tensors: offloaded 0/33 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =  4685.30 MiB",
]


@pytest.mark.parametrize(
    ("gpu", "lines", "missing"),
    [
        ("nvidia", CUDA, False),
        ("nvidia", PROCESSOR, True),
        ("nvidia", [*CUDA[:2], *PROCESSOR], True),
        ("nvidia", [], True),
        ("amd", CUDA, True),
        ("amd", ["load_tensors: ROCm0 model buffer size = 4403.49 MiB"], False),
        ("vulkan", ["using device Vulkan0 (AMD Radeon) - 8000 MiB free", "offloaded 5/33 layers to GPU"], False),
        ("vulkan", CUDA, True),
        ("apple", ["load_tensors: Metal_Mapped model buffer size =  4403.49 MiB"], False),
        ("apple", ["warning: not compiled with Metal"], True),
        ("auto", PROCESSOR, False),
        ("disable", PROCESSOR, False),
    ],
)
def test_a_server_without_the_flag_is_held_to_what_it_prints(gpu, lines, missing):
    assert bool(missing_gpu(PLAIN, gpu, lines)) == missing
    assert missing_gpu(NEW, gpu, lines) == ""  # it fails by itself


@posix
def test_a_vendor_that_is_not_there_is_an_error_with_the_flag_and_without(bench):
    with pytest.raises(errors.PlatformUnsupported, match="the GPU could not be used"):
        bench.manager().start(bench.file(detect=True), gpu="nvidia")
    quiet = bench.file("plain", plain=True, version="version: 6090 (abc)", detect=True, says=PROCESSOR)
    with pytest.raises(errors.PlatformUnsupported, match="runs without"):
        bench.manager().start(quiet, gpu="nvidia")
    assert bench.left() == []
    assert bench.manager().start(
        bench.file("good", plain=True, version="version: 1 (a)", detect=True, says=CUDA), gpu="nvidia"
    )


def test_a_server_without_the_flag_is_shown_no_gpu_when_there_is_to_be_none():
    assert dialects.gpu_environment(PLAIN, "disable")["CUDA_VISIBLE_DEVICES"] == "-1"
    assert dialects.gpu_environment(NEW, "disable") == {}
    assert dialects.gpu_environment(PLAIN, "auto") == {}
