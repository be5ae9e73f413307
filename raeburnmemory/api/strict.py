"""JSON as RFC 8259 has it and as nobody reads it in two ways, before anything looks at it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ..web import Problem

__all__ = ["StrictRoute", "read_json"]

_DEEP = 64  # levels; nothing that can be asked has more


class StrictRoute(APIRoute):
    """A route whose JSON bodies are read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if request.method == "POST" and not _is_json(request.headers.get("content-type", "")):
                raise Problem(415, "A body is JSON here: Content-Type: application/json.")
            if request.method == "POST":
                request._json = read_json(await request.body())  # noqa: SLF001 - what its `json()` gives from now on
            return await handler(request)

        return answer


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def read_json(body: bytes) -> Any:
    """Return what a body says.

    Raises:
        Problem: It is no JSON, says a name twice, holds NaN, half a surrogate pair or a number of thousands of digits,
            or is nested too deeply.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_constant, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise Problem(400, "The body is not in UTF-8.") from None
    except json.JSONDecodeError as exc:
        raise Problem(400, f"The body is no JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from None
    except RecursionError:
        raise Problem(400, f"The body is nested more than {_DEEP} deep.") from None
    except ValueError as exc:
        said = str(exc) if isinstance(exc, _Refused) else "a number has too many digits"
        raise Problem(400, f"The body cannot be taken: {said}.") from None
    _check(value, 0)
    return value


class _Refused(ValueError):
    pass


def _constant(name: str) -> None:
    raise _Refused(f"{name} is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("an object has a name twice")
    return found


def _check(value: Any, depth: int) -> None:
    if depth > _DEEP:
        raise Problem(400, f"The body is nested more than {_DEEP} deep.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Problem(400, "A text holds half of a surrogate pair, which is no letter.") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check(key, depth)
            _check(inner, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Problem(400, "A number of the body is too large.")
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)
