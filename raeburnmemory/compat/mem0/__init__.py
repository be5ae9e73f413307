"""The memory as mem0's `Memory` and `AsyncMemory`: the same calls and answers, in one file and without a model or key.

Written against mem0ai 1.0.11 and 2.2.1; what 1.x and 2.x call differently is taken both ways.
"""

from __future__ import annotations

from ._errors import LLMError, MemoryNotFound, ValidationError, VerbatimWarning
from .asynchronous import AsyncMemory
from .memory import Memory

__all__ = ["AsyncMemory", "LLMError", "Memory", "MemoryNotFound", "ValidationError", "VerbatimWarning"]
