"""Jupyter notebooks: their texts, their code, and what was printed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..errors import LoaderError
from ..source import Builder
from .text import headed

if TYPE_CHECKING:
    from ..source import Loaded, Source

__all__ = ["cells"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def cells(source: Source) -> Loaded:
    """Return the cells of a notebook in their order, with the texts that they printed; pictures are left out."""
    try:
        notebook = json.loads(source.data)
        found = notebook.get("cells")
        if found is None:  # before version 4
            found = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        about = notebook.get("metadata") or {}
        language = (about.get("language_info") or about.get("kernelspec") or {}).get("name") or "python"
        builder = Builder()
        for cell in found:
            _write(builder, cell, str(language))
    except RecursionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise LoaderError(f"The notebook is damaged: {type(exc).__name__}: {exc}.") from exc
    title = next((block.heading_path[-1] for block in builder.blocks if block.kind == "heading"), None)
    return builder.loaded(title=title, metadata={"cells": len(found), "language": str(language)})


def _write(builder: Builder, cell: dict[str, Any], language: str) -> None:
    text = _joined(cell.get("source", cell.get("input", "")))
    if cell.get("cell_type") == "markdown":
        for part, level in headed(text):
            if level:
                builder.heading(part, level)
            else:
                builder.add(part)
    elif cell.get("cell_type") == "heading":
        builder.heading(text, int(cell.get("level", 1)))
    elif cell.get("cell_type") == "code":
        builder.add(text, "code", name=language)
        for output in cell.get("outputs") or []:
            data = output.get("data") or {}
            printed = output.get("text") or data.get("text/plain") or data.get("text/markdown")
            if output.get("output_type") == "error":
                printed = f"{output.get('ename', '')}: {output.get('evalue', '')}"
            if printed:
                builder.add(_ANSI.sub("", _joined(printed)), "output")
    else:
        builder.add(text)


def _joined(text: Any) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text)
