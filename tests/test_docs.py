"""The documents agree with the code: links resolve, commands, tables, events and modules exist, examples run."""

from __future__ import annotations

import argparse
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from mlae_lab import cli
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import KINDS
from mlae_lab.core.settings import settings_of
from mlae_lab.runs import paths
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[1]
DOCS = (
    "README.md",
    *(f"docs/{name}.md" for name in ("architecture", "commands", "data", "store", "analysis", "container")),
)
README, ARCHITECTURE, COMMANDS, STORE = DOCS[0], DOCS[1], DOCS[2], DOCS[4]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language; "" selects those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("name", [*DOCS, "CHANGELOG.md", "CONTRIBUTING.md", "LOG.md"])
def test_internal_links_resolve(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text_of(name))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name} links to {target}"


# ---------------------------------------------------------------- commands


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command and of the commands below it."""
    own = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            own = own.union(*map(options, action.choices.values()))
    return own


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every command of the lab in a text, in a block or between backticks."""
    code = [*blocks(text, ""), *re.findall(r"`([^`\n]+)`", without_blocks(text))]
    for line in "\n".join(code).splitlines():
        for words in re.findall(r"(?:mlae-lab|mlae_lab) ([a-z]+[^#`]*)", line):
            yield words.split()


@pytest.mark.parametrize("name", DOCS)
def test_every_command_and_option_exists(name: str) -> None:
    known = commands()
    for command, *words in command_lines(text_of(name)):
        assert command in known, f"{name}: {command}"
        named = {word.strip("[]") for word in words if word.strip("[]").startswith("--")}
        assert named <= options(known[command]), f"{name}: {command} {named}"


def test_the_commands_page_lists_every_command_and_option() -> None:
    current = text_of(COMMANDS).partition("## Commands of version 0.5")[0]
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z]+`)*) \|", current.partition("## Masks")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == set(commands())
    exist = set().union(*map(options, commands().values())) - {"-h", "--help"}
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]*", current))
    assert exist - named == set()
    assert named - exist <= {"--help"}


def test_messages_name_the_program_by_its_constant() -> None:
    """`mlae_lab fetch` is no command: the installed program is mlae-lab, in a checkout it is python -m mlae_lab."""
    for folder in ("mlae_lab", "pages"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert not re.search(r"(?:[`>\"']|-m )mlae[_-]lab [a-z]", line), f"{path.name}: {line}"


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?(?<!,)", text)]


def test_the_table_of_train_has_the_ranges_and_defaults_of_the_settings() -> None:
    table = text_of(COMMANDS).partition("## Train")[2].partition("\n## ")[0]
    rows = {}
    for option_cell, meaning, default in re.findall(r"^\| (`--.*?) \| (.*) \| (.*?) \|$", table, re.MULTILINE):
        names = re.findall(r"`--([a-z-]+)`", option_cell)
        defaults = default.split(", ") if len(names) > 1 and ", " in default else [default] * len(names)
        rows |= {name: (meaning, value) for name, value in zip(names, defaults, strict=True)}
    settings = {entry.option: entry for entry in settings_of(RunConfig) if entry.option}
    assert set(rows) - {"task", "recipe"} == set(settings)
    for name, entry in settings.items():
        meaning, default = rows[name]
        if entry.kind in (int, float) and entry.initial is not None:
            assert numbers(default) == [entry.initial], name
        else:
            assert default.strip("`") == (
                entry.initial or {None: "none", (): "none", "": "the data folder", False: "off"}[entry.initial]
            ), name
        if not entry.open_ended:
            assert all(f"`{choice}`" in meaning for choice in entry.choices), name
        for low, high in re.findall(r"(\d[\d.,]*) to (\d[\d.,]*\d)", meaning):
            assert numbers(low) + numbers(high) == [entry.low, entry.high], name


# ---------------------------------------------------------------- store


def tables(database: Path) -> dict[str, set[str]]:
    with sqlite3.connect(database) as db:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'") if n[:6] != "sqlite"]
        columns = {name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")} for name in names}
    db.close()
    return columns


def test_the_store_page_has_the_schema(tmp_path: Path) -> None:
    text = text_of(STORE)
    assert f"Schema {SCHEMA} " in text
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE))
    actual = tables(paths.database(RunStore(tmp_path).folder))
    assert set(sections) == set(actual)
    for table, columns in actual.items():
        assert columns <= set(re.findall(r"`(\w+)`", sections[table])), table


def test_the_store_page_has_every_event_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", text_of(STORE), re.MULTILINE))
    for kind, event in KINDS.items():
        assert kind in rows
        assert {field.name for field in fields(event)} <= set(re.findall(r"`(\w+)`", rows[kind])), kind


def test_the_store_page_has_every_file(tmp_path: Path) -> None:
    text = text_of(STORE)
    files = paths.RunPaths(tmp_path, "abcdefgh")
    named = [
        *(make(tmp_path) for make in (paths.database, paths.making, paths.supervisor_lock, paths.supervisor_log)),
        paths.login_salt(tmp_path),
        *(getattr(files, name) for name, kind in vars(paths.RunPaths).items() if isinstance(kind, property)),
        files.checkpoint_after(4),
    ]
    for path in named:
        assert path.name in text or path == files.folder, path


def test_the_queries_of_the_store_page_run(tmp_path: Path) -> None:
    db = sqlite3.connect(paths.database(RunStore(tmp_path).folder))
    queries = blocks(text_of(STORE), "sql")
    assert len(queries) >= 2
    for query in queries:
        assert db.execute(query).fetchall() == []
    db.close()


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("name", [*DOCS, "CONTRIBUTING.md"])
def test_every_file_named_exists(name: str) -> None:
    named = re.findall(r"`((?:mlae_lab|pages|pretraining|tests|benchmarks)/[\w/.]+)`", text_of(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_names_every_package() -> None:
    text = text_of(ARCHITECTURE)
    packages = {path.parent.name for path in (ROOT / "mlae_lab").glob("*/__init__.py")}
    packages |= {path.name for path in (ROOT / "mlae_lab").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {name for name in packages if f"`mlae_lab/{name}`" not in text} == set()


# ---------------------------------------------------------------- README


def test_ci_finds_the_two_commands() -> None:
    """`.ci/run` takes them from the README by how their lines begin."""
    lines = text_of(README).splitlines()
    for start in ("pip install -r requirements.txt && ", "pip install -r requirements-dev.txt && "):
        assert sum(line.startswith(start) for line in lines) == 1


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller network and without a download; otherwise unchanged."""
    import torch

    (example,) = blocks(text_of(README), "python")
    small = example.replace("vit_base_patch16_224", "vit_tiny_patch16_224").replace(
        "pretrained=True", "pretrained=False"
    )
    assert small.count("vit_tiny") == small.count("pretrained=False") == 1
    names: dict = {}
    exec(compile(small, README, "exec"), names)
    model, experts, images = names["model"], names["experts"], names["images"]
    assert [type(module).__name__ for module in model.modules()].count("MLAELinear") == 0
    assert any(layer.b.abs().sum() > 0 for layer in experts.layers.values())  # it has learned
    with torch.no_grad():
        assert torch.isfinite(model(images)).all()
