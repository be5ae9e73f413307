"""Which flags the server in a file understands, and the command that starts it with them.

Three dialects are about: llamafile 0.6 to 0.9 (`v1`), its newer server of 0.9, also sold alone as llamafiler (`v2`),
and llama.cpp's own server, alone or inside llamafile 0.10 (`llama-server`). A file is asked with `--version`, and with
`--help` if that says nothing, for a limited time; the answer is remembered for as long as the file stays the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import InvalidSpec, PlatformUnsupported
from .formats import command_for
from .launcher import child_environment
from .store import write_json
from .system import end_group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .formats import Magic
    from .spec import Dialect, Kind

__all__ = [
    "GPUS",
    "Gpu",
    "Settings",
    "Traits",
    "arguments",
    "detect",
    "gpu_environment",
    "missing_gpu",
    "probe",
]

Gpu = Literal["auto", "nvidia", "amd", "apple", "vulkan", "disable"]
GPUS: tuple[Gpu, ...] = ("auto", "nvidia", "amd", "apple", "vulkan", "disable")
_ALL_LAYERS = 999  # more than any model has: as many as fit
_PATIENCE = 15.0  # seconds for one question; a llamafile unpacks its loader at the first
_MOST = 512 * 1024  # bytes of an answer
_VERSION = re.compile(r"llamafile(r?)\s+v?(\d+)\.(\d+)")
_EMBEDDING_CONTEXT = 2048  # tokens, where nothing else is asked for
_HIDE_GPUS = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
# What a server without --gpu prints when it uses the vendor's device.
_DEVICES = {
    "nvidia": re.compile(r"\bCUDA\d+\b(?!.*\b0\.00 MiB)"),
    "amd": re.compile(r"\b(?:ROCm|HIP)\d+\b(?!.*\b0\.00 MiB)"),
    "apple": re.compile(r"\b(?:Metal|MTL\d+)(?:_Mapped)? (?:model|compute|KV) buffer|using device (?:Metal|MTL\d+)\b"),
    "vulkan": re.compile(r"\bVulkan\d+\b(?!.*\b0\.00 MiB)"),
}
_OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")


@dataclass(frozen=True)
class Traits:
    """What is known of a server: its dialect, and whether it is a llamafile, which has flags beyond llama.cpp's."""

    dialect: Literal["v1", "v2", "llama-server"] = "llama-server"
    llamafile: bool = False

    @property
    def has_key(self) -> bool:
        """Whether it can be told to ask for a key."""
        return self.dialect != "v2"

    @property
    def has_gpu_flag(self) -> bool:
        """Whether it has `--gpu`, which fails by itself when the vendor's device is not there."""
        return self.llamafile or self.dialect != "llama-server"

    @property
    def health(self) -> str:
        """The path that answers 200 once the model is loaded."""
        return "/v1/models" if self.dialect == "v2" else "/health"


@dataclass(frozen=True)
class Settings:
    """How to start a model, whatever the dialect: context and threads are numbers, None for the server's own choice."""

    kind: Kind = "chat"
    alias: str = ""
    context: int | None = None
    threads: int | None = None
    gpu: Gpu = "auto"
    layers: int | None = None
    pooling: str | None = None
    args: tuple[str, ...] = ()


def detect(path: str, magic: Magic, dialect: Dialect, cache: Path | None) -> Traits:
    """Say which dialect the server at *path* speaks: *dialect* unless that is `"auto"`, else what it says itself.

    What it said is kept in the file *cache*, under the file's device, inode, size and time of change.
    """
    if dialect != "auto":
        # Scripts and programs of a dialect that has --server in every file are llamafiles; llama.cpp's own is not.
        return Traits(dialect, llamafile=magic == "ape" or dialect != "llama-server")
    found = os.stat(path)
    key = f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
    known = _read(cache)
    if key not in known:
        known[key] = asdict(probe(path, magic))
        if cache is not None:
            write_json(cache, dict(list(known.items())[-64:]))
    return Traits(**known[key])


def probe(path: str, magic: Magic, *, patience: float = _PATIENCE) -> Traits:
    """Ask the file itself: `--version`, then `--help`. One that says nothing known is taken for llama.cpp's."""
    command = command_for(path, magic)
    for question in ("--version", "--help"):
        said = _ask([*command, question], patience)
        if found := _VERSION.search(said):
            if found[1]:
                return Traits("v2", llamafile=True)
            old = (int(found[2]), int(found[3])) < (0, 10)
            return Traits("v1" if old else "llama-server", llamafile=True)
        if "--nobrowser" in said:
            return Traits("v1", llamafile=True)
        if "llamafiler" in said or "-l [HOST:]PORT" in said or "--listen" in said:
            return Traits("v2", llamafile=True)
        if re.search(r"(?m)^version: \d+ \(|--ubatch-size", said):
            return Traits(llamafile=magic == "ape" or "llamafile" in said)
    return Traits(llamafile=magic == "ape")


def _ask(command: Sequence[str], patience: float) -> str:
    """Run *command* for at most *patience* seconds, with nothing to read; return the beginning of what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryDirectory(prefix="raeburnmemory-") as folder:
        with contextlib.suppress(OSError):
            process = subprocess.Popen(  # noqa: S603 - a list, no shell; that the file is run is what is asked for
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=child_environment(),
                start_new_session=True,
            )
            try:
                deadline = time.monotonic() + patience
                # Waited for without being taken in, so that the number of its group stays its own.
                while time.monotonic() < deadline and os.fstat(out.fileno()).st_size < _MOST:
                    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                        break
                    time.sleep(0.01)
            finally:
                end_group(process.pid, 0.0)
                process.wait()
        out.seek(0)
        return out.read(_MOST).decode("utf-8", "replace")


def _read(cache: Path | None) -> dict[str, dict[str, Any]]:
    if cache is None:
        return {}
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
        return {key: asdict(Traits(**value)) for key, value in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # only what can be asked again
        return {}


def arguments(traits: Traits, settings: Settings, *, port: int, key_file: str | None, weights: str | None) -> list[str]:
    """Return the flags that start the server on *port* of this machine, with nothing left to its defaults that matters.

    *weights* is a GGUF file for a server that has none in it. What the user adds in `settings.args` comes before
    address, key and mode: of a flag given twice, the last one counts.

    Raises:
        InvalidSpec: A setting is out of range, or one that the dialect has no flag for.
        PlatformUnsupported: The dialect cannot be asked for that GPU.
    """
    _check(settings)
    flags: list[str] = []
    if weights is not None:
        flags += ["-m", weights]
    context = settings.context
    if settings.kind == "embedding" and context is None:
        context = _EMBEDDING_CONTEXT
    if context is not None:
        flags += ["-c", str(context)]
    if settings.threads is not None:
        flags += ["-t", str(settings.threads)]
    flags += _embedding_flags(traits, settings, context)
    flags += _gpu_flags(traits, settings)
    flags += settings.args
    if traits.dialect == "v2":
        return ["--server", "--v2", *flags, "-l", f"127.0.0.1:{port}"]
    if settings.alias:
        flags += ["--alias", settings.alias]
    if key_file is not None:
        flags += ["--api-key-file", key_file]
    flags += ["--host", "127.0.0.1", "--port", str(port)]
    if traits.dialect == "v1":
        return ["--server", "--nobrowser", *flags]
    return ["--server", *flags] if traits.llamafile else flags


def _check(settings: Settings) -> None:
    for what, value, least in (
        ("ctx", settings.context, 1),
        ("threads", settings.threads, 1),
        ("ngl", settings.layers, 0),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InvalidSpec(f"{what} is {value!r}. It is a number from {least} on, or None.")
    if settings.gpu not in GPUS:
        raise InvalidSpec(f"gpu is {settings.gpu!r}. It is one of: {', '.join(GPUS)}.")
    if any("\0" in arg for arg in settings.args):
        raise InvalidSpec(f"args are {settings.args!r}; no argument can hold a NUL.")


def _embedding_flags(traits: Traits, settings: Settings, context: int | None) -> list[str]:
    if settings.kind != "embedding" or context is None:
        if settings.pooling is not None:
            raise InvalidSpec(f"pooling is {settings.pooling!r}, and the kind {settings.kind!r}: it is for embedding.")
        return []
    # An input longer than a batch makes the server abort, and so do more slots than tokens (llama.cpp#12836, #13688).
    if traits.dialect == "v2":
        return ["-b", str(context), "-ub", str(context)]
    one_slot = ["-np", "1", "-b", str(context)]
    if traits.dialect == "v1":
        return ["--embedding", *one_slot]
    pooling = ["--pooling", settings.pooling] if settings.pooling is not None else []
    return ["--embeddings", *pooling, *one_slot, "-ub", str(context)]


def _gpu_flags(traits: Traits, settings: Settings) -> list[str]:
    gpu, layers = settings.gpu, settings.layers
    if gpu == "auto":
        return [] if layers is None else ["-ngl", str(layers)]
    if gpu == "disable":
        return ["--gpu", "disable", "-ngl", "0"] if traits.has_gpu_flag else ["-ngl", "0"]
    if gpu == "vulkan" and traits.dialect != "llama-server":
        raise PlatformUnsupported(
            f"gpu is 'vulkan', and the server's dialect {traits.dialect!r} knows auto, amd, apple, nvidia and disable.",
            remedy="Take a llamafile from 0.10 on.",
        )
    if layers == 0:
        raise InvalidSpec(f"gpu is {gpu!r} and ngl 0, which asks for that GPU and for none.")
    given = ["-ngl", str(_ALL_LAYERS if layers is None else layers)]
    return ["--gpu", gpu, *given] if traits.has_gpu_flag else given


def gpu_environment(traits: Traits, gpu: Gpu) -> dict[str, str]:
    """Return what hides the GPUs from a server that has no flag for it."""
    return dict(_HIDE_GPUS) if gpu == "disable" and not traits.has_gpu_flag else {}


def missing_gpu(traits: Traits, gpu: Gpu, lines: Sequence[str]) -> str:
    """Return what is wrong if *lines* of its log show that a server did not take the vendor's GPU; else empty.

    Servers with `--gpu` fail by themselves; llama.cpp's own falls back to the processor without a word of complaint.
    """
    if gpu not in _DEVICES or traits.has_gpu_flag:
        return ""
    if not any(_DEVICES[gpu].search(line) for line in lines):
        return f"no line of its log names a device of {gpu}"
    offloaded = [int(found[1]) for line in lines if (found := _OFFLOADED.search(line))]
    return "it put no layers on the GPU" if offloaded and not any(offloaded) else ""
