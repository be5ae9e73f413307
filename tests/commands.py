"""Runs our commands in this process. The application is put together once: each time takes a sixth of a second."""

import functools

import typer.testing
from typer.testing import CliRunner

__all__ = ["CliRunner"]

typer.testing._get_command = functools.cache(typer.testing._get_command)
