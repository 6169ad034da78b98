"""Fetching over real HTTP from a local Hub: resuming, cancelling, checking, unpacking, and every error."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server
from huggingface_hub import constants, file_download, hf_hub_download

from mlae_lab.core import hosts
from mlae_lab.core.catalog import task
from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.core.units import format_bytes
from mlae_lab.data import download, progress
from mlae_lab.data.fetch import Cancelled, FetchError, Progress, fetch, ready_folder
from mlae_lab.data.hub import refusal
from mlae_lab.data.parquet_task import unpack_parquet
from mlae_lab.data.progress import Interrupted

WEIGHTS = "vit_base_patch16_224.orig_in21k"
MODEL = f"timm/{WEIGHTS}/model.safetensors"
ARCHIVE = "datasets/XiN0919/VTAB-1k/vtab-1k.zip"


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set HF_ENDPOINT, which the library reads only once, when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for module in (constants, file_download):  # in 0.27 the latter has a copy
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub that the library uses instead of the real one, with an empty cache and no login."""
    with hub_server() as server:
        point_to(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(download, "PAUSES", (0.05, 0.05, 0.05))
        yield server


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def zipped(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, data)
    return content.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz", **changes: object) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in changes.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def vtab_zip(top: str = "vtab-1k/") -> bytes:
    return zipped(
        {
            f"{top}{name}/{file}": noise(3000, i)
            for i, name in enumerate(("cifar", "dtd"))
            for file in ("train800.txt", "images/train800/000000.jpg")
        }
    )


def left(folder: Path) -> list[str]:
    """Every file below the data folder, including the fetch's own ones without locks."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


# ---------------------------------------------------------------- results of a fetch


def test_weights(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = noise(700_000)
    reports: list[Progress] = []
    folder = fetch(hosts.remote(WEIGHTS), tmp_path / "data", reports.append)
    assert folder == tmp_path / "data" / "weights" / WEIGHTS
    assert (folder / "model.safetensors").read_bytes() == hub.files[MODEL]
    assert left(tmp_path / "data") == [f"weights/{WEIGHTS}/model.safetensors"]
    assert {report.phase for report in reports} >= {"asking", "downloading", "checking"}
    assert {report.total for report in reports if report.phase == "downloading"} == {700_000}
    before = len(hub.requests)
    assert fetch(hosts.remote(WEIGHTS), tmp_path / "data") == folder
    assert len(hub.requests) == before


@pytest.mark.parametrize("top", ["vtab-1k/", "VTAB-1k/", ""])
def test_vtab_tasks_are_fetched_together(hub: HubServer, tmp_path: Path, top: str) -> None:
    hub.files[ARCHIVE] = vtab_zip(top)
    assert ready_folder(hosts.remote("cifar"), tmp_path) is None
    reports: list[Progress] = []
    assert fetch(hosts.remote("cifar"), tmp_path, reports.append) == tmp_path / "vtab-1k" / "cifar"
    assert reports[-1].phase == "unpacking"
    assert ready_folder(hosts.remote("dtd"), tmp_path) == tmp_path / "vtab-1k" / "dtd"
    assert (tmp_path / "vtab-1k/dtd/images/train800/000000.jpg").read_bytes() == noise(3000, 1)
    assert len(left(tmp_path)) == 4
    with pytest.raises(FetchError, match=r"XiN0919/VTAB-1k holds no svhn but cifar, dtd: it has changed"):
        fetch(hosts.remote("svhn"), tmp_path)
    assert len(left(tmp_path)) == 5  # the archive is kept


def test_existing_tasks_are_not_changed(hub: HubServer, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = vtab_zip()
    (tmp_path / "vtab-1k/dtd").mkdir(parents=True)
    (tmp_path / "vtab-1k/dtd/mine.txt").write_text("mine")
    fetch(hosts.remote("cifar"), tmp_path)
    assert left(tmp_path / "vtab-1k/dtd") == ["mine.txt"]
    assert len(left(tmp_path / "vtab-1k/cifar")) == 2


@pytest.mark.parametrize("splits", ["json/CUB_200_2011", "vpt/birds"])  # found by name, else by the number of classes
def test_fgvc_lists_are_copied_next_to_the_images(hub: HubServer, tmp_path: Path, splits: str) -> None:
    birds = json.dumps({f"{i}.jpg": i + 1 for i in range(200)}).encode()
    dogs = json.dumps({f"{i}.jpg": i + 1 for i in range(120)}).encode()
    here = "datasets/XiN0919/FGVC"
    hub.files[f"{here}/json.zip"] = zipped(
        {"a/dogs/train.json": dogs, f"{splits}/train.json": birds, f"{splits}/val.json": b"{}"}
    )
    hub.files[f"{here}/CUB_200_2011.tgz"] = tarred({"attributes.txt": b"a", "CUB_200_2011/images/1.jpg": noise(9000)})
    folder = fetch(hosts.remote("cub"), tmp_path)
    assert folder == tmp_path / "fgvc" / "CUB_200_2011"
    assert (folder / "train.json").read_bytes() == birds
    assert (folder / "val.json").exists()
    assert (folder / "images/1.jpg").read_bytes() == noise(9000)
    assert (folder / "attributes.txt").exists()


def test_plain_file_next_to_an_archive_is_kept(hub: HubServer, tmp_path: Path) -> None:
    here, lists = "datasets/XiN0919/FGVC", json.dumps({str(i): i for i in range(196)}).encode()
    hub.files |= {
        f"{here}/json.zip": zipped({"x/train.json": lists}),
        f"{here}/cars_annos.mat": b"MATLAB",
        f"{here}/car_ims.tgz": tarred({"car_ims/1.jpg": b"x"}),
    }
    folder = fetch(hosts.remote("stanford_cars"), tmp_path)
    assert left(folder) == ["car_ims/1.jpg", "cars_annos.mat", "json/x/train.json", "train.json"]


def test_fgvc_images_without_lists_are_kept_and_reported(hub: HubServer, tmp_path: Path) -> None:
    here = "datasets/XiN0919/FGVC"
    hub.files |= {
        f"{here}/json.zip": zipped({"x/train.json": b"[1]", "y/train.json": b'{"a": 1}', "z/train.json": b"{"}),
        f"{here}/images.tar": tarred({"Images/1.jpg": b"x"}, "w"),
    }
    with pytest.raises(FetchError, match=r"but json.zip holds no train.json with 120 classes: put train.json"):
        fetch(hosts.remote("stanford_dogs"), tmp_path)
    assert "Images/1.jpg" in left(tmp_path / "fgvc/StanfordDogs")


def test_files_in_the_library_cache_are_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = noise(1000)
    cached = hf_hub_download(f"timm/{WEIGHTS}", "model.safetensors", cache_dir=tmp_path / "hf")
    hub.requests.clear()
    folder = fetch(hosts.remote(WEIGHTS), tmp_path / "data")
    assert (folder / "model.safetensors").read_bytes() == Path(cached).read_bytes() == noise(1000)
    assert hub.requests == []


def test_a_login_is_sent_to_the_hub_and_never_to_the_storage(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.files[MODEL] = noise(1000)
    fetch(hosts.remote(WEIGHTS), tmp_path)
    assert [h.get("authorization") for h in hub.requested("HEAD")] == ["Bearer hf_test"]
    assert [h.get("authorization") for h in hub.requested("GET")] == [None]


# ---------------------------------------------------------------- interrupting and resuming


def run_apart(hub: HubServer, into: Path, name: str = WEIGHTS) -> subprocess.Popen:
    """A fetch in a separate process, which gets the Hub's address from the environment."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(into / "hf-home"), "PYTHONPATH": os.getcwd()}
    script = (
        "import sys; from pathlib import Path; from mlae_lab.core.hosts import remote; "
        "from mlae_lab.data.fetch import fetch; print(fetch(remote(sys.argv[1]), Path(sys.argv[2])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, name, str(into)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_fetch_resumes_after_being_killed(hub: HubServer, tmp_path: Path, wait_for: Callable[..., None]) -> None:
    hub.files[MODEL] = data = noise(5_000_000)
    hub.stall_at = 3_000_000
    first = run_apart(hub, tmp_path)
    partial = tmp_path / ".fetch/_parts" / f"weights__{WEIGHTS}"
    wait_for(lambda: sum(p.stat().st_size for p in partial.glob("*.partial")) >= 2_900_000, seconds=30)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    kept = sum(p.stat().st_size for p in partial.glob("*.partial"))
    assert ready_folder(hosts.remote(WEIGHTS), tmp_path) is None
    hub.stall_at, hub.served = None, 0
    second = run_apart(hub, tmp_path)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == data
    assert hub.served == len(data) - kept
    assert hub.requested("GET")[-1]["range"] == f"bytes={kept}-"


def test_fetch_resumes_after_a_broken_connection(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = data = noise(900_000)
    hub.cut, hub.cut_times = 400_000, 2
    folder = fetch(hosts.remote(WEIGHTS), tmp_path)
    assert (folder / "model.safetensors").read_bytes() == data
    # requests gives up the last piece, of 65,536 bytes at most, of a connection that breaks; httpx gives up nothing
    assert len(data) <= hub.served <= len(data) + 2 * 65_536
    assert len(hub.requested("GET")) == 3


def test_fetch_resumes_after_a_silent_connection(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(download, "PAUSES", (0.2,) * 10)
    hub.files[MODEL] = data = noise(900_000)
    hub.stall_at = 300_000
    threading.Timer(1.0, lambda: setattr(hub, "stall_at", None)).start()
    folder = fetch(hosts.remote(WEIGHTS), tmp_path)
    assert (folder / "model.safetensors").read_bytes() == data


def test_host_that_ignores_ranges_restarts_the_download(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = data = noise(900_000)
    hub.cut, hub.cut_times, hub.no_ranges = 400_000, 1, True
    folder = fetch(hosts.remote(WEIGHTS), tmp_path)
    assert (folder / "model.safetensors").read_bytes() == data
    assert hub.served == 1_300_000


def test_a_body_that_always_ends_early(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = noise(900_000)
    hub.cut = 100_000
    with pytest.raises(FetchError) as error:
        fetch(hosts.remote(WEIGHTS), tmp_path)
    assert "run the same command to continue" in str(error.value)
    assert ready_folder(hosts.remote(WEIGHTS), tmp_path) is None
    hub.cut, hub.served = None, 0
    fetch(hosts.remote(WEIGHTS), tmp_path)
    assert 500_000 <= hub.served <= 500_000 + 4 * 65_536  # four tries had brought 100,000 each


@pytest.mark.parametrize("fault", ["slow", "silent"])
def test_cancelled_within_a_second_and_resumed(hub: HubServer, tmp_path: Path, fault: str) -> None:
    hub.files[MODEL] = data = noise(900_000)
    hub.rate, hub.stall_at = (400_000, None) if fault == "slow" else (None, 300_000)
    reports: list[tuple[float, Progress]] = []
    cancelled: list[float] = []

    def should_stop() -> bool:
        if not cancelled and reports and reports[-1][1].done > 100_000 and reports[-1][0] - reports[0][0] > 0.6:
            cancelled.append(time.monotonic())
        return bool(cancelled)

    with pytest.raises(Cancelled):
        fetch(hosts.remote(WEIGHTS), tmp_path, lambda p: reports.append((time.monotonic(), p)), should_stop)
    assert time.monotonic() - cancelled[0] < 1.5
    loading = [(when, p) for when, p in reports if p.phase == "downloading"]
    assert all(b - a > 0.2 for (a, _), (b, _) in itertools.pairwise(loading))  # at most four times a second
    if fault == "slow":
        last = loading[-1][1]
        assert 200_000 < last.speed < 800_000
        assert 0 < last.seconds_left < 5
    (partial,) = tmp_path.rglob("*.partial")
    kept = partial.stat().st_size
    assert kept > 0
    assert partial.read_bytes() == data[:kept]
    hub.rate = hub.stall_at = None
    time.sleep(0.1)
    hub.served = 0
    assert (fetch(hosts.remote(WEIGHTS), tmp_path) / "model.safetensors").read_bytes() == data
    assert hub.served <= len(data) - kept + 65_536
    assert hub.requested("GET")[-1]["range"] == f"bytes={kept}-"


def test_bytes_of_two_versions_are_never_mixed(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL] = noise(900_000, 1)
    hub.cut = 100_000
    with pytest.raises(FetchError):
        fetch(hosts.remote(WEIGHTS), tmp_path)
    hub.cut, hub.files[MODEL] = None, noise(900_000, 2)
    assert (fetch(hosts.remote(WEIGHTS), tmp_path) / "model.safetensors").read_bytes() == noise(900_000, 2)


def test_two_at_once_fetch_it_once(hub: HubServer, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = vtab_zip()
    hub.rate = 20_000
    results: list[Path] = []
    reports: list[Progress] = []
    other = threading.Thread(target=lambda: results.append(fetch(hosts.remote("cifar"), tmp_path)))
    other.start()
    time.sleep(0.3)
    results.append(fetch(hosts.remote("dtd"), tmp_path, reports.append))
    other.join()
    assert sorted(results) == [tmp_path / "vtab-1k/cifar", tmp_path / "vtab-1k/dtd"]
    assert hub.served == len(hub.files[ARCHIVE])
    assert "waiting" in {p.phase for p in reports}


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"status": 401}, "log in with `hf auth login` or set HF_TOKEN"),
        ({"status": 403, "code": "GatedRepo"}, f"accept the terms on https://huggingface.co/timm/{WEIGHTS}"),
        ({"status": 404}, "it was moved or removed"),
        ({"status": 429, "retry_after": "37"}, "try again in 37 seconds"),
        ({"status": 429}, "try again in some minutes"),
        ({"status": 500}, "has a server error (500): try again later"),
        ({"status": 503}, "has a server error (503)"),
        ({"status": 418}, "answered 418"),
        ({"page": True}, "a web page arrived instead of model.safetensors"),
        ({"lie": True}, "model.safetensors is damaged: its sha256 begins with"),
        ({"size": 10**17}, "are needed: free some space there"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing_that_looks_complete(
    hub: HubServer, tmp_path: Path, fault: dict[str, object], sentence: str
) -> None:
    hub.files[MODEL] = noise(200_000)
    for name, value in fault.items():
        setattr(hub, name, value)
    with pytest.raises(FetchError) as error:
        fetch(hosts.remote(WEIGHTS), tmp_path / "data")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data/weights" / WEIGHTS).exists()
    assert left(tmp_path / "data") == []
    if "size" in fault:
        assert "100000 TB are needed" in str(error.value)
        assert str(tmp_path / "data") in str(error.value)
        assert f"{format_bytes(shutil.disk_usage(tmp_path).free)[:2]}" in str(error.value)
    assert len(hub.requests) <= 2  # an error is reported at once


def test_temporary_server_errors_are_retried(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host breaks off and answers 503 for a moment: a running fetch retries."""
    monkeypatch.setattr(download, "PAUSES", (0.1, 0.5))
    hub.files[MODEL] = noise(900_000)
    hub.cut, hub.cut_times = 400_000, 1
    done = threading.Event()

    def trouble() -> None:
        while hub.served < 400_000:
            time.sleep(0.005)
        hub.status = 503
        while len(hub.requests) < 3:  # the two before and one that is refused
            time.sleep(0.005)
        hub.status = None
        done.set()

    threading.Thread(target=trouble, daemon=True).start()
    folder = fetch(hosts.remote(WEIGHTS), tmp_path)
    assert done.is_set()
    assert (folder / "model.safetensors").read_bytes() == hub.files[MODEL]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_proxy")
def test_unreachable_host(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, reason in (
        ("http://127.0.0.1:9", "refused"),
        ("http://no.such.host.invalid", "its name is not known"),
    ):
        point_to(address, monkeypatch)
        with pytest.raises(FetchError, match=reason) as error:
            fetch(hosts.remote(WEIGHTS), tmp_path)
        assert "check the connection, HTTPS_PROXY and HF_ENDPOINT" in str(error.value)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "HTTPS_PROXY"),
        ({"https_proxy": "http://proxy:3128", "ALL_PROXY": "http://other:1"}, "https_proxy"),
        ({"ALL_PROXY": "http://other:1", "HTTP_PROXY": "http://third:1"}, "ALL_PROXY"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "huggingface.co"}, "NO_PROXY"),
    ],
)
def test_the_variable_of_the_proxy_in_use_is_named(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("https://huggingface.co", monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = refusal(ConnectionRefusedError(), hosts.remote(WEIGHTS))
    assert f"check the connection, {named} and HF_ENDPOINT" in str(error)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT is huggingface.co: it must begin with http:// or https://"),
        (
            "all_proxy",
            "foo://proxy:1",
            "all_proxy is foo://proxy:1: a proxy must begin with http://, https:// or socks5",
        ),
        ("HTTPS_PROXY", "foo://me:secret@proxy:1", "HTTPS_PROXY is foo://proxy:1: a proxy must begin"),
        (
            "ALL_PROXY",
            "socks5://proxy:1080",
            "ALL_PROXY is socks5://proxy:1080, and SOCKS needs one more package: `pip",
        ),
    ],
)
def test_a_setting_with_which_no_request_works_is_named(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlae_lab.data.hub.find_spec", lambda name: None)
    if variable == "HF_ENDPOINT":
        point_to(value, monkeypatch)
    else:
        monkeypatch.setenv(variable, value)
    error = refusal(ValueError("what the library says"), hosts.remote(WEIGHTS))
    assert str(error).startswith(sentence)
    assert not isinstance(error, Interrupted)  # another attempt would not help


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("variable", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("HF_ENDPOINT", "127.0.0.1:9")])
def test_fetch_names_the_variable_and_does_not_try_again(variable: str, value: str, root: Path, tmp_path: Path) -> None:
    if variable == "ALL_PROXY" and (find_spec("socksio") or find_spec("socks")):
        pytest.skip("this environment has the package for SOCKS")
    environment = {**os.environ, "PYTHONPATH": str(root), variable: value}
    words = ["fetch", WEIGHTS, "--yes", "--into", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "mlae_lab", *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0
    assert f"{variable} is {value}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_hf_hub_offline(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set"):
        fetch(hosts.remote(WEIGHTS), tmp_path)
    assert hub.requests == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/data")):
        with pytest.raises(FetchError, match=r"cannot be written .*: choose another folder"):
            fetch(hosts.remote(WEIGHTS), place)


def test_full_disk_during_a_fetch(hub: HubServer, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        hub.files[MODEL] = data = noise(2_000_000)
        hub.rate = 2_000_000

        def fill(progress: Progress) -> None:
            if progress.done and not (disk / "ballast").exists():
                (disk / "ballast").write_bytes(b"x" * 1_500_000)

        with pytest.raises(FetchError, match=f"the disk of {disk} is full: free some space"):
            fetch(hosts.remote(WEIGHTS), disk, fill)
        (disk / "ballast").unlink()
        hub.rate = None
        assert (fetch(hosts.remote(WEIGHTS), disk) / "model.safetensors").read_bytes() == data
        assert len(hub.requested("GET")) == 2
        assert hub.requested("GET")[1]["range"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_table_checksum_is_used_if_the_host_has_none(hub: HubServer, tmp_path: Path) -> None:
    hub.no_etag = True
    hub.files["datasets/lab/x/a.bin"] = b"abc"
    good, bad = "900150983cd24fb0d6963f7d28e17f72", "0" * 32
    for md5 in (bad, good):
        wanted = Remote("x", "lab/x", "dataset", (RemoteFile("a.bin", 3, md5=md5),), "", "", "x")
        if md5 == bad:
            with pytest.raises(FetchError, match="its md5 begins with 900150983cd2, not 000000000000; it was deleted"):
                fetch(wanted, tmp_path)
            assert left(tmp_path) == []
        else:
            assert fetch(wanted, tmp_path)


# ---------------------------------------------------------------- archives


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


GOOD_ZIP, GOOD_TAR = zipped({"a/1.jpg": noise(40_000)}), tarred({"a/1.jpg": noise(40_000)})
DAMAGED_ZIP = GOOD_ZIP[:9000] + b"\0" * 2000 + GOOD_ZIP[11000:]


def password(data: bytes) -> bytes:
    """The same archive with the encryption flag of its only entry set in both headers."""
    content = bytearray(data)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(sign) + offset] |= 1
    return bytes(content)


ABSOLUTE = "/mlae-lab-outside/out.txt"
REFUSED = [
    ("a.zip", zipped({"../out.txt": b"x"}), "its entry '../out.txt' would leave the folder"),
    ("a.zip", zipped({ABSOLUTE: b"x"}), "would leave the folder"),
    ("a.zip", zipped({"a\\..\\..\\out.txt": b"x"}), "would leave the folder"),
    ("a.zip", zipped({"C:/out.txt": b"x"}), "would leave the folder"),
    ("a.zip", zipped({"a": b"/etc/passwd"}, link), "its entry 'a' is a link or a device"),
    ("a.zip", password(GOOD_ZIP), "has a password"),
    ("a.zip", GOOD_ZIP[:-300], "is truncated or damaged"),
    ("a.zip", DAMAGED_ZIP, "is truncated or damaged"),
    ("a.zip", noise(5000), "is not a zip archive"),
    ("a.zip", b"", "is not a zip archive"),
    ("a.tgz", tarred({"../out.txt": b"x"}), "would leave the folder"),
    ("a.tgz", tarred({ABSOLUTE: b"x"}), "would leave the folder"),
    ("a.tgz", tarred({"a": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "is a link or a device"),
    ("a.tgz", tarred({"a": b""}, type=tarfile.LNKTYPE, linkname="b"), "is a link or a device"),
    ("a.tar", tarred({"a": b""}, "w", type=tarfile.CHRTYPE), "is a link or a device"),
    ("a.tgz", GOOD_TAR[:20_000], "is truncated or damaged"),
    ("a.tgz", noise(5000), "is not a tar archive"),
    ("a.tgz", b"<html>gone</html>", "a web page arrived instead of"),
]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    REFUSED,
    ids=[f"{number}-{name}" for number, (name, _, _) in enumerate(REFUSED)],
)
def test_archives_that_are_refused(hub: HubServer, tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    hub.files[f"datasets/lab/x/{name}"] = data
    into = tmp_path / "deep" / "data"
    with pytest.raises(FetchError) as error:
        fetch(Remote("x", "lab/x", "dataset", (RemoteFile(name, None),), "", "", "x"), into)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []
    assert not (into / "x").exists()
    assert not Path(ABSOLUTE).exists()


def test_damaged_file_in_the_library_cache_is_named_and_kept(hub: HubServer, tmp_path: Path) -> None:
    hub.files["datasets/lab/x/a.zip"] = noise(1000)
    wanted = Remote("x", "lab/x", "dataset", (RemoteFile("a.zip"),), "", "", "x")
    path = hf_hub_download("lab/x", "a.zip", repo_type="dataset", cache_dir=tmp_path / "hf")
    with pytest.raises(FetchError, match="in the Hugging Face cache and try again") as error:
        fetch(wanted, tmp_path / "data")
    assert path in str(error.value)
    assert Path(path).exists()


def test_archive_is_kept_if_cancelled_while_unpacking(hub: HubServer, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = vtab_zip()
    phases: list[str] = []
    with pytest.raises(Cancelled):
        fetch(hosts.remote("cifar"), tmp_path, lambda p: phases.append(p.phase), lambda: "unpacking" in phases)
    assert len(left(tmp_path)) == 1
    assert not (tmp_path / "vtab-1k").exists()
    hub.served = 0
    assert fetch(hosts.remote("cifar"), tmp_path)
    assert hub.served == 0


# ---------------------------------------------------------------- tables


def table(images: list[tuple[bytes, int]], column: str = "img") -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    content = io.BytesIO()
    rows = {column: [{"bytes": data, "path": None} for data, _ in images], "label": [label for _, label in images]}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parquet.write_table(
        pa.table(rows, schema=pa.schema([(column, kind), ("label", pa.int64())])), content, row_group_size=300
    )
    return content.getvalue()


def images(count: int, seed: int, classes: int = 100, first: int = 0) -> list[tuple[bytes, int]]:
    return [(noise(20, seed * 100_000 + i), first + i % classes) for i in range(count)]


def test_a_task_from_tables(hub: HubServer, tmp_path: Path) -> None:
    here = "datasets/fw407/vtab-1k_cifar/data"
    train, val, test = images(800, 1), images(200, 2), images(250, 3)
    hub.files |= {
        f"{here}/train-00000-of-00002.parquet": table(train[:500]),
        f"{here}/test-00000-of-00001.parquet": table(test),
        f"{here}/train-00001-of-00002.parquet": table(train[500:]),
        f"{here}/validation-00000-of-00001.parquet": table(val),
        "datasets/fw407/vtab-1k_cifar/README.md": b"#",
    }
    folder = fetch(hosts.remote("cifar.parquet"), tmp_path)
    assert folder == tmp_path / "vtab-1k/cifar" == ready_folder(hosts.remote("cifar"), tmp_path)
    for split, wanted in (("train800", train), ("val200", val), ("test", test)):
        lines = (folder / f"{split}.txt").read_text().splitlines()
        assert lines[1] == f"images/{split}/000001.jpg 1"
        assert len(lines) == len(wanted)
        got = [(folder / path).read_bytes() for path, _ in map(str.split, lines)]
        assert list(zip(got, [int(line.split()[1]) for line in lines], strict=True)) == wanted
    assert not (folder / "note.txt").exists()
    assert len(left(tmp_path)) == 1250 + 3


def test_thousand_training_images_are_split_with_a_note(tmp_path: Path) -> None:
    files = {}
    for name, content in (("train", images(1000, 1)), ("test", images(5, 2))):
        files[f"default/{name}/0000.parquet"] = tmp_path / f"{name}.parquet"
        files[f"default/{name}/0000.parquet"].write_bytes(table(content, "image"))
    meter = progress.Meter(lambda p: None, lambda: False)
    note = unpack_parquet(files, tmp_path / "out", task("cifar"), meter)
    assert "the last 200" in note
    assert (tmp_path / "out/note.txt").read_text().strip() == note
    assert (tmp_path / "out/images/val200/000000.jpg").read_bytes() == images(1000, 1)[800][0]
    assert meter.done == 1005


@pytest.mark.parametrize(
    ("train", "val", "test", "sentence"),
    [
        (table(images(700, 1)), table(images(200, 2)), table(images(9, 3)), "has 700 training and 200"),
        (table(images(1000, 1)), table(images(200, 2)), table(images(9, 3)), "has 1000 training and 200"),
        (table(images(800, 1, first=1)), table(images(200, 2)), table(images(9, 3)), "has a label 100 in these"),
        (table(images(800, 1, first=-1)), table(images(200, 2)), table(images(9, 3)), "has a label -1 in these"),
        (table(images(800, 1)), table(images(200, 2)), b"PAR1" + noise(900), "is not a readable table"),
        (table(images(800, 1), "x"), table(images(200, 2)), table(images(9, 3)), "has the columns x, label"),
        (table(images(800, 1)), table(images(200, 2)), None, "has no test images"),
    ],
)
def test_tables_that_do_not_match_the_task(
    hub: HubServer, tmp_path: Path, train: bytes, val: bytes, test: bytes | None, sentence: str
) -> None:
    for name, data in (("train", train), ("validation", val), ("test", test)):
        if data is not None:
            hub.files[f"datasets/fw407/vtab-1k_cifar/data/{name}.parquet"] = data
    with pytest.raises(FetchError) as error:
        fetch(hosts.remote("cifar.parquet"), tmp_path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert ready_folder(hosts.remote("cifar"), tmp_path) is None


def test_a_repository_without_tables(hub: HubServer, tmp_path: Path) -> None:
    hub.files["datasets/fw407/vtab-1k_cifar/README.md"] = b"#"
    with pytest.raises(FetchError, match=r"holds no \*.parquet: it has changed, fetch cifar instead"):
        fetch(hosts.remote("cifar.parquet"), tmp_path)
