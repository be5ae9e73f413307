"""Folders that are brought up to date whenever something in them changes."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .ingestor import Ingestor
    from .reports import IngestReport

__all__ = ["watch"]

_AT_MOST = 10  # times the quiet that is waited for: somebody who never stops writing must not hold it up for ever


def watch(
    ingestor: Ingestor,
    paths: Sequence[str],
    stop: threading.Event | None,
    on_report: Callable[[IngestReport], Any] | None,
    *,
    prune: bool,
    quiet: float,
) -> None:
    """Bring *paths* up to date until *stop* is set; see `Ingestor.watch`."""
    with extra("hub", module="watchfiles"):
        from watchfiles import watch as changes_in
    roots = [os.path.realpath(os.path.expanduser(path)) for path in paths]
    for path, root in zip(paths, roots, strict=True):
        if not os.path.exists(root):
            raise InvalidInput(f"There is nothing at {path!r} that could be watched. Check the path.")
    stop = threading.Event() if stop is None else stop
    pause = max(int(quiet * 1000), 1)

    def interesting(_change: Any, path: str) -> bool:
        # Its own writing would wake it up again; the rest is for the scan to say.
        return not ingestor._is_own(path) and f"{os.sep}.git{os.sep}" not in path  # noqa: SLF001 - one door, two rooms

    # The watch begins before the first run, so that nothing is missed in between.
    waiting = changes_in(
        *roots,
        watch_filter=interesting,
        debounce=pause * _AT_MOST,
        step=pause,
        stop_event=stop,
        rust_timeout=min(pause, 500),
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    first = True
    for changed in waiting:
        if first or changed:
            report = ingestor.sync(roots, prune=prune, cancel=stop)
            did = report.added + report.updated + report.renamed + report.pruned + report.empty + report.failed
            if on_report is not None and (first or did):
                on_report(report)
            first = False
