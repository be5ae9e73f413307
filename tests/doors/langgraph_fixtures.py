"""Our store in the place of LangGraph's own, for the tests that it ships: the conftest.py of a folder with them.

Only the stores are exchanged, where the tests import them from; the tests are as they were.
"""

import asyncio
import contextlib

import langgraph.store.memory
import langgraph.store.sqlite
import langgraph.store.sqlite.aio

from raeburnmemory.langgraph import RaeburnStore


def _index(config):
    """Return what their configuration means to us: without one nothing is searched by meaning."""
    if config is None:
        return False
    given = {name: value for name, value in config.items() if name not in {"text_fields", "distance_type"}}
    return {**given, "fields": config.get("text_fields") or config.get("fields")}


class InMemory(RaeburnStore):
    def __init__(self, *, index=None):
        super().__init__(index=_index(index))


class Sqlite(RaeburnStore):
    @classmethod
    @contextlib.contextmanager
    def from_conn_string(cls, place, *, index=None, ttl=None):
        with cls(_file(place), index=_index(index), ttl=ttl) as store:
            yield store

    def setup(self):
        """Do nothing: a memory is made when it is opened."""


class AsyncSqlite(RaeburnStore):
    @classmethod
    @contextlib.asynccontextmanager
    async def from_conn_string(cls, place, *, index=None, ttl=None):
        store = await asyncio.to_thread(cls, _file(place), index=_index(index), ttl=ttl)
        yield store
        await asyncio.to_thread(store.close)

    async def setup(self):
        pass

    async def sweep_ttl(self):
        return await asyncio.to_thread(super().sweep_ttl)

    async def start_ttl_sweeper(self):
        self.twin = RaeburnStore(self.memory, ttl=self.ttl_config)
        return self.twin.start_ttl_sweeper()

    async def stop_ttl_sweeper(self):
        return await asyncio.to_thread(self.twin.stop_ttl_sweeper)


def _file(place):
    return place if place == ":memory:" else f"{place}.db"  # at *place* they have made an empty file


langgraph.store.memory.InMemoryStore = InMemory
langgraph.store.sqlite.SqliteStore = Sqlite
langgraph.store.sqlite.AsyncSqliteStore = langgraph.store.sqlite.aio.AsyncSqliteStore = AsyncSqlite
