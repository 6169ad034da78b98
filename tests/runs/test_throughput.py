"""Table 3: images per second, measured in a process and kept in the store's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.settings import ConfigError
from mlae_lab.runs import throughput
from mlae_lab.runs.paths import throughput_file
from tests.lab import printed_json


def test_a_measurement_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(tmp_path / "lab"), "--json"]
    words = ["paper", "table3", "--measure", "cpu", "--rows", "lora", "--backbone", "lab_vit_12x128"]
    assert main([*words, *place]) == 0
    (entry,) = printed_json(capsys)["measured"]
    assert entry["backbone"] == "lab_vit_12x128.random"
    assert [(row["row"], row["merged"], list(row["rates"])) for row in entry["rows"]] == [
        ("LoRA", True, ["1", "4", "16"]), ("LoRA", False, ["1", "4", "16"]),
    ]  # fmt: skip
    assert all(rate > 0 for row in entry["rows"] for rate in row["rates"].values())
    assert entry["rows"][0]["paper"] == {"1": 91.5, "4": 375.7, "16": 539.6}
    assert entry["rows"][1]["paper"] == {}, "the paper prints merged updates"
    file = throughput_file(tmp_path / "lab")
    newer = file.read_text().replace('"date": "', '"date": "3')
    file.write_text(file.read_text() + newer + "torn")
    (known,) = throughput.measured(tmp_path / "lab")
    assert known.date.startswith("3"), "the last on a chip counts"
    assert not known.is_papers
    assert main(["paper", "table3", "--store", str(tmp_path / "lab")]) == 0
    assert "another network than the paper's" in capsys.readouterr().out


def test_a_partial_measurement_keeps_the_earlier_rates_of_other_rows(tmp_path: Path) -> None:
    def line(date: str, precision: str = "float32", **rates: float) -> str:
        listed = [{"method": name, "merged": True, "batch": 1, "rate": rate} for name, rate in rates.items()]
        conditions = {"chip": "c", "device": "cpu", "precision": precision, "threads": 2, "torch": "2", "backbone": "b"}
        return json.dumps({"date": date, **conditions, "rates": listed})

    lines = [
        line("2026-01-01", mlae=1.0, fact=2.0),
        line("2026-01-02", "bfloat16", mlae=9.0, lora=9.0, ssf=9.0),  # another precision
        line("2026-01-03", mlae=3.0, lora=4.0),
        line("2026-01-04", lora=5.0),
    ]
    throughput_file(tmp_path).write_text("\n".join(lines))
    (known,) = throughput.measured(tmp_path)
    assert {rate.method: rate.rate for rate in known.rates} == {"lora": 5.0, "mlae": 3.0, "fact": 2.0}
    assert known.where.endswith("2026-01-01 to 2026-01-04")


def test_another_row_or_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(throughput.methods_of()) == 8
    with pytest.raises(ConfigError, match="'rank 3' is no row of Table 3"):
        throughput.methods_of(["rank 3"])
    assert main(["paper", "table4", "--measure", "--store", str(tmp_path / "lab")]) == 2
    assert "--measure is for table3" in capsys.readouterr().err
