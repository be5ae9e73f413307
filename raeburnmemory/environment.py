"""What is installed here, what takes the place of what is not, and the versions that matter.

Imports none of the packages it tells of: whoever asks may have a broken one.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from . import __version__
from ._optional import installed
from .embed import BUILTIN, DEFAULT_MODEL, model_name
from .errors import InvalidInput
from .index import index_name

__all__ = ["CORE", "EXTRAS", "Environment", "Package", "environment", "sqlite_fault"]

DISTRIBUTION = "raeburnmemory"

CORE = {
    "numpy": "nothing: without it no memory can be opened",
    "networkx": "a directed graph of our own",
    "faiss-cpu": "the index 'exact': numpy compares every vector",
    "filelock": "fcntl, or msvcrt where there is no fcntl",
    "PyStemmer": "words as they are written: 'runs' is another word than 'run'",
    "snowballstemmer": "words as they are written: 'runs' is another word than 'run'",
    "typer": "the library alone, without its command line",
}
"""The packages that come with the library, and what works in the place of each."""

_SPELT = {name.lower(): name for name in CORE}

EXTRAS = {
    "embeddings": "the model 'builtin', or those of sentence-transformers",
    "fastapi": "no HTTP service, and no client of one",
    "hub": "no local models, no documents, no hub",
    "langchain": "no door for LangChain",
    "langgraph": "no store for LangGraph",
    "llama": "models in processes of their own, such as llamafiles",
    "mcp": "no door for MCP",
    "notebook": "pictures as HTML, SVG and Mermaid, but not as PNG",
    "parquet": "the other formats of export",
    "pgvector": "vectors in SQLite's own form",
    "postgres": "memories in JSON files and in SQLite",
    "qdrant": "the indexes 'faiss' and 'exact'",
    "sentence-transformers": "the model 'builtin', or those of onnxruntime",
}
"""The extras for users, and what there is without each."""

# What a distribution is called when it is imported, where that is not its name with underscores.
_MODULES = {
    "faiss-cpu": "faiss",
    "langgraph-checkpoint": "langgraph",
    "llama-cpp-python": "llama_cpp",
    "pystemmer": "Stemmer",
}
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;(?:.*extra == [\"']([\w-]+)[\"'].*|.*))?")
_PYTHON = re.compile(r"python_version (<|>=) [\"'](\d+)\.(\d+)[\"']")
_OLDEST_SQLITE = (3, 35)  # RETURNING
_WAL_RESET = (3, 51, 3)  # https://sqlite.org/wal.html#walresetbug


@dataclass(frozen=True)
class Package:
    """One package: its version here, None if it is not there or does not say; and the versions that will do."""

    name: str
    installed: bool
    version: str | None
    wanted: str

    @property
    def too_old(self) -> bool:
        """Whether it is there and older than the oldest version that will do."""
        bound = re.search(r">=?\s*([\d.]+)", self.wanted)
        return bound is not None and self.version is not None and _numbers(self.version) < _numbers(bound[1])


@dataclass(frozen=True)
class Environment:
    """What `environment` found.

    `model` and `index` are those that a new memory would take; `variables` are the names of the variables of this
    library that are set. `problems` ought to be mended, `notes` are worth knowing.
    """

    version: str
    python: str
    system: str
    sqlite: str
    model: str
    index: str
    core: tuple[Package, ...]
    extras: dict[str, tuple[Package, ...]]
    variables: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, with what takes the place of what is missing as `instead`."""
        data = asdict(self)
        data["core"] = [
            {**asdict(package), "instead": None if package.installed else CORE.get(package.name)}
            for package in self.core
        ]
        data["extras"] = {
            extra: {
                "complete": all(package.installed for package in packages),
                "packages": [asdict(package) for package in packages],
                "instead": None if all(package.installed for package in packages) else EXTRAS.get(extra),
            }
            for extra, packages in self.extras.items()
        }
        return data | {name: list(data[name]) for name in ("variables", "problems", "notes")}

    def __str__(self) -> str:
        lines = [
            f"raeburnmemory {self.version}, Python {self.python}, SQLite {self.sqlite}",
            self.system,
            f"A new memory: model {self.model}, index {self.index}",
            "Packages",
        ]
        lines += [f"  {package.name:<22} {_shown(package, CORE.get(package.name))}" for package in self.core]
        lines.append("Extras")
        for extra, packages in self.extras.items():
            missing = [package.name for package in packages if not package.installed]
            if missing:
                lines.append(f"  {extra:<22} without {', '.join(missing)}; instead: {EXTRAS.get(extra, 'nothing')}")
            else:
                versions = ", ".join(f"{package.name} {package.version or '?'}" for package in packages)
                lines.append(f"  {extra:<22} {versions}")
        if self.variables:
            lines.append(f"Variables that are set: {', '.join(self.variables)}")
        lines += [f"problem: {text}" for text in self.problems]
        lines += [f"note: {text}" for text in self.notes]
        return "\n".join(lines)


def _shown(package: Package, instead: str | None) -> str:
    if not package.installed:
        return f"not installed; instead: {instead or 'nothing'}"
    return f"{package.version or 'of an unknown version'}{' (too old)' if package.too_old else ''}"


def environment() -> Environment:
    """Tell what this library finds where it runs: packages, extras, versions, and what a new memory would take.

    Nothing is fetched and no memory is opened. Values of variables are not told: a key may be among them.

    >>> environment().index in {"faiss", "exact"}
    True
    """
    core, extras, notes = _packages()
    problems = [
        f"{package.name} {package.version} is older than {package.wanted}. "
        f"Install it anew with: pip install --upgrade {package.name}"
        for package in [*core, *(package for packages in extras.values() for package in packages)]
        if package.too_old
    ]
    problems += [
        f"{package.name} is not installed. Install it with: pip install {package.name}"
        for package in core
        if package.name == "numpy" and not package.installed
    ]
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        problems.append(
            f"SQLite is {sqlite3.sqlite_version}, and 3.35 is needed for memories in SQLite. Use a newer Python, "
            f"or paths that end in .json."
        )
    if fault := sqlite_fault():
        notes.append(fault)
    try:
        model, note = _model()
    except InvalidInput as exc:
        model, note = "none", ""
        problems.append(f"RAEBURN_EMBED_MODEL: {exc}")
    if note:
        notes.append(note)
    return Environment(
        version=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        sqlite=sqlite3.sqlite_version,
        model=model,
        index=index_name(None),
        core=tuple(core),
        extras={extra: tuple(packages) for extra, packages in extras.items()},
        variables=tuple(sorted(name for name in os.environ if name.startswith("RAEBURN_"))),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(notes),
    )


def sqlite_fault() -> str:
    """Return what is wrong with the SQLite of this Python, in a sentence or two, or `""`."""
    if sqlite3.sqlite_version_info >= _WAL_RESET:
        return ""
    return (
        f"SQLite is {sqlite3.sqlite_version}; before 3.51.3, two connections that write or checkpoint at once can "
        f"damage a database. This library holds its lock around both; other programs must open the database read-only."
    )


def _packages() -> tuple[list[Package], dict[str, list[Package]], list[str]]:
    """Return the packages of the core and of each extra, as this distribution names them, and what to note."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        note = "The library runs from its source and is not installed: which packages its extras take is not known."
        return [_package(name, "") for name in CORE], {}, [note]
    core, extras = [], {extra: list[Package]() for extra in EXTRAS}
    for line in required:
        if not (match := _REQUIREMENT.fullmatch(line)):
            continue
        name, wanted, extra = match.groups()
        if extra is None:
            if _for_this_python(line):
                core.append(_package(_SPELT.get(name.lower(), name), wanted))  # metadata may have it in small letters
        elif extra in extras:
            extras[extra].append(_package(name, wanted))
    return core, extras, []


def _for_this_python(line: str) -> bool:
    match = _PYTHON.search(line)
    return match is None or (sys.version_info < (int(match[2]), int(match[3]))) == (match[1] == "<")


def _package(name: str, wanted: str) -> Package:
    there = installed(_MODULES.get(name.lower(), name.replace("-", "_")))
    try:
        version = metadata.version(name) if there else None
    except metadata.PackageNotFoundError:  # it came another way, as faiss does from conda
        version = None
    return Package(name, there, version, wanted)


def _model() -> tuple[str, str]:
    """Return the model that a new memory would take, and what to say about it."""
    if named := os.environ.get("RAEBURN_EMBED_MODEL"):
        return model_name(named), ""
    if not installed("numpy"):
        return "none", ""
    from .embed import _models, onnx
    from .embed import sentence_transformers as torch

    by_onnx = _models.missing(*onnx.PACKAGES, onnx.HUB_PACKAGE) is None
    by_torch = _models.missing(torch.PACKAGE) is None
    if by_onnx and onnx.OnnxEmbedder.find(DEFAULT_MODEL) is not None:
        return DEFAULT_MODEL, ""
    if by_torch and torch.SentenceTransformersEmbedder.find(DEFAULT_MODEL) is not None:
        return DEFAULT_MODEL, ""
    if by_onnx or by_torch:
        note = f"{DEFAULT_MODEL} is not in the cache: the first memory fetches it, or takes {BUILTIN!r} with a warning."
        return DEFAULT_MODEL, note
    return BUILTIN, ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = tuple(map(int, match[0].split("."))) if match else ()
    while numbers and numbers[-1] == 0:  # 3 is as old as 3.0.0
        numbers = numbers[:-1]
    return numbers
