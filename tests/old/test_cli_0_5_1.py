"""Commands and options of version 0.5 give an error with their new names, and these exist."""

from __future__ import annotations

import pytest

from mlae_lab.cli import main
from mlae_lab.cli.renamed import OLD_COMMANDS, OLD_OPTIONS

# Command lines of 0.5.1, and the message that they get now.
OLD_LINES = [
    ("again aaaaaaaa", "`again` is now `rerun`"),
    ("matters aaaaaaaa", "`matters` is now `importance`"),
    ("robust aaaaaaaa bbbbbbbb", "`robust` is now `robustness`"),
    ("matters aaaaaaaa --picture 3", "`matters` is now `importance`, `--picture` is now `--image`"),
    ("robust aaaaaaaa --draws=50", "`robust` is now `robustness`, `--draws` is now `--samples`"),
    ("attention aaaaaaaa --picture 3", "`--picture` is now `--image`"),
    ("whatif aaaaaaaa --pictures 40 --json", "`--pictures` is now `--images`"),
    ("diversity --tell", "`--tell` is now `--report`"),
]


@pytest.mark.parametrize(("words", "sentence"), OLD_LINES)
def test_an_old_name_is_refused_with_the_new_one(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"mlae_lab: renamed since version 0.5: {sentence}\n"


def test_every_renamed_word_is_tested() -> None:
    tested = {word.partition("=")[0] for words, _ in OLD_LINES for word in words.split()}
    assert {*OLD_COMMANDS, *OLD_OPTIONS} <= tested


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("rerun", ()), ("importance", ("--image", "--images")), ("robustness", ("--samples", "--images")),
        ("whatif", ("--images",)), ("activation", ("--images",)), ("attention", ("--image",)),
        ("diversity", ("--report",)),
    ],
)  # fmt: skip
def test_the_new_names_exist(command: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in options)
    assert not any(f"{option} " in text for option in OLD_OPTIONS)


def test_old_words_may_be_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--task", "again"]) == 2
    assert "renamed" not in capsys.readouterr().err
