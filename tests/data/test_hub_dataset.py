"""A dataset on a Hub of the loopback becomes an own dataset: columns, class names, splits, and what cannot be read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hub_server import HubServer, hub_server
from pyarrow import parquet
from test_fetch import point_to
from trees import write_image

from mlae_lab.cli import main
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.hub_dataset import opened_tables, tables_of
from mlae_lab.data.progress import FetchError
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    from huggingface_hub import constants

    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    with hub_server() as server:
        point_to(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield server


def table(folder: Path, count: int, first: int, names: tuple[str, ...] = ("tv/monitor", "owl")) -> bytes:
    """A Parquet table as the Hub makes it, with class names in its metadata; no two images are equal."""
    images, labels = [], []
    for i in range(first, first + count):
        write_image(folder / f"{i}.jpg", i, 1)
        images.append({"bytes": (folder / f"{i}.jpg").read_bytes(), "path": f"{i}.jpg"})
        labels.append(i % 2)
    features = {"photo": {"_type": "Image"}, "kind": {"names": list(names), "_type": "ClassLabel"}}
    schema = pa.table({"photo": images, "kind": labels}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    )
    buffer = io.BytesIO()
    parquet.write_table(schema, buffer)
    return buffer.getvalue()


def test_a_dataset_of_the_hub_becomes_an_own_dataset(hub: HubServer, tmp_path: Path, capsys: Captured) -> None:
    for path, count, first in (
        ("default/train/0000.parquet", 20, 0), ("default/train/0001.parquet", 10, 20),
        ("default/validation/0000.parquet", 6, 30), ("other/train/0000.parquet", 4, 40),
    ):  # fmt: skip
        hub.files[f"datasets/me/toys/{path}"] = table(tmp_path / "images", count, first)
    columns = ["--image-column", "photo", "--label-column", "kind"]
    assert main(["dataset", "new", "toys", "--hub", "me/toys", *columns, "--json"]) == 0
    result = printed_json(capsys)
    assert result["counts"] == {"train": 24, "val": 6, "test": 6}
    assert list(result["classes"]) == ["owl", "tv-monitor"]
    (task,) = tasks.own_tasks()
    folder = tasks.folder_of(task)
    assert folder is not None
    assert tasks.census(task, tasks.listed(task, folder), decode=True).state == "ready"
    assert "refs%2Fconvert%2Fparquet" in " ".join(path for _, path, _ in hub.requests)
    assert not any((tmp_path / "data" / ".fetch" / "_parts").iterdir()), "the tables are gone"
    assert not any((tmp_path / "data" / ".own").iterdir())


def test_one_split_of_another_name_is_divided_by_ratio(hub: HubServer, tmp_path: Path) -> None:
    hub.files["datasets/me/toys/default/test/0000.parquet"] = table(tmp_path / "images", 20, 0, ())
    with opened_tables(tables_of("me/toys"), "photo", "kind") as given:
        assert not given.source.has_splits
        assert {image.label for image in given.source.images} == {"0", "1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hub", "me/toys"], "has the columns photo, kind: name those of image and class"),
        (["--hub", "me/toys", "--config", "x"], "has the configurations default: name one"),
        (["--hub", "toys"], "name it as OWNER/NAME"),
        (["--hub", "me/gone"], "holds no *.parquet"),
        (["folder", "--hub", "me/toys"], "a source and --hub"),
        (["--hub", "me/toys", "--labels", "x.csv"], "--labels"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    hub: HubServer, tmp_path: Path, capsys: Captured, words: list[str], message: str
) -> None:
    hub.files["datasets/me/toys/default/train/0000.parquet"] = table(tmp_path / "images", 8, 0)
    assert main(["dataset", "new", "x", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "data" / "own").exists()


def test_a_hub_without_tables_says_so(hub: HubServer) -> None:
    hub.status = 404
    with pytest.raises(FetchError, match="as Parquet"):
        tables_of("me/toys")
    hub.status = None
    with pytest.raises(DataError, match="OWNER/NAME"):
        tables_of("../x")
