"""One request over a connection to addresses that were checked, all of it within one deadline.

This is httpx's core, httpcore: what httpx adds to it (proxies, redirections, cookies, unpacking as a whole) is what
must not happen here, and httpx has no public place for a network of one's own.
"""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpcore

from .. import __version__
from .documents.errors import DocumentError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .fetching import Target

__all__ = ["Answer", "exchange"]

_STEP = 10.0  # seconds that one connection, or one read, may take


class Answer:
    """The beginning of an answer, and the way to its body."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.status: int = response.status

    def header(self, name: str) -> str | None:
        """Return a header of the answer."""
        wanted = name.encode()
        found = [value for key, value in self._response.headers if key.lower() == wanted]
        return found[0].decode("utf-8", "replace") if found else None

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes, still packed."""
        yield from self._response.iter_stream()


@contextmanager
def exchange(
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str | None],
    ends: float,
    ssl_context: ssl.SSLContext | None,
) -> Iterator[Answer]:
    """Ask for *target* at one of *addresses*; the certificate must be that of its name.

    Raises:
        FetchError: There is no connection, or no answer that can be understood, before the clock says *ends*.
    """
    sent = {
        "Host": target.url.partition("://")[2].partition("/")[0],
        "User-Agent": f"raeburnmemory/{__version__}",
        "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,application/*;q=0.8,*/*;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "close",
        **{name: value for name, value in headers.items() if value},
    }
    extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), _STEP)}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=ssl_context, network_backend=_Pinned(addresses, ends)) as pool,
            pool.stream("GET", _asked(target), headers=list(sent.items()), extensions=extensions) as response,
        ):
            yield Answer(response)
    except DocumentError:  # of whoever reads the answer; several are the builtins below
        raise
    except httpcore.TimeoutException as exc:
        raise FetchError(f"{target.url!r} did not answer in time.", uri=target.url) from exc
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError, ValueError) as exc:
        raise FetchError(f"{target.url!r} could not be read: {exc or type(exc).__name__}.", uri=target.url) from exc


def _asked(target: Target) -> httpcore.URL:
    # From the parts that were checked: nothing parses the address once more.
    path = "".join(character if character.isascii() else _quoted(character) for character in target.path)
    return httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=path)


def _quoted(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


class _Pinned(httpcore.NetworkBackend):
    """Connects to the given addresses, whatever name is asked for."""

    def __init__(self, addresses: Sequence[str], ends: float) -> None:
        self._addresses, self._ends = addresses, ends
        self._real = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002  (resolved already)
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                stream = self._real.connect_tcp(
                    address, port, _left(self._ends, timeout, httpcore.ConnectTimeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                problem = exc
            else:
                return _Timed(stream, self._ends)
        raise problem


class _Timed(httpcore.NetworkStream):
    """A connection on which every read ends at the deadline: one byte every second is no way round it."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self._stream, self._ends = stream, ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found: bytes = self._stream.read(max_bytes, _left(self._ends, timeout, httpcore.ReadTimeout))
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._ends, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._ends, timeout, httpcore.ConnectTimeout)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends: float, timeout: float | None, kind: type[Exception]) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise kind("the time is up")
    return left if timeout is None else min(left, timeout)
