"""Codes that are good once, and the tokens and cookies that they turn into.

All of them lie in one file that only its owner may read, as digests: whoever reads it can let nobody in. Several
processes may use it; so a command can make a code for a hub that runs already.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import StoreCorrupt
from ...lock import StoreLock
from ...records import new_id, utc
from ..models.store import write_json

__all__ = ["ADMIN", "ALL", "LONG_CODE", "MODELS", "READ", "WRITE", "Credential", "Credentials"]

READ, WRITE, MODELS, ADMIN = "read", "write", "models", "admin"
ALL = frozenset({READ, WRITE, MODELS, ADMIN})

LONG_CODE = 32  # letters of a code for an address: nobody finds one by trying
_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"  # none that is taken for another
_GROUPS, _GROUP = 2, 5  # about 49 bits, good for minutes and with few tries
_TIMEOUT = 10.0  # seconds to wait for another process that writes


@dataclass(frozen=True)
class Credential:
    """What lets somebody in: a token, or a cookie of the page. Times are in UTC, ISO 8601.

    `origin` is that of the page or extension that it was given to, None where it came without one.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    cookie: bool = False
    origin: str | None = None
    created_at: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "scopes": list(self.scopes)}


class Credentials:
    """The codes, tokens and cookies in the file *path*."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._guard = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, Any] = {"format": 1, "codes": {}, "tokens": {}}

    # --- codes --------------------------------------------------------------------------------------------------

    def new_code(self, scopes: Iterable[str] = ALL, minutes: float = 10.0, *, long: bool = False) -> str:
        """Return a code that is good once, for so many minutes; a *long* one is for addresses, and not for typing."""
        if long:
            code = secrets.token_urlsafe(LONG_CODE * 3 // 4)
        else:
            groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
            code = "-".join(groups)
        entry = {"scopes": sorted(scopes), "expires": time.time() + minutes * 60}
        with self._changing() as known:
            known["codes"] = {key: one for key, one in known["codes"].items() if one["expires"] > time.time()}
            known["codes"][_digest(_plain(code))] = entry
        return code

    def redeem(
        self, code: str, name: str, *, origin: str | None = None, cookie: bool = False
    ) -> tuple[str, Credential] | None:
        """Turn a code into a token or cookie, and return its secret and what it is; None for a code that is not good.

        The secret is nowhere else afterwards.
        """
        digest, secret = _digest(_plain(code)), secrets.token_urlsafe(32)
        if digest not in self._read()["codes"]:  # most wrong codes, without a lock
            return None
        with self._changing() as known:
            entry = known["codes"].pop(digest, None)
            if entry is None or entry["expires"] <= time.time():
                return None
            made = Credential(new_id(), name, tuple(entry["scopes"]), cookie, origin, utc(None))
            known["tokens"][_digest(secret)] = made.to_dict()
        return secret, made

    # --- tokens -------------------------------------------------------------------------------------------------

    def find(self, secret: str) -> Credential | None:
        """Return whose secret this is, None if nobody's."""
        found = self._read()["tokens"].get(_digest(secret))
        return None if found is None else _credential(found)

    def list(self) -> list[Credential]:
        """Return the tokens and cookies, the oldest first."""
        found = [_credential(one) for one in self._read()["tokens"].values()]
        return sorted(found, key=lambda one: one.id)

    def origins(self) -> frozenset[str]:
        """Return the origins that tokens were given to."""
        return frozenset(one["origin"] for one in self._read()["tokens"].values() if one["origin"])

    def revoke(self, credential_id: str) -> bool:
        """Take a token or cookie back; False if there is none with that id."""
        with self._changing() as known:
            kept = {key: one for key, one in known["tokens"].items() if one["id"] != credential_id}
            gone = len(kept) < len(known["tokens"])
            known["tokens"] = kept
        return gone

    # --- the file -----------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        try:
            about = os.stat(self._path)
        except FileNotFoundError:
            return {"format": 1, "codes": {}, "tokens": {}}
        seen = (about.st_ino, about.st_mtime_ns, about.st_size)
        with self._guard:
            if seen != self._seen:
                self._known, self._seen = _load(self._path), seen
            return self._known

    def _changing(self) -> _Change:
        return _Change(self._path)


class _Change:
    """A block in which the file is read, changed and written by nobody else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = StoreLock(path, _TIMEOUT)

    def __enter__(self) -> dict[str, Any]:
        self._lock.enter()
        try:
            self._known = _load(self._path) if self._path.exists() else {"format": 1, "codes": {}, "tokens": {}}
        except BaseException:
            self._end()
            raise
        return self._known

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                write_json(self._path, self._known)
        finally:
            self._end()

    def _end(self) -> None:
        self._lock.leave()
        self._lock.close()


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        sound = isinstance(found["codes"], dict) and isinstance(found["tokens"], dict) and found["format"] == 1
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise StoreCorrupt(f"{str(path)!r} holds no tokens. Move it away, and pair browsers and extensions anew.")
    return dict(found)


def _credential(found: dict[str, Any]) -> Credential:
    return Credential(**{**found, "scopes": tuple(found["scopes"])})


def _plain(code: str) -> str:
    """Return a code as it counts: one that is typed may come in small letters, with spaces, or without its dash."""
    typed = "".join(code.split()).replace("-", "").upper()
    return typed if len(typed) == _GROUPS * _GROUP else code.strip()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
