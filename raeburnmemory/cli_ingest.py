"""The commands that take documents into a memory and keep them up to date."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._target import Json, Target, existing, option
from ._terminal import one_line, print_json, print_text, progress_bar
from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .hub.ingestor import Ingestor, IngestReport
    from .memory_graph import MemoryGraph

__all__ = ["register"]

_FAILED = 1  # the exit code where something could not be read

Prune = Annotated[bool, option("Remove documents whose files are gone, or keep them.", "--prune/--no-prune")]
Force = Annotated[bool, option("Read everything again, and remove however many are gone.", "--force")]
DryRun = Annotated[bool, option("Write nothing; say what would become of each document.", "--dry-run")]
Collection = Annotated[str | None, option("The collection of the documents.", show_default="documents")]
AllowHost = Annotated[
    list[str] | None,
    option("A host of this network that may be asked, such as wiki.lan:8080; may be repeated.", metavar="HOST"),
]


def ingest(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Folders, files and web addresses.")],
    prune: Prune = True,
    force: Force = False,
    dry_run: DryRun = False,
    watch: Annotated[bool, option("Go on, and do it again whenever something changes.", "--watch")] = False,
    collection: Collection = None,
    allow_host: AllowHost = None,
    model: Annotated[str | None, option("The embedding model, for a new memory.")] = None,
    as_json: Json = False,
) -> None:
    """Take in documents: folders with all that is in them, files and web addresses.

    The memory is made if it is not there. Doing it again takes in what changed, and --watch does it whenever something
    changes. What .gitignore and .raeburnignore name is left alone. It ends with 1 if something could not be read; the
    report says what and why.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db ingest docs/ notes.txt
      raeburnmemory ingest docs/ --dry-run
      raeburnmemory ingest docs/ --no-prune --collection work
    """
    target: Target = ctx.obj
    if watch and dry_run:
        raise InvalidInput("--watch goes on for ever, and --dry-run writes nothing. Leave one of them out.")
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(_opened(target, named, dry_run=dry_run))
        ingestor = _ingestor(memory, collection, allow_host)
        if watch:
            _watch(ingestor, sources, prune=prune, as_json=as_json)
            return
        report = _synced(ingestor, sources, prune=prune, force=force, dry_run=dry_run)
    _end(report, as_json=as_json)


def sync(
    ctx: typer.Context,
    prune: Prune = True,
    force: Force = False,
    dry_run: DryRun = False,
    collection: Collection = None,
    allow_host: AllowHost = None,
    as_json: Json = False,
) -> None:
    """Bring all documents up to date: every folder, file and address that was taken in.

    It ends with 1 if something could not be read; the report says what and why.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db sync
      raeburnmemory sync --dry-run
    """
    with existing(ctx, read_only=dry_run) as memory:
        report = _synced(_ingestor(memory, collection, allow_host), None, prune=prune, force=force, dry_run=dry_run)
    _end(report, as_json=as_json)


def sources(
    ctx: typer.Context,
    status: Annotated[str | None, option("Only those that are ok, empty or failed.")] = None,
    remove: Annotated[
        list[str] | None, option("Remove a document, by its id, address or path; may be repeated.", metavar="SOURCE")
    ] = None,
    collection: Collection = None,
    as_json: Json = False,
) -> None:
    """List the documents that were taken in, or remove some with all of their fragments.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db sources
      raeburnmemory sources --status failed --json
      raeburnmemory sources --remove docs/old.md
    """
    with existing(ctx, read_only=not remove) as memory:
        ingestor = _ingestor(memory, collection, None)
        if remove:
            found = [ingestor.get(one) for one in remove]  # for its error, before anything goes
            gone = {one.id: ingestor.remove(one.id) for one in {one.id: one for one in found}.values()}
            if as_json:
                print_json({"removed": gone})
            else:
                print_text(f"Removed documents: {len(gone)}, with fragments: {sum(gone.values())}.")
            return
        documents = ingestor.list(status)
    if as_json:
        print_json([one.to_dict() for one in documents])
        return
    for one in documents:
        reason = f": {one.reason}" if one.reason else ""
        print_text(f"{one.status:<6}  {one.fragments:>5}  {one_line(one.name)}  {one_line(one.id)}{one_line(reason)}")


# --- shared -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(target: Target, named: dict[str, Any], *, dry_run: bool) -> Iterator[MemoryGraph]:
    from .memory_graph import MemoryGraph

    if dry_run and not target.exists():  # and make none
        with MemoryGraph(":memory:", embedding_model="builtin", namespace=target.namespace) as memory:
            yield memory
    else:
        with target.open(read_only=dry_run, **({} if dry_run else named)) as memory:
            yield memory


def _ingestor(memory: MemoryGraph, collection: str | None, hosts: list[str] | None) -> Ingestor:
    from .hub import Ingestor
    from .hub.fetching import UrlPolicy

    return Ingestor(memory, collection=collection, url_policy=UrlPolicy(allow_hosts=tuple(hosts or ())))


def _synced(ingestor: Ingestor, given: list[str] | None, **how: Any) -> IngestReport:
    with progress_bar("Reading") as shown:
        progress: Callable[[str, int, int, str], Any] | None = None
        if shown is not None:

            def progress(phase: str, done: int, total: int, _current: str) -> None:
                if phase == "read" and total:
                    shown(done, total)

        return ingestor.sync(given, progress=progress, **how)


def _watch(ingestor: Ingestor, given: list[str], *, prune: bool, as_json: bool) -> None:
    def told(report: IngestReport) -> None:
        if as_json:
            print_json(report.to_dict())
        else:
            print_text(str(report))

    stop = threading.Event()
    try:
        ingestor.watch(given, stop=stop, on_report=told, prune=prune)
    except KeyboardInterrupt:  # the way in which a watch is meant to end
        stop.set()


def _end(report: IngestReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        print_text(str(report))
    if report.failed:
        raise typer.Exit(_FAILED)


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to *app*."""
    for command in (ingest, sync, sources):
        app.command(rich_help_panel=panel)(command)
