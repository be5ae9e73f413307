"""One file for each family of formats: bytes in, a text with its blocks out."""

from __future__ import annotations
