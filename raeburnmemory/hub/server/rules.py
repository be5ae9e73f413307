"""What a route wants of who asks: a scope, beside being let in at all."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request

from ...web import Problem
from .access import PRINCIPAL, Principal

__all__ = ["needs", "needs_by_method", "principal_of"]

_READING = ("/recall", "/similar", "/context")  # posts that change nothing


def principal_of(request: Request) -> Principal:
    """Return who asks.

    Raises:
        Problem: Nobody who was let in.
    """
    found = request.scope.get(PRINCIPAL)
    if not isinstance(found, Principal):  # the guard lets no such request through; a route asks all the same
        raise Problem(401, "The hub does not know who asks.", headers={"WWW-Authenticate": "Bearer"})
    return found


def _check(request: Request, scope: str) -> None:
    if scope not in principal_of(request).scopes:
        raise Problem(403, f"Who asks here may not do that: it needs the scope {scope!r}.", code="scope")


def needs(scope: str) -> Any:
    """Return the dependency of a route that wants *scope*: one of read, write, models and admin."""

    async def check(request: Request) -> None:
        _check(request, scope)

    return Depends(check)


async def needs_by_method(request: Request) -> None:
    """Want `read` of what only reads, and `write` of everything else."""
    reads = request.method in {"GET", "HEAD"} or (request.method == "POST" and request.url.path.endswith(_READING))
    _check(request, "read" if reads else "write")
