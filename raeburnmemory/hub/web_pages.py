"""Addresses as sources: fetched within the policy, asked again only whether they changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import InvalidInput, MissingDependency
from ..records import shown
from .documents import DocumentError, FetchError
from .fetching import UrlPolicy, fetch
from .reports import IngestItem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..documents import Entry
    from .fetching import Fetched
    from .intake import Intake

__all__ = ["UrlPolicy", "WebPages", "fetched", "is_url", "normalised"]

_GONE = {404, 410}
_PORTS = {"http": 80, "https": 443}


def is_url(source: str) -> bool:
    """Tell whether a source is an address of the web, and no path."""
    return source[:8].lower().startswith(("http://", "https://"))


def normalised(url: str) -> str:
    """Return an address in the one form in which it is kept: no fragment, host and scheme in small letters."""
    try:
        parts = urlsplit(url.strip() if isinstance(url, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme.lower() not in _PORTS or not host:
        raise InvalidInput(f"{shown(url)} is no address of a page. It must begin with http:// or https://.")
    name = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[parts.scheme.lower()]:
        name = f"{name}:{port}"
    return urlunsplit((parts.scheme.lower(), name, parts.path or "/", parts.query, ""))


def fetched(url: str, policy: UrlPolicy) -> Fetched | None:
    """Return what is at *url* now, None if the server says that there is nothing."""
    try:
        return fetch(url, policy=policy)
    except FetchError as exc:
        if exc.status in _GONE:
            return None
        raise


class WebPages:
    """Fetches addresses for an intake."""

    def __init__(self, intake: Intake, policy: UrlPolicy) -> None:
        self._intake, self._policy = intake, policy

    def add(self, url: str, about: Mapping[str, Any]) -> IngestItem:
        """Fetch *url* and write what it says, unless the server says that it has not changed.

        Raises:
            DocumentError: It cannot be had, or not be read.
        """
        intake = self._intake
        entry = intake.documents.at(url)
        known = entry.attributes if entry is not None and intake.current(entry) else {}
        answer = fetch(
            url,
            policy=self._policy,
            etag=known.get("etag"),
            last_modified=known.get("last_modified"),
        )
        if answer.not_modified and entry is not None:
            return intake.as_before(entry, url)
        intake.report.bytes += len(answer.data)
        given = {
            "name": url,
            "source": "url",
            "etag": answer.etag,
            "last_modified": answer.last_modified,
            "size": len(answer.data),
            **about,
        }
        return intake.take(url, answer.data, given, name=answer.name or url, mime=answer.mime)

    def sync(self, url: str, *, prune: bool) -> IngestItem:
        """Do what `add` does, and say what went wrong instead of raising it; what the server says is gone goes."""
        intake = self._intake
        entry = intake.documents.at(url)
        if entry is not None and intake.waits(entry, url=url):
            return intake.as_before(entry, url)
        try:
            return self.add(url, {})
        except FetchError as exc:
            if exc.status == 410 and entry is not None and prune:  # 404 may be a mistake of the server, or of a day
                return self._let_go(entry)
            return intake.fail(url, exc, {"name": url, "source": "url"}, name=url, url=url)
        except (DocumentError, MissingDependency) as exc:
            return intake.fail(url, exc, {"name": url, "source": "url"}, name=url, url=url)

    def _let_go(self, entry: Entry) -> IngestItem:
        if not self._intake.report.dry_run:
            gone = self._intake.documents.remove([entry.id], only_if=lambda now: now.uri == entry.uri)
            self._intake.report.chunks_removed += gone.get(entry.id, 0)
        return IngestItem(entry.uri, "pruned", "The server says that it is gone.", None, entry.id, entry.uri)
