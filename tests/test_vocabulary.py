"""The vocabulary check finds words that are not used here, at their line, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import vocabulary
from tests.vocabulary import check


def words(path: str, text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.word) for finding in check(path, text)]


@pytest.mark.parametrize(
    ("source", "line", "word"),
    [
        ("def picture_size(): ...", 1, "picture_size"),
        ("class LastWord: ...", 1, "LastWord"),
        ("x = 1\nfor one in rows: ...", 2, "one"),
        ("def f(found): ...", 1, "found"),
        ("self.told_step = 3", 1, "told_step"),
        ("import numpy as both", 1, "both"),
        ("if there := rows: ...", 1, "there"),
        ('"""A picture."""', 1, "picture"),
        ("x = 1  # the picture", 1, "picture"),
        ('x = f"{n} pictures at\\n"', 1, "pictures"),
        ('def f():\n    """Memory, at the\n    least."""', 2, "at the least"),
        ('x = ("gone without "\n     "a result")\n', 1, "gone without"),
        ("# it goes\n# on with the queue\n", 1, "goes on"),
        ('rows = [{"put_away": 1}]', 1, "put_away"),
        ('x = 1\nrow["told_step"] += 1', 2, "told_step"),
        ("# it waits with\n# patience", 2, "patience"),
        ('raise ValueError(f"x is {taken} for y, and cat is taken for dog")', 1, "taken for"),
    ],
)
def test_python(source: str, line: int, word: str) -> None:
    assert words("mlae_lab/x.py", source) == [(line, word)]


@pytest.mark.parametrize(
    ("path", "source", "line", "word"),
    [
        ("x.js", "const a = 1;\nconst { found, b } = f();", 2, "found"),
        ("x.js", "rows.map((one) => one.x);", 1, "one"),
        ("x.js", "rows.forEach(one => one.x);", 1, "one"),
        ("x.js", "this.picture = 1;", 1, "picture"),
        ("x.js", 'say("experts at work");', 1, "at work"),
        ("x.css", ".lb-beside { color: red }", 1, "lb-beside"),
        ("x.html", '<p class="a picture">b</p>', 1, "picture"),
        ("x.html", "<p>\nbeside the layer</p>", 2, "beside"),
        ("x.toml", 'a = "#beside"\nb = 1  # beside the app', 2, "beside"),
        ("x.txt", "torch>=2\n# the untold range", 2, "untold"),
        ("x.yml", "# a picture", 1, "picture"),
        ("x.md", "# Title\n\nOnce more.", 3, "Once more"),
    ],
)
def test_scripts_styles_and_markdown(path: str, source: str, line: int, word: str) -> None:
    assert (line, word) in words(path, source)


def test_plain_text_passes() -> None:
    python = '''
"""Mean accuracy of a run, compared with its baseline.

The image size, both axes of the table, and one row for each expert. There is no other source.
"""


def accuracy(correct: int, images: int) -> float:
    """Top-1 accuracy in percent."""
    # found in the table: one of both
    return 100 * correct / images
'''
    assert check("mlae_lab/x.py", python) == []
    assert check("x.js", "// One of both, found there.\nconst rows = both(one), there_is = 1;\nreturn rows;") == []
    assert check("x.toml", 'beside = "picture#beside"  # the image') == []
    assert check("mlae_lab/x.py", 'rows["one"] = {"found": 1}') == []
    assert check("x.css", ".image.single { color: red }") == []
    assert check("docs/x.md", "Choose one of both; the run continues next to its baseline.") == []


def test_names_of_earlier_versions_are_exempt_only_in_their_tables() -> None:
    source = 'OLD_FILES = {\n    "pulse": "heartbeat",\n    "parcel": "archive",\n}\nNAME = "parcel"\n'
    assert words("mlae_lab/core/x.py", source) == [(5, "parcel")]
    assert words("mlae_lab/runs/schema.py", source) == []


def test_history_is_checked_in_its_headings_only() -> None:
    log = "# Log\n## 2026-11-20 · One picture\nA picture.\n## 2026-12-01 · New\nA picture.\n"
    assert words("LOG.md", log) == [(2, "picture"), (5, "picture")]
    changes = "# Changelog\n## 0.6.0 – plain\nNo survivors.\n## 0.5.0 – inside\nNo survivors.\n"
    assert words("CHANGELOG.md", changes) == [(3, "survivors")]


def test_the_command_fails_with_a_place_and_a_better_word(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text("picture = 1\n")
    good.write_text("image = 1\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.vocabulary", *arguments]
        return subprocess.run(command, cwd=vocabulary.ROOT, capture_output=True, text=True)

    failed = run(str(bad))
    assert (failed.returncode, failed.stdout) == (1, f"{bad}:1: picture -> image\n")
    assert run("--summary", str(bad)).stdout.splitlines()[1] == f"{tmp_path}\t1"
    assert run(str(good)).returncode == 0
