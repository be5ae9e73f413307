"""What the hub does, whoever asks for it: projects, documents, questions and models over one memory."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from ...nodes import FRAGMENT
from ..asking import ask
from ..asking.summarising import summarise
from ..errors import NotThere
from ..ingestor import Ingestor
from ..models.errors import DownloadCancelled, UnknownModel
from ..project_paths import checked_path
from ..projects import Projects
from ..scanning import file_uri
from ..syncing import path_of
from .answering import Answering
from .events import Events
from .jobs import Jobs
from .model_control import ModelControl
from .plugins import Plugins
from .remembering import BUDGET, Remembering
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...memory_graph import MemoryGraph
    from ..asking import Answer, AnswerStream
    from ..asking.summarising import Summary
    from ..fetching import UrlPolicy
    from ..models.manager import LlamafileManager
    from ..reports import IngestItem
    from .jobs import Job

__all__ = ["Hub"]

NEAREST = 5  # fragments that an answer to the original's question may rest on
INGEST, DOWNLOAD, VERIFY = "ingest", "download", "verify"
_TELLING = 0.25  # seconds between two events that tell how far something is
_STOPPING = 30.0  # seconds for a job to notice that it is to end


class Hub:
    """Projects, jobs and models over *memory*, which stays the caller's to close, like *manager*'s folder.

    What the hub keeps beside the memory lies in the folder *home*: uploads and summaries (or in *files*), jobs, and
    who may ask. With *completions_url* a server is asked instead of a local model. *memory_budget* is how many tokens
    of the memory go along with a chat completion, 0 for none.
    """

    def __init__(
        self,
        memory: MemoryGraph,
        manager: LlamafileManager,
        home: str | os.PathLike[str],
        *,
        files: str | os.PathLike[str] | None = None,
        completions_url: str | None = None,
        completions_model: str | None = None,
        url_policy: UrlPolicy | None = None,
        memory_budget: int = BUDGET,
        plugins: Plugins | None = None,
    ) -> None:
        self.memory = memory
        self.home = os.path.realpath(os.path.expanduser(home))
        self.plugins = Plugins() if plugins is None else plugins
        self.remembering = Remembering(memory_budget)
        self.projects = Projects(
            memory,
            files or os.path.join(self.home, "files"),
            private=self.home,
            url_policy=url_policy,
            chunker=self.plugins.chunker,
        )
        self.events = Events()
        self.models = ModelControl(manager, completions_url, completions_model)
        self.models.on_change = self._tell_model
        self.threads = Threads(memory)
        self.answers = Answering()
        work = {INGEST: self._ingest, DOWNLOAD: self._download, VERIFY: self._verify}
        self.jobs = Jobs(os.path.join(self.home, "jobs.json"), work, self._tell_job)
        self._url_policy = url_policy
        self._asking: Counter[int] = Counter()
        self._guard = threading.Lock()

    def close(self) -> None:
        """End jobs and streams, and stop the models."""
        self.events.close()
        self.answers.stop()
        self.jobs.close()
        self.models.close()  # a model that is gone ends the answer that waits for it
        self.answers.close()

    # --- documents ----------------------------------------------------------------------------------------------

    def ingest(self, project_id: int, *, force: bool = False) -> Job:
        """Begin to bring the documents of a project up to date.

        Raises:
            AlreadyUnderWay: That is being done.
            NotThere: There is no such project.
        """
        self.projects.get(project_id)
        about: dict[str, Any] = {"project_id": project_id}
        return self.jobs.begin(INGEST, {**about, "force": True} if force else about)

    def remove_project(self, project_id: int, *, files: bool = False) -> None:
        """Remove a project; see `Projects.remove`. What is being taken in ends first.

        Raises:
            NotThere: There is no such project.
        """
        self.projects.get(project_id)
        if (job := self.ingesting(project_id)) is not None:
            self.jobs.cancel(job.id)
            job.wait(_STOPPING)
        self.projects.remove(project_id, files=files)

    def ingesting(self, project_id: int) -> Job | None:
        """Return the job that takes in the documents of a project, if there is one."""
        for job in self.jobs.list():
            if job.under_way and job.kind == INGEST and job.about.get("project_id") == project_id:
                return job
        return None

    def _ingest(self, job: Job) -> dict[str, Any]:
        last = 0.0

        def progress(_phase: str, done: int, total: int, current: str) -> None:
            nonlocal last
            job.progress(current, done, total)
            if (now := time.monotonic()) - last >= _TELLING:
                last = now
                self._tell_job(job)

        with self.plugins.watched() as failed:
            report = self.projects.ingest(
                job.about["project_id"], progress=progress, cancel=job.cancelled, force=bool(job.about.get("force"))
            )
        report.notes += map(str, failed)
        job.progress("", job.total, job.total)
        return report.to_dict()

    def ingestor(self, project_id: int | None) -> Ingestor:
        """Return what takes documents into a project, or into the memory beside all projects.

        Raises:
            NotThere: There is no such project.
        """
        if project_id is None:
            return Ingestor(self.memory, url_policy=self._url_policy, chunker=self.plugins.chunker)
        return self.projects.ingestor(project_id)

    def take_in(self, data: BinaryIO, path: str, project_id: int | None) -> IngestItem:
        """Keep an open file among the uploads of a project, and take it in; without one, its bytes become a document.

        Raises:
            DocumentError: It cannot be read; as an upload it stays.
            InvalidInput: It has no name.
            NotThere: There is no such project.
            PathRefused: The path leads elsewhere.
        """
        if project_id is None:
            ingestor, name = self.ingestor(None), checked_path(path).rpartition("/")[2]
            return ingestor.add_bytes(data.read(ingestor.settings.limits.size + 1), name)
        kept = self.projects.upload(project_id, path, data)
        uploads = self.projects.files.uploads(project_id)
        return self.projects.ingestor(project_id).add_upload(os.path.join(uploads, *kept.split("/")), uploads)

    def file_of(self, project_id: int, document_uri: str, name: str) -> str:
        """Return what the file of a document is called in its project; what is no file goes by its name."""
        project = self.projects.get(project_id)
        shown = self.projects.shown_name(project)
        path = path_of(document_uri)
        if path is not None:
            try:
                return self.projects.files.called(shown, project_id, self.projects.directories(project_id), path)
            except NotThere:  # a moment ago it was
                pass
        return f"{shown}/uploads/__{name}"

    # --- finding and asking -------------------------------------------------------------------------------------

    def nearest(self, project_id: int, text: str, k: int = 10) -> list[tuple[str, str, float]]:
        """Return the fragments of a project nearest to a text: file, content, and squared distance, nearest first.

        Raises:
            NotThere: There is no such project.
        """
        project = self.projects.get(project_id)
        if not text.strip():
            return []
        hits = self.memory.similar(text, k, kinds=FRAGMENT, collection=project.collection)
        found = []
        for hit in hits:
            place = hit.place
            name = self.file_of(project_id, place.uri, place.name) if place is not None else hit.id
            found.append((name, hit.text, max(0.0, 2.0 - 2.0 * float(hit.similarity or 0.0))))
        return found

    def ask(self, project_id: int, question: str) -> Answer:
        """Answer a question from the documents of a project.

        Raises:
            LlamafileError: The model cannot be reached, or refuses.
            NoModel: No model runs.
            NotThere: There is no such project.
        """
        project = self.projects.get(project_id)
        with self._asked(project_id):
            return ask(
                self.memory,
                question,
                self.models.client(),
                k=NEAREST,
                kinds=FRAGMENT,
                collection=project.collection,
                metadata={"project": project_id},
            )

    def answering(
        self,
        question: str,
        *,
        project: int | None = None,
        session_id: str | None = None,
        k: int = 8,
        ended: Callable[[], object] | None = None,
    ) -> AnswerStream:
        """Begin to answer a question from a project's documents, or from the whole memory, and record it.

        *ended* is called when that is done, or was broken off.

        Raises:
            InvalidInput: The question is none.
            LlamafileError: The model cannot be reached, or refuses.
            NoModel: No model runs.
            NotThere: There is no such project.
        """
        about: dict[str, Any] = {}
        if project is not None:
            about = {"collection": self.projects.get(project).collection, "kinds": FRAGMENT}
        stream: AnswerStream = ask(
            self.memory, question, self.models.client(), session_id=session_id, k=k, stream=True,
            metadata=None if project is None else {"project": project}, **about,
        )  # fmt: skip
        if ended is not None:
            stream.afterwards(ended)
        return stream

    def asked(self, project_id: int) -> bool:
        """Tell whether somebody waits for an answer about a project."""
        with self._guard:
            return self._asking[project_id] > 0

    @contextmanager
    def _asked(self, project_id: int) -> Iterator[None]:
        with self._guard:
            self._asking[project_id] += 1
        try:
            yield
        finally:
            with self._guard:
                self._asking[project_id] -= 1

    def summarise(self, project_id: int, path: str) -> tuple[str, str]:
        """Summarise a file of a project; return where the summary lies among the files, and its text.

        *path* is what the file is called, without the project and `uploads/`. A file that was not taken in yet is.

        Raises:
            DocumentError: It cannot be read.
            LlamafileError: The model cannot be reached, or refuses.
            NoModel: No model runs.
            PathRefused: The path leads elsewhere.
            NotThere: There is no such project, or no such file in it.
        """
        project = self.projects.get(project_id)
        shown = self.projects.shown_name(project)
        real = self.projects.list_files(project_id).get(f"{shown}/uploads/{path}")
        if real is None:
            raise NotThere(f"The project has no file {path!r}.", remedy="Sync it, or look which files it has.")
        with self._asked(project_id):
            client = self.models.client()
            ingestor = self.projects.ingestor(project_id)
            item = ingestor.add_file(real)
            document = item.id or ingestor.get(file_uri(os.path.realpath(real))).id
            summary = summarise(self.memory, document, client)
        kept = self.projects.files.summarised(project_id, path, summary.text)
        return f"{shown}/summaries/{kept}", summary.text

    def summary(self, document: str, *, max_tokens: int = 256, keep: bool = False) -> Summary:
        """Summarise a document by its id, and with *keep* remember the summary.

        Raises:
            InvalidInput: It is no document, or has no text.
            LlamafileError: The model cannot be reached, or refuses.
            NodeNotFound: There is no such document.
            NoModel: No model runs.
        """
        self.memory.get(document)  # before a model is asked for
        return summarise(self.memory, document, self.models.client(), max_tokens=max_tokens, record=keep)

    # --- models -------------------------------------------------------------------------------------------------

    def download(self, name: str) -> Job:
        """Begin to fetch a model; return the job that does, or did already.

        Raises:
            UnknownModel: There is no model of that name.
        """
        self.models.manager.spec(name)
        if (known := self.jobs.current(DOWNLOAD, {"model": name})) is not None:
            return known
        self.models.download(name)  # its state changes before anybody is answered
        return self.jobs.begin(DOWNLOAD, {"model": name})

    def _download(self, job: Job) -> dict[str, Any] | None:
        manager, name = self.models.manager, job.about["model"]
        load = manager.download(name, wait=False)
        while not load.done:
            if job.cancelled():
                load.pause()
                return None
            status = manager.status(name)
            job.progress(status.file_state, status.bytes_done, status.bytes_total or 0)
            self._tell_job(job)
            threading.Event().wait(0.5)
        try:
            load.wait()
        except DownloadCancelled:  # by whoever deletes it, or pauses it elsewhere
            job.end()
            return None
        self._tell_model(name)
        return manager.status(name).to_dict()

    def _verify(self, job: Job) -> dict[str, Any]:
        name = job.about["model"]
        status = self.models.manager.verify(name, progress=lambda done, total: job.progress("", done, total))
        return status.to_dict()

    # --- who is told --------------------------------------------------------------------------------------------

    def _tell_job(self, job: Job) -> None:
        self.events.tell("job", **job.to_dict())

    def _tell_model(self, name: str) -> None:
        try:
            state = self.models.shown(name).state
        except UnknownModel:  # it was known by its file alone, and that is gone
            state = "absent"
        self.events.tell("model", name=name, state=state)
