"""The commands that look after a memory: doctor, verify, repair, backup, restore, copy, compact, schema."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._target import Json, Target, option
from ._terminal import print_json, print_text, progress_bar, tell

if TYPE_CHECKING:
    from .doctor import Copied, Report

__all__ = ["register"]

_FOUND = 1  # the exit code for a memory that is not sound


def _path(ctx: typer.Context) -> str:
    target: Target = ctx.obj
    return os.path.expanduser(target.path)


def doctor(
    ctx: typer.Context,
    env: Annotated[bool, option("Say what is installed, and look at no memory.", "--env")] = False,
    as_json: Json = False,
) -> None:
    """Say what is installed and what takes the place of what is not; then verify the memory, if there is one.

    Ends with 0 if nothing ought to be mended, else with 1. Nothing is written, and nothing is fetched.

    [bold]Examples[/bold]

      raeburnmemory doctor --env
      raeburnmemory --db graph.json doctor --json
    """
    from .environment import environment

    target: Target = ctx.obj
    here = environment()
    report = None
    if not env and target.exists():
        from . import doctor as looking_after

        report = looking_after.verify(_path(ctx))
    if as_json and env:
        print_json(here.to_dict())
    elif as_json:
        print_json({"environment": here.to_dict(), "memory": None if report is None else report.to_dict()})
    else:
        print_text(str(here))
        if not env:
            print_text(f"There is no memory at {target.shown}" if report is None else f"\n{report}")
    if here.problems or (report is not None and not report.sound):
        raise typer.Exit(_FOUND)


def verify(
    ctx: typer.Context,
    model: Annotated[str | None, option("The embedding model of the memory, if it is not builtin.")] = None,
    as_json: Json = False,
) -> None:
    """Look at every file of the memory and at all it holds, and say what is wrong. Nothing is written.

    Ends with 0 if the memory is sound, with 1 if anything ought to be mended.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json verify
      raeburnmemory --db graph.json verify --json
    """
    from . import doctor

    _show(doctor.verify(_path(ctx), embedding_model=model), as_json=as_json)


def repair(
    ctx: typer.Context,
    dry_run: Annotated[bool, option("Change nothing; say what would be done.", "--dry-run")] = False,
    model: Annotated[str | None, option("The embedding model, if the memory does not know it any more.")] = None,
    as_json: Json = False,
) -> None:
    """Mend what verify finds, from what is left; files that go are kept as NAME.damaged-TIME.

    What is lost is named. Ends with 0 if the memory is sound afterwards, with 1 if something is left to mend.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json repair --dry-run
      raeburnmemory --db graph.json repair
    """
    from . import doctor

    target: Target = ctx.obj
    more: dict[str, Any] = {} if model is None else {"embedding_model": model}
    report = doctor.repair(_path(ctx), dry_run=dry_run, timeout=target.timeout, **more)
    if report.sound and not report.done and not as_json:
        tell("Note", f"There is nothing to mend in {report.path!r}.")
    _show(report, as_json=as_json)


def backup(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The file to write.")],
    force: Annotated[bool, option("Overwrite what is there.", "--force")] = False,
    as_json: Json = False,
) -> None:
    """Copy the memory as it is at one moment, while others go on writing. The copy is verified.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json backup copy.json
      raeburnmemory --db graph.json backup copy.json --force
    """
    from . import doctor

    done = doctor.backup(_path(ctx), target, overwrite=force)
    _show_copied("Copied", done, as_json=as_json)


def restore(
    ctx: typer.Context,
    backup_file: Annotated[str, typer.Argument(metavar="BACKUP", help="The backup.")],
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the memory; what was there is kept as NAME.before-restore-TIME.

    [bold]Example[/bold]

      raeburnmemory --db copy.json restore graph.json
    """
    from . import doctor

    target: Target = ctx.obj
    done = doctor.restore(backup_file, _path(ctx), timeout=target.timeout)
    _show_copied("Restored", done, as_json=as_json)


def copy(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A file, or the URL of a PostgreSQL database.")],
    as_json: Json = False,
) -> None:
    """Copy the memory to another one, of any kind: JSON, SQLite or PostgreSQL. Both are compared at the end.

    TARGET must be new or empty; postgresql://me@localhost/memories is a database. Cut short, the same command goes on
    where it was.

    [bold]Example[/bold]

      raeburnmemory --db graph.json copy memory.db
    """
    from . import doctor

    here: Target = ctx.obj
    with progress_bar("Copying") as progress:
        done = doctor.copy(_path(ctx), os.path.expanduser(target), timeout=here.timeout, progress=progress)
    _show_copied("Copied", done, as_json=as_json)


def compact(ctx: typer.Context, as_json: Json = False) -> None:
    """Give back the room on the disk that the memory does not need.

    Writers wait meanwhile.

    [bold]Example[/bold]

      raeburnmemory --db graph.json compact
    """
    from . import doctor

    target: Target = ctx.obj
    done = doctor.compact(_path(ctx), timeout=target.timeout)
    if as_json:
        print_json(done.to_dict())
    else:
        print_text(f"{done.path}: {done.before} bytes before, {done.after} after")


def vacuum(ctx: typer.Context, as_json: Json = False) -> None:
    """Do what compact does, under the name that it has in SQLite.

    [bold]Example[/bold]

      raeburnmemory --db graph.json vacuum
    """
    compact(ctx, as_json)


def schema(
    ctx: typer.Context,
    migrate: Annotated[bool, option("Bring older files up to date, keeping a copy.", "--migrate")] = False,
    as_json: Json = False,
) -> None:
    """Show the version of the format of each file, and which versions this program reads and writes.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json schema
      raeburnmemory --db graph.json schema --migrate
    """
    from . import doctor

    target: Target = ctx.obj
    found = doctor.schema(_path(ctx), migrate=migrate, timeout=target.timeout)
    if as_json:
        print_json(found.to_dict())
        return
    rows: list[tuple[str, ...]] = [("format", "reads", "writes", "what", "file")]
    for file in found.files:
        told = ("none" if file.format is None else file.format, file.reads, "-" if file.writes is None else file.writes)
        rows.append((*map(str, told), file.what, file.file))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    for row in rows:
        print_text("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4]]))
    print_text(f"{found.backend}, {found.state}")
    for name in found.kept:
        print_text(f"kept: {name}")


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        print_text(str(report))
    if not report.sound:
        raise typer.Exit(_FOUND)


def _show_copied(verb: str, done: Copied, *, as_json: bool) -> None:
    if as_json:
        print_json(done.to_dict())
        return
    print_text(f"{verb} {done.source} to {done.target}: {done.nodes} nodes, {done.bytes} bytes, version {done.version}")
    for name in done.kept:
        print_text(f"kept: {name}")


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to *app*, under the heading *panel* of its help."""
    for command in (doctor, verify, repair, backup, restore, copy, compact, vacuum, schema):
        app.command(rich_help_panel=panel)(command)
