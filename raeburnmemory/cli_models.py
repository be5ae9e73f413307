"""The commands about local models: fetching, checking, running and asking them."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._target import Json, option
from ._terminal import Group, clean, one_line, print_fields, print_json, print_text, tell
from .errors import InvalidInput

if TYPE_CHECKING:
    from .hub import LlamafileManager

__all__ = ["register"]

_BAD = 1  # the exit code for "no, it is not well"

group = typer.Typer(name="models", cls=Group)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the model; `models list` shows them.")]
Runtime = Annotated[
    str | None, option("The program for GGUF files: a llamafile without weights, or llama-server.", metavar="PATH")
]


@group.callback()
def _options(
    ctx: typer.Context,
    folder: Annotated[
        str | None,
        option("The folder of the models.", envvar="LLAMAFILES_DIR", metavar="PATH", show_default="yours"),
    ] = None,
) -> None:
    """Fetch, check, run and ask models on this machine: llamafiles and GGUF files.

    [bold]Examples[/bold]

      raeburnmemory models list
      raeburnmemory models download tinyllama-1.1b-chat-v1.0.q5_k_s
      raeburnmemory models chat tinyllama-1.1b-chat-v1.0.q5_k_s "Hello"
    """
    ctx.obj = folder


def _manager(ctx: typer.Context, **options: Any) -> LlamafileManager:
    from .hub import LlamafileManager

    return LlamafileManager(ctx.obj, **options)


# --- which there are


@group.command("list")
def list_models(
    ctx: typer.Context,
    here: Annotated[bool, option("Only those whose files are in the folder.", "--here")] = False,
    as_json: Json = False,
) -> None:
    """List the models that are known, and how it stands with them.

    [bold]Examples[/bold]

      raeburnmemory models list
      raeburnmemory models list --here --json
    """
    from .hub.models.progress import shown_size

    with _manager(ctx) as manager:
        specs = manager.list() if here else manager.files.known()
        rows = [(spec, manager.status(spec.name)) for spec in specs]
        folder = str(manager.folder)
    if as_json:
        print_json([{**spec.to_dict(), "status": status.to_dict()} for spec, status in rows])
        return
    if not rows:
        tell("Note", f"There are no models in {folder!r}. Fetch one with: raeburnmemory models download NAME")
    cells = [
        (
            one_line(spec.name),
            status.simple_state if status.process_state == "stopped" else status.process_state,
            spec.kind,
            shown_size(status.bytes_total) if status.bytes_total else spec.size_text or "-",
            one_line(spec.license or "-"),
        )
        for spec, status in rows
    ]
    widths = [max((len(row[at]) for row in cells), default=0) for at in range(5)]
    for row in cells:
        print_text("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@group.command()
def status(
    ctx: typer.Context,
    name: Name,
    deep: Annotated[bool, option("Have it say a token, or embed a word.", "--deep")] = False,
    as_json: Json = False,
) -> None:
    """Say how it stands with a model: its file, and its process.

    With --deep, exit code 1 says that it does not answer.

    [bold]Examples[/bold]

      raeburnmemory models status tiny
      raeburnmemory models status tiny --deep --json
    """
    with _manager(ctx) as manager:
        told = manager.status(name).to_dict()
        health = manager.health(name, deep=True) if deep else None
    if health is not None:
        told |= {"ok": health.ok, "detail": health.detail, "seconds": round(health.seconds, 3)}
    if as_json:
        print_json(told)
    else:
        print_fields({key: value for key, value in told.items() if value is not None and value != ""})
    if health is not None and not health.ok:
        raise typer.Exit(_BAD)


@group.command()
def add(
    ctx: typer.Context,
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where its file is; https.")],
    file: Annotated[
        str | None, option("The name of its file here; the last part of the URL if left out.", metavar="NAME")
    ] = None,
    size: Annotated[int | None, option("Its length in bytes.", metavar="BYTES")] = None,
    sha256: Annotated[str | None, option("Its SHA-256, in hexadecimal.", metavar="DIGEST")] = None,
    license_name: Annotated[str | None, option("Its licence.", "--license", metavar="NAME")] = None,
    license_url: Annotated[str | None, option("Where its licence is.", metavar="URL")] = None,
    kind: Annotated[str, option("What it is for: chat or embedding.")] = "chat",
    model_format: Annotated[
        str | None, option("llamafile or gguf; by the ending of the file if left out.", "--format")
    ] = None,
    dialect: Annotated[str, option("Which flags it takes: auto, v1, v2 or llama-server.")] = "auto",
    replace: Annotated[bool, option("Take the place of another model of that name.", "--replace")] = False,
    as_json: Json = False,
) -> None:
    """Add a model to the catalogue of the folder, to be downloaded.

    [bold]Examples[/bold]

      raeburnmemory models add tiny https://example.org/tiny.llamafile
      raeburnmemory models add words https://example.org/w.gguf --kind embedding
    """
    from urllib.parse import unquote, urlsplit

    from .hub import ModelSpec

    filename = unquote(urlsplit(url).path.rpartition("/")[2]) if file is None else file
    chosen: Any = model_format or ("gguf" if filename.endswith(".gguf") else "llamafile")
    given: Any = {"kind": kind, "dialect": dialect}
    spec = ModelSpec(
        name, filename, url, size, sha256, license=license_name, license_url=license_url, format=chosen, **given
    )
    with _manager(ctx) as manager:
        manager.add(spec, replace=replace)
    print_json(spec.to_dict()) if as_json else print_text(f"Added {name} to the catalogue")


# --- their files


@group.command()
def plan(
    ctx: typer.Context,
    name: Name,
    offline: Annotated[bool, option("Do not ask its server for the length of the file.", "--offline")] = False,
    runtime: Runtime = None,
    as_json: Json = False,
) -> None:
    """Say what a download would take, and what speaks against running the model here. Nothing is fetched.

    Exit code 1 says that it would not fit on the disk.

    [bold]Examples[/bold]

      raeburnmemory models plan tinyllama-1.1b-chat-v1.0.q5_k_s
      raeburnmemory models plan tiny --offline --json
    """
    from .hub.models.progress import shown_size

    with _manager(ctx, runtime=runtime) as manager:
        found = manager.plan(name, ask=not offline)
    if as_json:
        print_json(found.to_dict())
    else:
        told = found.to_dict()
        problems = told.pop("problems")
        print_fields(
            {
                key: shown_size(value) if isinstance(value, int) and not isinstance(value, bool) else value
                for key, value in told.items()
            }
        )
        for problem in problems:
            tell("Warning", problem)
    if not found.fits:
        raise typer.Exit(_BAD)


@group.command()
def download(
    ctx: typer.Context,
    name: Name,
    no_resume: Annotated[bool, option("Begin anew, even if some of it is here.", "--no-resume")] = False,
    verify: Annotated[
        str, option("if-known: compare with the SHA-256 that is known; require: there must be one; none.")
    ] = "if-known",
    as_json: Json = False,
) -> None:
    """Fetch the file of a model, and check it. Interrupted, it goes on the next time.

    [bold]Examples[/bold]

      raeburnmemory models download tinyllama-1.1b-chat-v1.0.q5_k_s
      raeburnmemory models download tiny --verify require
    """
    from .hub.models.progress import progress_line, shown_size

    chosen: Any = verify
    drawn = None
    if sys.stderr is not None and sys.stderr.isatty():
        drawn = progress_line(sys.stderr, shutil.get_terminal_size((80, 24)).columns)
    with _manager(ctx) as manager:
        try:
            found = manager.download(name, resume=not no_resume, verify=chosen, progress=drawn).status()
        except BaseException as exc:
            if drawn is not None:
                sys.stderr.write("\n")
            if isinstance(exc, KeyboardInterrupt):
                tell("Note", "Paused. The same command goes on with it.")
            raise
        path = manager.files.path(name)
    if as_json:
        print_json(found.to_dict())
        return
    checked = {True: "its SHA-256 is right", None: "no SHA-256 of it is known", False: ""}[found.sha256_verified]
    print_text(f"{name} is in {path}: {shown_size(found.bytes_done)}, {checked}")


@group.command()
def verify(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Read the whole file of a model, and compare it with what is known of it.

    [bold]Examples[/bold]

      raeburnmemory models verify tiny
    """
    with _manager(ctx) as manager:
        found = manager.verify(name)
    if as_json:
        print_json(found.to_dict())
    elif found.sha256_verified:
        print_text(f"{name} is as it should be")
    else:
        print_text(f"{name} is the file of a model; no SHA-256 of it is known")


@group.command("import")
def import_model(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A llamafile or a GGUF file.")],
    name: Annotated[str | None, option("What to call it; as the file if left out.")] = None,
    link: Annotated[bool, option("Leave the file where it is, and link to it.", "--link")] = False,
    kind: Annotated[str, option("What it is for: chat or embedding.")] = "chat",
    as_json: Json = False,
) -> None:
    """Bring in a file that is on this machine already.

    [bold]Examples[/bold]

      raeburnmemory models import ~/Downloads/tiny.llamafile
      raeburnmemory models import words.gguf --name words --kind embedding --link
    """
    with _manager(ctx) as manager:
        spec = manager.import_file(path, name, mode="link" if link else "copy", kind=kind)
    print_json(spec.to_dict()) if as_json else print_text(f"Imported {spec.name}")


@group.command()
def remove(
    ctx: typer.Context,
    name: Name,
    force: Annotated[bool, option("Stop it first if it runs.", "--force")] = False,
    forget: Annotated[bool, option("Take it out of the catalogue, if it was added there.", "--forget")] = False,
    as_json: Json = False,
) -> None:
    """Remove the file of a model, and what was loaded of it.

    [bold]Examples[/bold]

      raeburnmemory models remove tiny
      raeburnmemory models remove tiny --force --forget
    """
    with _manager(ctx) as manager:
        gone = manager.remove(name, force=force, forget=forget)
    if as_json:
        print_json({"removed": gone})
    else:
        print_text(f"Removed {name}" if gone else f"Of {name} there was nothing here")


# --- their processes


@group.command()
def start(
    ctx: typer.Context,
    name: Name,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS]", help="More flags for its server, after --.")
    ] = None,
    port: Annotated[int, option("The port; 0 for any that is free.", min=0, max=65535)] = 0,
    kind: Annotated[str | None, option("chat or embedding; as its description says if left out.")] = None,
    ctx_size: Annotated[
        int | None, option("How many tokens its context has.", "--ctx", min=1, metavar="TOKENS")
    ] = None,
    threads: Annotated[int | None, option("How many threads it uses.", min=1)] = None,
    gpu: Annotated[str, option("auto, nvidia, amd, apple, vulkan or disable.")] = "auto",
    ngl: Annotated[int | None, option("How many layers go to the GPU.", min=0, metavar="LAYERS")] = None,
    pooling: Annotated[str | None, option("How the vectors of tokens become one: mean, cls, last.")] = None,
    no_key: Annotated[bool, option("Let every program on this machine ask it.", "--no-key")] = False,
    runtime: Runtime = None,
    timeout: Annotated[float | None, option("How long starting may take.", metavar="SECONDS", min=0.001)] = None,
    idle_timeout: Annotated[
        float | None, option("Stop it when nobody asked for so long.", metavar="SECONDS", min=0.001)
    ] = None,
    restart: Annotated[bool, option("Start it again if it crashes, up to three times.", "--restart")] = False,
    detach: Annotated[bool, option("Let it run on in the background.", "--detach")] = False,
    as_json: Json = False,
) -> None:
    """Start a model, and let it run until Ctrl-C, or in the background.

    [bold]Examples[/bold]

      raeburnmemory models start tiny
      raeburnmemory models start tiny --detach --ctx 4096
      raeburnmemory models start tiny --no-key --port 8080 -- --temp 0
    """
    ended = threading.Event()
    options: dict[str, Any] = {
        "port": port, "kind": kind, "ctx": ctx_size, "threads": threads, "gpu": gpu, "ngl": ngl, "pooling": pooling,
        "api_key": None if no_key else "auto", "args": args or (), "timeout": timeout, "detach": detach,
    }  # fmt: skip
    given: Any = "on-failure" if restart else "never"
    with _manager(ctx, runtime=runtime, idle_timeout=idle_timeout, restart=given) as manager:
        if not detach:
            signal.signal(signal.SIGTERM, _end)
        before = manager.processes.running(name)
        running = manager.start(name, **options)
        told = {"name": name, "base_url": running.base_url, "port": running.port, "pid": running.pid}
        print_json(told) if as_json else print_text(f"{name} answers on {running.base_url}")
        if before is not None:
            tell("Note", f"It ran already; process {running.pid}.")
        elif not detach:
            tell("Note", "Ctrl-C stops it.")
            manager.processes.wait(name, ended)
            left = manager.status(name)
            if left.process_state in {"crashed", "failed"}:
                tell("Error", left.last_error or f"{name} {left.process_state}")
                raise typer.Exit(_BAD)


def _end(number: int, _frame: Any) -> None:
    sys.exit(128 + number)


@group.command()
def stop(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The name of the model.")] = None,
    all_models: Annotated[bool, option("Stop all models of the folder, whoever started them.", "--all")] = False,
    grace: Annotated[
        float | None, option("How long it may take until it is made to.", metavar="SECONDS", min=0)
    ] = None,
    as_json: Json = False,
) -> None:
    """Stop a model, whoever started it.

    [bold]Examples[/bold]

      raeburnmemory models stop tiny
      raeburnmemory models stop --all
    """
    if (name is None) != all_models:
        raise InvalidInput("Name one model, or pass --all.")
    with _manager(ctx) as manager:
        if name is not None:
            manager.spec(name)
        names = [name] if name is not None else list(manager.processes.statuses())
        stopped = [each for each in names if manager.stop(each, grace=grace)]
    if as_json:
        print_json({"stopped": stopped})
    else:
        print_text(f"Stopped {', '.join(stopped)}" if stopped else "Nothing ran")


@group.command()
def logs(
    ctx: typer.Context,
    name: Name,
    lines: Annotated[int, option("How many lines.", "--lines", "-n", min=0)] = 200,
    follow: Annotated[bool, option("Go on with what it prints, until it ends.", "--follow", "-f")] = False,
) -> None:
    """Print what a model printed last, this time or the last time it ran.

    [bold]Examples[/bold]

      raeburnmemory models logs tiny -n 50
      raeburnmemory models logs tiny --follow
    """
    with _manager(ctx) as manager:
        for line in manager.logs(name, lines, follow=True) if follow else manager.logs(name, lines):
            print_text(line)


@group.command()
def chat(
    ctx: typer.Context,
    name: Name,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What to say; left out, it is read line by line.")
    ] = None,
    system: Annotated[str | None, option("What to tell the model beforehand.", metavar="TEXT")] = None,
    max_tokens: Annotated[int | None, option("How long an answer may be.", min=1, metavar="TOKENS")] = None,
    temperature: Annotated[float | None, option("How freely it chooses words.", min=0)] = None,
    seed: Annotated[int | None, option("The same number gives the same answer.")] = None,
    runtime: Runtime = None,
) -> None:
    """Talk to a model; it is started for that if it does not run.

    [bold]Examples[/bold]

      raeburnmemory models chat tiny "What is a llama?"
      raeburnmemory models chat tiny --system "Answer in one sentence."
    """
    params = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    messages = [] if system is None else [{"role": "system", "content": system}]
    with _manager(ctx, runtime=runtime, idle_timeout=None) as manager, manager.client(name) as client:
        for line in [prompt] if prompt is not None else _lines():
            messages.append({"role": "user", "content": line})
            with client.stream_chat(messages, **params) as stream:
                for piece in stream:
                    _print_piece(piece)
                print_text("")
            messages.append({"role": "assistant", "content": stream.reply.text})


def _lines() -> Any:
    """Give what is typed, or piped in, line by line; a terminal is shown where to type."""
    interactive = sys.stdin is not None and sys.stdin.isatty()
    while sys.stdin is not None:
        if interactive:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _print_piece(piece: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(clean(piece))
        sys.stdout.flush()


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to *app*, under a heading of its help."""
    app.add_typer(group, name="models", rich_help_panel=panel)
