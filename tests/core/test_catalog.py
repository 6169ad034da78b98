"""The tables of tasks and backbones, compared with the counts of VTAB and VPT."""

from __future__ import annotations

from collections import Counter

import pytest

from mlae_lab.core import catalog, paper
from mlae_lab.core.catalog import BACKBONES, TASKS, CatalogError, Group
from mlae_lab.core.config import RunConfig
from mlae_lab.core.plan import Kind, block_targets

PAPER_TASKS = [t for t in TASKS if not t.bundled]
VTAB = [t for t in PAPER_TASKS if t.group is not Group.FGVC]


def test_the_paper_has_24_tasks_and_four_are_bundled() -> None:
    assert Counter(t.group for t in TASKS) == {
        Group.BUNDLED: 4, Group.NATURAL: 7, Group.SPECIALIZED: 4, Group.STRUCTURED: 8, Group.FGVC: 5,
    }  # fmt: skip


def test_names_and_aliases_mean_one_task_each() -> None:
    assert len({t.name for t in TASKS}) == len(TASKS)
    for t in TASKS:
        for word in (t.name, *t.aliases, t.name.upper(), f" {t.name.replace('_', '-')} "):
            assert catalog.task(word) is t


def test_vtab_tasks_have_a_thousand_training_images() -> None:
    assert all((t.train, t.val) == (800, 200) for t in VTAB)
    assert sum(t.test for t in VTAB) == 387_904  # all 19 test sets together
    assert all((t.train, t.val) == (800, 200) for t in TASKS if t.bundled)


def test_fgvc_splits_cover_the_official_training_sets() -> None:
    sizes = {t.name: (t.train + t.val, t.test, t.classes) for t in PAPER_TASKS if t.group is Group.FGVC}
    assert sizes == {
        "cub": (5994, 5794, 200), "nabirds": (23_929, 24_633, 555), "oxford_flowers": (2040, 6149, 102),
        "stanford_dogs": (12_000, 8580, 120), "stanford_cars": (8144, 8041, 196),
    }  # fmt: skip


def test_class_counts_of_vtab() -> None:
    assert [t.classes for t in VTAB] == [100, 102, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10", ["'cifar10' is not a task", "cifar", "mlae_lab tasks"]),
        ("dsprite_loc", ["dsprites_loc"]),
        ("", ["'' is not a task", "digits"]),
        ("../../etc/passwd", ["is not a task"]),
    ],
)
def test_the_error_for_an_unknown_task_lists_close_names(name: str, words: list[str]) -> None:
    with pytest.raises(CatalogError) as error:
        catalog.task(name)
    for word in words:
        assert word in str(error.value)


def test_the_error_for_an_unknown_backbone_lists_the_featured_ones() -> None:
    with pytest.raises(CatalogError) as error:
        catalog.backbone("resnet50")
    assert "'resnet50' is not a backbone" in str(error.value)
    for known in BACKBONES:
        assert known.name in str(error.value)


def test_shapes_of_a_backbone() -> None:
    vit = catalog.backbone("vit_base_patch16_224.orig_in21k")
    names = ("blocks.11.attn.qkv", "blocks.0.attn.proj", "blocks.3.mlp.fc1", "blocks.3.mlp.fc2")
    assert vit.shapes(names) == dict(zip(names, [(768, 2304), (768, 768), (768, 3072), (3072, 768)], strict=True))


@pytest.mark.parametrize("name", ["blocks.12.attn.qkv", "blocks.01.attn.qkv", "attn.qkv", "head", "patch_embed.proj"])
def test_a_layer_that_a_backbone_does_not_have(name: str) -> None:
    with pytest.raises(CatalogError) as error:
        catalog.backbone(catalog.DEFAULT_BACKBONE).shapes((name,))
    assert str(error.value).startswith(f"{name} is not a linear layer of lab_vit_12x128: it has 12 blocks")
    assert "blocks.11.attn.qkv" in str(error.value)


def test_tokens_follow_from_image_and_patch() -> None:
    patches = {"lab": 8, "vit_base_patch16": 16, "vit_small_patch16": 16, "vit_base_patch14": 14}
    for entry in BACKBONES:
        for start, patch in patches.items():
            if entry.name.startswith(start):
                assert entry.tokens == (entry.image_size // patch) ** 2 + 1


def test_the_default_backbone_is_bundled_and_trained() -> None:
    entry = catalog.backbone(catalog.DEFAULT_BACKBONE)
    assert entry.bundled
    assert entry.trained
    assert entry.shapes(block_targets(12))["blocks.0.attn.qkv"] == (128, 384)


# ---------------------------------------------------------------- published results


def test_every_published_result_names_its_table_and_is_a_percentage() -> None:
    for cells in (paper.MLAE_ACCURACY, paper.LINEAR_PROBE_ACCURACY, paper.PATTERN_AVERAGE):
        for cell in cells.values():
            assert cell.table.startswith("Table ")
            assert 0 < cell.value <= 100


def test_the_papers_average_is_the_mean_of_three_group_means() -> None:
    by_group: dict[Group, list[float]] = {}
    for t in VTAB:
        by_group.setdefault(t.group, []).append(paper.MLAE_ACCURACY[t.name].value)
    means = [sum(values) / len(values) for values in by_group.values()]
    assert [round(mean, 2) for mean in means] == [84.04, 87.52, 64.76]
    assert round(sum(means) / 3, 1) == 78.8
    assert round(sum(paper.MLAE_ACCURACY[t.name].value for t in VTAB) / 19, 1) == 76.7


def test_results_exist_for_exactly_the_papers_tasks() -> None:
    names, vtab = {t.name for t in PAPER_TASKS}, {t.name for t in VTAB}
    assert set(paper.MLAE_ACCURACY) == names
    assert set(paper.TUNED) == vtab
    assert vtab <= set(paper.LINEAR_PROBE_ACCURACY) <= names


def test_pattern_averages_cover_every_pattern_of_table_4() -> None:
    assert paper.PATTERN_AVERAGE["uniform", Kind.STOCHASTIC].value == 78.8
    assert paper.PATTERN_AVERAGE["incremental", Kind.MIXED].value == 78.2
    assert len(paper.PATTERN_AVERAGE) == 16


# ---------------------------------------------------------------- folders of own images


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Cats & Dogs", "own:Cats & Dogs"),
        ("birds, 2024", "own:birds, 2024"),
        ("Owner's images", "own:Owner's images"),
        ("Vo\u0308gel", "own:V\u00f6gel"),  # as macOS stores it
        ("पक्षी", "own:पक्षी"),
        ("می\u200cخواهم", "own:می\u200cخواهم"),
        ("x" * 70, "own:" + "x" * 70),
        (".hidden", "own:.hidden"),
        ("50% off", "own:50%25 off"),
        (" ends with a space ", "own:%20ends with a space%20"),
        ("two\nlines", "own:two%0Alines"),
        ("b\udcffd", "own:b%FFd"),  # a byte that is not UTF-8
        ("back\\slash", "own:back%5Cslash"),
    ],
)
def test_any_folder_name_is_a_title_and_makes_a_task_name(folder: str, name: str) -> None:
    task = catalog.own_task(folder)
    assert task.name == name
    assert catalog.task(name) == task
    assert task.title.encode()
    assert "\n" not in task.title + task.name
    RunConfig(task.name)
    if folder == folder.strip() and "\\" not in folder:
        assert catalog.task(f"own:{folder}") == task, "as it may be typed"


def test_task_names_of_version_0_5_stay_as_they_are() -> None:
    for name in ("own:Vögel (2)", "own:birds", "own:a.b-c+d_e 1"):
        assert catalog.task(name).name == name
        assert catalog.task(name).title == name.removeprefix("own:")


def test_a_task_name_is_never_a_path() -> None:
    for folder in ("../secret", "/etc", "a/b", "", "..", ".", " x", "..\\x", "%2e%2e", "..%2Fx", "\ud800", "x" * 256):
        with pytest.raises(CatalogError):
            catalog.task(f"own:{folder}")
