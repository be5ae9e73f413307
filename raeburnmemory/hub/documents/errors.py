"""Every error about a document: it cannot be had, it is refused, or it cannot be read.

    DocumentError (RuntimeError)
    ├── UnsupportedType (ValueError)      nothing here reads files of this type
    ├── TooLarge (ValueError)             a limit on size, pages or memory was passed
    │   └── ArchiveBomb                   an archive that would unpack into far more than it is
    ├── EncryptedDocument (PermissionError)  it opens with a password only
    ├── NoText (ValueError)               there are pages, but no text on them: a scan
    ├── DecodeError (ValueError)          its bytes are no text in any encoding
    ├── LoaderError (ValueError)          it is damaged, or not what it says
    ├── ParseTimeout (TimeoutError)       reading it took too long
    ├── BlockedUrl (PermissionError)      an address that the policy refuses
    └── FetchError (ConnectionError)      an address that did not answer with a document

Each is also the builtin in brackets, has a `code` for programs and a `remedy`, and names the document as `uri`.
"""

from __future__ import annotations

from ..errors import DocumentError

__all__ = [
    "ArchiveBomb",
    "BlockedUrl",
    "DecodeError",
    "DocumentError",
    "EncryptedDocument",
    "FetchError",
    "LoaderError",
    "NoText",
    "ParseTimeout",
    "TooLarge",
    "UnsupportedType",
]


class UnsupportedType(DocumentError, ValueError):
    """Nothing here reads documents of this type: `mime` is what it seems to be."""

    code = "unsupported_type"

    def __init__(self, message: str, *, uri: str | None = None, remedy: str = "", mime: str | None = None) -> None:
        super().__init__(message, uri=uri, remedy=remedy)
        self.mime = mime


class TooLarge(DocumentError, ValueError):
    """A document passes a limit of `Limits`: on bytes, pages, characters or memory."""

    code = "too_large"


class ArchiveBomb(TooLarge):
    """An archive holds too many members, or would unpack into far more than it is, or its members overlap."""

    code = "archive_bomb"


class EncryptedDocument(DocumentError, PermissionError):
    """A document can only be opened with a password."""

    code = "encrypted"


class NoText(DocumentError, ValueError):
    """A document has pages but no text on them, as a scan has: `pages` are their numbers, from 1."""

    code = "no_text"

    def __init__(self, message: str, *, uri: str | None = None, remedy: str = "", pages: tuple[int, ...] = ()) -> None:
        super().__init__(message, uri=uri, remedy=remedy)
        self.pages = pages


class DecodeError(DocumentError, ValueError):
    """The bytes of a text are no text in the encoding that they declare, nor in any other."""

    code = "undecodable"


class LoaderError(DocumentError, ValueError):
    """A document is damaged, is not what it says it is, or the program that reads it failed."""

    code = "unreadable"


class ParseTimeout(DocumentError, TimeoutError):
    """Reading a document took longer than `Limits.seconds`."""

    code = "parse_timeout"


class BlockedUrl(DocumentError, PermissionError):
    """An address was refused before anything was sent to it: `reason` is one word for why."""

    code = "blocked_url"

    def __init__(self, message: str, *, uri: str | None = None, remedy: str = "", reason: str = "") -> None:
        super().__init__(message, uri=uri, remedy=remedy)
        self.reason = reason


class FetchError(DocumentError, ConnectionError):
    """An address did not answer, or not with a document: `status` is that of its answer, if it gave one."""

    code = "fetch_failed"

    def __init__(self, message: str, *, uri: str | None = None, remedy: str = "", status: int | None = None) -> None:
        super().__init__(message, uri=uri, remedy=remedy)
        self.status = status
