"""Reliability at length: `python -m tests.long`, from the root of the repository. Takes some hours on two cores.

Five hundred random kills a store, every system call of every life, every state that a power cut can leave, a thousand
flipped bits in each kind of file, a hundred histories of four processes, two thousand examples of the state machine. At the end comes the table of all of it; the
exit status is 0 if its last four columns hold nothing but zeros. With `--all`, every other test runs at length too.
What else is given goes to pytest, such as `-k power` or `--basetemp=/dev/shm/long`, which saves the waiting for syncs.
"""

import os
import sys
from pathlib import Path

LENGTH = {
    "HYPOTHESIS_PROFILE": "nightly",
    "RAEBURN_CRASH_POINTS": "all",
    "RAEBURN_CRASH_ROUNDS": "500",
    "RAEBURN_FLIPS": "1000",
    "RAEBURN_HISTORIES": "100",
}
RELIABILITY = (
    "access bad_input clocks crash crash_moves damage doctor doctor_processes flips forget_faults forget_secure full_disk "
    "linear long_lived network power_loss processes stateful store_folds syscalls values"
)


def main(arguments):
    """Run the tests, and return pytest's exit status."""
    for name, value in LENGTH.items():
        os.environ.setdefault(name, value)
    import pytest

    here = Path(__file__).parent
    everything = "--all" in arguments
    files = [here] if everything else [here / f"test_{name}.py" for name in RELIABILITY.split()]
    rest = [argument for argument in arguments if argument != "--all"]
    return pytest.main(["-q", "-m", "long or not long", "--durations=15", *map(str, files), *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
