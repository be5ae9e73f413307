"""Which parts of a document belong together, by what kind of document it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Part

if TYPE_CHECKING:
    from ..documents.model import Document

__all__ = ["fitting", "whole"]


def fitting(document: Document) -> str:
    """Return the name of the chunker that suits *document*."""
    return "recursive"


def whole(document: Document) -> list[Part]:
    """Return the whole text as one part."""
    return [Part(0, len(document.text))] if document.text else []
