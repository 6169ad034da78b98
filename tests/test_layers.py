"""Who may know whom. The table below is the image of the house; the rest of the file holds the code to it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlae_lab"

SHARED = ("errors", "files", "locations", "locks")
# Each room and the rooms it may import from. The SHARED modules and a package's own are open to all.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "model": {"core"},
    "analysis": {"core", "data", "model"},
    "training": {"core", "data", "model", "analysis"},
    "runs": {"core"},  # the server process lives here too, so nothing that needs torch
    "ui": {"core", "data", "runs", "network"},
    "doctor": {"core", "data", "runs"},
    "cli": {"core", "data", "runs", "network", "doctor"},
    "app": {"core", "runs", "ui", "network"},
    "pages": {"core", "data", "runs", "ui", "doctor"},
    "__main__": {"cli"},
    "network": set(),
    **{name: set() for name in SHARED},
}
# Modules that are processes of their own and may reach further than their room.
EXCEPTIONS: dict[str, set[str]] = {
    "mlae_lab.runs.worker": {"data", "model", "analysis", "training"},
    "mlae_lab.runs.probe_worker": {"data", "model", "analysis", "training"},
}
STREAMLIT_ROOMS = {"app", "ui", "pages"}


def modules() -> dict[str, Path]:
    """Every module of the lab, by its dotted name; a page is called `pages.<name>`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        words = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    for path in sorted((ROOT / "pages").glob("*.py")):
        found[f"pages.{path.stem}"] = path
    return found


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Full names that a file imports anywhere in it; for `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


OURS = (
    "mlae_lab",
    "pages",
    "pretraining",
    "benchmarks",
    "tests",
    "assets",
)  # top-level folders with code of the project


def room(module: str) -> str:
    """`mlae_lab.core.plan` is in core, `pages.home` in pages; the package itself is ""."""
    words = module.split(".")
    return words[0] if words[0] != "mlae_lab" else words[1] if len(words) > 1 else ""


def forbidden(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Imports that the table does not allow."""
    own = room(module)
    allowed = {own, *SHARED, ""} | ALLOWED.get(own, set()) | EXCEPTIONS.get(module, set())
    for name in imports(source, module, is_package):
        if name.split(".")[0] in OURS and room(name) not in allowed:
            yield f"{module} imports {name}"


def test_the_scan_finds_the_modules() -> None:
    found = modules()
    assert {"mlae_lab", "mlae_lab.core", "mlae_lab.core.plan", "mlae_lab.cli", "mlae_lab.runs.worker"} <= set(found)


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in modules()} - {""} <= set(ALLOWED)


def test_imports_point_down() -> None:
    wrong = [
        line
        for module, path in modules().items()
        for line in forbidden(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert wrong == []


def test_the_table_has_no_circle() -> None:
    order: list[str] = []
    left = {name: set(below) for name, below in ALLOWED.items()}
    while left:
        free = [name for name, below in left.items() if below <= set(order)]
        assert free, left
        order += free
        left = {name: below for name, below in left.items() if name not in free}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mlae_lab.core.plan", "from mlae_lab.data import splits"),
        ("mlae_lab.core.plan", "import mlae_lab.runs.store"),
        ("mlae_lab.core.plan", "def f():\n    from mlae_lab import training"),
        ("mlae_lab.core.plan", "from ..model import inject"),
        ("mlae_lab.core.plan", "from .. import model"),
        ("mlae_lab.model.inject", "from mlae_lab.training.trainer import fit"),
        ("mlae_lab.analysis.similarity", "from mlae_lab.training.trainer import fit"),
        ("mlae_lab.runs.store", "from mlae_lab.model.inject import inject"),
        ("mlae_lab.runs.supervisor", "if True:\n    import mlae_lab.training.trainer"),
        ("mlae_lab.ui.figures", "import pages.home"),
        ("mlae_lab.training.trainer", "from mlae_lab.runs.store import RunStore"),
        ("mlae_lab.data.bundled", "from pretraining.images import draw"),
    ],
)
def test_the_check_can_fail(module: str, source: str) -> None:
    assert list(forbidden(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mlae_lab.core.plan", "import json\nfrom mlae_lab.core import paper\nfrom . import budget"),
        ("mlae_lab.training.trainer", "from mlae_lab.analysis.similarity import similarity_stats"),
        ("mlae_lab.runs.worker", "from mlae_lab.training.trainer import fit"),
        ("pages.home", "from mlae_lab.ui import figures\nfrom mlae_lab.locations import ROOT"),
    ],
)
def test_the_check_can_pass(module: str, source: str) -> None:
    assert not list(forbidden(module, source))


def error_classes() -> tuple[set[str], set[str]]:
    """Names of all classes called errors, and of LabError with all classes that derive from it."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    derived = {"LabError"}
    while more := {name for name, above in bases.items() if above & derived} - derived:
        derived |= more
    return {name for name in bases if name.endswith("Error")}, derived


def test_every_class_called_an_error_is_one_that_people_may_see() -> None:
    called, derived = error_classes()
    assert len(called) > 10
    assert called - derived == set()
    assert "Diverged" in derived


# ---------------------------------------------------------------- Streamlit, torch and the core


def test_streamlit_is_imported_by_app_ui_and_pages_only() -> None:
    rooms = {
        room(module)
        for module, path in modules().items()
        if any(name.split(".")[0] == "streamlit" for name in imports(path.read_text(encoding="utf-8"), module))
    }
    assert rooms <= STREAMLIT_ROOMS


HEAVY = ("torch", "torchvision", "timm", "streamlit", "sqlite3", "numpy", "plotly", "safetensors", "huggingface_hub")


def loaded_by(statement: str, wanted: tuple[str, ...]) -> set[str]:
    """Which of these modules a fresh interpreter has after one statement."""
    script = f"{statement}\nimport sys\nprint(*[name for name in {wanted!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_core_is_plain_data() -> None:
    every = [module for module in modules() if module.startswith("mlae_lab.core")]
    assert len(every) >= 8
    assert loaded_by(f"import {', '.join(every)}", HEAVY) == set()


@pytest.mark.parametrize(
    "module", ["mlae_lab", "mlae_lab.runs.store", "mlae_lab.runs.supervisor", "mlae_lab.runs.worker", "mlae_lab.cli"]
)
def test_the_server_and_the_command_line_start_without_torch(module: str) -> None:
    assert not loaded_by(f"import {module}", HEAVY) & {"torch", "torchvision", "timm", "streamlit"}


def test_a_fresh_interpreter_can_find_something_heavy() -> None:
    """The two checks above would be worth nothing if they could not fail."""
    assert loaded_by("import mlae_lab.runs.store", ("sqlite3", "torch")) == {"sqlite3"}
    assert loaded_by("import mlae_lab.data.dsprites", ("numpy", "torch")) == {"numpy"}


def imported_on_import(source: str, module: str, is_package: bool) -> set[str]:
    """Like `imports`, but only what runs when the module is imported: nothing inside functions, nothing for types."""
    tree = ast.parse(source)

    class Without(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            return ast.Pass()

        visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

        def visit_If(self, node: ast.If) -> ast.AST:
            return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    body = ast.unparse(ast.fix_missing_locations(Without().visit(tree)))
    return imports(body, module, is_package)


def reachable(start: str) -> dict[str, str]:
    """Everything that importing a module imports, to the end: name to the lab module that asks for it."""
    known, found, open_ = modules(), {}, [start]
    seen = {start}
    while open_:
        module = open_.pop()
        path = known[module]
        for name in imported_on_import(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"):
            found.setdefault(name, module)
            if name in known and name not in seen:
                seen.add(name)
                open_.append(name)
    return found


@pytest.mark.parametrize("module", [m for m in modules() if room(m) in ("app", "ui", "pages", "cli")])
def test_no_torch_in_the_server_process(module: str) -> None:
    """Followed through all the lab's modules by their text: three seconds and 500 MB that a page must not cost."""
    asked = {
        name: by for name, by in reachable(module).items() if name.split(".")[0] in ("torch", "timm", "torchvision")
    }
    assert asked == {}


def test_following_imports_can_find_torch() -> None:
    assert reachable("mlae_lab.training.trainer")["torch"].startswith("mlae_lab.")
    assert "torch" in reachable("mlae_lab.analysis.similarity")
    assert "torch" not in reachable("mlae_lab.runs.worker")  # it imports torch when its turn has come


# ---------------------------------------------------------------- names


DEPENDENCIES = {
    "torch", "torchvision", "timm", "streamlit", "plotly", "numpy", "pandas", "safetensors", "huggingface_hub",
    "pytest", "playwright", "PIL", "peft", "altair", "pyarrow",
}  # fmt: skip


def shadowing(names: set[str]) -> set[str]:
    return names & (set(sys.stdlib_module_names) | DEPENDENCIES)


def test_no_module_is_named_like_one_of_python_or_of_a_dependency() -> None:
    """`streamlit run mlae_lab/app.py` puts mlae_lab/ on the path: a `profile.py` there would break `cProfile`."""
    own = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__", "__main__"}
    assert shadowing(own) == set()
    assert shadowing({"profile", "core"}) == {"profile"}
    assert shadowing({"timm"}) == {"timm"}


def test_no_folder_of_pages_lies_beside_the_entry_point() -> None:
    """Streamlit would make a second menu of it."""
    assert not (PACKAGE / "pages").exists()
