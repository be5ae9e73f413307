"""Asking what a memory holds: answers of a model with citations that were held against what is stored."""

from __future__ import annotations

from .answer import Answer, AnswerStream
from .citing import Citation
from .core import ask
from .sources import Source

__all__ = ["Answer", "AnswerStream", "Citation", "Source", "ask"]
