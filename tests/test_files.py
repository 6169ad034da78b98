"""Files that are written atomically."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.cli.maps import image_argument
from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import problem_of
from mlae_lab.data.fgvc import _read_split
from mlae_lab.doctor.weights import weights_problem
from mlae_lab.files import FileTakenError, open_regular, read_regular, replacing, require_free, write_whole
from mlae_lab.runs.archive_file import ArchiveError, inspect
from mlae_lab.runs.store import RunStore
from tests.runs.test_archive_file import over


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert (partial.parent, partial.suffix) == (tmp_path, ".part")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as partial, partial.open("w", encoding="ascii") as file:
        file.write("half λ")
    assert path.read_text() == "old"
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_name_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "a.json", "text")


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_text("first")
        write_whole(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]


def test_text_is_utf_8_and_bytes_are_kept(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "λ\n")
    write_whole(tmp_path / "b", b"\xff\r\n", sync=False)
    assert (tmp_path / "a").read_bytes() == "λ\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\xff\r\n"


@pytest.mark.parametrize("sync", [True, False])
def test_the_file_is_synced_before_and_its_folder_after_it_is_replaced(
    tmp_path: Path, sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls, fsync, replace = tmp_path / "a", [], os.fsync, os.replace

    def recorded_fsync(file: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def recorded_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_whole(path, "text", sync)
    assert calls == (["file", "replace", "folder"] if sync else ["replace"])


# ---------------------------------------------------------------- files that a user names


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe without a writer. A call that waits for one fails after five seconds."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError("it waits for the pipe")

    os.mkfifo(tmp_path / "pipe.json")
    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(5)
    yield tmp_path / "pipe.json"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_only_a_regular_file_is_opened(pipe: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "link"
    file.write_bytes(b"content")
    link.symlink_to(file)
    assert read_regular(file) == read_regular(link) == b"content"
    for other in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(other)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


@pytest.mark.parametrize(
    "words",
    [
        ("import", "{pipe}", "--store", "{folder}/lab"),
        ("train", "--task", "digits", "--mask", "{pipe}", "--store", "{folder}/lab"),
        ("train", "--task", "digits", "--weights", "{pipe}", "--store", "{folder}/lab"),
        ("library", "save", "a", "--mask", "{pipe}", "--store", "{folder}/lab"),
        ("predict", "aaaaaaaa", "{pipe}", "--store", "{folder}/lab"),
        ("attention", "aaaaaaaa", "--image", "{pipe}", "--store", "{folder}/lab"),
    ],
)
def test_a_command_refuses_a_pipe(
    words: tuple[str, ...], pipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(pipe=pipe, folder=tmp_path) for word in words]) == 2
    error = capsys.readouterr().err
    assert str(pipe) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "lab").exists()


def test_importance_of_a_pipe_is_refused(pipe: Path, store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["importance", over(store).id, "--image", str(pipe), "--store", str(store.folder)]
    assert main(words) == 2
    assert f"{pipe} cannot be read (not a regular file)" in capsys.readouterr().err


def test_a_pipe_is_no_image_no_list_and_no_file_of_weights(pipe: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="not a regular file"):
        image_argument(str(pipe))
    with pytest.raises(ArchiveError, match="not a regular file"):
        inspect(pipe)
    assert problem_of(pipe)[0]
    assert "not a regular file" in weights_problem(pipe)
    pipe.rename(tmp_path / "train.json")
    with pytest.raises(DataError, match="not a regular file"):
        _read_split(tmp_path, "train")


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    file = tmp_path / "a.mlae"
    require_free(file)
    file.write_text("somebody's work")
    with pytest.raises(FileTakenError, match=r"a.mlae exists: name another file, or add --force to replace it"):
        require_free(file)
    require_free(file, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_a_link_and_a_device_are_never_replaced(force: bool, pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    for path, kind in (
        (tmp_path, "is a folder"), (pipe, "is not a regular file"), (Path("/dev/null"), "is not a regular file"),
        (tmp_path / "link", "is a link"), (tmp_path / "dangling", "is a link"),
    ):  # fmt: skip
        with pytest.raises(FileTakenError, match=kind):
            require_free(path, force)


@pytest.mark.parametrize(
    "command",
    [
        lambda run, file: ["export", run, file],
        lambda run, file: ["attention", run, "--image", "0", "--out", file],
        lambda run, file: ["whatif", run, "--export", file],
    ],
)
def test_a_command_does_not_replace_a_file(
    command: Callable[[str, str], list[str]], store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "thesis.json"
    file.write_text("somebody's work")
    assert main([*command(over(store).id, str(file)), "--store", str(store.folder)]) == 2
    assert capsys.readouterr().err == (f"mlae_lab: {file} exists: name another file, or add --force to replace it\n")
    assert file.read_text() == "somebody's work"


@pytest.mark.parametrize("inner", ["lab.sqlite", "runs/{}/log.txt"])
def test_export_does_not_replace_a_file_of_the_store(
    inner: str, store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = over(store).id
    file = store.folder / inner.format(run)
    file.touch()
    (tmp_path / "link").symlink_to(store.folder)
    before = file.read_bytes()
    for path in (file, tmp_path / "link" / inner.format(run)):
        assert main(["export", run, str(path), "--force", "--store", str(store.folder)]) == 2
        assert f"{path} is a file of the store and is not replaced" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_export_with_force_replaces_a_file(store: RunStore, tmp_path: Path) -> None:
    file = tmp_path / "run.mlae"
    file.write_text("an earlier export")
    run = over(store).id
    assert main(["export", run, str(file), "--force", "--store", str(store.folder)]) == 0
    assert inspect(file).run.id == run
