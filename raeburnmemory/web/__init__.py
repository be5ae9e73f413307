"""What every HTTP service of this package stands behind: who may ask, from where, how often and how much.

`Guard` is an ASGI application around another one. It knows no framework and no memory, so that a service cannot forget
it in one of its routes: what is not let in here never reaches a route.
"""

from __future__ import annotations

from .guard import OPEN, Guard
from .problems import Problem, problem_for, problem_of_request
from .settings import Settings

__all__ = ["OPEN", "Guard", "Problem", "Settings", "problem_for", "problem_of_request"]
