"""Pages without text, read by whatever recognises characters: none comes with this library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NoText
from .source import Builder, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .source import Source

    Ocr = Callable[[bytes, tuple[int, ...]], Mapping[int, str]]

__all__ = ["with_ocr"]


def with_ocr(source: Source, parse: Callable[[Source], Loaded], ocr: Ocr | None) -> Loaded:
    """Return what *parse* reads in *source*, with the texts that *ocr* finds on pages that have none.

    Raises:
        NoText: There is no text on any page, and *ocr* found none either.
    """
    try:
        loaded = parse(source)
    except NoText as exc:
        if ocr is None:
            raise
        found = _asked(ocr, source, exc.pages)
        if not found:
            raise
        return _joined(Loaded("", metadata={"pages": len(exc.pages)}), found, exc.pages)
    without = tuple(loaded.metadata.get("pages_without_text") or ())
    if ocr is None or not without or loaded.mime not in {None, source.mime}:
        return loaded
    found = _asked(ocr, source, without)
    return _joined(loaded, found, without) if found else loaded


def _asked(ocr: Ocr, source: Source, pages: tuple[int, ...]) -> dict[int, str]:
    return {page: text for page, text in ocr(source.data, pages).items() if page in pages and text.strip()}


def _joined(loaded: Loaded, found: Mapping[int, str], without: tuple[int, ...]) -> Loaded:
    """Return a document in which the pages that were recognised stand where they belong."""
    inner = [block for block in loaded.blocks if block.kind != "page"]
    builder = Builder()
    for page in sorted({*found, *(block.page for block in inner if block.page is not None)}):
        opened = builder.begin("page", page)
        if page in found:
            builder.add(found[page])
        for block in inner:
            if block.page == page:
                builder.add(loaded.text[block.start : block.end], block.kind)
        builder.end(opened)
    metadata = {**loaded.metadata, "pages_read_by_ocr": sorted(found)}
    if left := [page for page in without if page not in found]:
        metadata["pages_without_text"] = left
    else:
        metadata.pop("pages_without_text", None)
    return builder.loaded(title=loaded.title, metadata=metadata, mime=loaded.mime)
