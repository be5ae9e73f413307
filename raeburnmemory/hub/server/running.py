"""One hub on one folder: its ports, the lock that keeps a second one out, and serving until somebody ends it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._optional import extra
from ...errors import InvalidInput, LockTimeout
from ...lock import StoreLock
from ...records import shown
from ..errors import HubRuns, PortTaken
from ..models.store import write_json
from .credentials import Credentials

if TYPE_CHECKING:
    from .events import Events

__all__ = [
    "PORT",
    "access_file",
    "address_of",
    "alone",
    "checked_origin",
    "default_home",
    "entrance",
    "is_local",
    "listening",
    "serve",
]

PORT = 4444  # what the original's browser client is built for

_PATIENCE = 30  # seconds for requests under way, when the hub stops
_MOST_AT_ONCE = 1000  # connections and requests
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+", re.ASCII)

log = logging.getLogger("raeburnmemory.hub")


def default_home() -> Path:
    """Return the folder of a hub that was given none: the user's data folder.

    Raises:
        MissingDependency: `platformdirs` is not installed.
    """
    with extra("hub", module="platformdirs"):
        from platformdirs import user_data_path
    return user_data_path("raeburnmemory", appauthor=False) / "hub"


def access_file(home: str | os.PathLike[str]) -> Path:
    """Return where a hub keeps who may ask it."""
    return Path(home) / "access.json"


def checked_origin(text: str) -> str:
    """Return an origin as requests name it.

    Raises:
        InvalidInput: It is none, or stands for several.
    """
    origin = text.strip().lower()
    if not _ORIGIN.fullmatch(origin):
        raise InvalidInput(f"{shown(text)} is no origin. Write one like http://localhost:1234 or moz-extension://UUID.")
    return origin


def is_local(host: str) -> bool:
    """Tell whether an address to listen on is only this machine's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def alone(home: str | os.PathLike[str]) -> Iterator[Callable[[str], None]]:
    """Be the only hub on the folder *home*; the function given is told the address that it can be opened at.

    Raises:
        HubRuns: There is one already.
    """
    folder = Path(home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock, about = StoreLock(folder / "hub", 0.5), folder / "running.json"
    try:
        try:
            lock.enter()
        except LockTimeout as exc:
            raise HubRuns(
                f"A hub runs already on {str(folder)!r}{_where(about)}.",
                remedy="Open that one, or end it. `raeburnmemory hub --new-code` makes an address for another browser.",
                pid=lock.holder(),
            ) from exc
        try:
            yield lambda address: write_json(about, {"pid": os.getpid(), "address": address})
        finally:
            with contextlib.suppress(OSError):
                about.unlink()
            lock.leave()
    finally:
        lock.close()


def address_of(home: str | os.PathLike[str]) -> str | None:
    """Return where the hub on a folder can be opened, None where none runs."""
    try:
        found = json.loads(Path(home, "running.json").read_bytes())
        return str(found["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _where(about: Path) -> str:
    address = address_of(about.parent)
    return f", at {address}" if address else ""


def listening(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen; on 127.0.0.1 there is one for [::1] too, where the machine has that.

    Browsers go to either for `localhost`. With port 0 they listen on one that is free.

    Raises:
        InvalidInput: There is no such address here.
        PortTaken: Somebody else listens there.
    """
    wanted = ["127.0.0.1", "::1"] if host in {"127.0.0.1", "localhost"} else [host.strip("[]")]
    found: list[socket.socket] = []
    try:
        for address in wanted:
            number = found[0].getsockname()[1] if found else port
            if (made := _listening(address, number, needed=not found)) is not None:
                found.append(made)
    except BaseException:
        for each in found:
            each.close()
        raise
    return found


def _listening(address: str, port: int, *, needed: bool) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # asyncio lets answers go at once (TCP_NODELAY) only from sockets that say they are TCP; from others each body
        # waits 40 ms for an acknowledgement of its head.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError:
        if needed:
            raise
        return None  # a machine without IPv6
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a port just left would count as taken
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
        made.listen(128)
    except OSError as exc:
        made.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Somebody else listens on port {port} of {address}.", remedy="End that, or choose another: --port."
            ) from exc
        if exc.errno in {errno.EACCES, errno.EPERM}:
            raise PortTaken(f"Port {port} of {address} may not be used.", remedy="Choose one above 1023.") from exc
        if not needed and exc.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return None
        raise InvalidInput(f"The hub cannot listen on {shown(address)}: {exc.strerror or exc}.") from exc
    return made


def entrance(credentials: Credentials, address: str, minutes: float) -> str:
    """Return an address that lets one browser in, once."""
    return f"{address}/?code={credentials.new_code(minutes=minutes, long=True)}"


def serve(app: Any, sockets: list[socket.socket], events: Events) -> None:
    """Answer on *sockets* until a signal comes; requests under way finish."""
    with extra("hub", module="uvicorn"):
        import uvicorn
    from ...web.heads import H11
    from ...web.logs import config

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            # Streams of events would never end by themselves. In a thread: a signal comes while anything is held.
            threading.Thread(target=events.close, daemon=True).start()
            super().handle_exit(sig, frame)

    logs = config()
    logs["loggers"]["raeburnmemory"]["level"] = "WARNING"  # pages ask every second; each answer is not worth a line
    settings = uvicorn.Config(
        app,
        loop="asyncio",  # the same whatever else is installed
        http=H11,
        lifespan="on",
        log_config=logs,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_PATIENCE,
    )
    server = Server(settings)
    # uvicorn hands the signal that stopped it on when it is done; what follows is to be done all the same.
    before = {name: signal.signal(name, _ignored) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=sockets)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if not server.started:
        sys.exit(1)


def _ignored(*_: object) -> None:
    """Do nothing; uvicorn has stopped by then."""
