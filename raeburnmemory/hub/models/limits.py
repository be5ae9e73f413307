"""How long to wait for a model, and how often to start it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import InvalidSpec

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """How long to wait for a model, and what to do when it ends by itself. Times are in seconds.

    `stall` is how long a starting model may give no sign of life, `start` how long all of it may take, `grace` what a
    process has between being asked to end and being made to.
    """

    stall: float = 300.0
    start: float = 3600.0
    grace: float = 5.0
    restart: Literal["never", "on-failure"] = "never"
    max_restarts: int = 3
    log_lines: int = 2000

    def __post_init__(self) -> None:
        for what in ("stall", "start", "grace"):
            value = getattr(self, what)
            least = 0.0 if what == "grace" else 0.001
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
                raise InvalidSpec(f"{what} is {value!r}. It is a number of seconds.")
        for what in ("max_restarts", "log_lines"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidSpec(f"{what} is {value!r}. It is a number from 0 on.")
        if self.restart not in {"never", "on-failure"}:
            raise InvalidSpec(f"restart is {self.restart!r}. It is 'never' or 'on-failure'.")
