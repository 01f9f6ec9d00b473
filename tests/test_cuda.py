"""What only CUDA refuses, seen without a GPU: every recipe, in short, on a pretended device."""

import subprocess
import sys

import pytest

import recipes

# Its processes would each ask for a GPU of their own.
NAMES = [name for name in recipes.names() if name != "training.distributed"]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_recipe_goes_through_on_a_pretended_gpu(part: int) -> None:
    """In a process of its own, for it replaces much of torch."""
    command = [sys.executable, "-m", "tests.pretended_device", *NAMES[part::4]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("passed") == len(NAMES[part::4])
