"""Logs as one JSON object a line, for programs to read."""

from __future__ import annotations

import datetime as dt
import json
import logging
import traceback
from typing import Any

__all__ = ["JsonFormatter", "config"]


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON. What an error said is left out: it may hold what somebody wrote."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = dt.datetime.fromtimestamp(record.created, dt.timezone.utc)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        message = record.getMessage()
        if record.name == "raeburnmemory.access":
            line.update(json.loads(message))
        else:
            line["message"] = message
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["where"] = "".join(traceback.format_tb(record.exc_info[2]))
        return json.dumps(line, ensure_ascii=False)


def config() -> dict[str, Any]:
    """Return the configuration of logging with which everything goes to stderr, a line each."""
    handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "raeburnmemory.web.logs.JsonFormatter"}},
        "handlers": {"stderr": handler},
        "loggers": {
            "raeburnmemory": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        },
    }
