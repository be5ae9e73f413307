"""The hub's own routes, a file for each group of them."""

from __future__ import annotations

from .system import router as system

__all__ = ["routers"]

routers = (system,)
