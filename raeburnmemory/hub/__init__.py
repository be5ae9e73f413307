"""Local models, documents that become memories, and answers with citations: what runs on one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asking.answer import Answer, AnswerStream
    from .asking.awaited import aask
    from .asking.citing import Citation
    from .asking.core import ask
    from .asking.runnable import RaeburnAsk
    from .asking.summarising import Summary, summarise
    from .errors import DocumentError, HubError, LlamafileError
    from .ingestor import Ingestor
    from .models.client import AsyncModelClient, ModelClient
    from .models.llama_cpp import LlamaCppClient
    from .models.manager import LlamafileManager
    from .models.open_client import open_client
    from .models.spec import ModelSpec, ModelStatus
    from .projects import Project, Projects

__all__ = [
    "Answer",
    "AnswerStream",
    "AsyncModelClient",
    "Citation",
    "DocumentError",
    "HubError",
    "Ingestor",
    "LlamaCppClient",
    "LlamafileError",
    "LlamafileManager",
    "ModelClient",
    "ModelSpec",
    "ModelStatus",
    "Project",
    "Projects",
    "RaeburnAsk",
    "Summary",
    "aask",
    "ask",
    "open_client",
    "summarise",
]

_HOMES = {
    **dict.fromkeys(["DocumentError", "HubError", "LlamafileError"], "errors"),
    "Ingestor": "ingestor",
    "LlamafileManager": "models.manager",
    **dict.fromkeys(["ModelSpec", "ModelStatus"], "models.spec"),
    **dict.fromkeys(["AsyncModelClient", "ModelClient"], "models.client"),
    "LlamaCppClient": "models.llama_cpp",
    "open_client": "models.open_client",
    **dict.fromkeys(["Answer", "AnswerStream"], "asking.answer"),
    "Citation": "asking.citing",
    "RaeburnAsk": "asking.runnable",
    **dict.fromkeys(["Summary", "summarise"], "asking.summarising"),
    "aask": "asking.awaited",
    "ask": "asking.core",
    **dict.fromkeys(["Project", "Projects"], "projects"),
}


def __getattr__(name: str) -> Any:
    # Loaded when they are used: documents need no models, and models no parsers.
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
