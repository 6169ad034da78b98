"""The command line: what it prints, its exit status, and that a wrong request writes nothing."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import select
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlae_lab import cli
from mlae_lab.cli import following, main
from mlae_lab.core import catalog, memory
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.errors import LabError
from mlae_lab.runs import commands, paths, studies
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.supervisor import is_alive
from tests.data.trees import make_vtab
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]

QUICK = ["--method", "linear", "--backbone", "lab_vit_12x128.random", "--device", "cpu", "--batch-size", "200"]
SMALL = [
    "--mask", allocation((2,), drop_rate=0.5).code, "--backbone", "lab_vit_12x128.random", "--device", "cpu",
    "--batch-size", "16",
]  # fmt: skip
RUN_KEYS = {"run", "status", "reason", "pid", "epoch", "step", "val_accuracy", "config"}
TRAIN_KEYS = {
    "run", "status", "task", "method", "plan_hash", "trainable_parameters", "epochs", "train_seconds",
    "images_per_second", "val_accuracy", "accuracy_by_epoch", "similarity", "seed", "device",
}  # fmt: skip


def config_of(*words: str) -> RunConfig:
    """The run that a command line describes, without starting it."""
    return cli._config(cli._parser().parse_args(["train", *words]))


# ---------------------------------------------------------------- tables


def test_tasks(capsys: Captured) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = printed_json(capsys)["tasks"]
    assert [row["task"] for row in rows] == [t.name for t in catalog.TASKS]
    assert {row["task"] for row in rows if row["ready"]} == {t.name for t in catalog.TASKS if t.bundled}
    by_name = {row["task"]: row for row in rows}
    assert by_name["cifar"] | {"title": "", "question": "", "licence": ""} == {
        "task": "cifar", "title": "", "group": "Natural", "classes": 100, "train": 800, "val": 200, "test": 10_000,
        "ready": False, "question": "", "licence": "", "paper_drop_rate": 0.7, "paper_coefficient_init": 2,
        "paper_accuracy": 77.8,
    }  # fmt: skip
    assert main(["tasks"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    for t in catalog.TASKS:
        assert ("bundled" if t.bundled else "missing") in lines[t.name]


def test_a_folder_is_not_called_ready(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path))
    make_vtab(tmp_path / "vtab-1k", "svhn")
    assert main(["tasks"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("svhn ")]
    assert "folder" in line.split()


def test_masks(capsys: Captured) -> None:
    assert main(["masks", "--json"]) == 0
    rows = printed_json(capsys)["masks"]
    assert len(rows) == 16
    for row in rows:
        plan = MaskPlan.from_dict(row["plan"])
        assert plan == MaskPlan.from_code(row["code"])
        assert plan.hash == row["hash"]
        assert plan.kind.value == row["kind"]
        assert row["experts"] == sum(row["experts_per_layer"]) == 96
        assert row["parameters_vit_b16"] == 295_008
        assert row["drop_rate_per_layer"] == list(plan.row_rates())
        assert plan == pattern(row["pattern"], row["kind"])
    active = {(row["pattern"], row["kind"]): row["expected_active"] for row in rows}
    assert active["incremental", "stochastic"] == 50.4
    assert active["hourglass", "stochastic"] == 59.2
    assert active["uniform", "stochastic"] == 48
    assert main(["masks"]) == 0
    assert "295,008" in capsys.readouterr().out


def test_a_printed_mask_can_be_trained(capsys: Captured, tmp_path: Path) -> None:
    main(["masks", "--json"])
    for row in printed_json(capsys)["masks"]:
        (tmp_path / "plan.json").write_text(json.dumps(row["plan"]))
        assert config_of("--task", "digits", "--mask", str(tmp_path / "plan.json")).plan.hash == row["hash"]
        assert config_of("--task", "digits", "--mask", row["code"]).plan.hash == row["hash"]
        assert (
            config_of("--task", "digits", "--mask", row["pattern"], "--kind", row["kind"]).plan.kind.value
            == row["kind"]
        )


# ---------------------------------------------------------------- options


def test_the_defaults_are_the_first_run() -> None:
    assert config_of("--task", FIRST_RUN.task) == FIRST_RUN


def test_every_option_reaches_the_run() -> None:
    config = config_of(*shlex.split(
        "--task fashion_mnist --mask uniform --drop-rate 0.25 --experts 4 --expert-rank 2 --coefficient-init 0.5"
        " --freeze-coefficients --backbone lab_vit_12x128.random --protocol test --epochs 3 --seconds 9 --lr 0.001"
        " --weight-decay 0.2 --batch-size 10 --warmup 0.3 --evaluations 2 --seed 5 --device cpu --precision float32"
    ))  # fmt: skip
    assert config == RunConfig(
        task="fashion",
        plan=dataclasses.replace(
            uniform(0.25, experts=4), expert_rank=2, coefficient_init=0.5, train_coefficients=False
        ),
        backbone="lab_vit_12x128.random", protocol="test", epochs=3, max_seconds=9.0, learning_rate=0.001,
        weight_decay=0.2, batch_size=10, warmup=0.3, evaluations=2, seed=5, device="cpu", precision="float32",
    )  # fmt: skip
    assert config_of("--task", "digits", "--method", "linear").method == "linear"
    assert config_of("--task", "digits", "--mask", "random", "--pattern-seed", "3").plan == pattern("random", seed=3)
    assert config_of("--task", "digits", "--kind", "stochastic", "--drop-rate", "0.3").plan == uniform(0.3)


BASE = RunConfig("digits", uniform(0.5), device="cpu")


@pytest.mark.parametrize(
    "config",
    [
        FIRST_RUN,
        BASE,
        RunConfig("digits"),
        dataclasses.replace(BASE, warmup=0.0),
        dataclasses.replace(BASE, warmup=0.25, evaluations=3, epochs=7),
        dataclasses.replace(BASE, evaluations=0, epochs=30),
        dataclasses.replace(BASE, weight_decay=0.0, batch_size=17, max_seconds=12.5),
        dataclasses.replace(
            BASE, plan=dataclasses.replace(allocation((1, 0, 14)), expert_rank=2, train_coefficients=False)
        ),
        dataclasses.replace(BASE, plan=dataclasses.replace(dense(), targets=block_targets(12, "mlp.fc1"))),
        dataclasses.replace(BASE, protocol="test", seed=11, precision="bfloat16", backbone="lab_vit_12x128.random"),
        dataclasses.replace(FIRST_RUN, method="linear", epochs=5),
    ],
)
def test_the_command_of_a_run_describes_the_same_run(config: RunConfig) -> None:
    """A page shows it and the log begins with it: typed, it must give this run and no other."""
    words = shlex.split(config.command())
    assert words[:4] == ["python", "-m", "mlae_lab", "train"]
    assert config_of(*words[4:]) == config


# ---------------------------------------------------------------- wrong requests


@pytest.fixture
def plans(tmp_path: Path) -> dict[str, str]:
    """Plan files by what is wrong with them."""
    contents = {
        "broken": "{",
        "list": "[1, 2]",
        "odd": '{"keep": [[1]], "drop_rate": [[1.5]], "targets": ["blocks.0.attn.qkv"]}',
        "rows24": dense(layers=24).to_json(),
        "huge": '{"keep": [[1]], "drop_rate": [[0]], "targets": ["a"], "coefficient_init": ' + "9" * 400 + "}",
        "foreign": '{"keep": [[1]], "drop_rate": [[0]], "targets": ["layer.0.attention"]}',
    }
    for name, text in contents.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "folder.json").mkdir()
    return {name: str(tmp_path / f"{name}.json") for name in (*contents, "latin", "folder", "missing")}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--task digits --mask @broken", "this is not JSON"),
        ("--task digits --mask @list", "a plan is a JSON object"),
        ("--task digits --mask @odd", "a drop rate is 1.5"),
        ("--task digits --mask @huge", "coefficient_init"),
        ("--task digits --mask @latin", "latin.json cannot be read"),
        ("--task digits --mask @folder", "folder.json cannot be read"),
        ("--task digits --mask @missing", "missing.json cannot be read"),
        ("--task digits --mask @foreign", "layer.0.attention is not a linear layer of lab_vit_12x128"),
        (
            "--task digits --mask @rows24",
            "blocks.12.attn.qkv is not a linear layer of lab_vit_12x128: it has 12 blocks",
        ),
        ("--task digits --mask m1_24x8_ff*24_.5*24", "blocks.12.attn.qkv is not a linear layer"),
        ("--task digits --mask m1_12x8_ff*12", "is not a mask code"),
        ("--task digits --mask spiral", "'spiral' is neither a pattern"),
        ("--task digits --mask " + "x" * 400, "is neither a pattern"),
        ("--task digits --mask uniform --kind fixed", "uniform has no fixed mask"),
        ("--task digits --mask m1_12x8_ff*12_.5*12 --drop-rate 0.5", "go with a pattern"),
        ("--task mnist", "'mnist' is not a task"),
        ("--task cifar", "(cifar) has no data here"),
        ("--task own", "--task own needs --data DIR"),
        ("--task cub", "(cub) has no data here"),
        ("--task digits --backbone resnet50", "'resnet50' is not a backbone"),
        (
            "--task digits --backbone vit_base_patch16_224.orig_in21k",
            "the weights of vit_base_patch16_224.orig_in21k are not on this machine",
        ),
        ("--task digits --epochs -1", "epochs is -1"),
        ("--task digits --epochs 0", "epochs is 0"),
        ("--task digits --epochs many", "invalid int value: 'many'"),
        ("--task digits --drop-rate 1.5", "a drop rate is 1.5"),
        ("--task digits --drop-rate nan", "drop_rate is nan"),
        ("--task digits --experts 17", "17 experts per layer"),
        ("--task digits --expert-rank 0", "expert_rank is 0"),
        ("--task digits --coefficient-init 0", "coefficient_init is 0"),
        ("--task digits --lr 0", "learning rate is 0"),
        ("--task digits --lr inf", "learning rate is inf"),
        ("--task digits --batch-size 0", "batch size is 0"),
        ("--task digits --seed -1", "seed is -1"),
        ("--task digits --method lorra", "method is 'lorra'"),
        (
            "--task digits --method linear --mask dense",
            "--mask describes a mask, which the method linear does not have",
        ),
        ("--task digits --method lora --drop-rate 0.5", "--drop-rate describes a mask, which the method lora"),
        ("--task digits --method lora --mask-per token", "--mask-per is for the method mlae: leave it out with lora"),
        ("--task digits --method lora --set rang=4", "'rang=4' is not a setting of lora"),
        ("--task digits --set rank=4", "method mlae takes no --set"),
        ("--task digits --method ssf --recipe best", "recipe is 'best': choose from vtab, fgvc, common, mlae"),
        ("--task digits --protocol train", "protocol is 'train'"),
        ("--task digits --device tpu", "device is 'tpu'"),
        ("--task digits --dropout 0.5", "unrecognized arguments: --dropout 0.5"),
        ("", "no task is named: add --task with a name that `tasks` lists"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_invalid_request_is_one_sentence_and_writes_nothing(
    words: str, sentence: str, as_json: bool, plans: dict[str, str], tmp_path: Path, capsys: Captured
) -> None:
    store = tmp_path / "lab"
    arguments = [plans[word[1:]] if word.startswith("@") else word for word in words.split()]
    assert main(["train", *arguments, "--store", str(store), *(["--json"] if as_json else [])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("mlae_lab: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not store.exists()


@pytest.mark.parametrize("command", ["runs", "stop", "delete"])
@pytest.mark.parametrize("run", ["aaaaaaaa", "../../etc", "x"])
def test_an_unknown_run_is_refused_and_creates_no_store(
    command: str, run: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main([command, run, "--store", str(tmp_path / "lab"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlae_lab: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["runs", "a", "b"], ["stop"], ["delete"], ["tasks", "--store", "x"]]
)
def test_an_unknown_command(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlae_lab: ")
    assert "--help" in err
    assert err.count("\n") == 1


def test_a_store_that_cannot_be_used(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments in (["runs"], ["train", "--task", "digits", *QUICK]):
        assert main([*arguments, "--store", str(tmp_path / "file")]) == 2
        assert "cannot be used as a store" in capsys.readouterr().err


def test_an_unreadable_path_is_one_sentence(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path / "lab")
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.move(run, Status.FINISHED)
    for arguments, message in [
        (["runs", "--store", "~nobody-of-this-name/lab"], "name a folder in full"),
        (["runs", "--store", "/" + "x" * 300], "File name too long"),
        (["export", run, "/", "--store", str(store.folder)], "is a folder: name a file in it"),
    ]:
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("mlae_lab: ")
        assert err.count("\n") == 1
    monkeypatch.setattr(RunStore, "runs", lambda self: self._connection(write=True, timeout=0.05).__enter__())
    with sqlite3.connect(store.folder / "lab.sqlite", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        assert main(["runs", "--store", str(store.folder)]) == 2
        assert "the store cannot be used now (database is locked)" in capsys.readouterr().err


def test_an_unknown_error_class_is_one_sentence(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NewError(LabError):
        pass

    def examine(folder: Path, deep: bool) -> None:
        raise NewError(f"{folder.name} is 2: choose one below 1")

    monkeypatch.setattr(cli.doctor, "examine", examine)
    assert main(["doctor", "--store", str(tmp_path / "rate")]) == 2
    assert capsys.readouterr() == ("", "mlae_lab: rate is 2: choose one below 1\n")


def test_ctrl_c_ends_any_command_without_a_traceback(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_tasks", pressed)
    assert main(["tasks"]) == 130
    assert capsys.readouterr().err == "\n"


@pytest.mark.parametrize(
    "words",
    [["pair", "RUN", "--mask", "dense", "--seeds", "1"], ["repeats", "RUN", "--seeds", "2"],
     ["diversity", "--rates", "0.5", "--seeds", "1"],
     ["race", "--task", "digits", "--mask", "dense", "--mask", "uniform"]],
)  # fmt: skip
def test_ctrl_c_while_runs_are_followed_prints_them_as_json(
    words: list[str], store: RunStore, no_supervisor: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "state", pressed)
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.move(run, Status.STOPPED)
    assert main([*(run if word == "RUN" else word for word in words), "--store", str(store.folder), "--json"]) == 0
    result = printed_json(capsys)
    assert result["runs"]
    assert result["study"] == store.studies()[0].id
    assert set(result["runs"]) <= {entry.id for entry in store.runs()}


def test_a_terminal_that_cannot_encode_a_letter_shows_a_question_mark(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mlae_lab", "tasks"], cwd=root, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})  # fmt: skip
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_failed_enqueue_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)

    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(store, "enqueue", locked)
    with pytest.raises(sqlite3.OperationalError):
        commands.launch(store, FIRST_RUN)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_full_disk_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_half(source: Path, to: Path) -> None:
        to.write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "start").write_bytes(b"a checkpoint")
    monkeypatch.setattr(commands.shutil, "copyfile", copy_half)
    store = RunStore(tmp_path / "store")
    with pytest.raises(OSError, match="No space left"):
        commands.launch(store, FIRST_RUN, start=tmp_path / "start")
    assert list((tmp_path / "store" / "runs").iterdir()) == []
    assert store.runs() == []


def test_failed_runs_are_printed_with_their_reason(tmp_path: Path, capsys: Captured) -> None:
    store = RunStore(tmp_path)
    finished, failed = (store.enqueue(FIRST_RUN, "cpu") for _ in range(2))
    store.move(finished.id, Status.FINISHED)
    assert following.print_failures(store, [finished]) == 0
    assert capsys.readouterr().err == ""
    store.move(failed.id, Status.FAILED, "the loss is not a number")
    assert following.print_failures(store, [finished, failed]) == 1
    assert capsys.readouterr().err == f"run {failed.id} failed: the loss is not a number\n"


def test_help_is_not_an_error(capsys: Captured) -> None:
    for arguments in (["--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
    assert "--drop-rate" in capsys.readouterr().out


# ---------------------------------------------------------------- runs


def test_an_empty_store(tmp_path: Path, capsys: Captured) -> None:
    assert main(["runs", "--store", str(tmp_path / "lab"), "--json"]) == 0
    assert printed_json(capsys) == {"runs": []}
    assert main(["runs", "--store", str(tmp_path / "lab")]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert main(["runs", "--archived", "--store", str(tmp_path / "lab"), "--json"]) == 0
    assert printed_json(capsys) == {"archived": []}
    assert main(["runs", "--archived", "--store", str(tmp_path / "lab")]) == 0
    assert "no archived runs in" in capsys.readouterr().out
    assert not (tmp_path / "lab").exists()


def test_the_store_comes_from_the_environment(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "elsewhere"))
    store = RunStore(tmp_path / "elsewhere")
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.move(run, Status.STOPPED)  # else it would train while other tests run
    assert main(["runs", "--json"]) == 0
    assert [row["run"] for row in printed_json(capsys)["runs"]] == [run]


def test_train_follows_a_run_to_its_end_and_the_run_can_be_shown_and_deleted(tmp_path: Path, capsys: Captured) -> None:
    store = ["--store", str(tmp_path / "lab")]
    assert main(["train", "--task", "digits", *QUICK, "--epochs", "3", "--evaluations", "3", *store, "--json"]) == 0
    report = printed_json(capsys)
    assert set(report) >= TRAIN_KEYS
    assert (report["status"], report["task"], report["method"], report["plan_hash"]) == (
        "finished",
        "digits",
        "linear",
        None,
    )
    assert (report["epochs"], report["seed"], report["device"], report["trainable_parameters"]) == (3, 0, "cpu", 1290)
    assert list(report["accuracy_by_epoch"]) == ["1", "2", "3"]
    assert report["accuracy_by_epoch"]["3"] == report["val_accuracy"]
    assert 0 <= report["val_accuracy"] <= 100
    assert report["train_seconds"] > 0
    assert report["images_per_second"] > 0
    assert report["similarity"] is None

    run = report["run"]
    assert main(["runs", run, *store, "--json"]) == 0
    row = printed_json(capsys)
    assert set(row) >= RUN_KEYS
    assert (row["run"], row["status"], row["epoch"], row["step"]) == (run, "finished", 3, 12)
    assert row["val_accuracy"] == report["val_accuracy"]
    assert RunConfig.from_dict(row["config"]).task == "digits"
    assert main(["runs", *store, "--json"]) == 0
    (listed,) = printed_json(capsys)["runs"]
    assert listed | {"bytes": row["bytes"]} == row  # its process, about to exit, may still write
    assert main(["runs", *store]) == 0
    assert run in (text := capsys.readouterr().out)
    assert "finished" in text
    assert main(["runs", run, *store]) == 0
    assert "finished" in capsys.readouterr().out

    assert main(["stop", run, *store]) == 2
    assert f"run {run} is already finished: there is nothing to stop" in capsys.readouterr().err
    assert main(["delete", run, *store, "--json"]) == 0
    assert printed_json(capsys) == {"run": run, "deleted": True}
    assert main(["delete", run, *store, "--json"]) == 2
    assert "was deleted on" in capsys.readouterr().err
    assert RunStore(tmp_path / "lab").runs() == []


def test_disk_use_and_archived_runs(tmp_path: Path, capsys: Captured) -> None:
    folder = ["--store", str(tmp_path / "lab")]
    store = RunStore(tmp_path / "lab")
    own, foreign = (store.enqueue(FIRST_RUN, "cpu", owner=owner).id for owner in ("", "cli:ada"))
    for run in (own, foreign):
        store.paths(run).log.write_text("x" * 2000)
        store.move(run, Status.STOPPED, "stopped")
    assert main(["runs", *folder, "--json"]) == 0
    assert all(row["bytes"] >= 2000 for row in printed_json(capsys)["runs"])
    assert main(["runs", *folder]) == 0
    assert "2 runs, 4 kB; " in capsys.readouterr().out
    for run in (own, foreign):
        assert main(["archive", run, *folder, "--yes"]) == 0
    capsys.readouterr()
    assert main(["runs", "--archived", *folder, "--json"]) == 0
    rows = {row["run"]: row for row in printed_json(capsys)["archived"]}
    assert set(rows) == {own, foreign}
    assert rows[foreign]["owner"] == "cli:ada"
    assert rows[own]["task"] == FIRST_RUN.task
    assert all(0 <= time.time() - row["archived"] < 60 for row in rows.values())
    assert main(["runs", "--archived", *folder]) == 0
    assert f"{own}  stopped, {FIRST_RUN.task}" in capsys.readouterr().out
    paths.archived(store.folder, foreign).write_bytes(b"half")  # its owner is recorded elsewhere too
    assert main(["runs", own, "--archived", *folder]) == 2
    assert "takes only one of RUN and --archived" in capsys.readouterr().err
    assert main(["delete", foreign, *folder]) == 2
    assert f"run {foreign} belongs to ada: add --yes" in capsys.readouterr().err
    for run in (own, foreign):
        assert main(["delete", run, *folder, "--yes", "--json"]) == 0
        assert printed_json(capsys) == {"run": run, "deleted": True}
    assert main(["runs", "--archived", *folder]) == 0
    assert "no archived runs" in capsys.readouterr().out


def test_two_seeds_of_one_family_are_compared_by_their_pairs(tmp_path: Path, capsys: Captured) -> None:
    store, folder = RunStore(tmp_path / "lab"), ["--store", str(tmp_path / "lab")]
    plans = (dense(), uniform(0.5))
    ids: dict[tuple[int, int], str] = {}
    for seed in (0, 1):
        for side, plan in enumerate(plans):
            config = RunConfig("digits", plan, epochs=4, evaluations=2, seed=seed, device="cpu")
            run = ids[side, seed] = store.enqueue(config, "cpu").id
            events = [ev.Evaluation(2 * i, 26 * i, "val", 50.0 + 2 * side + seed, 1.0, 1.0) for i in (1, 2)]
            store.append(run, [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1), *events])
            store.move(run, Status.FINISHED)
    assert main(["compare", ids[0, 0], ids[1, 1], *folder, "--json"]) == 0
    result = printed_json(capsys)
    assert result["pairs"] == 2
    assert result["difference"][-1]["mean"] == 2.0
    assert "seeds differ" in result["not_a_pair"]
    with store._connection(write=True) as db:
        db.execute("UPDATE events SET payload = json_set(payload, '$.weights', run) WHERE kind = 'started'")
    assert main(["compare", ids[0, 0], ids[1, 0], *folder]) == 2
    assert "are not a pair: their weights differ" in capsys.readouterr().err
    other = store.enqueue(RunConfig("digits", uniform(0.3), epochs=4, evaluations=2, device="cpu"), "cpu").id
    store.move(other, Status.STOPPED)
    third = store.enqueue(RunConfig("digits", uniform(0.7), epochs=4, evaluations=2, device="cpu"), "cpu").id
    store.move(third, Status.STOPPED)
    assert main(["compare", other, third, *folder]) == 2
    assert "are not a pair: neither has been evaluated yet" in capsys.readouterr().err


def test_a_failed_run_is_exit_status_one_with_its_reason_and_its_log(tmp_path: Path, capsys: Captured) -> None:
    """A weight decay that multiplies the parameters by some -99 at each step diverges soon."""
    words = [*SMALL, "--lr", "10", "--weight-decay", "10", "--epochs", "2", "--precision", "float32"]
    assert main(["train", "--task", "digits", *words, "--store", str(tmp_path / "lab"), "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out.splitlines()[-1])
    assert report["status"] == "failed"
    assert report["reason"].startswith("diverged: the ")
    first, *log = err.splitlines()
    assert first == f"run {report['run']} failed: {report['reason']}"
    assert all(line.startswith("    ") for line in log)
    assert any("Diverged" in line for line in log)


def test_a_run_that_needs_more_memory_than_there_is_is_warned_of(
    store: RunStore, no_supervisor: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--task", "digits", *SMALL, "--detach", "--store", str(store.folder)]
    assert main(words) == 0
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1_000_000)
    assert main(words) == 0
    assert "warning: This machine has 1 MB of memory, less than the estimate" in capsys.readouterr().err


def test_detach_then_stop_now(lab_store: RunStore, wait_for: Callable[..., None], capsys: Captured) -> None:
    store = ["--store", str(lab_store.folder)]
    words = [*SMALL, "--epochs", "10000", "--evaluations", "1"]
    assert main(["train", "--task", "digits", *words, *store, "--detach", "--json"]) == 0
    first = printed_json(capsys)
    assert first["status"] == "queued"
    assert set(first) >= {"run", "status", "config_hash"}
    assert main(["train", "--task", "digits", *words, *store, "--detach"]) == 0
    second = capsys.readouterr().out.strip()
    assert {run.id for run in lab_store.runs()} == {first["run"], second}

    wait_for(lambda: lab_store.run(first["run"]).status is Status.RUNNING)
    assert main(["delete", first["run"], *store]) == 2
    assert "is running: stop it before you delete it" in capsys.readouterr().err
    assert main(["stop", second, *store, "--json"]) == 0  # it is queued, so it is cancelled
    assert printed_json(capsys) == {"run": second, "status": "stopped"}
    assert main(["stop", first["run"], "--now", *store, "--json"]) == 0
    assert printed_json(capsys) == {"run": first["run"], "status": "stopped"}
    assert main(["runs", first["run"], *store, "--json"]) == 0
    assert printed_json(capsys)["reason"].startswith("stopped at once; ")


# ---------------------------------------------------------------- real processes


def lab(root: Path, *words: str, **options: object) -> subprocess.Popen:
    """`python -m mlae_lab` from a folder that is not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "mlae_lab", *words],
        env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # type: ignore[call-overload]  # fmt: skip


def test_the_module_runs_from_any_folder(root: Path, tmp_path: Path) -> None:
    good, bad = (
        lab(root, "tasks", "--json"),
        lab(root, "train", "--task", "digits", "--epochs", "-1", "--store", str(tmp_path / "lab")),
    )
    out, err = good.communicate(timeout=60)
    assert (good.returncode, err) == (0, "")
    assert len(json.loads(out.splitlines()[-1])["tasks"]) == 28
    out, err = bad.communicate(timeout=60)
    assert (bad.returncode, out) == (2, "")
    assert err == "mlae_lab: epochs is -1: it must be a whole number from 1 to 10000\n"
    assert not (tmp_path / "lab").exists()


def test_a_closed_output_is_no_error(root: Path) -> None:
    """As in `mlae_lab masks --json | head -0`."""
    with lab(root, "masks", "--json") as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_ctrl_c_leaves_the_run_running_and_prints_how_to_stop_it(
    lab_store: RunStore, root: Path, wait_for: Callable[..., None]
) -> None:
    words = ["train", "--task", "digits", *QUICK, "--epochs", "10000", "--store", str(lab_store.folder), "--json"]
    with lab(root, *words, start_new_session=True) as process:
        assert "is queued on cpu; Ctrl-C leaves it running" in process.stdout.readline()
        wait_for(lambda: lab_store.runs()[0].status is not Status.QUEUED)  # so the command follows it
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (run,) = lab_store.runs()
    assert f"run {run.id} continues without this terminal" in out
    assert run.status in (Status.STARTING, Status.RUNNING)
    assert is_alive(lab_store.paths(run.id))
    assert json.loads(out.splitlines()[-1])["run"] == run.id  # --json promises an object on the last line


def test_the_lab_listens_on_the_given_address(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    """On the other loopback address, which needs no password either, and only there."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("STREAMLIT_SERVER_HEADLESS", "true")
    server = lab(root, "app", "--host", "[::1]", "--port", str(port), "--store", str(tmp_path / "store"))
    try:
        wait_for(lambda: connects("::1", port) or server.poll() is not None, seconds=60)
        assert connects("::1", port)
        assert not connects("127.0.0.1", port)
    finally:
        server.kill()
        server.communicate()


def test_a_public_name_of_the_lab_must_be_a_host_name(capsys: Captured) -> None:
    assert main(["app", "--allow-host", "https://lab.example.com/"]) == 2
    assert capsys.readouterr().err == (
        "mlae_lab: --allow-host is 'https://lab.example.com/': give only a host name, such as lab.example.com\n"
    )


def test_a_public_name_requires_a_password(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab is bound to the loopback address, but a proxy serves it to everybody."""
    monkeypatch.delenv("MLAE_LAB_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal
    assert main(["app", "--allow-host", "lab.example.com"]) == 2
    assert "a lab on a network needs a password" in capsys.readouterr().err


def test_a_browser_reaches_the_lab_through_a_proxy_with_a_public_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    """The WebSocket of a session opens as nginx and Caddy pass it on: with the Host and the Origin of the browser."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("STREAMLIT_SERVER_HEADLESS", "true")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", "correct horse")
    words = ["--allow-host", "Lab.Example.com", "--port", str(port), "--store", str(tmp_path / "store")]
    server = lab(root, "app", *words)
    try:
        wait_for(lambda: connects("127.0.0.1", port) or server.poll() is not None, seconds=60)
        with reverse_proxy(port) as proxy:
            for host in ("lab.example.com", "lab.example.com:8443"):
                assert handshake(proxy, host, f"https://{host}") == 101, host
            assert handshake(proxy, "evil.example.com", "https://evil.example.com") == 403
        assert handshake(port, f"localhost:{port}", f"http://localhost:{port}") == 101
    finally:
        server.kill()
        server.communicate()


@contextmanager
def reverse_proxy(port: int) -> Iterator[int]:
    """A proxy that passes every byte on to a server of this machine; yields its port."""

    def relay(browser: socket.socket) -> None:
        with browser, socket.create_connection(("127.0.0.1", port)) as server:
            other = {browser: server, server: browser}
            while True:
                for source in select.select([browser, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    other[source].sendall(data)

    def serve() -> None:
        while True:
            try:
                browser = listener.accept()[0]
            except OSError:  # closed
                return
            threads.append(threading.Thread(target=relay, args=(browser,)))
            threads[-1].start()

    threads = [threading.Thread(target=serve)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(timeout=30)


def handshake(port: int, host: str, origin: str) -> int:
    """The status with which a server answers a browser that opens the WebSocket of a session."""
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: streamlit, PLACEHOLDER\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as browser:
        browser.sendall(request.encode())
        return int(browser.recv(4096).split()[1])


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
