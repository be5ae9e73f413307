"""mem0's configuration as arguments of ours: what has a meaning here is taken over, the rest is named in a warning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..._optional import extra
from ...errors import InvalidInput

__all__ = ["arguments_of"]

_log = logging.getLogger("raeburnmemory")

_OURS = ("memory", "llm_model", "collection", "namespace", "reranker", "custom_instructions")
_OPTIONS = ("embedding_model", "storage_backend", "vector_backend", "qdrant_url", "language", "durability", "timeout")
_ELSEWHERE = ("history_db_path", "graph_store", "version", "custom_update_memory_prompt")
_THEIRS = ("vector_store", "llm", "embedder", "custom_fact_extraction_prompt", *_ELSEWHERE)


def arguments_of(config: Any) -> dict[str, Any]:
    """Return the arguments of `Memory` that a configuration means.

    Raises:
        InvalidInput: It is no dict, or a key is unknown.
        MissingDependency: It names an OpenAI model, and the package openai is not installed.
    """
    if not isinstance(config, Mapping):
        raise InvalidInput(f"A configuration is a dict, not a {type(config).__name__}.")
    unknown = [name for name in config if name not in (*_OURS, *_OPTIONS, *_THEIRS)]
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is no key of a configuration. Use {', '.join((*_OURS, *_THEIRS))}.")
    found = {name: config[name] for name in (*_OURS, *_OPTIONS) if name in config}
    unused = [name for name in _ELSEWHERE if config.get(name) is not None]
    if config.get("custom_fact_extraction_prompt"):
        found.setdefault("custom_instructions", config["custom_fact_extraction_prompt"])
    if isinstance(found.get("reranker"), Mapping):
        del found["reranker"]
        unused.append("reranker")
    provider, settings = _section(config, "vector_store")
    if settings.get("collection_name"):
        found.setdefault("collection", settings["collection_name"])
    if provider is not None:
        unused.append(f"vector_store ({provider})")
    unused += _embedder(config, found)
    unused += _llm(config, found)
    if unused:
        _log.warning(
            "Of the configuration this has no use here: %s. Memories are kept in %s; see the arguments of Memory.",
            ", ".join(unused),
            found.get("memory") or "the default memory",
        )
    return found


def _section(config: Mapping[str, Any], name: str) -> tuple[str | None, Mapping[str, Any]]:
    section = config.get(name)
    if section is None:
        return None, {}
    if not isinstance(section, Mapping) or not isinstance(section.get("config") or {}, Mapping):
        raise InvalidInput(f"{name!r} of a configuration is a dict with provider and config, not {section!r}.")
    return section.get("provider"), section.get("config") or {}


def _embedder(config: Mapping[str, Any], found: dict[str, Any]) -> list[str]:
    provider, settings = _section(config, "embedder")
    if provider in {"huggingface", "langchain"} and settings.get("model") and not settings.get("huggingface_base_url"):
        found.setdefault("embedding_model", settings["model"])
        return []
    return [] if provider is None else [f"embedder ({provider})"]


def _llm(config: Mapping[str, Any], found: dict[str, Any]) -> list[str]:
    llm = config.get("llm")
    if llm is None:
        return []
    if not isinstance(llm, Mapping):  # a function or client, as Memory takes it
        found["llm"] = llm
        return []
    provider, settings = _section(config, "llm")
    if provider != "openai":
        return [f"llm ({provider})"]
    with extra("", module="openai"):
        from openai import OpenAI
    address = settings.get("openai_base_url")
    found["llm"] = OpenAI(api_key=settings.get("api_key"), **({"base_url": address} if address else {}))
    found.setdefault("llm_model", settings.get("model") or "gpt-4.1-nano-2025-04-14")
    return []
