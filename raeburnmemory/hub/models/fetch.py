"""Asking servers for files: every hop of a redirect is looked at before anybody connects to it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
import threading
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ... import __version__
from ..._optional import extra
from .errors import DownloadError, DownloadStalled, UnsafeRedirect
from .spec import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

__all__ = ["Facts", "Fetcher", "number_of", "range_of"]

_HOPS = 10  # redirects that are followed
_CONNECT = 10.0  # seconds for one address to answer at all
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Facts:
    """What a server says about a file before it is fetched; None where it says nothing."""

    size: int | None = None
    sha256: str | None = None


class Fetcher:
    """Sends requests for the file at one URL.

    The first host is whom the URL names. A redirect may lead to another one, over https and to an address of the public
    internet only: a server could otherwise have this machine speak to its neighbours. That address is the one that is
    connected to; asking the resolver a second time could give another one. Where a proxy of the environment is used,
    it resolves names, so that only written-out addresses can be looked at. This machine is never asked by a proxy.
    """

    def __init__(self, name: str, url: str, *, stall: float) -> None:
        with extra("hub", module="httpx"):
            import httpx
        self._httpx = httpx
        self._name = name
        self._url = url
        self._first = urlsplit(url).hostname or ""
        self._stall = stall
        self._trusted: ssl.SSLContext | None = None
        self._socket: Any = None
        self._guard = threading.Lock()
        self._aborted = False

    def facts(self) -> Facts:
        """Ask for size and digest without fetching anything.

        A store of large files says them in its first answer, before it redirects to where they lie; others say the
        length only where they lie. Some servers do not answer such questions: then nothing is known.

        Raises:
            DownloadError: The server refuses the file, or cannot be reached.
        """
        size, sha256 = None, None
        url = self._url
        for _ in range(_HOPS + 1):
            with self._request("HEAD", url, {}) as answer:
                if sha256 is None and size is None:  # only the first server may speak for the file
                    sha256 = _digest_in(answer.headers.get("x-linked-etag"))
                    size = number_of(answer.headers.get("x-linked-size"))
                if answer.status_code in _REDIRECTS and size is None:
                    url = self._next(url, answer)
                    continue
                if answer.status_code == 200 and size is None:
                    size = number_of(answer.headers.get("content-length"))
                if answer.status_code in {404, 410}:
                    raise self.refused(answer)
                return Facts(size, sha256)
        raise self._unsafe(f"{self._shown(self._url)} leads on more than {_HOPS} times")

    @contextlib.contextmanager
    def get(self, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Ask for the file; the answer, of any status but a redirect, is read by the caller.

        Raises:
            DownloadError: It leads to a place that is not asked, or nobody can be reached.
        """
        url = self._url
        with contextlib.ExitStack() as stack:
            for _ in range(_HOPS + 1):
                answer = stack.enter_context(self._request("GET", url, headers))
                if answer.status_code not in _REDIRECTS:
                    yield answer
                    return
                url = self._next(url, answer)
                stack.close()
        raise self._unsafe(f"{self._shown(self._url)} leads on more than {_HOPS} times")

    def abort(self) -> None:
        """Break off what is under way, from another thread."""
        with self._guard:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not the method of an SSLSocket, which would take its session away under the reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def refused(self, answer: httpx.Response) -> DownloadError:
        """Return the error for an answer that is no file."""
        status = answer.status_code
        remedy = {
            401: "It wants to know who asks: fetch the file by hand, and bring it in with import_file().",
            403: "It may want an agreement to its licence: fetch the file by hand, and bring it in with import_file().",
            404: "Check the URL; the file may have moved.",
            410: "Check the URL; the file may have moved.",
            429: "Wait some minutes, then try again.",
        }.get(status, "Try again later.")
        host = urlsplit(str(answer.request.url)).netloc
        said = f"{status} {answer.reason_phrase}".rstrip()
        return DownloadError(
            f"The file of model {self._name!r} was refused by {host} with {said}.",
            status=status, model=self._name, remedy=remedy,
        )  # fmt: skip

    # --- one request

    @contextlib.contextmanager
    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        httpx = self._httpx
        parts = urlsplit(url)
        host = parts.hostname or ""
        proxy = _proxy_for(parts.scheme, host)
        sent = {"accept-encoding": "identity", "user-agent": f"raeburnmemory/{__version__}", **headers}
        more: dict[str, Any] = {"trace": self._trace}
        targets = [url]
        if proxy is None and host != self._first:
            # By its address: the name, for the certificate and for the server, goes along.
            sent["host"] = parts.netloc
            more["sni_hostname"] = host
            addresses = self._addresses(url, host, parts.port or 443)
            targets = [_at_address(url, parts.netloc, parts.port, address) for address in addresses]
        client = httpx.Client(
            verify=self._context(parts.scheme),
            proxy=proxy,
            trust_env=False,  # what of the environment counts is read above
            follow_redirects=False,
            timeout=httpx.Timeout(self._stall, connect=min(_CONNECT, self._stall)),
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        try:
            with client, self._translated(host):
                for last, target in ((each is targets[-1], each) for each in targets):
                    try:
                        answer = client.send(
                            client.build_request(method, target, headers=sent, extensions=more), stream=True
                        )
                        break
                    except (httpx.ConnectError, httpx.ConnectTimeout):
                        if last:
                            raise
                try:
                    yield answer
                finally:
                    answer.close()
        finally:
            with self._guard:
                self._socket = None

    @contextlib.contextmanager
    def _translated(self, host: str) -> Iterator[None]:
        httpx = self._httpx
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise DownloadStalled(
                f"{host} sent nothing of model {self._name!r} for {self._stall:g} s.",
                model=self._name, remedy="Try again: what is here already is kept.",
            ) from exc  # fmt: skip
        except (httpx.TransportError, ssl.SSLError) as exc:
            said = str(exc) or type(exc).__name__
            raise DownloadError(
                f"The connection to {host} for model {self._name!r} failed: {said}.",
                model=self._name, remedy="Try again: what is here already is kept.",
            ) from exc  # fmt: skip
        except httpx.InvalidURL as exc:
            raise DownloadError(f"A URL for model {self._name!r} cannot be read: {exc}.", model=self._name) from exc

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        # httpx gives no way to break off a read of another thread, but it says which socket it reads from.
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            with self._guard:
                self._socket = info["return_value"].get_extra_info("socket")
                if self._aborted:
                    raise self._httpx.ReadError("broken off")

    def _context(self, scheme: str) -> ssl.SSLContext:
        if scheme != "https":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not used
        if self._trusted is None:
            self._trusted = self._httpx.create_ssl_context()  # SSL_CERT_FILE counts here
        return self._trusted

    # --- where it leads

    def _next(self, url: str, answer: httpx.Response) -> str:
        """Return where a redirect leads, if that may be asked at all."""
        there: str = answer.headers.get("location", "")
        try:
            target = urljoin(url, there)
            parts = urlsplit(target)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            parts, host, target = urlsplit(""), "", str(there)
        wrong = ""
        if not host or any(letter <= " " for letter in target):
            wrong = "is no URL"
        elif parts.username is not None or parts.password is not None:
            wrong = "has a user name in it"
        elif parts.scheme != "https" and (parts.scheme, urlsplit(url).scheme, host) != ("http", "http", self._first):
            wrong = "is not https"
        elif host != self._first and (is_loopback(host) or _is_private(host)):
            wrong = "is no address of the public internet"
        if wrong:
            raise self._unsafe(f"{self._shown(url)} leads to {self._shown(target)}, which {wrong}")
        return target

    def _addresses(self, url: str, host: str, port: int) -> list[str]:
        """Return the addresses of *host*, all of them of the public internet."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise DownloadError(
                f"For model {self._name!r} {host} is asked, which is not known to the resolver.",
                model=self._name, remedy="Check the network, then try again.",
            ) from exc  # fmt: skip
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            if _is_private(address):
                raise self._unsafe(
                    f"{self._shown(self._url)} leads to {self._shown(url)}, which is at {address}, no address of the "
                    "public internet"
                )
        return addresses

    def _unsafe(self, what: str) -> UnsafeRedirect:
        return UnsafeRedirect(
            f"For model {self._name!r} {what}.", model=self._name, remedy="Check the URL; do not trust the server."
        )

    @staticmethod
    def _shown(url: str) -> str:
        """Return a URL without what follows `?`, where signatures are, and in which nothing surprises."""
        return repr(url.partition("?")[0][:200])


def _is_private(host: str) -> bool:
    """Tell whether *host* is a written-out address outside the public internet; a name is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return not address.is_global or address.is_multicast


def _at_address(url: str, netloc: str, port: int | None, address: str) -> str:
    shown = f"[{address}]" if ":" in address else address
    return url.replace(f"//{netloc}", f"//{shown}{'' if port is None else f':{port}'}", 1)


def _proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for *host*, or None."""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def number_of(text: str | None) -> int | None:
    """Return the number that a header holds, or None."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _digest_in(etag: str | None) -> str | None:
    found = re.fullmatch(r'(?:W/)?"?([0-9a-fA-F]{64})"?', (etag or "").strip())
    return found[1].lower() if found else None


def range_of(text: str | None) -> tuple[int | None, int | None, int | None]:
    """Return first byte, last byte and length of the whole that a `Content-Range` tells; None where it does not."""
    found = re.fullmatch(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", (text or "").strip())
    if not found:
        return None, None, None
    first, last, whole = found.groups()
    return (
        None if first is None else int(first),
        None if last is None else int(last),
        None if whole == "*" else int(whole),
    )
