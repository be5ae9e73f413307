"""When a model is ready: its own process listens, says that it is healthy, and proves to be the one that was started.

A file of 40 GB takes minutes to load, and a model that hangs should not be waited for that long. So there is no fixed
time-out but one for silence: every line that it prints, and every new answer that it gives, renews it.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING

from . import ports, system
from .causes import cause_of
from .errors import NotRunning, StartTimeout

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from .dialect import Traits
    from .logs import ModelLog

__all__ = ["is_ours", "printed_port", "wait_ready"]

_POLL = 0.2  # seconds between two looks
_TAIL = 40  # lines in an error
# The old server moves to one of the next ten ports without a word but this line, in one of three forms.
_LISTENING = re.compile(r"listening\b.*?(?:https?://[^\s/]+:|\"port\"\s*:\s*\"?|\bport=\"?)(\d{1,5})\b")


def wait_ready(
    name: str,
    traits: Traits,
    *,
    port: int,
    key: str | None,
    alias: str,
    group: int,
    log: ModelLog,
    printed: Callable[[], list[str]],
    stall: float,
    limit: float,
    stopping: threading.Event,
    ended: Callable[[], None],
    loading: Callable[[], None],
) -> int:
    """Wait until the model answers, and return the port where it does.

    *ended* raises once the process is no longer there; *loading* is called when the server is up and the model is not.
    *stall* is the longest silence and *limit* the longest time, in seconds.

    Raises:
        NotRunning: *stopping* was set.
        StartTimeout: It was silent for too long, or took too long.
    """
    begun = active = time.monotonic()
    heard, answered, told = log.bytes, (0, ""), False
    while True:
        if stopping.is_set():
            raise NotRunning(f"Model {name!r} was stopped while it was being started.", model=name)
        ended()
        now = time.monotonic()
        if log.bytes != heard:
            heard, active = log.bytes, now
        where = _where(traits, port, group, printed)
        if where is not None:
            answer = ports.ask(where, traits.health, key=key)
            if (answer.status, repr(answer.data)) != answered:
                answered, active = (answer.status, repr(answer.data)), now
            if answer.status == 200 and is_ours(traits, where, key, alias, group):
                return where
            if answer.status == 503 and not told:
                told = True
                loading()
        silent, taken = now - active, now - begun
        if silent > stall or taken > limit:
            lines = tuple(log.tail(_TAIL))
            _, said, remedy = cause_of(lines, None)
            how = f"was silent for {silent:.1f} s" if silent > stall else f"took {taken:.1f} s"
            last = f" Its last line: {lines[-1]!r}." if lines else " It printed nothing."
            raise StartTimeout(
                f"Model {name!r} {how} and was not ready{': ' + said if said else ''}; it was ended.{last}",
                model=name,
                remedy=remedy if said else "Give it more time, or look at its log.",
                log_tail=lines,
            )
        stopping.wait(_POLL)


def _where(traits: Traits, port: int, group: int, printed: Callable[[], list[str]]) -> int | None:
    """Return the port at which to ask: one that nobody else listens on, so that nobody else is told the key."""
    if traits.dialect == "v1":  # it listens only when the model is loaded, perhaps elsewhere
        moved = printed_port(printed())
        if moved is None:
            found = system.listeners(group) or []
            moved = found[0] if len(found) == 1 else None
        if moved is None:
            return None
        port = moved
    if not ports.accepts(port) or system.owns_port(group, port) is False:
        return None
    return port


def printed_port(lines: list[str]) -> int | None:
    """Return the port that the last line of that kind says the server listens on."""
    for line in reversed(lines):
        if (found := _LISTENING.search(line)) and 0 < int(found[1]) < 65536:
            return int(found[1])
    return None


def is_ours(traits: Traits, port: int, key: str | None, alias: str, group: int) -> bool:
    """Tell whether the server on *port* is the process that was started, and no other one that came first.

    The system knows whose socket it is. Where it does not tell, the server must accept our key and no other one, or, in
    the old dialect, know the name that was made up for this start. One that can do neither is not believed.
    """
    owner = system.owns_port(group, port)
    if owner is False:
        return False
    models = ports.ask(port, "/v1/models", key=key)
    if owner is True:
        return models.status not in {0, 401, 403}
    if traits.dialect == "v2" or models.status != 200:
        return False
    if traits.dialect == "v1":
        return alias in repr(models.data)
    return key is not None and ports.ask(port, "/v1/models", key=secrets.token_urlsafe(16)).status in {401, 403}
