"""Work that takes long: it goes on when nobody waits for it, can be looked at and cancelled, and survives a restart.

What is not finished is written down, and begun again by the next hub on the same folder. Both kinds of work that there
are may be done twice without harm: taking in a project's documents leaves alone what is as it was, and fetching a
model goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import MemoryGraphError
from ...records import new_id, utc
from ..errors import AlreadyUnderWay, NotThere
from ..models.store import write_json

__all__ = ["Job", "Jobs"]

_KEPT = 100  # finished jobs that can still be looked at
_AT_ONCE = 3
_STOPPING = 20.0  # seconds that closing waits for a job to notice

log = logging.getLogger("raeburnmemory.hub")


@dataclass
class Job:
    """One piece of work: its `kind` is what is done, `about` to what. Times are in UTC, ISO 8601.

    `state` is one of queued, running, done, failed, cancelled and interrupted (by the end of the hub).
    """

    id: str
    kind: str
    about: dict[str, Any]
    state: str = "queued"
    message: str = ""
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    created_at: str = ""
    finished_at: str | None = None
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _cancel: threading.Event = field(default_factory=threading.Event, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.finished_at is None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; False if it has not within *timeout* seconds."""
        return self._ended.wait(timeout)

    def cancelled(self) -> bool:
        """Tell whether it is to end; whoever does the work asks now and then."""
        return self._cancel.is_set()

    def end(self) -> None:
        """Let it end as soon as it can."""
        self._cancel.set()

    def progress(self, message: str, done: int, total: int) -> None:
        """Note how far it has come."""
        self.message, self.done, self.total = message, done, total


Work = Callable[[Job], "dict[str, Any] | None"]


class Jobs:
    """The jobs of a hub; *kinds* are what can be done, by name. What is not finished is in the file *path*."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        kinds: Mapping[str, Work],
        tell: Callable[[Job], object] = lambda _job: None,
    ) -> None:
        self._path, self._kinds, self._tell = Path(path), kinds, tell
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hub job")
        self._closing = False

    def resume(self) -> list[Job]:
        """Begin what an earlier hub did not finish."""
        try:
            known = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except ValueError:
            log.warning("%s is damaged: what it held is begun anew when it is asked for.", self._path.name)
            return []
        return [
            self.begin(one["kind"], one["about"], job_id=one["id"])
            for one in known
            if isinstance(one, dict) and one.get("kind") in self._kinds
        ]

    def begin(self, kind: str, about: dict[str, Any], *, job_id: str | None = None) -> Job:
        """Begin a job.

        Raises:
            AlreadyUnderWay: The same is being done.
        """
        with self._lock:
            if (known := self.current(kind, about)) is not None:
                raise AlreadyUnderWay(f"That is under way already, as job {known.id}.", remedy="Wait for it.")
            job = Job(job_id or new_id(), kind, about, created_at=utc(None))
            self._jobs[job.id] = job
            self._keep()
            self._pool.submit(self._run, job)
        return job

    def current(self, kind: str, about: dict[str, Any]) -> Job | None:
        """Return the job that does this at the moment, if there is one."""
        with self._lock:
            return next((j for j in self._jobs.values() if j.under_way and (j.kind, j.about) == (kind, about)), None)

    def list(self) -> list[Job]:
        """Return the jobs, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotThere: There is none with that id.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotThere(f"There is no job {job_id!r}.") from None

    def cancel(self, job_id: str) -> Job:
        """Let a job end as soon as it can.

        Raises:
            NotThere: There is none with that id.
        """
        job = self.get(job_id)
        job.end()
        return job

    def close(self) -> None:
        """Let all jobs end; those that have not finished are begun again by the next hub."""
        with self._lock:
            self._closing = True
            waiting = [job for job in self._jobs.values() if job.under_way]
        for job in waiting:
            job.end()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for job in waiting:
            if job.state == "running":
                job.wait(_STOPPING)

    def _run(self, job: Job) -> None:
        job.state = "running"
        try:
            self._tell(job)
            if not job.cancelled():
                job.result = self._kinds[job.kind](job)
            job.state = "done" if not job.cancelled() else "interrupted" if self._closing else "cancelled"
        except (MemoryGraphError, OSError) as exc:
            job.state, job.message = "failed", str(exc)
            if self._closing:
                job.state = "interrupted"
        except Exception as exc:  # whatever it is, the job has ended
            job.state, job.message = "failed", f"{type(exc).__name__}. The log of the hub says more."
            log.exception("Job %s (%s) ended with an error that nobody foresaw", job.id, job.kind)
        finally:
            with self._lock:
                job.finished_at = utc(None)
                ended = [one.id for one in self._jobs.values() if not one.under_way]
                for old in ended[:-_KEPT]:
                    del self._jobs[old]
                self._keep()
            try:
                self._tell(job)
            finally:  # whoever waited may count on what is written down, and on its having been told
                job._ended.set()  # noqa: SLF001 - ours

    def _keep(self) -> None:
        """Write down what is not finished."""
        left = [job for job in self._jobs.values() if job.under_way or job.state == "interrupted"]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self._path, [{"id": job.id, "kind": job.kind, "about": job.about} for job in left])
