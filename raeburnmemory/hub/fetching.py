"""Documents from the web, without letting whoever wrote an address look around in this network.

An address is taken apart once, strictly, and asked for as the parts that were checked, so that no two parsers can
disagree about it. Its name is resolved once; every address that comes out must be public, and the connection goes to
one of these, not to the name, which could by then mean another. A redirection is checked as if it had been typed in.
Proxies in the environment are not asked: they would resolve the name themselves.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urljoin

from .._optional import extra
from ..errors import InvalidInput
from .documents.errors import BlockedUrl, FetchError, TooLarge

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

__all__ = ["Fetched", "UrlPolicy", "fetch", "is_public"]

_Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(?://([^/?#]*)([^#]*))?.*", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_DOTS = "\u3002\uff0e\uff61"  # full stops of other scripts, which some programs take for dots
_LONGEST = 8192  # characters
_STEP = 1 << 20  # bytes that are unpacked at once
_REDIRECTIONS = {301, 302, 303, 307, 308}

# Networks that are not the Internet, or are only a way to somewhere else (IANA's registries of special purposes).
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
]  # fmt: skip
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Target(NamedTuple):
    """An address that passed: what to ask for, and whom."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    private: bool  # whether its host may be one of this network


@dataclass(frozen=True)
class UrlPolicy:
    """Which addresses may be asked, and what an answer may cost.

    `allow_hosts` are names and IP addresses of this network or this machine that may be asked although they are not
    public, with a port if it is another than those in `ports`: `("wiki.lan", "localhost:8000")`. They may be asked by
    their own address only: a redirection from elsewhere does not lead to them. `size` counts bytes after unpacking,
    `seconds` everything from the name to the last byte.
    """

    allow_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    size: int = 20_000_000
    seconds: float = 30.0
    redirects: int = 5

    def __post_init__(self) -> None:
        hosts: Any = self.allow_hosts
        if not isinstance(hosts, (list, tuple, set, frozenset)) or not all(isinstance(host, str) for host in hosts):
            raise InvalidInput(f"allow_hosts is {hosts!r}. It must be a list of names, such as ['wiki.lan'].")
        for name, least in (("size", 1), ("seconds", 0), ("redirects", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise InvalidInput(f"{name} is {value!r}. It must be a number, {least} or more.")

    def check(self, url: str, *, first: str | None = None) -> Target:
        """Return the parts of *url*, if it may be asked for as far as its text tells; its name is not resolved.

        *first* is the host that was asked first, where this one comes from a redirection.

        Raises:
            BlockedUrl: It may not; `reason` is malformed, scheme, userinfo, host, port or address.
        """
        if not isinstance(url, str) or len(url) > _LONGEST or re.search(r"[\x00-\x20\x7f\\]", url):
            raise _blocked(url, "malformed", "it has blanks, control characters or backslashes, or is too long")
        found = _URL.fullmatch(url)
        scheme = found[1].lower() if found else ""
        if found is None or scheme not in _PORTS:
            raise _blocked(url, "scheme", f"its scheme is {scheme!r}, and only http and https are asked for")
        authority = found[2] or ""
        if "@" in authority:
            raise _blocked(url, "userinfo", "it has a user name in it")
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            raise _blocked(url, "malformed", f"{authority!r} is no host with a port")
        host = _host(url, parts[1])
        port = int(parts[2]) if parts[2] else _PORTS[scheme]
        allowed = self._allowed(host, port) and first in {None, host}
        if port not in self.ports and not (allowed and self._allowed(host, port, named=True)):
            raise _blocked(url, "port", f"its port is {port}, and only {', '.join(map(str, self.ports))} are asked for")
        literal = _literal(host)
        if not allowed and ((literal is not None and not is_public(literal)) or _is_local(host)):
            raise _blocked(url, "address", f"{host!r} is not on the Internet")
        shown = f"[{host}]" if ":" in host else host
        suffix = "" if port == _PORTS[scheme] else f":{port}"
        path = found[3] if found[3][:1] == "/" else f"/{found[3]}"
        return Target(f"{scheme}://{shown}{suffix}{path}", scheme, host, port, path, allowed)

    def _allowed(self, host: str, port: int, *, named: bool = False) -> bool:
        """Tell whether a host is one of those that were allowed; with *named*, whether its port was named too."""
        for entry in self.allow_hosts:
            name, colon, number = entry.rpartition(":")
            if not colon or "]" in number or (":" in name and not name.endswith("]")):  # an IPv6 address has several
                name, number = entry, ""
            if name.strip("[]").lower().removesuffix(".") == host and number in (
                {str(port)} if named else {"", str(port)}
            ):
                return True
        return False


@dataclass(frozen=True)
class Fetched:
    """What an address answered.

    `url` is the one that was asked in the end, after `redirects` others; `mime` its content type with the charset,
    `name` the end of its path. With `not_modified`, `data` is empty: the document is the one that `etag` or
    `last_modified` stand for.
    """

    url: str
    data: bytes
    mime: str | None
    name: str
    status: int
    etag: str | None = None
    last_modified: str | None = None
    not_modified: bool = False
    redirects: tuple[str, ...] = ()


def fetch(
    url: str,
    *,
    policy: UrlPolicy | None = None,
    etag: str | None = None,
    last_modified: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Fetched:
    """Return what *url* answers.

    *etag* and *last_modified* are what an earlier answer came with: the server may then say that nothing changed.
    *ssl_context* is for authorities of one's own; without it, those that certifi lists are trusted.

    Raises:
        BlockedUrl: The policy refuses the address, or one that it redirects to; nothing was sent to that.
        FetchError: It did not answer in time, or with anything but a document.
        TooLarge: The answer is larger than the policy allows, packed or unpacked.
        MissingDependency: httpx is not installed.
    """
    policy = UrlPolicy() if policy is None else policy
    with extra("hub", module="httpcore"):
        from ._network import exchange
    ends = time.monotonic() + policy.seconds
    headers = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    asked: list[str] = []
    target = policy.check(url)
    first = target.host
    while True:
        addresses = _resolved(target, url, ends)
        with exchange(target, addresses, headers, ends, ssl_context) as answer:
            if answer.status in _REDIRECTIONS and (location := answer.header("location")):
                asked.append(target.url)
                if len(asked) > policy.redirects:
                    raise FetchError(f"{url!r} redirects more than {policy.redirects} times.", uri=url)
                target = policy.check(urljoin(target.url, location), first=first)
                continue
            about = (answer.header("etag"), answer.header("last-modified"))
            name = unquote(target.path.partition("?")[0]).rpartition("/")[2]
            if answer.status == 304 and (etag or last_modified):
                return Fetched(target.url, b"", None, name, 304, about[0] or etag, about[1] or last_modified,
                               not_modified=True, redirects=tuple(asked))  # fmt: skip
            if answer.status not in {200, 203}:
                raise FetchError(f"{target.url!r} answered with status {answer.status}.", uri=url, status=answer.status)
            length = answer.header("content-length") or ""
            if length.isdigit() and int(length) > policy.size:
                raise _too_large(url, policy.size)
            data = _unpacked(answer.pieces(), answer.header("content-encoding"), policy.size, url)
            return Fetched(target.url, data, answer.header("content-type"), name, answer.status, *about,
                           redirects=tuple(asked))  # fmt: skip


def is_public(address: str | _Address) -> bool:
    """Tell whether an IP address belongs to the Internet, and not to a network, a machine or a mechanism."""
    ip = ipaddress.ip_address(address.partition("%")[0]) if isinstance(address, str) else address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(ip.ipv4_mapped)
        if ip in _NAT64:  # a network without IPv4 reaches it so: what counts is which address it reaches
            return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip not in _GLOBAL_6:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def _host(url: str, written: str) -> str:
    """Return a host as it is asked for: a name in ASCII, or an IP address in its one proper form."""
    if written.startswith("["):
        try:
            return str(ipaddress.IPv6Address(written[1:-1]))
        except ValueError as exc:
            raise _blocked(url, "host", f"{written!r} is no IPv6 address") from exc
    host = written.lower()
    if not host.isascii():
        if any(dot in host for dot in _DOTS):
            raise _blocked(url, "host", f"{written!r} has dots that are none")
        with extra("hub", module="idna"):
            import idna
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as exc:
            raise _blocked(url, "host", f"{written!r} is no name of a host") from exc
    host = host.removesuffix(".")
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch("0x[0-9a-f]*", last):
        # Numbers in other bases, or fewer of them, mean an address to some programs; nobody writes them in earnest.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as exc:
            raise _blocked(url, "host", f"{written!r} is a number, but no proper IP address") from exc
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _blocked(url, "host", f"{written!r} is no name of a host")
    return host


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def _resolved(target: Target, url: str, ends: float) -> list[str]:
    """Return the addresses of a host, all of which may be connected to."""
    if _literal(target.host) is not None:
        return [target.host]
    found: list[str] = []
    problem: list[BaseException] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as exc:
            problem.append(exc)

    # The system's resolver knows no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(ends - time.monotonic(), 0.0))
    if asking.is_alive():
        raise FetchError(f"The name {target.host!r} was not resolved in time.", uri=url)
    if problem or not found:
        raise FetchError(f"The name {target.host!r} is not known ({problem[0] if problem else 'no address'}).", uri=url)
    addresses = list(found)
    for address in addresses:
        if not target.private and not is_public(address):
            raise _blocked(url, "address", f"{target.host!r} is {address}, which is not on the Internet")
    return addresses


def _unpacked(pieces: Iterable[bytes], encoding: str | None, most: int, url: str) -> bytes:
    """Return a body, unpacked as it comes, never further than what is allowed."""
    named = (encoding or "identity").strip().lower()
    if named not in {"identity", "gzip", "x-gzip", "deflate"}:
        raise FetchError(f"{url!r} answered in the encoding {named!r}, which was not asked for.", uri=url)
    found = bytearray()
    for piece in pieces if named == "identity" else _inflated(pieces, named, url):
        found += piece
        if len(found) > most:
            raise _too_large(url, most)
    return bytes(found)


def _inflated(pieces: Iterable[bytes], named: str, url: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=31)  # gzip
    begun, left = False, b""
    try:
        for piece in pieces:
            left += piece
            if not begun and len(left) < 2:
                continue
            if not begun and named == "deflate":
                # The header of zlib; some servers leave it out.
                headed = left[0] & 15 == 8 and int.from_bytes(left[:2], "big") % 31 == 0
                inflate = zlib.decompressobj(wbits=15 if headed else -15)
            begun = True
            while left:
                if inflate.eof:
                    if named == "deflate" or not left.startswith(b"\x1f"):
                        return  # whatever follows was not packed
                    inflate = zlib.decompressobj(wbits=31)  # gzip may be several, one after the other
                yield inflate.decompress(left, _STEP)
                left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        while begun and not inflate.eof and (rest := inflate.decompress(left, _STEP)):
            left = inflate.unconsumed_tail
            yield rest
    except zlib.error as exc:
        raise FetchError(f"The answer of {url!r} is packed wrongly: {exc}.", uri=url) from exc
    if (begun or left) and not inflate.eof:
        raise FetchError(f"The answer of {url!r} ends too early.", uri=url)


def _too_large(url: str, most: int) -> TooLarge:
    return TooLarge(
        f"The answer of {url!r} is larger than {most:,} bytes.",
        uri=url,
        remedy="Raise the limit if you trust it: UrlPolicy(size=…).",
    )


def _blocked(url: object, reason: str, why: str) -> BlockedUrl:
    shown = url if isinstance(url, str) and len(url) <= 200 else f"{str(url)[:200]}…"
    remedy = "If you trust it, list its host: UrlPolicy(allow_hosts=[…])." if reason in {"address", "port"} else ""
    return BlockedUrl(f"{shown!r} is refused: {why}.", uri=str(url), reason=reason, remedy=remedy)
