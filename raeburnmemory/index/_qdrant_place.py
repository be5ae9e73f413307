"""Where Qdrant keeps its collections: one client for each place in a process, and its errors in our words."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import portalocker
from httpx import ConnectError, TimeoutException
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..errors import IndexUnavailable, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = "RAEBURN_QDRANT_API_KEY"
_PAUSES = (0.05, 0.3)  # seconds before asking again what a server could not answer at the moment
_AGAIN = {408, 429, 500, 502, 503, 504}
_RPC_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED}
_OWN = {"localhost", "127.0.0.1", "::1"}
_BARE_HOST = re.compile(r"[\w.-]+:\d+")


class LostError(IndexUnavailable):
    """The collection, or a point of it, is not there any more: whoever keeps it up finds out, and makes it again."""

    lost = True


class Place:
    """A server, a folder or this process's memory, in which collections are kept; not connected to anything itself."""

    def __init__(self, url: str, api_key: str | None, grpc_port: int | None, timeout: float) -> None:
        self.url, self.timeout, self.grpc_port = url, timeout, grpc_port
        self.local, self.folder = False, None
        self._own, self._api_key = False, api_key
        if url == ":memory:":
            self.local, self.shown = True, "in memory"
        elif "://" in url:
            parts = urlsplit(url)
            self.shown = f"at '{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}'"
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise InvalidInput(f"Qdrant is not reached {self.shown}. Give a URL such as 'http://localhost:6333'.")
            if "@" in parts.netloc:
                raise InvalidInput(
                    f"The URL of Qdrant {self.shown} carries a user. Leave it out, and pass the key as api_key or "
                    f"{_KEY}."
                )
            self._own = parts.hostname in _OWN
            if api_key is None and (self._own or parts.scheme == "https"):  # a key does not travel in the clear unasked
                self._api_key = os.environ.get(_KEY, "").strip() or None
        elif not url or "\0" in url or _BARE_HOST.fullmatch(url):
            raise InvalidInput(
                f"{url!r} is no place for Qdrant. Give ':memory:', a folder, or a URL such as 'http://localhost:6333'."
            )
        else:
            self.local, self.folder = True, os.path.realpath(os.path.expanduser(url))
            self.shown = f"in the folder {self.folder!r}"
        if self.local and grpc_port is not None:
            raise InvalidInput(f"Qdrant {self.shown} is no server: grpc_port={grpc_port!r} needs a URL.")
        self.key = (self.folder or url, self._api_key, grpc_port, timeout)

    def connect(self) -> QdrantClient:
        """Return a client of this place. A server is not asked anything yet.

        Raises:
            IndexUnavailable: The folder is in use by another process, or holds something else.
        """
        if not self.local:
            with warnings.catch_warnings():
                if self._own:  # of a key that does not leave this machine
                    warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
                return self._client_of_server()

        if self.folder is None:
            return QdrantClient(":memory:")
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._expect_free()
            return QdrantClient(path=self.folder, force_disable_check_same_thread=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as exc:
            raise IndexUnavailable(f"Qdrant cannot use {self.shown[3:]}: {exc}") from exc

    def _client_of_server(self) -> QdrantClient:
        return QdrantClient(
            url=self.url,
            api_key=self._api_key,
            timeout=max(1, round(self.timeout)),
            prefer_grpc=self.grpc_port is not None,
            grpc_port=self.grpc_port or 6334,
            check_compatibility=False,  # else it asks the server from a thread, and warns from there
            trust_env=not self._own,  # no proxy stands between a machine and itself
        )

    def _expect_free(self) -> None:
        """Refuse a folder that another process uses, before Qdrant opens files that it would not close then."""
        assert self.folder is not None
        with open(os.path.join(self.folder, ".lock"), "a", encoding="utf-8") as file:
            try:
                portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
            except portalocker.exceptions.LockException as exc:
                raise IndexUnavailable(
                    f"{self.folder!r} is in use by another process, and Qdrant serves one process at a time from a "
                    f"folder. Close the other one, or run a Qdrant server and give its URL to both."
                ) from exc
            portalocker.unlock(file)


class _Pooled:
    """A client and who uses it."""

    def __init__(self, place: Place) -> None:
        self.client, self.users = place.connect(), 0
        # Qdrant in this process is made of plain lists and dictionaries, for one thread at a time.
        self.lock: Any = threading.RLock() if place.local else nullcontext()


_pool: dict[tuple[Any, ...], _Pooled] = {}
_pool_lock = threading.Lock()
if hasattr(os, "register_at_fork"):

    def _forked() -> None:
        """Leave the parent's clients alone: a child has connections of its own."""
        global _pool_lock  # noqa: PLW0603  the old one may be held by a thread that is not here
        _pool_lock = threading.Lock()

    os.register_at_fork(after_in_child=_forked)


def _taken(key: tuple[Any, ...], place: Place) -> _Pooled:
    with _pool_lock:
        if key not in _pool:
            _pool[key] = _Pooled(place)
        _pool[key].users += 1
        return _pool[key]


def _given_back(key: tuple[Any, ...]) -> None:
    with _pool_lock:
        pooled = _pool.get(key)
        if pooled is None:
            return
        pooled.users -= 1
        if pooled.users:
            return
        del _pool[key]
    if key[0] == os.getpid():  # what a parent had open, it closes itself
        pooled.client.close()


class Connection:
    """The use of a place, for as long as this is not closed; safe to share between threads."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._held: tuple[tuple[Any, ...], _Pooled] | None = None
        self._lock = threading.Lock()
        self._closing: weakref.finalize[..., Any] | None = None
        if place.local:
            self._pooled()  # says at once that a folder is in use

    def _pooled(self) -> _Pooled:
        key = (os.getpid(), *self.place.key)
        with self._lock:
            if self._held is None or self._held[0] != key:
                self._held = key, _taken(key, self.place)
                self._closing = weakref.finalize(self, _given_back, key)
            return self._held[1]

    def close(self) -> None:
        """Let go of the client; the last one who does closes it. Asked again, it is there again."""
        with self._lock:
            if self._closing is not None:
                self._closing()
            self._held = self._closing = None

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the client; once more where a server was busy for a moment. All that we ask may be repeated.

        Raises:
            LostError: The collection is not there.
            IndexUnavailable: The place cannot be reached, or refused.
        """
        for pause in (*_PAUSES, None):
            pooled = self._pooled()
            try:
                with pooled.lock, self._translated():
                    return getattr(pooled.client, method)(*args, **options)
            except _BusyError as exc:
                if pause is None:
                    raise IndexUnavailable(str(exc)) from exc.__cause__
                time.sleep(pause)
        raise AssertionError  # the last round returns or raises

    def delete(self, collection: str) -> None:
        """Delete a collection; one that is gone already is none."""
        local = getattr(getattr(self._pooled().client, "_client", None), "collections", {}).get(collection)
        if local is not None:
            local.close()  # which deleting leaves to the garbage collector
        self.ask("delete_collection", collection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        shown = f"Qdrant {self.place.shown}"
        later = "Nothing is lost by that: what is written is found by meaning once it is back."
        try:
            yield
        except UnexpectedResponse as exc:
            if exc.status_code == 404:
                raise LostError(f"{shown} does not know the collection any more") from exc
            said = (
                f"{shown} answered {exc.status_code} {exc.reason_phrase}: {exc.content[:200].decode(errors='replace')}"
            )
            if exc.status_code in {401, 403}:
                raise IndexUnavailable(f"{said}. Pass another api_key, or set {_KEY}.") from exc
            if exc.status_code in _AGAIN:
                raise _BusyError(f"{said}. {later}") from exc
            raise IndexUnavailable(said) from exc
        except ResourceExhaustedResponse as exc:
            raise _BusyError(f"{shown} is asked too much: {exc}. {later}") from exc
        except ResponseHandlingException as exc:
            source = exc.source
            if isinstance(source, ConnectError):
                raise _BusyError(f"{shown} cannot be reached: {source}. {later}") from exc
            if isinstance(source, TimeoutException):
                raise IndexUnavailable(
                    f"{shown} did not answer within {self.place.timeout:g} seconds. {later}"
                ) from exc
            raise _BusyError(f"{shown} gave no answer that can be read: {source}. {later}") from exc
        except grpc.RpcError as exc:
            code, details = exc.code(), exc.details()
            if code == grpc.StatusCode.NOT_FOUND:
                raise LostError(f"{shown} does not know the collection any more") from exc
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise IndexUnavailable(
                    f"{shown} did not answer within {self.place.timeout:g} seconds. {later}"
                ) from exc
            if code in _RPC_AGAIN:
                raise _BusyError(f"{shown} cannot be reached: {details}. {later}") from exc
            raise IndexUnavailable(f"{shown} answered {code.name}: {details}") from exc
        except (ValueError, KeyError) as exc:  # of Qdrant in this process
            if self.place.local and "not found" in str(exc):
                raise LostError(f"{shown} does not know the collection any more") from exc
            raise
        except OSError as exc:
            raise IndexUnavailable(f"{shown} cannot be used: {exc}") from exc


class _BusyError(Exception):
    """It is worth asking once more."""
