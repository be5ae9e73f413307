"""What a document is: by its content first, then by what it is said to be, then by its name."""

from __future__ import annotations

import os
import re
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from .encoding import looks_binary
from .errors import EncryptedDocument, LoaderError, UnsupportedType

__all__ = ["CODE", "EXTENSIONS", "charset_of", "detect", "extension_of", "language_of"]

HTML, XHTML, XML, PLAIN = "text/html", "application/xhtml+xml", "application/xml", "text/plain"
PDF, RTF, ZIP, OLE = "application/pdf", "application/rtf", "application/zip", "application/x-ole-storage"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_ODF = "application/vnd.oasis.opendocument."

# The languages of source code, by the extension of their files.
CODE = {
    "bash": "sh", "c": "c", "cc": "cpp", "clj": "clojure", "cmake": "cmake", "coffee": "coffeescript", "cpp": "cpp",
    "cs": "csharp", "css": "css", "cu": "cuda", "cxx": "cpp", "d": "d", "dart": "dart", "el": "lisp", "elm": "elm",
    "erl": "erlang", "ex": "elixir", "exs": "elixir", "f90": "fortran", "fs": "fsharp", "go": "go", "gradle": "groovy",
    "graphql": "graphql", "groovy": "groovy", "h": "c", "hh": "cpp", "hpp": "cpp", "hs": "haskell", "java": "java",
    "jl": "julia", "js": "javascript", "jsx": "javascript", "kt": "kotlin", "kts": "kotlin", "less": "css",
    "lisp": "lisp", "lua": "lua", "m": "objectivec", "mjs": "javascript", "ml": "ocaml", "mm": "objectivec",
    "nim": "nim", "nix": "nix", "pas": "pascal", "php": "php", "pl": "perl", "pm": "perl", "proto": "protobuf",
    "ps1": "powershell", "py": "python", "pyi": "python", "pyx": "python", "r": "r", "rb": "ruby", "rs": "rust",
    "sass": "css", "scala": "scala", "scm": "scheme", "scss": "css", "sh": "sh", "sol": "solidity", "sql": "sql",
    "svelte": "svelte", "swift": "swift", "tcl": "tcl", "tf": "terraform", "ts": "typescript", "tsx": "typescript",
    "v": "verilog", "vb": "basic", "vim": "vim", "vue": "vue", "zig": "zig", "zsh": "sh",
    "cfg": "ini", "conf": "ini", "ini": "ini", "properties": "ini", "toml": "toml", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip
_CODE_NAMES = {"cmakelists.txt": "cmake", "dockerfile": "dockerfile", "makefile": "make", "rakefile": "ruby"}

EXTENSIONS = {
    "txt": PLAIN, "text": PLAIN, "log": PLAIN,
    "md": "text/markdown", "markdown": "text/markdown", "mdown": "text/markdown", "mkd": "text/markdown",
    "mdx": "text/markdown", "rst": "text/x-rst", "rest": "text/x-rst", "org": "text/org",
    "csv": "text/csv", "tsv": "text/tab-separated-values", "tab": "text/tab-separated-values",
    "json": "application/json", "geojson": "application/json", "jsonl": "application/x-ndjson",
    "ndjson": "application/x-ndjson", "ipynb": "application/x-ipynb+json",
    "html": HTML, "htm": HTML, "xhtml": XHTML, "xht": XHTML,
    "xml": XML, "rss": XML, "atom": XML, "svg": "image/svg+xml",
    "eml": "message/rfc822", "mbox": "application/mbox", "ics": "text/calendar", "ical": "text/calendar",
    "srt": "application/x-subrip", "vtt": "text/vtt",
    "pdf": PDF, "rtf": RTF, "epub": "application/epub+zip",
    "docx": _OFFICE + "wordprocessingml.document", "docm": _OFFICE + "wordprocessingml.document",
    "pptx": _OFFICE + "presentationml.presentation", "pptm": _OFFICE + "presentationml.presentation",
    "xlsx": _OFFICE + "spreadsheetml.sheet", "xlsm": _OFFICE + "spreadsheetml.sheet",
    "odt": _ODF + "text", "odp": _ODF + "presentation", "ods": _ODF + "spreadsheet",
    **{extension: f"text/x-{language}" for extension, language in CODE.items()},
}  # fmt: skip

_SAME = {  # other names of types
    "application/csv": "text/csv", "application/jsonl": "application/x-ndjson", "application/rtf": RTF,
    "application/ndjson": "application/x-ndjson", "application/x-mbox": "application/mbox",
    "application/jsonlines": "application/x-ndjson", "application/x-jsonlines": "application/x-ndjson",
    "text/json": "application/json", "text/rtf": RTF, "text/x-markdown": "text/markdown",
    "text/prs.fallenstein.rst": "text/x-rst", "text/rst": "text/x-rst", "text/srt": "application/x-subrip",
    "text/xml": XML, "application/rss+xml": XML, "application/atom+xml": XML,
    "application/javascript": "text/x-javascript", "text/javascript": "text/x-javascript",
    "application/x-python-code": "text/x-python", "text/css": "text/x-css",
    "application/toml": "text/x-toml", "application/yaml": "text/x-yaml", "application/x-sh": "text/x-sh",
}  # fmt: skip
# Types that say nothing: servers send them for whatever they do not know.
_VAGUE = {"", PLAIN, "application/octet-stream", "binary/octet-stream", "application/x-download", "application/unknown"}

_MAGIC = (
    (b"%PDF-", PDF), (b"PK\x03\x04", ZIP), (b"PK\x05\x06", ZIP), (b"{\\rtf", RTF),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLE),
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"), (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"), (b"\xfd7zXZ\0", "application/x-xz"), (b"7z\xbc\xaf\x27\x1c", "application/x-7z"),
    (b"Rar!\x1a\x07", "application/vnd.rar"), (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x7fELF", "application/x-executable"), (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"), (b"fLaC", "audio/flac"), (b"\0asm", "application/wasm"),
)  # fmt: skip
_BINARY = {PDF, RTF, ZIP, "application/epub+zip"}  # and every office format: they begin with one of the marks above

_MARKUP = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_MAIL = re.compile(
    rb"(?:(?:From|To|Subject|Date|Received|Return-Path|Message-ID|MIME-Version|Delivered-To): ?[^\r\n]*\r?\n"
    rb"(?:[ \t][^\r\n]*\r?\n)*){2}",
    re.IGNORECASE,
)
_CUE = re.compile(rb"\s*\d+\r?\n\d\d:\d\d:\d\d[,.]\d{3} --> ")


def detect(data: bytes, *, name: str | None = None, mime: str | None = None, uri: str | None = None) -> str:
    """Return the type of a document, one of those in `EXTENSIONS` or one that somebody registered.

    Raises:
        UnsupportedType: It is a picture, a program, an archive: something that holds no text that could be read here.
        EncryptedDocument: It is an office document with a password.
        LoaderError: It is named or declared as a binary format, but is text.
    """
    said = (mime or "").partition(";")[0].strip().lower()
    said = _SAME.get(said, said)
    named = _named(name or uri)
    begins = next((kind for mark, kind in _MAGIC if data.startswith(mark)), None)
    if begins is None and data[257:262] == b"ustar":
        begins = "application/x-tar"
    if begins is None and data[:1024].lstrip().startswith(b"%PDF-"):
        begins = PDF
    if begins == OLE:
        _old_office(data, uri)
    if begins is not None:
        return begins
    if data and looks_binary(data):
        kind = said if said not in _VAGUE and said not in EXTENSIONS.values() else "application/octet-stream"
        raise UnsupportedType("The file holds no text: its bytes are binary.", uri=uri, mime=kind, remedy=_REGISTER)
    claimed = said if said not in _VAGUE else named
    return _of_text(data.removeprefix(b"\xef\xbb\xbf")[:4096], claimed, uri)


_REGISTER = "Convert it to a text format, or register a loader for its type: register_loader()."


def charset_of(mime: str | None) -> str | None:
    """Return the encoding that a content type declares, if it does."""
    found = re.search(r";\s*charset\s*=\s*[\"']?([\w.:-]+)", mime or "", re.IGNORECASE)
    return found[1] if found else None


def extension_of(name: str | None) -> str:
    """Return the extension of a file name, a path or a URL, in lower case, without its dot."""
    return os.path.splitext(_last(name))[1][1:].lower()


def language_of(mime: str) -> str | None:
    """Return the programming language that a type stands for, if it is source code."""
    language = mime.removeprefix("text/x-") if mime.startswith("text/x-") else ""
    return language if language in _LANGUAGES else None


_LANGUAGES = {*CODE.values(), *_CODE_NAMES.values()}


def _last(name: str | None) -> str:
    path = unquote(urlsplit(name).path) if name and re.match(r"[a-zA-Z][a-zA-Z+.-]+://", name) else name or ""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _named(name: str | None) -> str:
    last = _last(name).lower()
    if last in _CODE_NAMES:
        return f"text/x-{_CODE_NAMES[last]}"
    return EXTENSIONS.get(extension_of(name), "")


def _of_text(head: bytes, claimed: str, uri: str | None) -> str:
    """Return which kind of text it is: its beginning decides where it is plain about it, or nothing is claimed."""
    specific = claimed not in {"", PLAIN, HTML, XHTML, XML, "application/json"}
    if specific and not _is_binary(claimed):
        return claimed
    if _MARKUP.match(head) or (head.lstrip()[:5].lower() == b"<?xml" and re.search(rb"<html[\s>]", head)):
        return XHTML if head.lstrip().startswith(b"<?xml") and claimed in {XHTML, XML, ""} else HTML
    if _is_binary(claimed):
        if not head:
            raise LoaderError("The file is empty.", uri=uri, remedy="Check how it was copied or downloaded.")
        raise LoaderError(
            f"It is said to be {claimed!r}, but does not begin like one.",
            uri=uri,
            remedy="Check that the file is whole, and that its name and type are right.",
        )
    if claimed == "application/json":
        return "application/x-ipynb+json" if b'"nbformat"' in head and b'"cells"' in head else claimed
    if claimed in {HTML, XHTML, XML}:
        return claimed
    start = head.lstrip()
    if start.startswith(b"<?xml"):
        return XML
    if start.startswith(b"BEGIN:VCALENDAR"):
        return "text/calendar"
    if start.startswith(b"WEBVTT"):
        return "text/vtt"
    if claimed == PLAIN:
        return PLAIN
    if _CUE.match(head):
        return "application/x-subrip"
    if re.match(rb"From \S+ .*\r?\n(?:[\w-]+: )", head):
        return "application/mbox"
    return "message/rfc822" if _MAIL.match(head) else PLAIN


def _is_binary(kind: str) -> bool:
    return kind in _BINARY or kind.startswith((_OFFICE, _ODF))


def _old_office(data: bytes, uri: str | None) -> NoReturn:
    """Say what a file of the old Office container is: one with a password, or one of the formats before 2007."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise EncryptedDocument(
            "The document is encrypted.", uri=uri, remedy="Remove its password in the program that made it."
        )
    raise UnsupportedType(
        "The file has the format of Office before 2007 (.doc, .xls, .ppt, .msg).",
        uri=uri,
        mime=OLE,
        remedy="Save it as .docx, .xlsx, .pptx or .eml.",
    )
