"""The commands that bring in what other programs hold, and take everything out again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._target import Json, Target, existing, option
from ._terminal import print_json, print_text, progress_bar, tell
from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from .importers import Imported

__all__ = ["register_export", "register_import"]


def import_(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="chatgpt, claude, claude-code, codex, csv, jsonl, langchain, llm, mcp, mem0, node-link or openai.",
        ),
    ],
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file; for some kinds a folder or zip archive.")],
    dry_run: Annotated[bool, option("Write nothing; say what would be imported.", "--dry-run")] = False,
    session: Annotated[str | None, option("The session of messages whose source names none.")] = None,
    collection: Annotated[str | None, option("The collection of memories and entities.")] = None,
    column: Annotated[
        list[str] | None,
        option("What a column of a CSV file is, such as text=Message; may be repeated.", metavar="WHAT=NAME"),
    ] = None,
    all_namespaces: Annotated[bool, option("Each under its name, of a file that has several.", "--all-namespaces")] = (
        False
    ),
    model: Annotated[str | None, option("The embedding model, for a new memory.")] = None,
    as_json: Json = False,
) -> None:
    """Bring in what another program holds; the memory is made if it is not there.

    All of it is read before anything is written. What cannot be used is left out, and the report says why; it ends
    with 1 if that is all. Importing again adds only what is new.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db import chatgpt export.zip
      raeburnmemory import claude-code ~/.claude/projects --dry-run
      raeburnmemory import csv chat.csv --column text=Message --column role=From
    """
    from .importers import import_file
    from .importers.csv_rows import as_columns

    options: dict[str, Any] = {
        "session": session,
        "collection": collection,
        "columns": as_columns(column) if column else None,
        "all_namespaces": all_namespaces,
    }
    target: Target = ctx.obj

    def run(*, dry: bool, progress: Callable[[int, int], Any] | None = None) -> Imported:
        from .memory_graph import MemoryGraph

        if dry and not target.exists():
            memory = MemoryGraph(":memory:", embedding_model="builtin", namespace=target.namespace)
        else:
            named: dict[str, Any] = {} if model is None else {"embedding_model": model}
            memory = target.open(read_only=True) if dry else target.open(**named)
        with memory:
            return import_file(memory, kind, path, dry_run=dry, progress=progress, **options)

    # For its errors, before there is a file; and to make none where there is nothing to keep in it.
    report = run(dry=True) if not dry_run and not target.exists() else None
    if report is None or report.nodes:
        with progress_bar("Importing") as progress:
            report = run(dry=dry_run, progress=None if dry_run else progress)
    if as_json:
        print_json(report.to_dict())
    else:
        print_text(str(report))
    if not report.nodes and report.skipped:
        raise typer.Exit(1)


def export(
    ctx: typer.Context,
    output: Annotated[
        str | None, option("Write to this file, or - for standard output.", "--output", "-o", metavar="FILE")
    ] = None,
    form: Annotated[
        str, option("node-link, jsonl, markdown, graphml, gexf or parquet.", "--format", metavar="FORMAT")
    ] = "node-link",
    all_namespaces: Annotated[bool, option("The other namespaces too.", "--all-namespaces")] = False,
    vectors: Annotated[bool, option("The vectors too: jsonl and parquet.", "--vectors")] = False,
    force: Annotated[bool, option("Overwrite what is there.", "--force")] = False,
    as_json: Json = False,
) -> None:
    """Write the graph as node-link JSON, or in another format.

    jsonl holds everything, and import brings it back exactly as it was. parquet makes a folder. Without --output a JSON
    memory brings its own file up to date, and a SQLite memory writes one with .json added to its name; --json prints
    node-link JSON instead, and of the other formats what was written. A file of node-link JSON can be opened as a
    memory; it holds no vectors, reindex makes them.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json export --output export.json
      raeburnmemory --db graph.json export --format jsonl --output all.jsonl
      raeburnmemory --db graph.json export --format markdown --output -
    """
    from .exporters import export_file

    if output is None and form != "node-link":
        raise InvalidInput(f"--format {form} needs a place to write to: --output FILE, or --output - to print it.")
    if vectors and form == "node-link":
        raise InvalidInput("'node-link' has no place for vectors. Leave --vectors out, or choose: jsonl, parquet.")
    shown: dict[str, Any] = {}
    line = ""
    with existing(ctx, read_only=output is not None or as_json) as memory:
        if output is not None:
            place = output if output == "-" else os.path.expanduser(output)
            with progress_bar("Exporting") as progress:
                report = export_file(
                    memory,
                    form,
                    place,
                    all_namespaces=all_namespaces,
                    vectors=vectors,
                    overwrite=force,
                    progress=progress,
                )
            shown, line = report.to_dict(), str(report)
        elif memory.storage_backend == "postgres" and not as_json:
            raise InvalidInput(f"{memory.db_path!r} has no file to bring up to date. Name one: --output graph.json")
        elif not as_json:
            memory.export(all_namespaces=all_namespaces)
            beside = ".json" if memory.storage_backend == "sqlite" else ""
            line = f"Exported {memory.db_path} to {memory.db_path}{beside}"
        if as_json and form == "node-link":
            shown = memory.export(False, all_namespaces=all_namespaces)
    if output == "-":
        tell("Note", line)
    elif as_json:
        print_json(shown)
    else:
        print_text(line)


def register_import(app: typer.Typer, panel: str) -> None:
    """Add `import` to *app*, under the heading *panel* of its help."""
    app.command("import", rich_help_panel=panel)(import_)


def register_export(app: typer.Typer, panel: str) -> None:
    """Add `export` to *app*, under the heading *panel* of its help."""
    app.command(rich_help_panel=panel)(export)
