"""What a model is, and how it stands with it: plain data, checked where it comes in."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from .errors import InvalidSpec, UnsafePath

__all__ = [
    "Dialect",
    "FileState",
    "Format",
    "Kind",
    "ModelSpec",
    "ModelStatus",
    "Plan",
    "ProcessState",
    "ProcessStatus",
    "RunnableFile",
    "checked_name",
    "is_loopback",
]

Kind = Literal["chat", "embedding"]
Format = Literal["llamafile", "gguf"]
Dialect = Literal["auto", "v1", "v2", "llama-server"]
FileState = Literal["absent", "queued", "downloading", "paused", "verifying", "ready", "corrupt", "failed"]
ProcessState = Literal["stopped", "starting", "loading", "ready", "stopping", "crashed", "failed"]
SimpleState = Literal["absent", "downloading", "idle", "running", "error"]

_LONGEST_NAME = 200  # bytes: room for our own endings within the 255 that file systems allow
_OURS = (".partial", ".partial.json", ".lock", ".lock.gate")  # endings of the files beside a model
_OF_WINDOWS = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def checked_name(name: object, what: str = "A model's name") -> str:
    """Return *name* if it is one part of a path, and can be no option of a command.

    Spaces and quotes may be in it: nothing here ever goes through a shell.

    Raises:
        UnsafePath: It leads elsewhere, begins with a dash or a dot, or has letters that nobody could see.
    """
    if not isinstance(name, str):
        raise UnsafePath(f"{what} is {name!r}, which is no text.")
    wrong = ""
    if not name.strip():
        wrong = "is empty"
    elif name[0] in "-.":
        wrong = f"begins with {name[0]!r}"
    elif any(mark in name for mark in "/\\:"):
        wrong = "leads to another folder"
    elif any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for letter in name):
        wrong = "has letters that cannot be seen"
    elif name != name.strip() or name.endswith("."):
        wrong = "ends or begins with a space, or ends with a dot"
    elif name.partition(".")[0].lower() in _OF_WINDOWS:
        wrong = "is the name of a device on Windows"
    elif len(name.encode()) > _LONGEST_NAME:
        wrong = f"is longer than {_LONGEST_NAME} bytes"
    if wrong:
        raise UnsafePath(f"{what} is {name!r}, which {wrong}.", remedy="Give it a plain name, such as 'tiny-chat'.")
    return name


def is_loopback(host: str) -> bool:
    """Tell whether *host*, as a URL has it, is this machine by its very name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_url(name: str, url: str) -> str:
    remedy = "Give one like 'https://example.org/model.gguf'."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as exc:
        raise InvalidSpec(f"The URL of model {name!r} cannot be read: {exc}.", model=name, remedy=remedy) from exc
    if not host or any(letter <= " " for letter in url):
        raise InvalidSpec(f"The URL of model {name!r} is {url!r}, which is none.", model=name, remedy=remedy)
    if parts.username is not None or parts.password is not None:
        raise InvalidSpec(
            f"The URL of model {name!r} has a user name or password in it, which would be stored and shown.",
            model=name,
            remedy="Leave it out.",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidSpec(
            f"The URL of model {name!r} is {url!r}. Models are fetched over https, or from this machine.",
            model=name,
            remedy=remedy,
        )
    return url


@dataclass(frozen=True)
class ModelSpec:
    """What is known about a model before anything is fetched.

    `size` is in bytes and `sha256` in hexadecimal; both are None where they are not known. `kind` says what it is for,
    `dialect` which flags its server takes (`"auto"`: found out), `args` what else to start it with. `title` is for
    people, and `size_text` the size as the publisher tells it, such as "1.6 GB", for where `size` is not known.

    Raises:
        InvalidSpec: Something about it makes no sense.
        UnsafePath: `name` or `filename` is no single part of a path, or begins with a dash.
    """

    name: str
    filename: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    license: str | None = None
    license_url: str | None = None
    kind: Kind = "chat"
    format: Format = "llamafile"
    dialect: Dialect = "auto"
    args: tuple[str, ...] = ()
    title: str | None = None
    size_text: str | None = None

    def __post_init__(self) -> None:
        checked_name(self.name)
        checked_name(self.filename, f"The file name of model {self.name!r}")
        if self.filename.endswith(_OURS):
            raise UnsafePath(
                f"The file name of model {self.name!r} is {self.filename!r}; such endings are for files in the making.",
                model=self.name,
            )
        for what, value, known in (
            ("kind", self.kind, get_args(Kind)),
            ("format", self.format, get_args(Format)),
            ("dialect", self.dialect, get_args(Dialect)),
        ):
            if value not in known:
                raise InvalidSpec(
                    f"Model {self.name!r} has the {what} {value!r}. It is one of: {', '.join(known)}.", model=self.name
                )
        for what in ("url", "license", "license_url", "sha256", "title", "size_text"):
            value = getattr(self, what)
            if value is not None and not isinstance(value, str):
                raise InvalidSpec(f"The {what} of model {self.name!r} is {value!r}, which is no text.", model=self.name)
        if self.url is not None:
            _checked_url(self.name, self.url)
        if self.size is not None and (not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1):
            raise InvalidSpec(
                f"The size of model {self.name!r} is {self.size!r}. It is a number of bytes, or None.", model=self.name
            )
        if self.sha256 is not None:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
                raise InvalidSpec(
                    f"The SHA-256 of model {self.name!r} is {self.sha256!r}. It has 64 hexadecimal digits.",
                    model=self.name,
                )
            object.__setattr__(self, "sha256", self.sha256.lower())
        given: Any = self.args
        if not isinstance(given, (tuple, list)) or not all(isinstance(arg, str) and "\0" not in arg for arg in given):
            raise InvalidSpec(f"The args of model {self.name!r} are {given!r}, no list of texts.", model=self.name)
        object.__setattr__(self, "args", tuple(given))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"args": list(self.args)}

    @classmethod
    def from_dict(cls, data: Any) -> ModelSpec:
        """Make one of what `to_dict` gave.

        Raises:
            InvalidSpec: It is no such object, or something about it makes no sense.
        """
        if not isinstance(data, dict):
            raise InvalidSpec(f"A model is described by a JSON object, not by {data!r}.")
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise InvalidSpec(f"Model {data.get('name')!r} has unknown fields: {', '.join(map(repr, unknown))}.")
        if missing := sorted({"name", "filename"} - set(data)):
            raise InvalidSpec(f"A model has no {' and no '.join(missing)}: {data!r}.")
        return cls(**data)


@dataclass(frozen=True)
class ProcessStatus:
    """How it stands with the process of a model. Times are in UTC, ISO 8601."""

    process_state: ProcessState = "stopped"
    pid: int | None = None
    port: int | None = None
    base_url: str | None = None
    started_at: str | None = None
    last_used: str | None = None
    restarts: int = 0
    exit_code: int | None = None
    last_error: str | None = None


@dataclass(frozen=True)
class ModelStatus:
    """How it stands with a model: its file, and its process.

    `speed` is in bytes per second and `eta` in seconds; both are known where this manager downloads. `exit_code` is
    negative for the number of a signal. `sha256_verified` is True or False once the file was compared with a digest
    that was known before, else None. Times are in UTC, ISO 8601.
    """

    name: str
    file_state: FileState = "absent"
    process_state: ProcessState = "stopped"
    bytes_done: int = 0
    bytes_total: int | None = None
    speed: float | None = None
    eta: float | None = None
    pid: int | None = None
    port: int | None = None
    base_url: str | None = None
    started_at: str | None = None
    last_used: str | None = None
    restarts: int = 0
    exit_code: int | None = None
    last_error: str | None = None
    sha256_verified: bool | None = None

    @property
    def simple_state(self) -> SimpleState:
        """One word for both states: absent, downloading, idle, running or error."""
        if self.process_state in {"crashed", "failed"}:
            return "error"
        if self.process_state != "stopped":
            return "running"
        if self.file_state in {"queued", "downloading", "verifying"}:
            return "downloading"
        if self.file_state in {"corrupt", "failed"}:
            return "error"
        return "idle" if self.file_state == "ready" else "absent"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, `simple_state` included."""
        return asdict(self) | {"simple_state": self.simple_state}


@dataclass(frozen=True)
class Plan:
    """What a download would take; nothing was fetched for it. Numbers are bytes, None where they are not known.

    `memory_needed` is an estimate: the weights, and half a gibibyte for what is computed with them. `problems` are
    sentences; `fits` is False where the download would be refused.
    """

    name: str
    bytes_total: int | None
    bytes_missing: int | None
    disk_free: int
    disk_needed: int | None
    memory_needed: int | None
    memory_free: int | None
    fits: bool
    problems: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"problems": list(self.problems)}


@dataclass(frozen=True)
class RunnableFile:
    """A file that was checked and may be run: `path` names the very inode that was checked.

    `sha256` is its digest; `magic` is what the file begins with: `"gguf"`, `"ape"`, `"elf"`, `"script"` or `"pe"`.
    """

    spec: ModelSpec
    path: str
    magic: str
    sha256: str
    size: int
