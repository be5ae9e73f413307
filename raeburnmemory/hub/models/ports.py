"""Ports of this machine, and the few requests by which a manager tells how its models are."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HOST", "Answer", "accepts", "ask", "free_port", "is_free", "real_request"]

HOST = "127.0.0.1"
_MOST = 4 * 1024 * 1024  # bytes of an answer


@dataclass(frozen=True)
class Answer:
    """What a server answered; `status` 0 says that it did not, and `data` is None where it is no JSON."""

    status: int
    data: Any = None
    error: str = ""


def free_port() -> int:
    """Return a port that nobody listens on now. Somebody may by the time it is used: then take another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> str:
    """Return why *port* cannot be listened on; empty if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            return exc.strerror or str(exc)
    return ""


def accepts(port: int) -> bool:
    """Tell whether anybody listens on *port*."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def ask(
    port: int, path: str, *, key: str | None = None, body: Mapping[str, Any] | None = None, timeout: float = 2.0
) -> Answer:
    """Ask the server on *port*: GET, or POST of *body*. No proxy is between, no redirect is followed."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    headers = {"Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", path, body=json.dumps(body).encode(), headers=headers)
        answer = connection.getresponse()
        text = answer.read(_MOST)
        try:
            data = json.loads(text) if text else None
        except (ValueError, RecursionError):
            data = None
        return Answer(answer.status, data)
    except (OSError, http.client.HTTPException) as exc:
        return Answer(0, error=str(exc) or type(exc).__name__)
    finally:
        connection.close()


def real_request(port: int, kind: str, *, key: str | None, model: str, timeout: float) -> str:
    """Have the model work for once: say one token, or embed one word. Return what went wrong, empty if nothing did.

    A server may call itself healthy while its requests hang, or answer with vectors of nothing (ik_llama.cpp#1077,
    llama.cpp#14812).
    """
    if kind == "embedding":
        answer = ask(port, "/v1/embeddings", key=key, body={"model": model, "input": "ping"}, timeout=timeout)
        if answer.status == 200:
            return _wrong_vector(answer.data)
    else:
        body = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        answer = ask(port, "/v1/chat/completions", key=key, body=body, timeout=timeout)
        if answer.status == 200:
            said = isinstance(answer.data, dict) and answer.data.get("choices")
            return "" if said else "its answer has no choices"
    if answer.status == 0:
        return f"no answer within {timeout:g} s: {answer.error}"
    return f"it answered with status {answer.status}"


def _wrong_vector(data: Any) -> str:
    try:
        vector = data["data"][0]["embedding"]
        good = len(vector) > 0 and all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) for each in vector
        )
    except (KeyError, IndexError, TypeError):
        return "its answer has no vector"
    return "" if good and any(vector) else "its vector is empty, null, zero or not finite"
