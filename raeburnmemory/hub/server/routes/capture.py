"""What browsers and programs hand over: pages, selections, notes, texts, files and addresses."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Header, Response, UploadFile
from pydantic import Field, field_validator, model_validator

from ....records import utc
from ...reports import IngestItem
from ..hub import Hub
from ..plugins import Failure
from ..rules import needs
from ._shared import AGAIN, MOST, Asked, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute, tags=["capture"])

_LONGEST = 20_000_000  # letters
Key = Annotated[str | None, Header(min_length=1, max_length=255)]


class Captured(Asked):
    """A page with its address, a selection of one, or a note; one of html, text, markdown and selection."""

    url: str | None = Field(None, max_length=8000)
    title: str | None = Field(None, max_length=1000)
    html: str | None = Field(None, min_length=1, max_length=_LONGEST)
    text: str | None = Field(None, min_length=1, max_length=_LONGEST)
    markdown: str | None = Field(None, min_length=1, max_length=_LONGEST)
    selection: str | None = Field(None, min_length=1, max_length=_LONGEST)
    project: int | None = Field(None, ge=0, le=MOST)
    captured_at: str | None = Field(None, max_length=40, description="ISO 8601; now if left out.")

    @model_validator(mode="after")
    def one_of_them(self) -> Captured:
        """Refuse what is none or several of them."""
        given = [self.html, self.text, self.markdown, self.selection]
        if sum(each is not None for each in given) != 1:
            raise ValueError("one of html, text, markdown and selection is given")
        if self.html is not None and self.url is None:
            raise ValueError("a page comes with its url")
        return self


class TextGiven(Asked):
    """A text, and what it goes by; the same `uri` again replaces it, and so do the same words without one."""

    text: str = Field(min_length=1, max_length=_LONGEST)
    title: str | None = Field(None, min_length=1, max_length=1000)
    uri: str | None = Field(None, min_length=1, max_length=8000)
    mime: Literal["text/plain", "text/markdown"] = "text/plain"
    metadata: dict[str, Any] | None = None
    project: int | None = Field(None, ge=0, le=MOST)

    @field_validator("uri")
    @classmethod
    def no_file(cls, uri: str | None) -> str | None:
        """Refuse what would pass for a file of this machine."""
        if uri is not None and uri.strip().lower().startswith("file:"):
            raise ValueError("a text is no file of this machine; leave the uri out, or name it otherwise")
        return uri


class AddressWanted(Asked):
    """An address to fetch."""

    url: str = Field(min_length=1, max_length=8000)
    project: int | None = Field(None, ge=0, le=MOST)


@router.post("/capture", status_code=201, dependencies=[needs("write")], responses={**AGAIN, **errors(404, 502, 504)})
def capture(asked: Captured, hub: Here, response: Response, idempotency_key: Key = None) -> dict[str, Any]:
    """Keep a page, a selection or a note; nothing is fetched.

    A page replaces what was kept of its address. Anything else sent again, or again under the same Idempotency-Key, is
    kept once.
    """
    with hub.plugins.watched() as failed:
        given = asked.model_dump(exclude_none=True)
        asked = Captured(**hub.plugins.captured(given, Captured.model_validate))
        return _told(_kept(asked, hub, idempotency_key), response, failed)


def _kept(asked: Captured, hub: Hub, idempotency_key: str | None) -> IngestItem:
    ingestor = hub.ingestor(asked.project)
    about: dict[str, Any] = {"captured_at": utc(asked.captured_at)}
    if asked.url is not None:
        about["url"] = asked.url
    if asked.html is not None:
        return ingestor.add_html(str(asked.url), asked.html, title=asked.title, metadata=about)
    what = "note" if asked.markdown is not None else "selection" if asked.selection is not None else "text"
    text = asked.markdown or asked.selection or asked.text or ""
    sent = idempotency_key or f"{asked.url}\0{asked.title}\0{text}"
    uri = f"{what}:{hashlib.sha256(sent.encode()).hexdigest()[:32]}"
    add = ingestor.add_note if asked.markdown is not None else ingestor.add_text
    title = asked.title or asked.url
    return add(text, uri=uri, metadata=about, **({} if title is None else {"title": title}))


@router.post(
    "/ingest/text", status_code=201, dependencies=[needs("write")], responses={**AGAIN, **errors(404, 502, 504)}
)
def ingest_text(asked: TextGiven, hub: Here, response: Response) -> dict[str, Any]:
    """Keep a text as a document."""
    given = asked.model_dump(exclude_none=True)
    ingestor = hub.ingestor(given.pop("project", None))
    with hub.plugins.watched() as failed:
        return _told(ingestor.add_text(given.pop("text"), **given), response, failed)


@router.post(
    "/ingest/file", status_code=201, dependencies=[needs("write")], responses={**AGAIN, **errors(404, 502, 504)}
)
def ingest_file(
    file: Annotated[UploadFile, File()],
    hub: Here,
    response: Response,
    project: Annotated[int | None, Form(ge=0, le=MOST)] = None,
    path: Annotated[str | None, Form(min_length=1, max_length=4000, description="Among the uploads.")] = None,
) -> dict[str, Any]:
    """Keep a file and take it in: among the uploads of a project, or without one in the memory alone."""
    with hub.plugins.watched() as failed:
        return _told(hub.take_in(file.file, path or file.filename or "", project), response, failed)


@router.post(
    "/ingest/url", status_code=201, dependencies=[needs("write")], responses={**AGAIN, **errors(404, 502, 504)}
)
def ingest_url(asked: AddressWanted, hub: Here, response: Response) -> dict[str, Any]:
    """Fetch a public address and keep it; private ones are refused, unless `--allow-host` named them."""
    with hub.plugins.watched() as failed:
        return _told(hub.ingestor(asked.project).add_url(asked.url), response, failed)


def _told(item: IngestItem, response: Response, failed: list[Failure]) -> dict[str, Any]:
    """Return what became of a document, with a note for each plugin that failed on the way."""
    if item.outcome != "added":
        response.status_code = 200
    return {**item.to_dict(), "notes": [str(one) for one in failed]}
