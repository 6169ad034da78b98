"""Archive files: export and import, archive and restore, and untrusted files."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation
from mlae_lab.data.image_record import ImageList, ImageRecord, read_record, write_record
from mlae_lab.runs import archive_file, commands
from mlae_lab.runs.archive_file import ArchiveError, archive, archived, export, import_run, inspect, restore
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.ui import continue_view
from tests.lab import held, step

CONFIG = RunConfig("digits", allocation((2, 1)), epochs=2)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def other(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "other")


def over(store: RunStore, config: RunConfig = CONFIG, steps: int = 3) -> Run:
    """A run that is over, with events and files."""
    run = store.enqueue(config, "cpu", owner="ada").id
    store.claim(run, "cpu")
    losses = [1.0, NAN, INF] + [0.5] * steps
    store.append(run, [step(number, losses[number - 1]) for number in range(1, steps + 1)])
    store.append(run, [ev.Evaluation(1, steps, "val", 50.0, 1.5, 2.0)])
    files = store.paths(run)
    for path in (files.adapter, files.checkpoint):
        save_file({"head.weight": np.ones((3, 2), np.float32)}, path)
    files.log.write_text("a line\n")
    store.move(run, Status.STOPPED, "stopped and saved")
    return store.run(run)


def events_of(store: RunStore, run: str) -> list[str]:
    return [f"{s.time} {s.event!r}" for s in store.events(run)]


def test_export_and_import(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store)
    size = export(store, run.id, tmp_path / "a.mlae")
    assert size == (tmp_path / "a.mlae").stat().st_size
    export(store, run.id, tmp_path / "b.mlae")
    assert (tmp_path / "a.mlae").read_bytes() == (tmp_path / "b.mlae").read_bytes()
    assert inspect(tmp_path / "a.mlae").events == 4
    imported = import_run(other, tmp_path / "a.mlae", "bob")
    assert (imported.id, imported.config, imported.status, imported.reason) == (
        run.id,
        CONFIG,
        Status.STOPPED,
        run.reason,
    )
    assert (imported.relation, imported.owner, imported.config_hash) == ("imported", "bob", CONFIG.hash)
    assert events_of(other, run.id) == events_of(store, run.id)
    assert load_file(other.paths(run.id).adapter)["head.weight"].shape == (3, 2)
    assert set(other.paths(run.id).checkpoints()) == {"last"}
    with pytest.raises(StoreError, match=f"run {run.id} is in the store already"):
        import_run(other, tmp_path / "a.mlae")


def test_a_run_that_is_not_over_is_neither_exported_nor_archived(store: RunStore, tmp_path: Path) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    for call in (lambda: export(store, run, tmp_path / "a.mlae"), lambda: archive(store, run)):
        with pytest.raises(StoreError):
            call()
    assert not (tmp_path / "a.mlae").exists()
    assert store.run(run).status is Status.QUEUED


def test_a_restored_run_is_as_it_was_before_it_was_archived(store: RunStore) -> None:
    run = over(store)
    before, files = (
        events_of(store, run.id),
        sorted(p.name for p in store.paths(run.id).folder.iterdir() if p.name != "lock"),
    )
    file = archive(store, run.id)
    assert file.exists()
    assert store.runs() == []
    assert not store.paths(run.id).folder.exists()
    assert [(a.id, a.task, a.status) for a in archived(store)] == [(run.id, "digits", Status.STOPPED)]
    with pytest.raises(StoreError, match="was archived on"):
        store.run(run.id)
    back = restore(store, run.id)
    assert replace(back, position=run.position, slot=run.slot, turn=run.turn) == run
    assert events_of(store, run.id) == before
    assert archived(store) == []
    assert not file.exists()
    assert sorted(p.name for p in store.paths(run.id).folder.iterdir() if p.name != "lock") == files


def with_images(store: RunStore, run: Run) -> ImageRecord:
    """Give a run a list of its images."""
    train = ImageList(("Boot/a.png", "Coat/b.png"), (0, 1), np.array([2**63, 7], dtype=np.uint64))
    evaluation = ImageList(("Boot/c.png",), (0,), np.array([9], dtype=np.uint64))
    record = ImageRecord(("Boot", "Co\x1b[2Jat"), train, evaluation)
    write_record(store.paths(run.id).images, record)
    return record


def test_an_export_has_the_list_of_images_without_the_names_of_files(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    record = with_images(store, run)
    export(store, run.id, tmp_path / "a.mlae")
    assert "images.json.gz" in inspect(tmp_path / "a.mlae").files
    import_run(other, tmp_path / "a.mlae")
    imported = read_record(other.paths(run.id).images)
    assert imported is not None
    assert imported.classes == ("Boot", "Co[2Jat")  # without the control character
    assert (imported.train.digest, imported.evaluation.digest) == (record.train.digest, record.evaluation.digest)
    assert imported.train.paths == imported.evaluation.paths == ()


def test_names_of_files_in_a_foreign_list_of_images_are_dropped(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    with_images(store, run)
    content = store.paths(run.id).images.read_bytes()
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", lambda members: members.update({"images.json.gz": content}))
    import_run(other, tmp_path / "a.mlae")
    imported = read_record(other.paths(run.id).images)
    assert imported is not None
    assert imported.train.paths == ()


def test_a_restored_run_has_its_list_of_images(store: RunStore) -> None:
    run = over(store)
    with_images(store, run)
    before = store.paths(run.id).images.read_bytes()
    archive(store, run.id)
    restore(store, run.id)
    assert store.paths(run.id).images.read_bytes() == before


def test_a_damaged_list_of_images_is_named_and_the_run_stays(store: RunStore, tmp_path: Path) -> None:
    run = over(store)
    store.paths(run.id).images.write_bytes(b"no gzip")
    with pytest.raises(ArchiveError, match=r"images.json.gz is not a list of a run's images"):
        export(store, run.id, tmp_path / "a.mlae")
    with pytest.raises(ArchiveError, match=r"images.json.gz in .* is not a list of a run's images"):
        archive(store, run.id)
    assert [kept.id for kept in store.runs()] == [run.id]
    assert archived(store) == []


def test_the_part_of_a_killed_archive_is_removed(store: RunStore) -> None:
    killed, busy = (over(store).id for _ in range(2))
    folder = store.folder / "archive"
    folder.mkdir()
    left, written = (folder / f"{run}.mlae.1a2b3c4d.part" for run in (killed, busy))
    for part in (left, written, folder / "notes.part"):
        part.write_bytes(b"half")
    with held(store, busy):  # it is being archived at this moment
        archive_file.sweep(store)
        assert sorted(path.name for path in folder.iterdir()) == sorted([written.name, "notes.part"])
    archive(store, killed)
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{killed}.mlae", "notes.part"])


def test_a_damaged_event_is_left_out_of_an_export_and_of_an_archive(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    with store._connection(write=True) as db:
        db.execute("""UPDATE events SET payload = REPLACE(payload, '"step"', '"stdp"') WHERE step = 2""")
    export(store, run.id, tmp_path / "a.mlae")
    import_run(other, tmp_path / "a.mlae")
    assert [s.event.step for s in other.events(run.id, ev.TrainStep)] == [1, 3]
    archive(store, run.id)
    restore(store, run.id)
    assert [s.event.step for s in store.events(run.id, ev.TrainStep)] == [1, 3]


def test_exporting_to_a_folder_is_refused(store: RunStore) -> None:
    with pytest.raises(ArchiveError, match="is a folder: give the file a name"):
        export(store, over(store).id, Path("/"))


def test_a_damaged_archive_file_is_listed_with_its_trouble(store: RunStore) -> None:
    run = over(store)
    file = archive(store, run.id)
    file.write_bytes(file.read_bytes()[:300])
    (entry,) = archived(store)
    assert entry.trouble
    assert entry.task == ""
    with pytest.raises(ArchiveError):
        restore(store, run.id)
    assert file.exists()
    assert store.runs() == []


# ---------------------------------------------------------------- untrusted files


def changed(file: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """Rewrite an archive file with changed members."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            is_stored = name.endswith((".safetensors", ".gz"))
            new.writestr(name, data, zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED)


def header(**values: object) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.update({"run.json": json.dumps(json.loads(members["run.json"]) | values).encode()})


def event(line: object) -> Callable[[dict[str, bytes]], object]:
    text = (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"
    return lambda members: members.update({"events.jsonl": members["events.jsonl"] + text})


def event_of(kind: str, payload: dict) -> Callable[[dict[str, bytes]], object]:
    return event({"kind": kind, "time": 1.0, "payload": payload})


STEP, EVALUATION, STARTED, SIMILARITY, STATISTICS, SEARCH = (
    json.loads(ev.to_json(example))
    for example in (
        step(1), ev.Evaluation(1, 3, "val", 50.0, 1.5, 2.0), ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(1, (0.5, None), (0.5, None), (((1.0, 0.5), (0.5, 1.0)), ((1.0,),)), (1.0, 1.0), (1.0, None)),
        ev.Statistics(
            1, 1, {"one": 0.5, "none": None, "layers": (1, None), "experts": ((1.0, None), (0.5, 2.0))},
            {"one": ("One", "%")}, {"experts": ev.Grid(("1", "2"), ("q", "k"), "part", "Size.")},
        ),
        ev.SearchGeneration(1, 3, 1, 2, 4, 200, 60.0, 50.0, 0, 2.0, ("A",), (("10", "0"),), ((1.0, 0.0),)),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    "payload",
    [
        ("started", STARTED), ("step", STEP), ("evaluation", EVALUATION), ("similarity", SIMILARITY),
        ("search", SEARCH), ("statistics", STATISTICS), ("statistics", {"epoch": 1, "step": 1, "values": {}}),
    ],
)  # fmt: skip
def test_valid_events_are_accepted(payload: tuple[str, dict], store: RunStore, tmp_path: Path) -> None:
    """Events below differ from these by one value, so they are refused for that value."""
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", event_of(*payload))
    assert inspect(tmp_path / "a.mlae").events == 5


def test_control_characters_are_removed_from_reason_and_log(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", header(reason="it \x1b[2Jended\nabcdefgh  finished"))
    changed(tmp_path / "a.mlae", lambda members: members.update({"log.txt": b"\x1b]0;owned\x07a line\tof it\n"}))
    assert import_run(other, tmp_path / "a.mlae").reason == "it [2Jended abcdefgh finished"
    assert commands.log_tail(other, run.id) == ["]0;owneda line\tof it"]


def test_control_characters_are_removed_from_settings_and_events(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store, replace(CONFIG, data_label="mine\x1b[2J", data_notes=("b\x1b[1mad",), weights="/there/w\x07.npz"))
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", event_of("started", STARTED | {"device": "c\x1b[1mpu", "notes": ["\x9b1m one"]}))
    config = import_run(other, tmp_path / "a.mlae").config
    assert (config.data_label, config.data_notes, config.weights) == ("mine[2J", ("b[1mad",), "w.npz")
    started = other.last(run.id, ev.Started)
    assert (started.device, started.notes) == ("c[1mpu", ("1m one",))


def test_importing_does_not_overwrite_a_run_of_a_newer_version(store: RunStore, tmp_path: Path) -> None:
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.dream', 1)")
    events = events_of(store, run.id)
    with pytest.raises(StoreError, match=f"run {run.id} is in the store already"):
        import_run(store, tmp_path / "a.mlae")
    assert store.paths(run.id).adapter.is_file()
    assert set(store.paths(run.id).checkpoints()) == {"last"}
    assert store.unread() == [run.id]
    assert events_of(store, run.id) == events


def test_the_part_of_a_killed_export_is_removed_by_the_next_one(store: RunStore, tmp_path: Path) -> None:
    run = over(store)
    old, new, foreign = (tmp_path / f"a.mlae.{end}" for end in ("1a2b3c4d.part", "2a2b3c4d.part", "backup.part"))
    for file in (old, new, foreign):
        file.touch()
    for file in (old, foreign):
        os.utime(file, (0, 0))
    export(store, run.id, tmp_path / "b.mlae")
    assert old.exists()
    export(store, run.id, tmp_path / "a.mlae")
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True), (
        "another process may write the new one"
    )


def test_leftovers_of_a_killed_import_are_removed(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run, left = over(store), "aaaabbbb"
    other.append(left, [step(1), step(2)])  # an import writes files, events, and the row last
    other.paths(left).folder.mkdir(parents=True)
    other.paths(left).adapter.write_bytes(b"half")
    with held(other, left):  # another process is importing it
        archive_file.sweep(other)
        assert other.orphaned_events() == [left]
        assert other.paths(left).adapter.exists()
    export(store, run.id, tmp_path / "a.mlae")
    import_run(other, tmp_path / "a.mlae")
    assert other.orphaned_events() == [] == other.events(left)
    assert not other.paths(left).folder.exists()
    assert events_of(other, run.id) == events_of(store, run.id)


def test_every_relation_survives_export_and_import(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    assert set(archive_file.RELATIONS) == set(continue_view._RELATIONS)
    for relation in archive_file.RELATIONS:
        changed(tmp_path / "a.mlae", header(relation=relation))
        assert inspect(tmp_path / "a.mlae").run.relation == relation
    changed(tmp_path / "a.mlae", header(relation="<b>"))
    assert inspect(tmp_path / "a.mlae").run.relation == "imported"
    changed(tmp_path / "a.mlae", header(relation="race", parent="abcd2345"))  # of version 0.10
    assert (inspect(tmp_path / "a.mlae").run.relation, inspect(tmp_path / "a.mlae").run.parent) == ("imported", "")


def test_a_failed_insert_leaves_no_events(store: RunStore, other: RunStore) -> None:
    run = over(store)

    def broken() -> Iterator[tuple[float, ev.Event]]:
        yield from ((1.0, step(number)) for number in range(1, 5000))
        assert len(other.events(run.id)) >= 2000
        assert other.runs() == []
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        other.insert(run, broken())
    assert other.events(run.id) == []
    assert other.runs() == []
    other.append(run.id, [step(1)])  # as a killed import leaves it
    other.insert(run, [(1.0, step(2))])
    assert [s.event.step for s in other.events(run.id)] == [2]
    with pytest.raises(StoreError, match="already"):
        other.insert(run, [(1.0, step(3))])
    assert [s.event.step for s in other.events(run.id)] == [2]


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.update({"../evil": b"x"}),
        lambda members: members.update({"/etc/evil": b"x"}),
        lambda members: members.update({"evil.pkl": b"\x80\x04K\x01."}),
        lambda members: members.update({"adapter.safetensors": b"\x80\x04K\x01."}),
        lambda members: members.update({"adapter.safetensors": b"\xff" * 40}),
        lambda members: members.update({"images.json.gz": b"no gzip"}),
        lambda members: members.update({"images.json.gz": gzip.compress(b"[]")}),
        lambda members: members.update({"images.json.gz": gzip.compress(b"[" + b"[]," * 100_000 + b"[]]")}),
        lambda members: members.update({"images.json.gz": gzip.compress(b" " * 10_000_000)}),
        lambda members: members.update({"images.json.gz": os.urandom(20_000_001)}),
        lambda members: members.pop("run.json"),
        lambda members: members.update({"run.json": b"{"}),
        header(id="../../etc"),
        header(status="running"),
        header(config_hash="0" * 12),
        header(config={**CONFIG.to_dict(), "epochs": 3}),
        header(config={**CONFIG.to_dict(), "epochs": -1}),
        header(format=99),
        header(format=0),
        header(format=True),
        event("{"),
        event({"kind": "step", "time": 1.0, "payload": {"step": "one"}}),
        event({"kind": "step", "time": "now", "payload": {}}),
        event([1, 2]),
        lambda members: members.update({"events.jsonl": members["events.jsonl"] + b" " * 2_000_000}),
        event_of("started", STARTED | {"train_images": 0}),
        event_of("started", STARTED | {"steps": 0}),
        event_of("started", STARTED | {"seconds": NAN}),
        event_of("step", STEP | {"step": 0}),
        event_of("step", STEP | {"seconds": INF}),
        event_of("evaluation", EVALUATION | {"accuracy": NAN}),
        event_of("evaluation", EVALUATION | {"accuracy": 100.1}),
        event_of("step", STEP | {"epoch": 0}),
        event_of("evaluation", EVALUATION | {"epoch": 0}),
        event_of("evaluation", EVALUATION | {"correct": "0g"}),
        event_of("evaluation", EVALUATION | {"correct": "f" * 252}),
        event_of("similarity", SIMILARITY | {"epoch": 0}),
        event_of("similarity", SIMILARITY | {"absolute": [NAN, None]}),
        event_of("similarity", SIMILARITY | {"stable_rank": [INF, 1.0]}),
        event_of("similarity", SIMILARITY | {"matrices": [[[1.0, None], [0.5, 1.0]], [[1.0]]]}),
        event_of("similarity", SIMILARITY | {"matrices": [[[1.0, NAN], [0.5, 1.0]], [[1.0]]]}),
        event_of("search", SEARCH | {"generation": 0}),
        event_of("search", SEARCH | {"best": NAN}),
        event_of("search", SEARCH | {"mean": 101.0}),
        event_of("search", SEARCH | {"labels": ["A", "B"]}),
        event_of("search", SEARCH | {"labels": ["A" * 101]}),
        event_of("search", SEARCH | {"chosen": [["10"]]}),
        event_of("search", SEARCH | {"levels": [[1.0, None]]}),
        event_of("search", SEARCH | {"levels": [[1.0, 2.0]]}),
        event_of("search", SEARCH | {"chosen": [["1"] * 257], "levels": [[1.0] * 257]}),
        event_of("statistics", STATISTICS | {"epoch": 0}),
        event_of("statistics", STATISTICS | {"values": [1.0]}),
        event_of("statistics", STATISTICS | {"values": {"<script>": 1.0}, "labels": {}}),
        event_of("statistics", STATISTICS | {"values": {f"n{i}": 1.0 for i in range(65)}, "labels": {}}),
        event_of("statistics", STATISTICS | {"values": {"one": NAN}}),
        event_of("statistics", STATISTICS | {"values": {"one": True}}),
        event_of("statistics", STATISTICS | {"values": {"one": "1"}}),
        event_of("statistics", STATISTICS | {"values": {"one": [1.0]}}),
        event_of("statistics", STATISTICS | {"values": {"one": [[1.0, INF], [1.0, 1.0]]}}),
        event_of("statistics", STATISTICS | {"values": {"one": [[1.0], [1.0]]}}),
        event_of("statistics", STATISTICS | {"values": {"one": [[[1.0]] * 2] * 2}}),
        event_of("statistics", STATISTICS | {"labels": {"two": ["Two", ""]}}),
        event_of("statistics", STATISTICS | {"labels": {"one": ["One"]}}),
        event_of("statistics", STATISTICS | {"labels": {"one": ["O" * 101, ""]}}),
        event_of("statistics", STATISTICS | {"labels": {"one": [["One"], ""]}}),
        event_of("predictions", {"epoch": 1, "step": 1, "predicted": ["7"] * 49, "confidence": [0.5] * 49}),
    ],
)
def test_an_invalid_file_is_one_sentence_and_leaves_nothing(
    change: Callable[[dict[str, bytes]], object], store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    file = tmp_path / "a.mlae"
    export(store, run.id, file)
    changed(file, change)
    with pytest.raises(ArchiveError) as caught:
        import_run(other, file)
    assert "\n" not in str(caught.value)
    assert other.runs() == []
    assert not other.paths(run.id).folder.exists()
    assert not (tmp_path / "evil").exists()


def test_a_run_of_a_method_that_is_not_installed_is_refused_by_name(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    export(store, over(store).id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", header(config={**CONFIG.to_dict(), "method": "gone"}))
    with pytest.raises(ArchiveError, match=r"^the run cannot be imported, its method 'gone' is not installed here"):
        import_run(other, tmp_path / "a.mlae")


def test_a_run_of_a_method_that_is_not_installed_is_archived_restored_and_exported(
    store: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.method', 'gone') WHERE id = ?", (run.id,))
    events = events_of(store, run.id)
    assert archive(store, run.id).is_file()
    assert [(entry.id, entry.trouble) for entry in archived(store)] == [(run.id, "")]
    restored = restore(store, run.id)
    assert (restored.config.method, restored.status) == ("gone", run.status)
    assert events_of(store, run.id) == events
    assert export(store, run.id, tmp_path / "a.mlae")


def test_an_event_of_a_newer_version_is_skipped(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", event({"kind": "dreamt", "time": 1.0, "payload": {}}))
    assert inspect(tmp_path / "a.mlae").skipped == 1
    import_run(other, tmp_path / "a.mlae")
    assert events_of(other, run.id) == events_of(store, run.id)


def test_a_run_of_an_earlier_version_with_fewer_settings_is_checked_and_imported(
    store: RunStore, other: RunStore, tmp_path: Path
) -> None:
    run = over(store)
    old = {n: v for n, v in CONFIG.to_dict().items() if n not in ("mask_per", "input_dropout")}
    for name, config in (("a", old), ("b", {**old, "epochs": 3})):
        export(store, run.id, tmp_path / name)
        changed(tmp_path / name, header(config=config))
    with pytest.raises(ArchiveError, match="was changed after the export"):
        import_run(other, tmp_path / "b")
    imported = import_run(other, tmp_path / "a")
    assert imported.config == CONFIG
    assert imported.config_hash == run.config_hash


OLD = replace(CONFIG, data_label="own pictures, 14/5/5")


def test_a_file_of_format_1_has_the_names_of_version_0_5(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store, OLD)
    export(store, run.id, tmp_path / "a")
    changed(tmp_path / "a", header(format=1, relation="continued"))
    changed(tmp_path / "a", event_of("guesses", {"epoch": 1, "step": 3, "guess": ["0"], "confidence": [0.5]}))
    imported = import_run(other, tmp_path / "a")
    assert (imported.config.data_label, imported.relation) == ("own images, 14/5/5", "branched")
    assert imported.config_hash == OLD.hash
    assert other.last(run.id, ev.Predictions).predicted == ("0",)
    export(other, run.id, tmp_path / "b")
    third = RunStore(tmp_path / "third")
    assert (import_run(third, tmp_path / "b").config, third.run(run.id).config_hash) == (imported.config, OLD.hash)


def test_a_file_of_format_2_has_current_names_only(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store, OLD)
    export(store, run.id, tmp_path / "a")
    changed(tmp_path / "a", header(relation="continued"))
    changed(tmp_path / "a", event_of("guesses", {"epoch": 1, "step": 3, "guess": ["0"], "confidence": [0.5]}))
    assert inspect(tmp_path / "a").skipped == 1
    imported = import_run(other, tmp_path / "a")
    assert (imported.config.data_label, imported.relation) == (OLD.data_label, "imported")


def test_ranks_of_another_size_than_the_plan_are_refused(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store)
    stats = {"epoch": 1, "signed": [0, None], "absolute": [0, None], "matrices": [[[1, 0], [0, 1]], [[1]]]}
    for name, ranks in (("a", []), ("b", [1.5, None]), ("c", [1.5])):
        export(store, run.id, tmp_path / name)
        payload = {**stats, "effective_rank": ranks, "stable_rank": ranks}
        changed(tmp_path / name, event({"kind": "similarity", "time": 1.0, "payload": payload}))
    with pytest.raises(ArchiveError, match="does not have the size of the plan"):
        import_run(other, tmp_path / "c")
    assert inspect(tmp_path / "a").skipped == inspect(tmp_path / "b").skipped == 0
    import_run(other, tmp_path / "b")
    assert other.last(run.id, ev.SimilarityStats).effective_rank == (1.5, None)


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_truncated_file_is_refused(cut: int, store: RunStore, other: RunStore, tmp_path: Path) -> None:
    export(store, over(store).id, tmp_path / "a.mlae")
    (tmp_path / "half").write_bytes((tmp_path / "a.mlae").read_bytes()[:cut])
    with pytest.raises(ArchiveError):
        import_run(other, tmp_path / "half")
    assert other.runs() == []


def test_a_member_that_is_larger_than_declared(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    """Ten megabytes declared as a thousand bytes, in both headers of the zip."""
    run = over(store)
    export(store, run.id, tmp_path / "a.mlae")
    changed(tmp_path / "a.mlae", lambda members: members.update({"log.txt": b"0" * 10_000_000}))
    raw = (tmp_path / "a.mlae").read_bytes()
    real = (10_000_000).to_bytes(4, "little")
    assert raw.count(real) >= 2
    (tmp_path / "a.mlae").write_bytes(raw.replace(real, (1000).to_bytes(4, "little")))
    with pytest.raises(ArchiveError):
        import_run(other, tmp_path / "a.mlae")
    changed_file = io.BytesIO(raw)
    (tmp_path / "b.mlae").write_bytes(changed_file.getvalue())
    with pytest.raises(ArchiveError, match=r"log\.txt"):  # and one that declares its real size
        import_run(other, tmp_path / "b.mlae")
    assert other.runs() == []


def test_paths_of_another_machine_are_dropped(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    config = replace(CONFIG, weights="/home/eve/secret/model.safetensors")
    run = over(store, config)
    export(store, run.id, tmp_path / "a.mlae")
    imported = import_run(other, tmp_path / "a.mlae")
    assert (imported.config.weights, imported.config.data) == ("model.safetensors", "")


def test_a_run_of_20_000_events(store: RunStore, other: RunStore, tmp_path: Path) -> None:
    run = over(store, steps=20_000)
    export(store, run.id, tmp_path / "a.mlae")
    import_run(other, tmp_path / "a.mlae")
    assert events_of(other, run.id) == events_of(store, run.id)
    assert archive_file.SUFFIX == ".mlae"
