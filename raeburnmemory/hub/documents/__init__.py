"""Bytes become documents: one text each, with its pages, headings and tables, whatever the format was."""

from __future__ import annotations

from .adapters import conversation, from_langchain
from .errors import (
    ArchiveBomb,
    BlockedUrl,
    DecodeError,
    DocumentError,
    EncryptedDocument,
    FetchError,
    LoaderError,
    NoText,
    ParseTimeout,
    TooLarge,
    UnsupportedType,
)
from .loading import load, register_loader
from .model import Block, Document, Limits
from .source import Builder, Loaded, Source
from .worker import freeze_support

__all__ = [
    "ArchiveBomb",
    "Block",
    "BlockedUrl",
    "Builder",
    "DecodeError",
    "Document",
    "DocumentError",
    "EncryptedDocument",
    "FetchError",
    "Limits",
    "Loaded",
    "LoaderError",
    "NoText",
    "ParseTimeout",
    "Source",
    "TooLarge",
    "UnsupportedType",
    "conversation",
    "freeze_support",
    "from_langchain",
    "load",
    "register_loader",
]
