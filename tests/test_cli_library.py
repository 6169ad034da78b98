"""`library` on the command line: what it keeps, lists and forgets, and that a wrong request writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.patterns import dense, pattern, scaled, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs.store import RunStore
from tests.lab import said

Captured = pytest.CaptureFixture[str]


def test_what_is_saved_is_listed_can_be_trained_and_is_deleted(tmp_path: Path, capsys: Captured) -> None:
    here = ["--store", str(tmp_path / "lab")]
    file = tmp_path / "plan.json"
    file.write_text(uniform(0.3).to_json())
    for name, *mask in (
        ("Sand glass", "hourglass", "--kind", "mixed", "--drop-rate", "0.3"),
        ("two ranks", dense().code, "--expert-rank", "2"),
        ("file", str(file)),
    ):
        assert main(["library", "save", name, "--mask", *mask, *here, "--json"]) == 0
        assert said(capsys)["name"] == name
    assert main(["library", *here, "--json"]) == 0
    rows = said(capsys)["library"]
    assert [row["name"] for row in rows] == ["file", "two ranks", "Sand glass"]
    wanted = [uniform(0.3), scaled(dense(), expert_rank=2), pattern("hourglass", "mixed", 0.3)]
    assert [MaskPlan.from_dict(row["plan"]) for row in rows] == wanted
    assert [MaskPlan.from_code(row["code"]) for row in rows] == wanted
    assert rows[0]["owner"]
    assert [entry.plan for entry in RunStore(tmp_path / "lab").plans()] == wanted

    assert main(["library", *here]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("Sand glass")
    assert lines[2].endswith(wanted[2].code)
    assert main(["library", "delete", " sand GLASS ", *here, "--json"]) == 0
    assert said(capsys)["deleted"]["name"] == "Sand glass"
    assert [entry.name for entry in RunStore(tmp_path / "lab").plans()] == ["file", "two ranks"]


def test_a_pattern_is_laid_on_the_layers_of_the_backbone(tmp_path: Path, capsys: Captured) -> None:
    words = ["--mask", "dense", "--backbone", "vit_large_patch16_224.augreg_in21k", "--store", str(tmp_path / "lab")]
    assert main(["library", "save", "deep", *words]) == 0
    assert RunStore(tmp_path / "lab").plans()[0].plan == dense(24)


@pytest.mark.parametrize(
    ("words", "why"),
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
def test_a_wrong_request_is_one_sentence_and_writes_nothing(
    words: list[str], why: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["library", *words, "--store", str(tmp_path / "lab")]) == 2
    out, err = capsys.readouterr()
    assert why in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "lab").exists()


def test_looking_makes_no_store(tmp_path: Path, capsys: Captured) -> None:
    assert main(["library", "--store", str(tmp_path / "lab")]) == 0
    assert "no saved mask" in capsys.readouterr().out
    assert main(["library", "--store", str(tmp_path / "lab"), "--json"]) == 0
    assert said(capsys) == {"library": []}
    assert not (tmp_path / "lab").exists()


def test_a_name_that_is_taken_and_a_mask_of_another(tmp_path: Path, capsys: Captured) -> None:
    store = RunStore(tmp_path / "lab")
    store.keep_visitor("ada-1", nickname="Ada")
    store.save_plan("Mine", dense(), "ada-1")
    here = ["--store", str(store.folder)]
    assert main(["library", "save", "mine", "--mask", "hourglass", *here]) == 2
    assert "has a mask named 'mine' already" in capsys.readouterr().err
    assert main(["library", "rename", "mine", "Another", *here]) == 2
    assert "belongs to Ada: add --yes" in capsys.readouterr().err
    for words in (["rename", "mine"], ["delete", "mine", "Another"]):
        assert main(["library", *words, *here]) == 2
        assert "`library rename` takes two names" in capsys.readouterr().err
    assert main(["library", "rename", "mine", "Another", *here, "--yes"]) == 0
    assert "Mine renamed to Another" in capsys.readouterr().out
    assert main(["library", "rename", "another", "Mine", *here, "--yes", "--json"]) == 0
    assert said(capsys)["name"] == "Mine"
    assert main(["library", "delete", "mine", *here]) == 2
    assert "belongs to Ada: add --yes" in capsys.readouterr().err
    assert len(store.plans()) == 1
    assert main(["library", "delete", "mine", *here, "--yes"]) == 0
    assert store.plans() == []
