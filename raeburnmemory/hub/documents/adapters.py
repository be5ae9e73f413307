"""Documents of other makers: those of LangChain's loaders, and conversations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...records import shown
from .model import Document, digest
from .source import Builder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["conversation", "from_langchain"]


def from_langchain(loader: Any) -> Iterator[Document]:
    """Yield the documents of a LangChain document loader, or of an iterable of LangChain documents.

    Those that follow each other and have the same `source` are pages of one document, as loaders of PDF give them out;
    where they number their pages, from 0, ours count from 1. `content_hash` is that of the text.

    Raises:
        InvalidInput: *loader* gives no documents.
    """
    lazy = getattr(loader, "lazy_load", None)
    load = getattr(loader, "load", None)
    found: Iterable[Any] = lazy() if callable(lazy) else load() if callable(load) else loader
    group: list[Any] = []
    for document in found:
        if not isinstance(getattr(document, "page_content", None), str):
            raise InvalidInput(f"{shown(document)} is no document of LangChain: it has no page_content.")
        if group and (_source(document) is None or _source(document) != _source(group[0])):
            yield _merged(group)
            group = []
        group.append(document)
    if group:
        yield _merged(group)


def conversation(
    messages: Iterable[Mapping[str, Any]], *, uri: str | None = None, title: str = "", mime: str = "text/plain"
) -> Document:
    """Return messages as one document, a turn for each: its speaker, a colon, and what was said.

    A message has its text as `content` or `text` (in the form of chat completions, too: a list of parts) and its
    speaker as `name`, `speaker` or `role`; without one, it is a paragraph.

    Raises:
        InvalidInput: A message has no text.
    """
    builder = Builder()
    for message in messages:
        text = message.get("content", message.get("text"))
        if isinstance(text, list):
            text = "\n".join(
                part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        if not isinstance(text, str):
            raise InvalidInput(f"{shown(message)} is no message: it has no text as 'content' or 'text'.")
        speaker = next((message[key] for key in ("name", "speaker", "role") if message.get(key)), None)
        builder.add(f"{speaker}: {text}" if speaker else text, "turn", name=None if speaker is None else str(speaker))
    return Document(uri, title, mime, builder.text(), tuple(builder.blocks), {}, digest(builder.text().encode()))


def _source(document: Any) -> str | None:
    source = document.metadata.get("source")
    return None if source is None else str(source)


def _merged(group: list[Any]) -> Document:
    builder = Builder()
    for number, document in enumerate(group):
        page = document.metadata.get("page")
        if len(group) == 1 and not isinstance(page, int):
            builder.add(document.page_content)
            continue
        opened = builder.begin("page", page + 1 if isinstance(page, int) else number + 1)
        builder.add(document.page_content)
        builder.end(opened)
    source = _source(group[0])
    about = {key: value for key, value in group[0].metadata.items() if key not in {"source", "page", "page_label"}}
    name = (source or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return Document(
        source,
        str(about.get("title") or name),
        "text/plain",
        builder.text(),
        tuple(builder.blocks),
        json.loads(json.dumps(about, default=str)),
        digest(builder.text().encode()),
    )
