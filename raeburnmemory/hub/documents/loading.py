"""Bytes in, a document out: which loader reads them, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import InvalidInput
from .detection import charset_of, detect, extension_of
from .errors import TooLarge
from .model import Document, Limits, digest
from .ocr import with_ocr
from .parsing import parse
from .registry import is_text, loader_of
from .source import DEFAULT_LIMITS, Loaded, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Loader = Callable[[Source], Loaded | str]

__all__ = ["load", "register_loader"]

_OWN: dict[str, Loader] = {}  # what register_loader() was given, by type
_OWN_EXTENSIONS: dict[str, str] = {}


def load(
    data: bytes,
    *,
    name: str | None = None,
    mime: str | None = None,
    uri: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    ocr: Callable[[bytes, tuple[int, ...]], Mapping[int, str]] | None = None,
) -> Document:
    """Return the document that *data* is.

    Which format it has is decided by its first bytes, then by *mime* (a content type as HTTP has them, with its
    charset), then by the extension of *name* or *uri*. Texts are read here; everything else by a process of its own,
    within *limits*. A document without text has an empty `text`; a PDF that is a scan raises `NoText`.

    *ocr* is asked for the pages of a PDF that have no text: it gets the file and their numbers, and returns their texts
    by number. It runs in this process. `metadata["pages_read_by_ocr"]` names the pages for which it had any.

    Raises:
        DocumentError: One of its kinds in `raeburnmemory.hub.documents.errors`.
        MissingDependency: The package that reads this format is not installed.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidInput(f"A document is read from bytes, not from {type(data).__name__}.")
    data = bytes(data)
    if len(data) > limits.size:
        raise TooLarge(
            f"The document has {len(data):,} bytes; the limit is {limits.size:,}.",
            uri=uri,
            remedy="Raise it if you trust the document: Limits(size=…).",
        )
    kind = _own(name or uri, mime) or detect(data, name=name, mime=mime, uri=uri)
    source = Source(data, name, kind, uri, charset_of(mime), limits)
    if kind in _OWN:
        loaded = _OWN[kind](source)
    else:
        loader = loader_of(kind)
        loaded = loader(source) if is_text(kind) else with_ocr(source, parse, ocr)
    return document(Loaded(loaded) if isinstance(loaded, str) else loaded, source)


def document(loaded: Loaded, source: Source) -> Document:
    """Return what a loader read as a document, under the name of its file if it has no title."""
    if len(loaded.text) > source.limits.characters:
        raise TooLarge(
            f"The document has {len(loaded.text):,} characters; the limit is {source.limits.characters:,}.",
            uri=source.uri,
            remedy="Raise it if you trust the document: Limits(characters=…).",
        )
    name = (source.name or source.uri or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return Document(
        source.uri,
        loaded.title or name,
        loaded.mime or source.mime,
        loaded.text,
        loaded.blocks,
        loaded.metadata,
        digest(source.data),
        loaded.verbatim,
    )


def register_loader(mime: str, extension: str, function: Callable[[Source], Loaded | str]) -> None:
    """Read documents of the type *mime*, and files with *extension*, by *function*, which wins over any of ours.

    It gets a `Source` and returns a text, or a `Loaded` with blocks and a title. It runs in this process, without the
    limits on time and memory that hold for ours.

    Raises:
        InvalidInput: *mime* is no type, *extension* is empty, or *function* cannot be called.
    """
    kind, suffix = str(mime).strip().lower(), str(extension).strip().lower().lstrip(".")
    if kind.count("/") != 1 or ";" in kind or not suffix or not callable(function):
        raise InvalidInput(
            f"A loader is registered as register_loader('application/x-notes', '.notes', function), "
            f"not with {mime!r}, {extension!r}, {function!r}."
        )
    _OWN[kind] = function
    _OWN_EXTENSIONS[suffix] = kind


def _own(name: str | None, mime: str | None) -> str | None:
    said = (mime or "").partition(";")[0].strip().lower()
    return said if said in _OWN else _OWN_EXTENSIONS.get(extension_of(name))
