"""The script that checks graphics cards, on machines with none: it says so, and takes no failure for a success."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raeburnmemory.hub.errors import LlamafileError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_gpu.py"


def test_without_a_card_it_says_so_and_that_nothing_was_checked(tmp_path):
    command = [sys.executable, str(SCRIPT), "--embedding", "all-MiniLM-L6-v2", "--llamafile", "model.llamafile"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("There is no graphics card here")
    assert "Nothing was checked" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_a_model_that_stays_on_the_processor_fails_the_check(tiny_chat_model, bench):
    from test_model_real import server

    about = importlib.util.spec_from_file_location("check_gpu", SCRIPT)
    script = importlib.util.module_from_spec(about)
    about.loader.exec_module(script)
    with pytest.raises(LlamafileError, match="nvidia"):
        script.check_offload(tiny_chat_model, "nvidia", str(server(bench)))
