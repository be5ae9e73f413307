"""How far a download is, as one line of a terminal that is written over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from .spec import ModelStatus

__all__ = ["progress_line", "shown_size", "shown_time"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def shown_size(size: float) -> str:
    """Return a number of bytes as people write it: `1.20 GB`."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 0 if not unit else 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def shown_time(seconds: float) -> str:
    """Return a number of seconds as a clock shows it: `1:05`, `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def text_of(status: ModelStatus) -> str:
    """Return how far a download is, in some fifty letters."""
    if status.file_state != "downloading":
        return f"{status.name}  {status.file_state}"
    parts = [status.name]
    if status.bytes_total:
        parts.append(f"{100 * status.bytes_done // status.bytes_total:>3} % of {shown_size(status.bytes_total)}")
    else:
        parts.append(shown_size(status.bytes_done))
    if status.speed:
        parts.append(f"{shown_size(status.speed)}/s")
    if status.eta is not None:
        parts.append(f"{shown_time(status.eta)} left")
    return "  ".join(parts)


def progress_line(stream: TextIO, width: int) -> Callable[[ModelStatus], None]:
    """Return what draws a line on *stream*, a terminal *width* letters wide; it is wiped when the download ended."""

    def draw(status: ModelStatus) -> None:
        text = "" if status.file_state == "ready" else text_of(status)
        text = "".join(letter if letter.isprintable() else "?" for letter in text)[: max(width - 1, 1)]
        stream.write(f"\r\x1b[K{text}")
        stream.flush()

    return draw
