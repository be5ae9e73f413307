"""What all commands share: errors as one line and an exit code, warnings, values typed, and output."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from .errors import (
    EmbedderFallbackWarning,
    EmbedderMismatch,
    EmbeddingsMissing,
    InvalidInput,
    LockTimeout,
    MemoryGraphError,
    MissingDependency,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .hits import Hits
    from .nodes import Node, Reindexed

__all__ = [
    "Commands",
    "Group",
    "attributes",
    "clean",
    "json_object",
    "one_line",
    "print_facts",
    "print_fields",
    "print_hits",
    "print_json",
    "print_reindexed",
    "print_said",
    "print_text",
    "progress_bar",
    "tell",
    "time_or_seconds",
]

_UsageError = cast("type[Exception]", typer.BadParameter.__base__)  # click's, or typer's own copy of it

# What could move the cursor, change colours or turn the direction of writing on somebody's terminal.
_UNSAFE = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {ord("\t"), ord("\n")}
_SHOWN = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE}


class Group(TyperGroup):
    """A group of commands that shows its help when it is called without one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; none at all ask for help."""
        return super().parse_args(ctx, args or ["--help"])


class Commands(Group):
    """A group of commands that answers every error of ours with one line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name, and exit with its code."""
        if not kwargs.get("standalone_mode", True):
            return super().main(*args, **kwargs)
        kwargs["standalone_mode"] = False  # or usage errors would come in a box of several lines
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 still shows something
        try:
            code = super().main(*args, **kwargs)
        except _UsageError as exc:
            code = _complain_of_usage(exc)
        except typer.Abort as exc:  # a question was not answered with yes
            code = 128 + signal.SIGINT if isinstance(exc.__context__, KeyboardInterrupt) else 1
        try:
            sys.stdout.flush()
        except (OSError, AttributeError):  # nobody reads it, or there never was one
            _drop_stdout()
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _notices():
                return super().invoke(ctx)
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(128 + getattr(signal, "SIGPIPE", 13)) from None
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        except (MemoryGraphError, OSError) as exc:
            tell("Error", _sentence(exc))
            raise typer.Exit(_exit_code(exc)) from exc


# --- errors -----------------------------------------------------------------------------------------------------


def _exit_code(exc: Exception) -> int:
    if isinstance(exc, LockTimeout):
        return 5
    if isinstance(exc, (EmbeddingsMissing, MissingDependency, EmbedderMismatch)):
        return 4
    if isinstance(exc, MemoryGraphError) and (
        isinstance(exc, LookupError) or (isinstance(exc, FileNotFoundError) and exc.errno == errno.ENOENT)
    ):
        return 3
    return 2 if isinstance(exc, InvalidInput) else 1


def _sentence(exc: Exception) -> str:
    if isinstance(exc, OSError) and not isinstance(exc, MemoryGraphError) and exc.strerror:
        return f"{exc.filename!r}: {exc.strerror}." if exc.filename else f"{exc.strerror}."
    return str(exc)


def _complain_of_usage(exc: Any) -> int:
    message = exc.format_message()
    stop = "" if message.endswith((".", "?", "!")) else "."
    where = f" See: {exc.ctx.command_path} --help" if exc.ctx is not None else ""
    tell("Error", f"{message}{stop}{where}")
    return int(exc.exit_code)


def _drop_stdout() -> None:
    """Let what is still to be written go nowhere, so that the interpreter does not complain of it at its end."""
    if sys.stdout is not None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"Warning: {one_line(record.getMessage())}"


@contextmanager
def _notices() -> Iterator[None]:
    """Print what the library logs and warns of as one line each on stderr."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OneLine())
    log = logging.getLogger("raeburnmemory")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
                if issubclass(category, EmbedderFallbackWarning):
                    tell("Warning", str(message))
                else:
                    others(message, category, *rest, **more)

            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)


# --- what was typed ---------------------------------------------------------------------------------------------


def time_or_seconds(text: str) -> str | float:
    """Return a time as the library takes it; a long number is seconds since 1970, `20261120` is a date."""
    return float(text) if re.fullmatch(r"\d{9,}(\.\d+)?", text) else text


def json_object(text: str, option: str) -> dict[str, Any]:
    """Return the object that *text* is the JSON of.

    Raises:
        InvalidInput: It is something else.
    """
    form = 'Write it like \'{"topic": "health"}\'.'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{option} is no JSON: {exc}. {form}") from exc
    if not isinstance(value, dict):
        raise InvalidInput(f"{option} is no JSON object: {text!r}. {form}")
    return value


def attributes(conditions: Sequence[str]) -> dict[str, Any]:
    """Return what conditions like `key=value` ask for; a value is JSON, or else text.

    Raises:
        InvalidInput: A condition has another form, or a key comes twice.
    """
    wanted: dict[str, Any] = {}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not key or not equals:
            raise InvalidInput(f"--where {condition!r} should have the form KEY=VALUE.")
        if key in wanted:
            raise InvalidInput(f"--where names {key!r} twice, and nothing can be both. Run the command for each.")
        try:
            wanted[key] = json.loads(text, parse_constant=str)
        except (ValueError, RecursionError):
            wanted[key] = text
    return wanted


# --- output -----------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Return *text* with what could play tricks on a terminal made visible: other people wrote it."""
    return text.translate(_SHOWN)


def _write(stream: TextIO | None, line: str) -> None:
    # Not typer.echo: it takes an ASCII terminal for a mistake and sends UTF-8 to it.
    if stream is not None:
        stream.write(f"{line}\n")
        stream.flush()


def one_line(text: str) -> str:
    """Return *text* on one line, safe for a terminal."""
    return clean(" ".join(text.split()))


def tell(kind: str, text: str) -> None:
    """Print one line on stderr; *kind* is `"Error"`, `"Warning"` or `"Note"`."""
    _write(sys.stderr, f"{kind}: {one_line(text)}")


def print_text(text: str) -> None:
    """Print *text*, safe for a terminal."""
    _write(sys.stdout, clean(text))


def print_json(data: Any) -> None:
    """Print *data* as JSON that can be read back whatever the encoding of stdout."""
    # An encoding that lacks a letter would get Python's escape for it, which is not JSON's.
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    _write(sys.stdout, json.dumps(data, indent=2, ensure_ascii=encoding != "utf8"))


def print_hits(hits: Hits) -> None:
    """Print rank, score, id and the beginning of the text of each hit, one line each."""
    ids = [one_line(hit.id) for hit in hits]
    longest = max(map(len, ids), default=0)
    width = shutil.get_terminal_size((120, 24)).columns
    for rank, (node_id, hit) in enumerate(zip(ids, hits, strict=True), 1):
        line = f"{rank:>2}  {hit.score:6.3f}  {node_id:<{longest}}  {one_line(hit.text)}"
        _write(sys.stdout, line if len(line) <= width else f"{line[: width - 1]}…")


def print_fields(fields: dict[str, Any]) -> None:
    """Print names and values, one line each as far as the values have one."""
    longest = max(map(len, fields), default=0)
    for name, value in fields.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(map(_plain, value))
        else:
            shown = _plain(value)
        print_text(f"{name:<{longest}}  {shown}".rstrip())


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_facts(facts: Sequence[Node]) -> None:
    """Print from when until when each fact holds, its id and the fact."""
    rows = [
        [
            one_line(str(each))
            for each in (fact.attributes["valid_from"], fact.attributes.get("valid_to") or "-", fact.id)
        ]
        for fact in facts
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for fact, row in zip(facts, rows, strict=True):
        shown = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        _write(sys.stdout, f"{shown}  {one_line(fact.text or '')}")


def print_said(nodes: Sequence[Node]) -> None:
    """Print a conversation: who, when and the id, and the whole text under it."""
    for node in nodes:
        who = node.attributes.get("name") or node.kind
        print_text(f"{node.timestamp or '-'}  {who}  {node.id}")
        print_text("".join(f"    {line}\n" for line in (node.text or "").splitlines()))


def print_reindexed(report: Reindexed, *, as_json: bool) -> None:
    """Print what a `reindex` or `reembed` did."""
    if as_json:
        print_json(report.to_dict())
        return
    line = f"Vectors made: {report.embedded}. Searched now: {report.indexed}."
    if report.without:
        line += f" Texts without a vector, because the model knows no word of them: {report.without}."
    print_text(line)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that draws a bar from what is done and the whole, or None where nobody would see it."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        bars: list[Any] = []

        def draw(done: int, whole: int) -> None:
            if not bars:  # how long it is, is known by now
                bars.append(stack.enter_context(typer.progressbar(length=whole, label=label, file=sys.stderr)))
            bars[0].update(done - bars[0].pos)

        yield draw
