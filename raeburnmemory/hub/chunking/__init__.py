"""Documents become chunks: pieces small enough for a model, with exact offsets into the text."""

from __future__ import annotations

from .chunks import chunk, register_chunker
from .model import Chunk, Part

__all__ = ["Chunk", "Part", "chunk", "register_chunker"]
