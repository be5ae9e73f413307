"""Recording what programs ask of language models: calls of functions, and those of an OpenAI client."""

from __future__ import annotations

from .client import wrap
from .functions import Recording, Turn, recording
from .recorder import Recorder

__all__ = ["Recorder", "Recording", "Turn", "recording", "wrap"]
