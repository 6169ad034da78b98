"""Caches of decoded images, with real files, processes and kills."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlae_lab.data import cache, cache_folder, folder_lock
from mlae_lab.data.bundled import DataError
from mlae_lab.data.cache import ResizeRule, cached, forget, key

ROOT = Path(__file__).resolve().parents[2]
RULE = ResizeRule("square", 8)
IMAGES = 150  # two whole blocks and a part of one


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """Images of noise in a folder with a space and an umlaut; never changed."""
    folder = tmp_path_factory.mktemp("Bilder für Tests")
    rng = np.random.default_rng(0)
    result = []
    for number in range(IMAGES):
        path = folder / f"Bild {number} ä.png"
        Image.fromarray(rng.integers(0, 256, (12, 8 + number % 5, 3), dtype=np.uint8)).save(path)
        result.append((path, number % 7))
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "Ablage für Bilder"


def build(items: list[tuple[Path, int]], folder: Path) -> tuple[np.ndarray, int]:
    """The images, and the number of images that this call decoded."""
    reports = [0]
    result = cached(items, RULE, folder, "noise", lambda done, total: reports.append(done))
    return result.images, reports[-1]


def expected(items: list[tuple[Path, int]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BICUBIC)) for path, _ in items])


# ---------------------------------------------------------------- making and opening


def test_images_come_back_in_order_and_are_decoded_once(items: list[tuple[Path, int]], folder: Path) -> None:
    images, decodes = build(items, folder)
    assert decodes == IMAGES
    assert np.array_equal(images, expected(items))
    again = cached(items, RULE, folder, "noise", lambda done, total: pytest.fail("decoded again"))
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert np.array_equal(again.images, images)
    assert again.labels.dtype == np.int64
    assert again.labels.tolist() == [label for _, label in items]
    assert sorted(p.name for p in folder.iterdir()) == [key(RULE, "noise"), key(RULE, "noise") + ".lock"]


def test_a_cache_has_the_keys_that_version_0_5_1_reads(items: list[tuple[Path, int]], folder: Path) -> None:
    """Other keys would make both versions decode every image again, alternately where they share a folder."""
    build(items, folder)
    meta = json.loads((folder / key(RULE, "noise") / "meta.json").read_bytes())
    crc32, blocks = meta.pop("crc32"), meta["blocks"]
    assert crc32 == zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    assert len(blocks) == 3
    assert meta == {
        "format": 1, "kind": "square", "side": 8, "fingerprint": "noise", "pictures": IMAGES, "blocks": blocks,
    }  # fmt: skip


def test_every_list_and_rule_has_its_own_cache(items: list[tuple[Path, int]], folder: Path) -> None:
    cached(items[:2], RULE, folder, "two")
    cached(items[:3], RULE, folder, "three")
    cached(items[:2], ResizeRule("short", 8), folder, "two")
    cached(items[:2], ResizeRule("square", 9), folder, "two")
    assert len(list(folder.glob("*/pixels.npy"))) == 4


@pytest.mark.parametrize("change", ["label", "length"])
def test_a_fingerprint_that_did_not_change_with_its_list_does_no_harm(
    items: list[tuple[Path, int]], folder: Path, change: str
) -> None:
    cached(items[:5], RULE, folder, "same")
    other = [(items[0][0], 6), *items[1:5]] if change == "label" else items[:4]
    result = cached(other, RULE, folder, "same")
    assert result.labels.tolist() == [label for _, label in other]
    assert len(result.images) == len(other)


@pytest.mark.parametrize("workers", [1, 3, 40])
def test_the_number_of_workers_changes_nothing(items: list[tuple[Path, int]], folder: Path, workers: int) -> None:
    assert np.array_equal(cached(items, RULE, folder, "noise", workers=workers).images, expected(items))


def test_progress_is_throttled_ascending_and_complete(items: list[tuple[Path, int]], folder: Path) -> None:
    reports: list[tuple[int, int]] = []
    times: list[float] = []

    def report(done: int, total: int) -> None:
        reports.append((done, total))
        times.append(time.monotonic())
        time.sleep(0.03)

    cached(items * 4, RULE, folder, "four", report)
    done = [d for d, _ in reports]
    assert done[-1] == 4 * IMAGES
    assert done == sorted(set(done))
    assert {t for _, t in reports} == {4 * IMAGES}
    assert min(np.diff(times[:-1]), default=1) >= cache.PROGRESS_SECONDS


def test_exception_in_progress_stops_the_build_and_leaves_nothing(items: list[tuple[Path, int]], folder: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(items, RULE, folder, "noise", stop)
    assert [p.suffix for p in folder.iterdir()] == [".lock"]
    assert build(items, folder)[1] == IMAGES


def test_an_unreadable_image_is_named_and_nothing_is_left(items: list[tuple[Path, int]], folder: Path) -> None:
    bad = folder.parent / "Müll 7.png"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"Müll 7\.png cannot be read as an image"):
        cached([*items, (bad, 0), *items], RULE, folder, "bad")
    assert [p.suffix for p in folder.iterdir()] == [".lock"]
    with pytest.raises(DataError, match="give at least one"):
        cached([], RULE, folder, "none")


# ---------------------------------------------------------------- damage


def damage(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("fully_checked", [cache.FULLY_CHECKED, 0])
@pytest.mark.parametrize("place", [128, 128 + 64 * 192, -1])
def test_a_flipped_byte_is_noticed_and_rebuilt(
    items: list[tuple[Path, int]], folder: Path, place: int, fully_checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fully_checked 0 blocks are sampled, here all three."""
    monkeypatch.setattr(cache, "FULLY_CHECKED", fully_checked)
    build(items, folder)
    damage(folder / key(RULE, "noise") / "pixels.npy", place)
    images, decodes = build(items, folder)
    assert decodes == IMAGES
    assert np.array_equal(images, expected(items))
    assert build(items, folder)[1] == 0
    assert len(list(folder.iterdir())) == 2


def test_other_blocks_of_a_large_cache_are_checked_each_time(
    items: list[tuple[Path, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(items, folder)
    monkeypatch.setattr(cache, "FULLY_CHECKED", 0)
    monkeypatch.setattr(cache, "SAMPLED_BLOCKS", 1)
    damage(folder / key(RULE, "noise") / "pixels.npy", -1)
    assert any(build(items, folder)[1] == IMAGES for _ in range(100))  # misses once in 10**17 times


@pytest.mark.parametrize("name", ["pixels.npy", "labels.npy", "meta.json"])
def test_truncated_empty_or_missing_files_are_rebuilt(items: list[tuple[Path, int]], folder: Path, name: str) -> None:
    few = items[:3]
    whole = expected(few)
    build(few, folder)
    file = folder / key(RULE, "noise") / name
    for size in (file.stat().st_size - 1, file.stat().st_size // 2, 0):
        os.truncate(file, size)
        images, decodes = build(few, folder)
        assert decodes == 3
        assert np.array_equal(images, whole)
    file.unlink()
    assert build(few, folder)[1] == 3
    assert build(few, folder)[1] == 0


def test_a_flipped_bit_in_any_byte_outside_the_pixels_does_no_harm(items: list[tuple[Path, int]], folder: Path) -> None:
    few = items[:2]
    whole = expected(few)
    build(few, folder)
    home = folder / key(RULE, "noise")
    rebuilt = 0
    for name, size in (("pixels.npy", 128), ("labels.npy", 144), ("meta.json", (home / "meta.json").stat().st_size)):
        for place in range(0, size, 5):
            damage(home / name, place)
            images, decodes = build(few, folder)
            assert np.array_equal(images, whole)
            rebuilt += decodes == 2
            if not decodes:  # a comment or a blank in a header, which is not read
                damage(home / name, place)
    assert rebuilt > 40


# ---------------------------------------------------------------- concurrency and killed processes

SCRIPT = """
import sys, time
from pathlib import Path
opened = set()
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".png") and opened.add(args[0]))
from mlae_lab.data.cache import ResizeRule, cached
folder, images, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
paths = sorted(images.iterdir(), key=lambda path: int(path.stem.split()[1]))
items = [(path, int(path.stem.split()[1]) % 7) for path in paths]
def tell(done, total):
    print("progress", done, flush=True)
    time.sleep(pause if done == 1 else 0)
print("ready", flush=True)
sys.stdin.readline()
found = cached(items, ResizeRule("square", 8), folder, "noise", tell, workers=2)
print("opened", len(opened), "sum", int(found.images.sum()))
"""


def start(items: list[tuple[Path, int]], folder: Path, pause: float) -> subprocess.Popen[str]:
    """A process that waits for a line before it opens the cache."""
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(items[0][0].parent), str(pause)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_build_one_cache_once(items: list[tuple[Path, int]], folder: Path) -> None:
    caches = [start(items, folder, 1.0) for _ in range(2)]
    for process in caches:
        go(process)
    last = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in caches]
    assert sorted(int(words[1]) for words in last) == [0, IMAGES]  # one opened every image, the other none
    assert {int(words[3]) for words in last} == {int(expected(items).astype(int).sum())}


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_leftovers_of_a_dead_builder_are_removed(
    items: list[tuple[Path, int]], folder: Path, signal_number: signal.Signals
) -> None:
    # Ctrl-C may reach a decoding thread, and then the main thread sleeps to the end of its pause: so it is a short one.
    process = start(items, folder, 20.0)
    go(process)
    assert process.stdout.readline() == "progress 1\n"
    left = [p.name for p in folder.iterdir() if ".building-" in p.name]
    assert left == [f"{key(RULE, 'noise')}.building-{process.pid}-0"]
    process.send_signal(signal_number)
    process.communicate(timeout=60)
    assert any(".building-" in p.name for p in folder.iterdir()) == (signal_number == signal.SIGKILL)
    images, decodes = build(items, folder)
    assert decodes == IMAGES
    assert np.array_equal(images, expected(items))
    assert len(list(folder.iterdir())) == 2


def test_without_locks_the_first_to_finish_wins_and_the_other_reads_its_cache(
    items: list[tuple[Path, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(file: int, operation: int) -> None:  # as on some network disks
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock.fcntl, "flock", without_locks)
    inner: list[np.ndarray] = []

    def report(done: int, total: int) -> None:
        if not inner:
            inner.append(build(items, folder)[0])  # another builder, while this one is running

    outer = cached(items, RULE, folder, "noise", report).images
    assert np.array_equal(outer, inner[0])
    assert np.array_equal(outer, expected(items))
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_is_one_sentence(items: list[tuple[Path, int]], folder: Path) -> None:
    """In a separate process the kernel refuses to let files grow beyond 10 kB."""
    pytest.importorskip("resource")
    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n{SCRIPT}"
    arguments = [sys.executable, "-c", script, str(folder), str(items[0][0].parent), "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        arguments, check=False, env=environment, input="go\n", capture_output=True, encoding="utf-8", timeout=60
    )
    last = done.stderr.splitlines()[-1]
    assert f"DataError: {folder} cannot hold the decoded images" in last
    assert "File too large" in last
    assert [p.suffix for p in folder.iterdir()] == [".lock"]


def test_dataset_larger_than_the_disk_is_refused_before_decoding(items: list[tuple[Path, int]], folder: Path) -> None:
    rule = ResizeRule("square", 2048)
    times = shutil.disk_usage(folder.parent).free // (rule.image_bytes * IMAGES) + 50
    with pytest.raises(DataError, match=r"GB free and the decoded images take \d+\.\d\d GB: free some space"):
        cached(items * times, rule, folder, "huge")


def test_a_folder_that_cannot_be_created_is_one_sentence(items: list[tuple[Path, int]], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot hold the decoded images"):
        cached(items, RULE, tmp_path / "file" / "cache", "noise")


# ---------------------------------------------------------------- forgetting


def aged(home: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for file in home.iterdir():
        os.utime(file, (then, then))


def test_only_caches_not_opened_lately_are_forgotten(items: list[tuple[Path, int]], folder: Path) -> None:
    for name in ("old", "opened", "new"):
        cached(items[:2], RULE, folder, name)
    for name in ("old", "opened"):
        aged(folder / key(RULE, name), 40)
    cached(items[:2], RULE, folder, "opened")
    (folder / "notes.txt").write_text("mine")
    homes = [folder / key(RULE, name) for name in ("old", "opened", "new")]
    size = {home.name: sum(file.stat().st_size for file in home.iterdir()) for home in homes}
    assert forget(folder, 30) == size.pop(key(RULE, "old"))
    left = {p.name for p in folder.iterdir()}
    assert left == {key(RULE, "opened"), key(RULE, "new"), "notes.txt"}  # locks are created again when needed
    assert forget(folder, 30) == 0
    assert forget(folder, 0) == sum(size.values())
    assert forget(folder / "nowhere", 0) == 0
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_readers_keep_a_deleted_or_rebuilt_cache(items: list[tuple[Path, int]], folder: Path) -> None:
    reader, _ = build(items, folder)
    forget(folder, 0)
    assert not (folder / key(RULE, "noise")).exists()
    assert np.array_equal(reader, expected(items))
    second, _ = build(items, folder)
    damage(folder / key(RULE, "noise") / "labels.npy", -1)
    build(items, folder)
    assert np.array_equal(second, expected(items))


def test_readers_and_a_deleter_at_the_same_time(items: list[tuple[Path, int]], folder: Path) -> None:
    """A second process opens the cache repeatedly while this one deletes it."""
    script = SCRIPT.replace(
        'print("opened"',
        "for _ in range(40):\n"
        "    again = cached(items[:9], ResizeRule('square', 8), folder, 'nine')\n"
        "    assert (again.images == found.images[:9]).all()\n"
        'print("opened"',
    )
    arguments = [sys.executable, "-c", script, str(folder), str(items[0][0].parent), "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"go\n")
        process.stdin.close()
        while process.poll() is None:
            forget(folder, 0)
            time.sleep(0.002)
        assert process.returncode == 0
        assert b"sum" in process.stdout.read()


def test_a_cache_that_is_being_built_is_not_forgotten(items: list[tuple[Path, int]], folder: Path) -> None:
    freed: list[int] = []

    def report(done: int, total: int) -> None:
        freed.append(forget(folder, 0))
        assert any(".building-" in p.name for p in folder.iterdir())

    assert len(cached(items, RULE, folder, "noise", report)) == IMAGES
    assert set(freed) == {0}


def test_leftovers_of_dead_builders_are_forgotten_whatever_their_age(folder: Path) -> None:
    for kind in ("building", "gone"):
        left = folder / f"{key(RULE, kind)}.{kind}-123-0"
        left.mkdir(parents=True)
        (left / "pixels.npy").write_bytes(b"123")
    assert forget(folder, 1000) == 6
    assert list(folder.iterdir()) == []
    assert cache_folder._NAME.fullmatch("a" * 64 + ".building-1-2")
    assert not cache_folder._NAME.fullmatch("a" * 63)
