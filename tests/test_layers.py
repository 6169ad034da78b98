"""Which packages may import which. The table below is the architecture; the tests hold the code to it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlae_lab"

SHARED = ("environment", "errors", "files", "locations", "locks", "file_locking")
# Each layer and the layers it may import from. Every layer may import the SHARED modules and itself.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "model": {"core"},
    "methods": {"core", "model"},
    "analysis": {"core", "data", "model"},
    "training": {"core", "data", "model", "methods", "analysis"},
    "lessons": {"core"},
    # A separate process, and use from Python: nothing imports it when the lab starts.
    "exports": {"core", "data", "model", "methods", "training", "runs", "figures"},
    "runs": {"core", "data", "lessons"},  # part of the server process, so nothing that needs torch
    # The part of ui without Streamlit, with its reports; the command line uses it.
    "figures": {"core", "data", "lessons", "runs"},
    "ui": {"core", "data", "lessons", "runs", "network", "figures"},
    "doctor": {"core", "data", "runs"},
    "cli": {"core", "data", "lessons", "runs", "network", "doctor", "figures"},
    "app": {"core", "runs", "ui", "network"},
    "pages": {"core", "data", "lessons", "runs", "ui", "doctor", "figures"},
    "__main__": {"cli"},
    "network": set(),
    **{name: set() for name in SHARED},
}
# Modules of separate processes, which may import more than their layer.
EXCEPTIONS: dict[str, set[str]] = {
    "mlae_lab": {"exports"},
    "mlae_lab.runs.worker": {"data", "model", "analysis", "training"},
    "mlae_lab.runs.run_start": {"training"},
    "mlae_lab.runs.run_files": {"data", "model", "training"},
    "mlae_lab.runs.probe_worker": {"data", "model", "analysis", "training"},
    "mlae_lab.runs.throughput_worker": {"training"},
    "mlae_lab.runs.preview_worker": {"model", "training"},
}
STREAMLIT_LAYERS = {"app", "ui", "pages"}
WITHOUT_STREAMLIT = ("mlae_lab.ui.figures", "mlae_lab.ui.layer_grids", "mlae_lab.ui.thumbnails")  # the layer figures


@cache
def modules() -> dict[str, Path]:
    """Every module of the lab, by its dotted name; a page is called `pages.<name>`."""
    paths = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    for path in sorted((ROOT / "pages").glob("*.py")):
        paths[f"pages.{path.stem}"] = path
    return paths


@cache
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


# Top-level folders with code of the project
OURS = ("mlae_lab", "pages", "pretraining", "benchmarks", "tests", "assets")


def layer_of(module: str) -> str:
    """`mlae_lab.core.plan` is in core, `pages.home` in pages; the package itself is ""."""
    if module.startswith(WITHOUT_STREAMLIT):
        return "figures"
    words = module.split(".")
    return words[0] if words[0] != "mlae_lab" else words[1] if len(words) > 1 else ""


def forbidden(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Imports that the table does not allow."""
    own = layer_of(module)
    allowed = {own, *SHARED, ""} | ALLOWED.get(own, set()) | EXCEPTIONS.get(module, set())
    for name in imports(source, module, is_package):
        if name.split(".")[0] in OURS and layer_of(name) not in allowed:
            yield f"{module} imports {name}"


def test_the_scan_finds_the_modules() -> None:
    assert {"mlae_lab", "mlae_lab.core", "mlae_lab.core.plan", "mlae_lab.cli", "mlae_lab.runs.worker"} <= set(modules())


def test_every_layer_is_in_the_table() -> None:
    assert {layer_of(module) for module in modules()} - {""} <= set(ALLOWED)


def test_imports_point_down() -> None:
    wrong = [
        line
        for module, path in modules().items()
        for line in forbidden(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert wrong == []


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []
    remaining = {name: set(below) for name, below in ALLOWED.items()}
    while remaining:
        free = [name for name, below in remaining.items() if below <= set(order)]
        assert free, remaining
        order += free
        remaining = {name: below for name, below in remaining.items() if name not in free}


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
    """Names of all classes that end in Error, and of LabError with its subclasses."""
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


def test_every_error_class_derives_from_lab_error() -> None:
    called, derived = error_classes()
    assert len(called) > 10
    assert called - derived == set()
    assert "Diverged" in derived


# ---------------------------------------------------------------- Streamlit, torch and the core


def test_streamlit_is_imported_by_app_ui_and_pages_only() -> None:
    layers = {
        layer_of(module)
        for module, path in modules().items()
        if any(name.split(".")[0] == "streamlit" for name in imports(path.read_text(encoding="utf-8"), module))
    }
    assert layers <= STREAMLIT_LAYERS


HEAVY = ("torch", "torchvision", "timm", "streamlit", "sqlite3", "numpy", "plotly", "safetensors", "huggingface_hub")


def loaded_by(statement: str, wanted: tuple[str, ...]) -> set[str]:
    """The modules, of those wanted, that a fresh interpreter has loaded after one statement."""
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
    """The two checks above can fail."""
    assert loaded_by("import mlae_lab.runs.store", ("sqlite3", "torch")) == {"sqlite3"}
    assert loaded_by("import mlae_lab.data.dsprites", ("numpy", "torch")) == {"numpy"}


@cache
def imported_on_import(source: str, module: str, is_package: bool) -> set[str]:
    """Like `imports`, but only imports that run when the module is imported: not in functions, not for types."""
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
    """All modules that a module imports, directly or indirectly: name to the lab module that imports it."""
    known, importers, pending = modules(), {}, [start]
    seen = {start}
    while pending:
        module = pending.pop()
        path = known[module]
        for name in imported_on_import(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"):
            importers.setdefault(name, module)
            if name in known and name not in seen:
                seen.add(name)
                pending.append(name)
    return importers


@pytest.mark.parametrize("module", [m for m in modules() if layer_of(m) in ("app", "ui", "pages", "cli")])
def test_no_torch_in_the_server_process(module: str) -> None:
    """Importing torch takes three seconds and 500 MB. Imports are followed through the text of the lab's modules."""
    heavy = {
        name: by for name, by in reachable(module).items() if name.split(".")[0] in ("torch", "timm", "torchvision")
    }
    assert heavy == {}


def test_following_imports_can_find_torch() -> None:
    assert reachable("mlae_lab.training.trainer")["torch"].startswith("mlae_lab.")
    assert "torch" in reachable("mlae_lab.analysis.similarity")
    assert "torch" not in reachable("mlae_lab.runs.worker")  # it imports torch when its run starts


# ---------------------------------------------------------------- names


DEPENDENCIES = {
    "torch", "torchvision", "timm", "streamlit", "plotly", "numpy", "pandas", "safetensors", "huggingface_hub",
    "pytest", "playwright", "PIL", "peft", "altair", "pyarrow",
}  # fmt: skip


def shadowing(names: set[str]) -> set[str]:
    return names & (set(sys.stdlib_module_names) | DEPENDENCIES)


def test_no_module_shadows_python_or_a_dependency() -> None:
    """`streamlit run mlae_lab/app.py` puts mlae_lab/ on the path: a `profile.py` there would break `cProfile`."""
    own = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__", "__main__"}
    assert shadowing(own) == set()
    assert shadowing({"profile", "core"}) == {"profile"}
    assert shadowing({"timm"}) == {"timm"}


def test_the_package_has_no_pages_folder() -> None:
    """Streamlit would show it as a second menu."""
    assert not (PACKAGE / "pages").exists()


def test_files_of_tests_have_different_names() -> None:
    """pytest imports them by their name alone."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
