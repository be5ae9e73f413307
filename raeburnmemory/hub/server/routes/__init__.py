"""The hub's own routes, a file for each group of them."""

from __future__ import annotations

from .answers import router as answers
from .capture import router as capture
from .chat import router as chat
from .memories import router as memories
from .models import router as models
from .openai import router as openai
from .projects import router as projects
from .system import router as system

__all__ = ["routers"]

routers = (system, projects, capture, chat, answers, memories, models, openai)
