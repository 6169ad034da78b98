"""The benchmark with killed processes, with a study of two runs and two kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_killed_study_ends_like_the_undisturbed_one(root: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "study_kills", "--arms", "2", "--seeds", "1", "--kills", "2"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    undisturbed, disturbed, verdict = ended.stdout.splitlines()
    assert undisturbed.endswith("killed: nothing")
    assert "killed: " in disturbed
    assert "nothing" not in disturbed
    assert verdict == "2 of 2 runs ended with equal accuracy, losses and steps"
