"""Why a model ended: what its last lines and its exit say, in words that help."""

from __future__ import annotations

import re
import signal as signals
from typing import TYPE_CHECKING

from .errors import (
    ExecFormatError,
    InsufficientMemory,
    ModelLoadFailed,
    PlatformUnsupported,
    PortUnavailable,
    ProcessExited,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import LlamafileError

__all__ = ["cause_of", "error_for", "said_how"]

# The first that matches any of the last lines is the cause: the more particular ones come first.
_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "port",
        r"address already in use|couldn'?t bind|could not bind|failed to bind|bind\(\) failed|EADDRINUSE",
        "the port was taken",
        "Leave the port out, then a free one is chosen.",
    ),
    (
        "memory",
        (
            r"out of memory|outofmemory|failed to allocate|unable to allocate|cannot allocate memory|bad_alloc|"
            r"failed to (?:create|allocate) (?:buffer|kv|context)|ENOMEM"
        ),
        "there was not enough memory",
        "Take a smaller model or a smaller ctx, or fewer layers on the GPU.",
    ),
    (
        "argument",
        (
            r"unknown argument|invalid argument|unrecognized arguments?|unknown option|unrecognized option|"
            r"illegal option|bad value for|error while handling argument"
        ),
        "it does not know an argument",
        "Name the dialect of its server, or leave the argument out.",
    ),
    (
        "cpu",
        (
            r"\bAVX2?\b[^\n]*(?:required|requires|needs?|missing|unsupported|not support)|"
            r"(?:requires?|needs?|without|no|lacks?|support)[^\n]*\bAVX2?\b|illegal instruction"
        ),
        "the processor lacks an instruction set that it needs",
        "Take a build for older processors.",
    ),
    (
        "architecture",
        r"exec format error|cannot execute binary|wrong architecture|bad cpu type|run-detectors",
        "the system could not run the file",
        "Take a build for this processor and this system.",
    ),
    (
        "load",
        r"unknown model architecture",
        "its architecture is unknown to this server",
        "Take a newer server.",
    ),
    (
        "magic",
        (
            r"invalid magic|bad magic|not a gguf|gguf[^\n]*(?:invalid|corrupt|truncated)|"
            r"(?:invalid|corrupt(?:ed)?|truncated)[^\n]*(?:gguf|model)|tensor[^\n]*(?:out of bounds|not within)"
        ),
        "the weights are damaged, or no weights",
        "Verify the file, and download it again.",
    ),
    (
        "gpu",
        (
            r"(?:no|not|fail|unable|couldn'?t|unsupported)[^\n]*(?:\bgpu\b|cuda|rocm|hip|metal|vulkan)|"
            r"(?:cuda|rocm|vulkan|metal)[^\n]*(?:error|failed|not found|not available)|support for --gpu"
        ),
        "the GPU could not be used",
        "Install its driver, or start with gpu='disable' or 'auto'.",
    ),
    (
        "permission",
        r"permission denied|operation not permitted|\bEPERM\b|\bEACCES\b|read-only file system",
        "it was refused a right",
        "Look at the rights of the file, of the temporary folder, and at security software.",
    ),
    (
        "load",
        r"failed to load model|error loading model|unable to load model|model failed to load",
        "it could not load the weights",
        "Verify the file; the log has more.",
    ),
    (
        "missing",
        r"not found\s*$|no such file or directory",
        "a file or a program is missing",
        "The last lines name it.",
    ),
)
_PATTERNS = tuple((key, re.compile(pattern, re.IGNORECASE), said, remedy) for key, pattern, said, remedy in _CAUSES)


def cause_of(lines: Sequence[str], code: int | None, *, gpu: bool = False) -> tuple[str, str, str]:
    """Return the key of the cause, the cause in words, and what to do; the words are empty if it is not known.

    *lines* are the last ones printed, *code* is what the process ended with, negative for a signal. Complaints about
    the GPU count only where one was asked for, with *gpu*: servers without one complain and go on.
    """
    for key, pattern, said, remedy in _PATTERNS:
        if (gpu or key != "gpu") and any(pattern.search(line) for line in lines):
            return key, said, remedy
    if code == -signals.SIGKILL:
        return "memory", "the system may have needed its memory", "Take a smaller model or a smaller ctx."
    if code == -signals.SIGILL:
        return "cpu", "the processor lacks an instruction that it needs", "Take a build for older processors."
    if code in {126, 127}:
        return "architecture", "the system could not run the file", "The last lines say why."
    return "", "", "Look at its log."


def said_how(code: int | None) -> str:
    """Put into words how a process ended."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signals.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"


def error_for(model: str, code: int | None, lines: Sequence[str], *, when: str, gpu: bool = False) -> LlamafileError:
    """Return the error that says why *model* ended; *when* says in which state it was, *gpu* that one was asked for."""
    key, said, remedy = cause_of(lines, code, gpu=gpu)
    message = f"Model {model!r} {said_how(code)} {when}{': ' + said if said else ''}."
    if lines:
        message += f" Its last line: {_last(lines)!r}."
    tail = tuple(lines)
    if key == "memory":
        return InsufficientMemory(message, model=model, remedy=remedy, log_tail=tail)
    if key == "port":
        return PortUnavailable(message, model=model, remedy=remedy, log_tail=tail)
    if key == "architecture":
        return ExecFormatError(message, model=model, remedy=remedy, log_tail=tail)
    if key in {"cpu", "gpu"}:
        return PlatformUnsupported(message, model=model, remedy=remedy, log_tail=tail)
    if key in {"magic", "load"}:
        return ModelLoadFailed(message, model=model, remedy=remedy, log_tail=tail)
    return ProcessExited(
        message,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        model=model,
        remedy=remedy,
        log_tail=tail,
    )


def _last(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if line.strip():
            return line.strip()[:300]
    return ""
