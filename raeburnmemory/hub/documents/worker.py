"""The process in which documents are parsed: it reads bytes from its parent, answers with JSON, and knows nothing else.

A parser that fills the memory, runs for ever or crashes takes this process with it, and not the one that asked. It may
start no other process, open no connection and write no file.

A request is two lengths, a header in JSON and the bytes of the document; an answer is a length and JSON.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
import sys
import time
from dataclasses import asdict, astuple, fields
from typing import IO, TYPE_CHECKING, Any

from ...errors import MissingDependency
from .errors import DocumentError, NoText, TooLarge
from .registry import loader_of
from .source import Loaded, Source

if TYPE_CHECKING:
    from .model import Limits

__all__ = ["ARGUMENT", "freeze_support", "main"]

ARGUMENT = "--raeburnmemory-parse"  # how a frozen program is told to be this process
REQUEST = struct.Struct(">IQ")
ANSWER = struct.Struct(">Q")
READY = b"R"
_IDLE = 60.0  # seconds after which a process that nobody asks anything ends

_FORBIDDEN = (
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn",
    "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen",
    "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.mkdir", "os.chmod", "os.chown",
    "shutil.rmtree",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def freeze_support() -> None:
    """Be the process that parses documents, if this program was started for that; else do nothing.

    A program frozen by PyInstaller or its like calls this first of all, as it calls that of multiprocessing: it has no
    Python that could be started, so it is started once more itself.
    """
    if sys.argv[1:2] == [ARGUMENT]:
        main()
        raise SystemExit(0)


def main() -> None:
    """Answer requests on standard input until it is closed."""
    # The parsers may print what they like: it goes nowhere.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    _restrict()
    answers.write(READY)
    answers.flush()
    while _asked(requests) and len(head := requests.read(REQUEST.size)) == REQUEST.size:
        header_length, data_length = REQUEST.unpack(head)
        header = json.loads(requests.read(header_length))
        data = requests.read(data_length)
        if len(data) < data_length:
            return
        answer = _encoded(header, data)
        answers.write(ANSWER.pack(len(answer)))
        answers.write(answer)
        answers.flush()


def _encoded(header: dict[str, Any], data: bytes) -> bytes:
    try:
        return json.dumps(_answer(header, data), ensure_ascii=False, separators=(",", ":")).encode()
    except MemoryError:
        return b'{"error":"memory"}'


def _asked(requests: IO[bytes]) -> bool:
    """Wait for a request, but not for ever: whoever asks again starts another process."""
    if os.name != "posix":
        return True  # its pipes cannot be waited for
    return bool(select.select([requests], [], [], _IDLE)[0])


def _answer(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    limits = _limits(header["limits"])
    source = Source(data, header["name"], header["mime"], header["uri"], header["charset"], limits)
    try:
        _limit(limits)
        loaded = loader_of(source.mime)(source)
        if len(loaded.text) > limits.characters:
            raise TooLarge(
                f"The document has {len(loaded.text):,} characters; the limit is {limits.characters:,}.",
                remedy="Raise it if you trust the document: Limits(characters=…).",
            )
        return {"loaded": {**_plain(loaded), "blocks": [astuple(block) for block in loaded.blocks]}}
    except DocumentError as exc:
        message = str(exc).removesuffix(exc.remedy).rstrip()
        pages = list(exc.pages) if isinstance(exc, NoText) else []
        mime = getattr(exc, "mime", None)
        return {"error": type(exc).__name__, "message": message, "remedy": exc.remedy, "pages": pages, "mime": mime}
    except MissingDependency as exc:
        return {"error": "MissingDependency", "message": str(exc)}
    except MemoryError:
        raise
    except RecursionError:
        return {"error": "LoaderError", "message": "The document is nested too deeply.", "remedy": ""}
    except Exception as exc:  # noqa: BLE001  (a parser may raise anything about what it was given)
        return {"error": "failed", "message": f"{type(exc).__name__}: {exc}"[:500]}


def _plain(loaded: Loaded) -> dict[str, Any]:
    return {each.name: getattr(loaded, each.name) for each in fields(loaded) if each.name != "blocks"}


def _limits(values: dict[str, Any]) -> Limits:
    from .model import Limits

    return Limits(**values)


def request(source: Source) -> tuple[bytes, bytes]:
    """Return what asks for *source* to be read: the header with its lengths, and the data."""
    header = json.dumps(
        {
            "mime": source.mime,
            "name": source.name,
            "uri": source.uri,
            "charset": source.charset,
            "limits": asdict(source.limits),
        }
    ).encode()
    return REQUEST.pack(len(header), len(source.data)) + header, source.data


def _limit(limits: Limits) -> None:
    """Let the system end this process when it uses too much; the parent's clock is the other guard."""
    if os.name != "posix":
        return
    import resource

    def soft(which: int, value: int) -> None:
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))

    # The signal that comes at the limit ends the process; one second more, so that the clock is asked first.
    soft(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.seconds) + 1)
    if sys.platform != "darwin":  # where address space cannot be limited
        soft(resource.RLIMIT_AS, int(limits.memory))


def _restrict() -> None:
    """Take from this process what no parser needs; what is imported later is still found."""
    sys.dont_write_bytecode = True
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN or (event == "open" and _writes(arguments)):
            raise PermissionError(f"A parser may not do that: {event}")

    sys.addaudithook(watch)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if path == os.devnull:
        return False
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
