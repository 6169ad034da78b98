"""Where a run's images and weights are on this machine, as it is named for a run and kept with it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.cli.output import store_with_run
from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import uniform
from mlae_lab.data import tasks
from mlae_lab.data.content import content_hashes
from mlae_lab.data.image_record import record_of, write_record
from mlae_lab.runs import commands, presets, probe
from mlae_lab.runs.archive_file import archive, export, import_run, restore
from mlae_lab.runs.run_location import (
    LocationError,
    RunLocation,
    checked_weights,
    keep_location,
    read_location,
)
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from tests.data.trees import make_own
from tests.lab import measured, printed_json

OWN = replace(FIRST_RUN, task="own:birds", device="cpu")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images that is not the task's usual one."""
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return make_own(tmp_path / "photos", {"wren": 12, "owl": 12})


def stopped(store: RunStore, config: RunConfig, weights: str = "") -> Run:
    """A run that was stopped after its first step."""
    return measured(store, store.enqueue(config, "cpu"), status=Status.STOPPED, weights=weights)


def moved(store: RunStore, photos: Path) -> Run:
    """The same, on images that were elsewhere at that time."""
    config = tasks.located(replace(OWN, data=str(photos)))
    return stopped(store, replace(config, data=str(photos.with_name("before"))))


def test_what_is_named_is_read_back(store: RunStore) -> None:
    files = store.paths(stopped(store, FIRST_RUN).id)
    assert read_location(files) == RunLocation()
    location = RunLocation("/photos", "/weights.bin", "0123456789ab")
    keep_location(files, location)
    assert read_location(files) == location
    assert location.applied(OWN).data == "/photos"
    assert location.applied(OWN).hash == OWN.hash, "badge and hash of the run stay"
    for damaged in ("", "[]", '{"data": 1}', "[" * 100_000):
        files.location.write_text(damaged)
        assert read_location(files) == RunLocation()


def test_a_probe_is_restarted_when_the_location_changes(store: RunStore) -> None:
    files = store.paths(stopped(store, FIRST_RUN).id)
    files.adapter.write_bytes(b"adapter")
    before = probe.signature(files)
    keep_location(files, RunLocation("/photos"))
    after = probe.signature(files)
    assert after != before
    keep_location(files, RunLocation("/photos"))
    assert probe.signature(files) == after, "nothing is written for the same location"


def test_a_file_of_weights_must_exist(tmp_path: Path) -> None:
    for text in (str(tmp_path), str(tmp_path / "none"), "~nosuch/file", "a\0b", "x" * 5000):
        with pytest.raises(LocationError, match="is not a file"):
            checked_weights(text)
    assert checked_weights(" ") == ""


def test_frozen_weights_must_be_those_of_the_run() -> None:
    RunLocation().require("a" * 12)
    RunLocation().require("a" * 12, trained="a" * 12)
    with pytest.raises(
        LocationError, match=r"fingerprint a+ and /other.bin has b+: name the original file with --weig"
    ):
        RunLocation(weights="/other.bin").require("b" * 12, trained="a" * 12)
    with pytest.raises(LocationError, match="the file here has"):
        RunLocation(fingerprint="a" * 12).require("b" * 12)


def test_a_rerun_finds_the_files_of_its_run(store: RunStore, no_supervisor: None, photos: Path) -> None:
    run = moved(store, photos)
    stopped_weights = stopped(store, run.config, "a" * 12)
    keep_location(store.paths(stopped_weights.id), RunLocation(str(photos), "/weights.bin"))
    again = commands.rerun(store, stopped_weights.id)
    assert again.config.data == str(photos)
    assert again.config.hash == run.config.hash
    assert read_location(store.paths(again.id)) == RunLocation(str(photos), "/weights.bin", "a" * 12)


def test_a_pair_and_repeats_find_the_files_of_their_run(store: RunStore, no_supervisor: None, photos: Path) -> None:
    run = moved(store, photos)
    store.requeue(run.id)
    store.move(run.id, Status.FINISHED)
    keep_location(store.paths(run.id), RunLocation(str(photos)))
    run = store.run(run.id)
    presets.launch(store, presets.pair(store, run, uniform(0.5), 1))
    presets.launch(store, presets.repeats(store, run, 2))
    new = {other.id: other.config.data for other in store.runs() if other.id != run.id}
    assert len(new) >= 2
    assert set(new.values()) == {str(photos)}


def test_an_archived_run_keeps_its_location_in_its_store_only(store: RunStore, tmp_path: Path) -> None:
    run = stopped(store, FIRST_RUN)
    location = RunLocation("/photos", "/weights.bin", "a" * 12)
    keep_location(store.paths(run.id), location)
    file = archive(store, run.id)
    elsewhere = RunStore(tmp_path / "elsewhere")
    import_run(elsewhere, file)
    assert read_location(elsewhere.paths(run.id)) == RunLocation()
    restore(store, run.id)
    assert read_location(store.paths(run.id)) == location


def test_the_commands_name_the_folder_of_a_moved_run(
    store: RunStore, no_supervisor: None, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = moved(store, photos)
    folder = ["--store", str(store.folder)]
    assert main(["resume", run.id, "--data", str(photos), "--detach", "--json", *folder]) == 0
    assert printed_json(capsys)["run"] == run.id
    assert read_location(store.paths(run.id)).data == str(photos)
    assert main(["rerun", run.id, "--detach", "--json", *folder]) == 0
    assert store.run(printed_json(capsys)["run"]).config.data == str(photos), "remembered"
    other = make_own(photos.with_name("other"), {"wren": 3, "owl": 12})
    inspecting = "errors", "whatif", "importance", "robustness", "activation", "similarity", "rerun", "resume"
    for command in (*([name] for name in inspecting), ["predict", "0"], ["attention", "--image", "0"]):
        words = [command[0], run.id, *command[1:], "--data", str(other), *folder]
        assert main(words) == 2, command
        assert "name the folder that holds the run's images" in capsys.readouterr().err
    assert read_location(store.paths(run.id)).data == str(photos), "a wrong folder changes nothing"
    assert main(["resume", run.id, "--weights", str(other), *folder]) == 2
    assert "is not a file" in capsys.readouterr().err


def test_the_weights_are_kept_for_a_second_run_only_if_it_has_the_same_backbone(
    store: RunStore, no_supervisor: None, tmp_path: Path
) -> None:
    run = stopped(store, FIRST_RUN)
    like, unlike = stopped(store, FIRST_RUN), stopped(store, replace(FIRST_RUN, backbone="vit_base_patch16_224"))
    file = tmp_path / "vit.safetensors"
    file.touch()
    for other in (like, unlike):
        args = Namespace(store=store.folder, run=run.id, other=other.id, run_data=None, run_weights=str(file))
        store_with_run(args)
    named = [read_location(store.paths(name.id)).weights for name in (run, like, unlike)]
    assert named == [str(file), str(file), ""]


def test_an_imported_run_gets_its_folder(
    store: RunStore, no_supervisor: None, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = moved(store, photos)
    listing = tasks.listed(catalog.task("own:birds"), photos)
    train, evaluation = (content_hashes([photos / path for path, _ in part]) for part in listing.protocol("val"))
    write_record(store.paths(run.id).images, record_of(listing, "val", (train, evaluation)))
    export(store, run.id, tmp_path / "run.mlae")
    elsewhere = RunStore(tmp_path / "elsewhere")
    words = ["import", str(tmp_path / "run.mlae"), "--store", str(elsewhere.folder), "--data", str(photos)]
    assert main(words) == 0
    imported = elsewhere.run(run.id)
    assert imported.config.data == ""
    assert read_location(elsewhere.paths(run.id)).data == str(photos)
