"""The command that answers over HTTP."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from ._optional import extra
from ._target import Target, option
from .errors import InvalidInput

if TYPE_CHECKING:
    from .web import Settings

__all__ = ["register"]

_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"
_KEY, _RATE, _DB, _NAMESPACE = "RAEBURN_API_KEY", "RAEBURN_RATE_LIMIT", "RAEBURN_DB", "RAEBURN_NAMESPACE"
_PATIENCE = 30  # seconds for requests under way, when the service stops
_MOST_AT_ONCE = 1000  # connections and requests of one worker


def serve(
    ctx: typer.Context,
    host: Annotated[str, option("The address to answer at; one beyond this machine needs a key.")] = "127.0.0.1",
    port: Annotated[int, option("The port.", min=0, max=65_535)] = 8000,
    workers: Annotated[int, option("How many processes answer.", min=1, max=64)] = 1,
    key_file: Annotated[
        str | None,
        option(f"A file that holds the key which requests must carry; {_KEY} if left out.", metavar="PATH"),
    ] = None,
    rate_limit: Annotated[
        str | None, option(f"Requests that one client may make in a minute; {_RATE} if left out.", metavar="NUMBER")
    ] = None,
) -> None:
    """Answer over HTTP: record, find and read from other programs and machines. The memory is made if it is not there.

    Logs go to stderr, a JSON object a line, without texts and without the key. SIGTERM and Ctrl-C let requests under
    way finish.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db serve
      raeburnmemory --db memory.db serve --workers 4 --rate-limit 600
      raeburnmemory serve --host 0.0.0.0 --key-file key.txt
    """
    with extra("fastapi", module="uvicorn"):
        import uvicorn
    from .api.serving import serving
    from .web import Settings
    from .web.heads import Auto
    from .web.logs import config

    target: Target = ctx.obj
    # The workers are told by their environment; a key has no business among the arguments of a process.
    os.environ[_DB] = os.path.expanduser(target.path) if "://" not in target.path else target.path
    if target.namespace != "default":
        os.environ[_NAMESPACE] = target.namespace
    if key_file is not None:
        os.environ[_KEY] = _read_key(key_file)
    if rate_limit is not None:
        os.environ[_RATE] = rate_limit
    _check_host(host, Settings.of(os.environ))
    serving.start()
    if workers > 1:
        serving.stop()  # each worker opens its own
    together = (
        tempfile.mkdtemp(prefix="raeburnmemory-figures-") if workers > 1 and _TOGETHER not in os.environ else None
    )
    if together:
        os.environ[_TOGETHER] = together
    # uvicorn hands the signal that stopped it on when it is done, and would end by it.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _done)
    try:
        uvicorn.run(
            "raeburnmemory.api:app",
            host=host,
            port=port,
            workers=workers,
            http=Auto,
            lifespan="on",
            log_config=config(),
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whose word is taken is settled by RAEBURN_TRUSTED_PROXIES
            limit_concurrency=_MOST_AT_ONCE,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_PATIENCE,
        )
    finally:
        if together:
            shutil.rmtree(together, ignore_errors=True)


def _done(*_: object) -> None:
    raise SystemExit(0)


def _read_key(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.readline().rstrip("\r\n")
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not in UTF-8"
        raise InvalidInput(f"The file with the key, {path!r}, cannot be read: {reason}.") from exc


def _check_host(host: str, settings: Settings) -> None:
    """Refuse to answer the network without a key."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and settings.key is None and not settings.allow_open:
        raise InvalidInput(
            f"--host {host} lets others than this machine in, so it needs a key: set {_KEY}, or name a file with "
            f"--key-file. RAEBURN_ALLOW_OPEN=1 answers everybody."
        )


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to *app*."""
    app.command(rich_help_panel=panel)(serve)
