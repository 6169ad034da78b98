"""`library` on the command line: save, list, rename, delete, and that an invalid request writes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs.store import RunStore
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]


def test_saved_masks_are_listed_and_deleted(tmp_path: Path, capsys: Captured) -> None:
    options = ["--store", str(tmp_path / "lab")]
    file = tmp_path / "plan.json"
    file.write_text(uniform(0.3).to_json())
    for name, *mask in (
        ("Sand glass", "hourglass", "--kind", "mixed", "--drop-rate", "0.3"),
        ("two ranks", dense().code, "--expert-rank", "2"),
        ("file", str(file)),
    ):
        assert main(["library", "save", name, "--mask", *mask, *options, "--json"]) == 0
        assert printed_json(capsys)["name"] == name
    assert main(["library", *options, "--json"]) == 0
    rows = printed_json(capsys)["library"]
    assert [row["name"] for row in rows] == ["file", "two ranks", "Sand glass"]
    expected = [uniform(0.3), replace(dense(), expert_rank=2), pattern("hourglass", "mixed", 0.3)]
    assert [MaskPlan.from_dict(row["plan"]) for row in rows] == expected
    assert [MaskPlan.from_code(row["code"]) for row in rows] == expected
    assert rows[0]["owner"]
    assert [entry.plan for entry in RunStore(tmp_path / "lab").plans()] == expected

    assert main(["library", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("Sand glass")
    assert lines[2].endswith(expected[2].code)
    assert main(["library", "delete", " sand GLASS ", *options, "--json"]) == 0
    assert printed_json(capsys)["deleted"]["name"] == "Sand glass"
    assert [entry.name for entry in RunStore(tmp_path / "lab").plans()] == ["file", "two ranks"]


def test_a_pattern_is_placed_on_the_layers_of_the_backbone(tmp_path: Path, capsys: Captured) -> None:
    words = ["--mask", "dense", "--backbone", "vit_large_patch16_224.augreg_in21k", "--store", str(tmp_path / "lab")]
    assert main(["library", "save", "deep", *words]) == 0
    assert RunStore(tmp_path / "lab").plans()[0].plan == dense(24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["save"], "needs the name of a mask"),
        (["delete"], "needs the name of a mask"),
        (["save", "one"], "needs --mask"),
        (["save", "x" * 49, "--mask", "dense"], "it must have 1 to 48"),
        (["save", "one", "--mask", "spiral"], "'spiral' is neither a pattern"),
        (["save", "one", "--mask", "m1_12x8_zz*12_0*12"], "is not a row of 8 experts"),
        (["delete", "one"], "no saved mask is called 'one'"),
        (["list", "one"], "takes no name"),
        (["sort"], "invalid choice: 'sort'"),
    ],
)
def test_an_invalid_request_is_one_sentence_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["library", *words, "--store", str(tmp_path / "lab")]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "lab").exists()


def test_listing_creates_no_store(tmp_path: Path, capsys: Captured) -> None:
    assert main(["library", "--store", str(tmp_path / "lab")]) == 0
    assert "no saved mask" in capsys.readouterr().out
    assert main(["library", "--store", str(tmp_path / "lab"), "--json"]) == 0
    assert printed_json(capsys) == {"library": []}
    assert not (tmp_path / "lab").exists()


def test_a_name_in_use_and_a_mask_that_somebody_else_owns(tmp_path: Path, capsys: Captured) -> None:
    store = RunStore(tmp_path / "lab")
    store.keep_visitor("ada-1", nickname="Ada")
    store.save_plan("Mine", dense(), "ada-1")
    options = ["--store", str(store.folder)]
    assert main(["library", "save", "mine", "--mask", "hourglass", *options]) == 2
    assert "has a mask named 'mine' already" in capsys.readouterr().err
    assert main(["library", "rename", "mine", "Another", *options]) == 2
    assert "belongs to Ada: add --yes" in capsys.readouterr().err
    for words in (["rename", "mine"], ["delete", "mine", "Another"]):
        assert main(["library", *words, *options]) == 2
        assert "`library rename` takes two names" in capsys.readouterr().err
    assert main(["library", "rename", "mine", "Another", *options, "--yes"]) == 0
    assert "Mine renamed to Another" in capsys.readouterr().out
    assert main(["library", "rename", "another", "Mine", *options, "--yes", "--json"]) == 0
    assert printed_json(capsys)["name"] == "Mine"
    assert main(["library", "delete", "mine", *options]) == 2
    assert "belongs to Ada: add --yes" in capsys.readouterr().err
    assert len(store.plans()) == 1
    assert main(["library", "delete", "mine", *options, "--yes"]) == 0
    assert store.plans() == []
