"""How often a client may ask."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from .settings import Network

__all__ = ["Limiter", "client_of"]

_MOST = 10_000  # clients that are remembered


class Limiter:
    """A bucket of tokens per client, which fills evenly within a minute; safe to share between threads.

    A client may spend at once what it may spend in a minute. Of many clients those seen last are remembered: whoever
    was forgotten begins with a full bucket.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self.rate = rate
        self._clock, self._most = clock, most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was
        self._lock = threading.Lock()

    def wait_for(self, client: str) -> float:
        """Take a token of *client*; return 0, or the seconds until there is one."""
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(client, (float(self.rate), now))
            tokens = min(float(self.rate), tokens + max(0.0, now - then) * self.rate / 60)
            allowed = tokens >= 1
            self._buckets[client] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) * 60 / self.rate

    def __len__(self) -> int:
        return len(self._buckets)


def client_of(peer: str, forwarded: Iterable[bytes], proxies: tuple[Network, ...]) -> str:
    """Return who asks: the peer, or the last address in X-Forwarded-For that is no proxy we trust.

    Whoever has an IPv6 network has all its addresses, so that the first 64 bits stand for the client.
    """
    address = _address(peer)
    if proxies and address is not None and _trusted(address, proxies):
        hops = [hop.strip() for line in forwarded for hop in line.decode("latin-1").split(",")]
        for hop in reversed(hops):
            found = _address(hop)
            if found is None:
                break  # what nobody can have written who is to be trusted
            address = found
            if not _trusted(found, proxies):
                break
    if address is None:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, proxies: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in proxies)
