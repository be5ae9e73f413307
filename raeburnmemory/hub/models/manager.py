"""The façade over local models, with a twin of each method for code that awaits: it goes to a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .management import Management

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Callable, Mapping, Sequence

    from .dialect import Gpu
    from .download import DownloadJob, Verify
    from .processes import Health
    from .running import RunningModel
    from .spec import Kind, ModelSpec, ModelStatus, Plan

__all__ = ["LlamafileManager"]


class LlamafileManager(Management):
    """Finds, downloads, checks, runs and stops models in *store_dir*, and talks to them.

    *store_dir* is by default the folder that `LLAMAFILES_DIR` names, or else a folder of the user's. *catalogue* takes
    the place of the packaged models. Several managers, in several processes, may share a folder: on one model works one
    of them at a time, and all of them see how it stands.

    *runtime* is the program for bare GGUF files: a llamafile without weights, or llama-server. Of its own models it
    runs *max_running* at once; to start one more stops the one that was idle for longest. One that nobody talked to
    for *idle_timeout* seconds is stopped (None: never). A starting model that gives no sign of life for
    *stall_timeout* seconds has failed; one that is to stop has *stop_grace* seconds until it is made to. With *restart*
    `"on-failure"` one that crashes is started again, *max_restarts* times. *log_lines* of what it printed are kept at
    hand. *on_event* is called with a `ProcessEvent` for each state that a model comes into.

    A server that sends nothing for *download_timeout* seconds has failed; a failed download is tried again
    *download_retries* times, after *retry_delay* seconds and each time twice as long.

    Closing it, or leaving its `with` block, stops the models that it started, but for detached ones. Every method has
    a twin for code that awaits, its name with an `a` before it.

    Raises:
        InvalidSpec: A setting makes no sense.
    """

    def __enter__(self) -> LlamafileManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> LlamafileManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def acatalogue(self) -> builtins.list[ModelSpec]:
        """`catalogue` for code that awaits."""
        return await asyncio.to_thread(self.catalogue)

    async def aadd(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """`add` for code that awaits."""
        await asyncio.to_thread(self.add, spec, replace=replace)

    async def aspec(self, name: str) -> ModelSpec:
        """`spec` for code that awaits."""
        return await asyncio.to_thread(self.spec, name)

    async def alist(self) -> builtins.list[ModelSpec]:
        """`list` for code that awaits."""
        return await asyncio.to_thread(self.list)

    async def astatus(self, name: str) -> ModelStatus:
        """`status` for code that awaits."""
        return await asyncio.to_thread(self.status, name)

    async def astatuses(self) -> builtins.list[ModelStatus]:
        """`statuses` for code that awaits."""
        return await asyncio.to_thread(self.statuses)

    async def aplan(self, name: str, *, ask: bool = True) -> Plan:
        """`plan` for code that awaits."""
        return await asyncio.to_thread(self.plan, name, ask=ask)

    async def adownload(
        self,
        name: str,
        *,
        resume: bool = True,
        verify: Verify = "if-known",
        progress: Callable[[ModelStatus], None] | None = None,
        wait: bool = True,
    ) -> DownloadJob:
        """`download` for code that awaits; a task that is cancelled pauses it."""
        job = await asyncio.to_thread(self.download, name, resume=resume, verify=verify, progress=progress, wait=False)
        if wait:
            try:
                await asyncio.to_thread(job.wait)
            except asyncio.CancelledError:
                await asyncio.to_thread(job.pause)
                raise
        return job

    async def averify(self, name: str, *, progress: Callable[[int, int], None] | None = None) -> ModelStatus:
        """`verify` for code that awaits."""
        return await asyncio.to_thread(self.verify, name, progress=progress)

    async def aimport_file(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        mode: str = "copy",
        kind: str = "chat",
    ) -> ModelSpec:
        """`import_file` for code that awaits."""
        return await asyncio.to_thread(self.import_file, path, name, mode=mode, kind=kind)

    async def aremove(self, name: str, *, force: bool = False, forget: bool = False) -> bool:
        """`remove` for code that awaits."""
        return await asyncio.to_thread(self.remove, name, force=force, forget=forget)

    async def astart(
        self,
        name: str,
        *,
        port: int = 0,
        kind: Kind | None = None,
        ctx: int | None = None,
        threads: int | None = None,
        gpu: Gpu = "auto",
        ngl: int | None = None,
        pooling: str | None = None,
        api_key: str | None = "auto",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        detach: bool = False,
    ) -> RunningModel:
        """`start` for code that awaits."""
        return await asyncio.to_thread(
            self.start,
            name,
            port=port,
            kind=kind,
            ctx=ctx,
            threads=threads,
            gpu=gpu,
            ngl=ngl,
            pooling=pooling,
            api_key=api_key,
            args=args,
            env=env,
            timeout=timeout,
            detach=detach,
        )

    async def astop(self, name: str | None = None, *, grace: float | None = None) -> bool:
        """`stop` for code that awaits."""
        return await asyncio.to_thread(self.stop, name, grace=grace)

    async def arestart(self, name: str, *, timeout: float | None = None) -> RunningModel:
        """`restart` for code that awaits."""
        return await asyncio.to_thread(self.restart, name, timeout=timeout)

    async def ahealth(self, name: str, *, deep: bool = False, timeout: float = 30.0) -> Health:
        """`health` for code that awaits."""
        return await asyncio.to_thread(self.health, name, deep=deep, timeout=timeout)

    async def aclose(self) -> None:
        """`close` for code that awaits."""
        await asyncio.to_thread(self.close)

    async def alogs(self, name: str, n: int = 200) -> builtins.list[str]:
        """`logs` for code that awaits, without following them."""
        return await asyncio.to_thread(self.logs, name, n)
