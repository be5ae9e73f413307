"""Text splitters of LangChain as chunkers: what they return is found again in the text, so that it can be cited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...records import shown
from .model import Part

if TYPE_CHECKING:
    from ..documents.model import Document

__all__ = ["is_splitter", "parts_of"]


def is_splitter(value: Any) -> bool:
    """Tell whether *value* splits texts as LangChain's splitters do."""
    return not isinstance(value, (str, type)) and callable(getattr(value, "split_text", None))


def parts_of(splitter: Any, document: Document) -> list[Part]:
    """Return the pieces that *splitter* makes of a document as parts of its text.

    Splitters strip lines and leave out headings, so pieces are compared without their blanks; they come in the order of
    the text, and may begin again in the one before.

    Raises:
        InvalidInput: A piece is nowhere in the text: the splitter writes what was not there.
    """
    places = [at for at, character in enumerate(document.text) if not character.isspace()]
    solid = "".join(document.text[at] for at in places)
    overlap = int(getattr(splitter, "_chunk_overlap", len(solid)))
    parts: list[Part] = []
    begin = reached = 0  # characters that are no blanks
    for number, piece in enumerate(splitter.split_text(document.text)):
        text = piece if isinstance(piece, str) else piece.page_content
        wanted = "".join(text.split())
        if not wanted:
            continue
        # A text may say the same twice: then it is as far back as the splitter says that pieces reach.
        at = solid.find(wanted, max(begin, reached - overlap))
        at = solid.find(wanted, begin) if at < 0 else at
        if at < 0:
            raise InvalidInput(
                f"The splitter {type(splitter).__name__} returned {shown(text)}, which is not in the document. "
                f"Pass one that leaves the text as it is."
            )
        found = {} if isinstance(piece, str) else piece.metadata
        path = tuple(str(value) for key, value in found.items() if str(key).lower().startswith("header"))
        # A heading that was left out belongs to what stands under it.
        start = places[at] if at < reached else places[reached]
        parts.append(Part(start, places[at + len(wanted) - 1] + 1, heading_path=path, group=number))
        begin, reached = at + 1, max(reached, at + len(wanted))
    return parts
