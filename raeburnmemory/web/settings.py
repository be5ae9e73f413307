"""What a service is told by its environment, checked before it answers anybody."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import InvalidInput

__all__ = ["NAMES", "Settings"]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})  # the last is that of test clients
MAX_BODY = 1 << 20  # bytes

KEY, RATE, OPEN = "RAEBURN_API_KEY", "RAEBURN_RATE_LIMIT", "RAEBURN_ALLOW_OPEN"
HOSTS, ORIGINS, PROXIES = "RAEBURN_ALLOWED_HOSTS", "RAEBURN_CORS_ORIGINS", "RAEBURN_TRUSTED_PROXIES"
BODY = "RAEBURN_MAX_BODY"
NAMES = (KEY, RATE, OPEN, HOSTS, ORIGINS, PROXIES, BODY)

_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
_HIGHEST_RATE = 10**9

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Settings:
    """Who may ask a service, from where, how often and how much.

    `key` is what requests carry as a Bearer token, None for none. `rate` is how many requests one client may make in a
    minute. `hosts` are the names under which the service may be asked, None for any. `origins` are the web pages that
    may use it from a browser. `proxies` are the networks whose word on the client's address is taken. `allow_open` lets
    requests that come over the network in without a key. `max_body` is in bytes.
    """

    key: bytes | None = field(default=None, repr=False)
    rate: int | None = None
    allow_open: bool = False
    hosts: frozenset[str] | None = LOCAL_HOSTS
    origins: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()
    max_body: int = MAX_BODY

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Return what the environment says.

        Raises:
            InvalidInput: A variable says something that makes no sense; the message names it, and never the key.
        """
        key = environment.get(KEY)
        if key is not None and (not key or not key.isprintable() or key != key.strip() or " " in key):
            raise InvalidInput(
                f"{KEY} is {'empty' if not key.strip() else 'no key: it has spaces or what cannot be printed'}. "
                f"Set it to a long random text, or unset it."
            )
        rate = _number(environment, RATE, 1, _HIGHEST_RATE)
        hosts = _list(environment, HOSTS, _host)
        return cls(
            key=None if key is None else key.encode(),
            rate=rate,
            allow_open=_flag(environment, OPEN),
            # A key cannot be guessed by a page that makes a browser ask under another name.
            hosts=LOCAL_HOSTS | hosts if hosts or key is None else None,
            origins=_list(environment, ORIGINS, _origin),
            proxies=tuple(sorted(_list(environment, PROXIES, _network), key=str)),
            max_body=_number(environment, BODY, 1024, 1 << 40) or MAX_BODY,
        )


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and least <= int(text) <= most):
        raise InvalidInput(f"{name} must be a whole number from {least:,} to {most:,}, not {text[:40]!r}.")
    return int(text)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "0")
    if text not in {"0", "1"}:
        raise InvalidInput(f"{name} must be 0 or 1, not {text[:40]!r}.")
    return text == "1"


def _list(environment: Mapping[str, str], name: str, read: object) -> frozenset:  # type: ignore[type-arg]
    found = set()
    for part in environment.get(name, "").split(","):
        if text := part.strip():
            try:
                found.add(read(text))  # type: ignore[operator]
            except ValueError as exc:
                raise InvalidInput(f"{name} has {text[:80]!r}, which is {exc}.") from exc
    return frozenset(found)


def _host(text: str) -> str:
    if not _HOST.fullmatch(text.lower()):
        raise ValueError("no name of a host (no scheme, no port, no *)")
    return text.lower()


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("no origin of web pages, such as https://example.org")
    return text.lower()


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("no address or network, such as 10.0.0.0/8") from None
