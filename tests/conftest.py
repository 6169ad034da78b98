"""Fixtures of all tests. torch is imported inside the fixtures, so that plain-data tests stay light."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from mlae_lab.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[1]

# Set before torch is imported, also for the processes that tests start: one thread each. With more, threads wait for
# each other at every small product, which makes a busy machine forty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The process from which runs are forked stays for as long as tests use it and leaves soon after the last one.
os.environ.setdefault("MLAE_LAB_WARM_SECONDS", "30")

# All tests share what frozen blocks compute, as all runs of a user do; the processes of xdist inherit the folder.
if "MLAE_LAB_FEATURES" not in os.environ:
    os.environ["MLAE_LAB_FEATURES"] = tempfile.mkdtemp(prefix="features")
    atexit.register(shutil.rmtree, os.environ["MLAE_LAB_FEATURES"], ignore_errors=True)

# A shell that starts the tests in the background ignores Ctrl-C, and the processes that they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The files that take longest begin first: one that begins last would leave the other process without work.
SLOWEST = ("runs/test_faults", "training/test_checkpoint", "runs/test_probe", "pages/test_similarity_page", "old/",
           "benchmarks/", "pages/", "training/", "test_cli", "browser/test_trust",
           "browser/test_first_light", "browser/test_access", "browser/test_people")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = item.nodeid.removeprefix("tests/")
        return next((number for number, slow in enumerate(SLOWEST) if name.startswith(slow)), len(SLOWEST))

    items.sort(key=rank)  # stable


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def no_test_writes_into_the_home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs that a test starts without naming a store go to a folder of this session."""
    folder = tmp_path_factory.mktemp("default_store") / "lab"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLAE_LAB_STORE", str(folder))
        yield folder


@pytest.fixture
def small_vit() -> Callable[..., VisionTransformer]:
    """Builds a frozen timm vision transformer of some 40,000 parameters in eval mode; its head is not zero."""
    import torch
    from timm.models.vision_transformer import VisionTransformer

    def build(depth: int = 3, seed: int = 0) -> VisionTransformer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=depth, num_heads=2, num_classes=5, mlp_ratio=2
            )
            torch.nn.init.normal_(model.head.weight)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """An empty store in the test's temporary folder. The test fails if it leaves runs that a supervisor would start."""
    from mlae_lab.runs import supervisor
    from mlae_lab.runs.store import RunStore
    from tests.lab import clear

    store = RunStore(tmp_path / "lab")
    yield store
    try:
        is_busy = supervisor.is_supervised(store) and bool(store.open_runs())
    except Exception:  # the test damaged the store or removed it
        return
    if is_busy:
        clear(store)
        pytest.fail("the test left runs that train while other tests run: use no_supervisor or lab_store")


@pytest.fixture
def no_supervisor(store: RunStore) -> Iterator[None]:
    """The lock of the store's supervisor is held, so that enqueued runs stay queued and no process starts."""
    from mlae_lab import locks
    from mlae_lab.runs import paths

    lock = locks.take(paths.supervisor_lock(store.folder))
    assert lock is not None
    yield
    os.close(lock)


@pytest.fixture
def lab_store(store: RunStore) -> Iterator[RunStore]:
    """The store; its supervisor and every run that is still active when the test ends are killed."""
    from tests.lab import clear

    yield store
    clear(store)


@pytest.fixture
def trains_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a test launches is trained in the process of the test, before the call that launches it returns.

    For tests of what a run leaves and what a command says of it. Those of supervisors and of processes start them.
    """
    from mlae_lab.runs import supervisor
    from tests.lab import train_queued

    monkeypatch.setattr(supervisor, "ensure", train_queued)


@pytest.fixture(scope="module")
def probes_here() -> Iterator[None]:
    """Probes are threads of the process of the tests, not separate processes.

    For tests of what a page makes of an answer. Those of commands, of the browser and of probes start processes.
    """
    from mlae_lab.runs import probe
    from tests.lab import start_probe_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "_start", start_probe_here)
        yield


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Waits until a condition is true. After a timeout it fails with what `state` returns."""

    def wait(condition: Callable[[], bool], state: Callable[[], object] = lambda: "", seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not true after {seconds} s: {state()}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder for a test that permissions stop, also when root started it.

    Root stays the owner of all files, so that it can still read Python and this clone in folders that are closed to
    others; it only gives up its right to ignore permissions.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, was_root = Path(name), os.geteuid() == 0
        if was_root:
            _pass_over_permissions(False)
        yield folder
        if was_root:
            _pass_over_permissions(True)
        for path in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):  # a store that is closed meanwhile removes its log
                path.chmod(0o777)


def _pass_over_permissions(allowed: bool) -> None:
    """Set or clear CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of this thread and of the threads that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, each of bits 0 to 31, then of the others
    rights = (1 << 1) | (1 << 2)
    if libc.capget(header, sets) == 0:
        sets[0] = sets[0] | (rights & sets[1]) if allowed else sets[0] & ~rights
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "the capabilities of root cannot be changed")
