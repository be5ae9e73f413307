"""Passing requests on to the server of a model, as they are: for those who speak its language themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._settings import Settings
from ._wire import MOST
from .client import held

if TYPE_CHECKING:
    import httpx

__all__ = ["Passing"]


class Passing(Settings):
    """Sends bytes to the server behind *base_url* or a *lease*, and hands out its answer; arguments as `ModelClient`.

    The key is the one that this was given, or that of the environment: nobody who asks through it brings another, and
    nobody gets to see it. Nothing is tried again: whoever asks knows what may be asked twice.
    """

    def __init__(self, base_url: str | None = None, model: str | None = None, **options: Any) -> None:
        super().__init__(base_url, model, **options)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def opened(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request to a path below the base URL, and give the answer, whose body has not been read.

        Leaving the block before its end closes the connection, which stops the model.

        Raises:
            ClientTimeout: The server says nothing for too long.
            NotRunning: It cannot be reached, or breaks off.
        """
        try:
            async with held(self._lease) as endpoint:
                sent = {"Accept-Encoding": "identity", **(headers or {})}  # what was packed would be passed on late
                if endpoint.api_key:
                    self._keys.add(endpoint.api_key)
                    sent["Authorization"] = f"Bearer {endpoint.api_key}"
                url = endpoint.base_url.rstrip("/") + path
                async with self._here().stream(method, url, content=body, headers=sent) as response:
                    yield response
        except self._httpx.TransportError as exc:
            raise self._meaning(exc) from None

    async def whole(self, response: httpx.Response) -> bytes:
        """Read the body of an answer.

        Raises:
            ClientError: It is longer than any answer of a model.
        """
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MOST:
                raise self._too_long()
        return bytes(body)

    def hidden(self, text: str) -> str:
        """Return what a server said without the key that it was sent."""
        return self._teller()._hidden(text)  # noqa: SLF001 - of this package

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    def _here(self) -> httpx.AsyncClient:
        """Return a client for the loop that runs: connections are of one loop alone."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            limits = self._httpx.Limits(max_connections=None, max_keepalive_connections=8)
            self._client, self._loop = self._httpx.AsyncClient(**self._options, limits=limits), loop
        return self._client
