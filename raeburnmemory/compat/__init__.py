"""The memory in the form of other libraries, for programs that were written for them."""

from __future__ import annotations
