"""Looking after a memory: verify, repair, back up, restore, copy to another store, make small, bring up to date.

`environment` tells what is installed, and what takes the place of what is not.

>>> from raeburnmemory import doctor
>>> doctor.verify("memory.db").sound
True
"""

from __future__ import annotations

from ..environment import Environment, Package, environment
from .copies import backup, restore
from .examine import verify
from .mend import repair
from .report import Compacted, Copied, FileFormat, Finding, Report, Schema
from .transfer import copy
from .upkeep import compact, schema

__all__ = [
    "Compacted",
    "Copied",
    "Environment",
    "FileFormat",
    "Finding",
    "Package",
    "Report",
    "Schema",
    "backup",
    "compact",
    "copy",
    "environment",
    "repair",
    "restore",
    "schema",
    "verify",
]
