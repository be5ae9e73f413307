"""How the suite speaks with its workers: one line of JSON each way, raw bytes behind it where it says how many."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

__all__ = ["receive", "send"]


def send(stream: BinaryIO, message: dict[str, Any], data: bytes = b"") -> None:
    """Write *message*, and *data* behind it."""
    stream.write(json.dumps({**message, "bytes": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one message and what is behind it.

    Raises:
        EOFError: The other side is gone.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the other side is gone")
    message = json.loads(line)
    data = stream.read(message.pop("bytes"))
    return message, data
