"""Environment variables, and machines without a home folder."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from mlae_lab import environment, locations
from mlae_lab.cli import main
from mlae_lab.data.image_check import check_images, known_check
from mlae_lab.data.own import read_own
from mlae_lab.errors import LabError
from mlae_lab.runs.store import RunStore
from tests.data.trees import make_own

Captured = pytest.CaptureFixture[str]

TRAIN = ["train", "--task", "digits", "--detach", "--device", "cpu"]


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with an unknown user id: no HOME, no entry in the user database, no store in the environment."""

    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "MLAE_LAB_STORE", "MLAE_LAB_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


# ---------------------------------------------------------------- numbers and folders in variables


@pytest.mark.parametrize("variable", [environment.SAVE, environment.END, environment.WARM, environment.PROBE_IDLE])
def test_a_number_of_seconds(variable: environment.Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable.name, raising=False)
    assert variable.value() == variable.default
    for text, value in (("", variable.default), (" 2.5 ", 2.5), ("0", 0.0), ("1e3", 1000.0)):
        monkeypatch.setenv(variable.name, text)
        assert variable.value() == value
    for text in ("soon", "-1", "nan", "inf", "30 s", "1e999"):
        monkeypatch.setenv(variable.name, text)
        with pytest.raises(LabError, match=f"{variable.name} is '{text}': it must be a number of seconds from 0"):
            variable.value()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLAE_LAB_SAVE_SECONDS", "often"), ("MLAE_LAB_END_SECONDS", "-5"), ("MLAE_LAB_PROBE_IDLE", "nan"),
        ("MLAE_LAB_DATA", "~nosuch/data"), ("MLAE_LAB_STORE", "~nosuch/lab"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_one_sentence_and_leaves_nothing_behind(
    variable: str, value: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert main([*TRAIN, "--store", str(tmp_path / "lab")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mlae_lab: {variable} is ")
    assert error.count("\n") == 1
    assert not (tmp_path / "lab").exists()


def test_the_app_starts_no_run_with_a_wrong_variable(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process would end with a traceback, and the run would be lost."""
    monkeypatch.setenv("MLAE_LAB_SAVE_SECONDS", "often")
    with pytest.raises(LabError, match="MLAE_LAB_SAVE_SECONDS is 'often'"):
        store.reserve()
    assert not (store.folder / "runs").exists()


# ---------------------------------------------------------------- empty and unknown paths


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--store", ""], ["runs", "--store="], ["runs", "--sto", " "], [*TRAIN, "--data", ""],
        [*TRAIN, "--weights="], ["fetch", "cifar", "--into", ""], ["whatif", "aaaaaaaa", "--export", ""],
    ],
)  # fmt: skip
def test_an_empty_path_is_refused(
    words: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from --store "$UNSET": pathlib takes it for the current folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    name = next(word for word in words if word[:4] in ("--st", "--da", "--we", "--in", "--ex")).rstrip("=")
    assert capsys.readouterr().err == f"mlae_lab: {name} is empty: name a path, or leave {name} out\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--store", "~nosuch/lab"], [*TRAIN, "--data", "~nosuch/images"],
        [*TRAIN, "--weights", "~nosuch/vit.bin"], ["fetch", "cifar", "--into", "~nosuch"],
    ],
)  # fmt: skip
def test_a_path_of_an_unknown_user_is_one_sentence(words: list[str], capsys: Captured) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "~nosuch" in error
    assert error.endswith(" in full\n")
    assert error.count("\n") == 1


# ---------------------------------------------------------------- no home folder


@pytest.mark.usefixtures("no_home", "no_supervisor")
def test_the_option_store_is_enough_without_a_home_folder(store: RunStore, capsys: Captured) -> None:
    assert main([*TRAIN, "--store", str(store.folder), "--json"]) == 0
    run = store.run(json.loads(capsys.readouterr().out.splitlines()[-1])["run"])
    assert run.data_folder == str(store.folder / "data")
    assert main(["runs", "--store", str(store.folder)]) == 0
    assert run.id in capsys.readouterr().out
    assert locations.cache_folder() == store.folder / "data" / "cache"


@pytest.mark.usefixtures("no_home")
def test_the_app_starts_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(os, "execve", lambda program, words, variables: started.append(variables))
    main(["app", "--store", str(tmp_path)])
    assert (started[0]["HOME"], started[0]["MLAE_LAB_STORE"]) == (str(tmp_path), str(tmp_path))


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("words", [["runs"], ["app"], TRAIN, ["doctor"], ["tasks"], ["fetch", "cifar", "--yes"]])
def test_without_a_home_folder_and_a_store_a_command_is_one_sentence(words: list[str], capsys: Captured) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "mlae_lab: this user has no home folder, so there is no default store: name one with --store or "
        "MLAE_LAB_STORE\n"
    )


@pytest.mark.usefixtures("no_supervisor")
@pytest.mark.parametrize("home", ["/dev/null", "{file}", "{locked}"])
def test_a_home_folder_that_cannot_be_written(
    home: str, ordinary_user: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ordinary_user / "file").touch()
    (ordinary_user / "locked").mkdir(mode=0o555)
    monkeypatch.delenv("MLAE_LAB_STORE")
    monkeypatch.setenv("HOME", home.format(file=ordinary_user / "file", locked=ordinary_user / "locked"))
    store = ordinary_user / "lab"
    locations.use_store(store)
    assert locations.data_folder() == store / "data"
    assert locations.cache_folder() == store / "data" / "cache"
    locations.use_store(None)
    assert main(["runs"]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert main(TRAIN) == 2
    assert "cannot be used as a store" in capsys.readouterr().err


def test_fetched_data_that_cannot_be_written_is_used_and_its_cache_is_in_the_store(
    ordinary_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with data on a shared disk."""
    data, store = ordinary_user / "shared", ordinary_user / "lab"
    data.mkdir(mode=0o555)
    monkeypatch.setenv("MLAE_LAB_DATA", str(data))
    locations.use_store(store)
    assert locations.data_folder() == data
    assert locations.cache_folder() == store / "data" / "cache"
    locations.use_store(None)
    assert locations.cache_folder() == data / "cache"


def test_the_check_of_a_folder_is_kept_with_the_cache(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, store = ordinary_user / "shared", ordinary_user / "lab"
    listing = read_own(make_own(data / "own" / "birds"))
    data.chmod(0o555)
    monkeypatch.setenv("MLAE_LAB_DATA", str(data))
    locations.use_store(store)
    check = check_images(listing)
    assert known_check(listing) == check
    assert len(list((store / "data" / "cache" / "checks").iterdir())) == 1


def test_the_home_folder_is_used_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLAE_LAB_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    for store in (None, tmp_path / "other"):
        locations.use_store(store)
        assert locations.data_folder() == tmp_path / ".mlae_lab" / "data"
        assert locations.cache_folder() == tmp_path / ".mlae_lab" / "data" / "cache"
    assert os.listdir(tmp_path) == []


@pytest.fixture(autouse=True)
def no_used_store() -> None:
    locations.use_store(None)
