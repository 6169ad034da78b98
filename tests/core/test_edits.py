"""Edits of a plan, of its cells and of its rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.edits import onto, with_modules
from mlae_lab.core.patterns import allocation, dense, paper_patterns, pattern, uniform
from mlae_lab.core.plan import MaskPlan, PlanError, block_targets, groups, module_of
from tests.reference import cleared, copied, filled, inverted, mirrored, shuffled

LAB = catalog.backbone("lab_vit_12x128")
SWIN = catalog.backbone("swin_base_patch4_window7_224.ms_in22k")
TWO = with_modules(pattern("incremental", "mixed", 0.3), LAB, ("attn.qkv", "mlp.fc1"))


def cells(plan: MaskPlan, rows: range | None = None) -> Counter:
    return Counter(
        cell for row in rows or range(plan.rows) for cell in zip(plan.keep[row], plan.drop_rate[row], strict=True)
    )


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("blocks.0.attn.qkv", "attn.qkv"),
        ("layers.2.blocks.11.attn.proj", "attn.proj"),
        ("layers.1.downsample.reduction", "downsample.reduction"),
        ("head", "head"),
        ("blocks.3", "blocks.3"),
    ],
)
def test_the_kind_of_a_layer_is_its_name_below_the_block(target: str, module: str) -> None:
    assert module_of(target) == module


@pytest.mark.parametrize("backbone", catalog.BACKBONES, ids=lambda b: b.name)
def test_kinds_of_layers_are_those_of_the_catalog(backbone: catalog.Backbone) -> None:
    for module in backbone.modules:
        assert {module_of(target) for target in backbone.targets(module)} == {module}


def test_rows_are_numbered_within_their_group() -> None:
    assert dense(3).row_labels == ("1", "2", "3")
    assert TWO.row_labels == (*(f"{n} qkv" for n in range(1, 13)), *(f"{n} fc1" for n in range(1, 13)))
    assert groups(TWO.targets) == {"attn.qkv": tuple(range(12)), "mlp.fc1": tuple(range(12, 24))}


@pytest.mark.parametrize("kind", ["fixed", "stochastic", "mixed"])
def test_mirror_turns_incremental_into_decremental(kind: str) -> None:
    assert mirrored(pattern("incremental", kind)) == pattern("decremental", kind)


def test_mirror_stays_within_a_group_and_is_its_own_inverse() -> None:
    down = pattern("decremental", "mixed", 0.3)
    assert mirrored(TWO) == with_modules(down, LAB, ("attn.qkv", "mlp.fc1"))
    assert all(mirrored(mirrored(entry.plan)) == entry.plan for entry in paper_patterns())


def test_invert_swaps_existing_and_missing_experts_and_new_ones_get_their_rows_rate() -> None:
    plan = MaskPlan(((1, 0, 1), (0, 0, 0)), ((0.2, 0, 0.7), (0, 0, 0)), block_targets(2))
    inverse = inverted(plan)
    assert inverse.keep == ((False, True, False), (True,) * 3)
    assert inverse.drop_rate == ((0, 0.2, 0), (0, 0, 0))
    assert all(inverted(inverted(entry.plan)).keep == entry.plan.keep for entry in paper_patterns())


def test_fill_and_clear() -> None:
    plan = pattern("incremental", "mixed", 0.4)
    assert filled(plan) == uniform(0.4, experts=14)
    assert cleared(plan).experts == 0
    assert filled(cleared(plan)) == dense(experts=14)


def test_a_layer_is_copied_onto_others_with_its_rates() -> None:
    plan = replace(pattern("incremental"), drop_rate=((0.3,) * 14,) + ((0.6,) * 14,) * 11)
    new = copied(plan, 0, (3, 11))
    assert new.keep[3] == new.keep[11] == plan.keep[0]
    assert new.row_rates()[11] == 0.3
    assert all(new.keep[r] == plan.keep[r] for r in range(12) if r not in (3, 11))


def test_shuffle_keeps_the_cells_and_depends_on_the_seed_only() -> None:
    plan = pattern("hourglass", "mixed", 0.3)
    assert shuffled(plan, 1) == shuffled(plan, 1) != shuffled(plan, 2)
    assert cells(shuffled(plan, 1)) == cells(plan)
    for rows in (range(12), range(12, 24)):
        assert cells(shuffled(TWO, 5), rows) == cells(TWO, rows)
    assert shuffled(dense(), 3) == dense()


def test_shuffle_is_the_same_on_every_machine() -> None:
    assert shuffled(allocation((4, 0, 0), columns=4), 1).code == "m1_3x4_4-6-4_0*3"


def test_every_position_is_equally_likely() -> None:
    """One expert in twelve cells, 3,000 seeds: each position about 250 times (standard deviation 15)."""
    plan = allocation((1, 0, 0), columns=4)
    hits = Counter(
        next(4 * r + c for r in range(3) for c in range(4) if result.keep[r][c])
        for result in (shuffled(plan, seed) for seed in range(3000))
    )
    assert len(hits) == 12
    assert min(hits.values()) > 180
    assert max(hits.values()) < 320


def test_a_pattern_is_applied_to_each_group() -> None:
    plan = onto(pattern("incremental"), replace(TWO, expert_rank=2))
    assert plan.kept == pattern("incremental").kept * 2
    assert plan.targets == TWO.targets
    assert plan.expert_rank == 2


# ---------------------------------------------------------------- kinds of layers


def test_a_new_kind_of_layer_starts_with_the_mask_of_the_first_kind() -> None:
    plan = with_modules(pattern("incremental"), LAB, ("mlp.fc2", "attn.qkv"))
    assert plan.targets == block_targets(12) + block_targets(12, "mlp.fc2")
    assert plan.kept == pattern("incremental").kept * 2


def test_existing_masks_stay_and_kinds_are_in_the_backbones_order() -> None:
    plan = copied(TWO, 0, (11, 20))
    wide = with_modules(plan, LAB, ("attn.proj", *LAB.modules[:1], "mlp.fc1"))
    assert list(groups(wide.targets)) == ["attn.qkv", "attn.proj", "mlp.fc1"]
    assert with_modules(wide, LAB, ("attn.qkv", "mlp.fc1")) == plan
    assert with_modules(plan, LAB, ("attn.qkv", "mlp.fc1")) == plan


def test_one_kind_can_replace_another() -> None:
    plan = with_modules(pattern("hourglass"), LAB, ("attn.proj",))
    assert plan.targets == block_targets(12, "attn.proj")
    assert plan.kept == pattern("hourglass").kept


def test_every_kind_of_the_largest_canvas_fits() -> None:
    large = catalog.backbone("vit_large_patch16_224.augreg_in21k")
    plan = with_modules(dense(24, 16), large, large.modules)
    assert (plan.rows, plan.columns) == (96, 16)
    assert MaskPlan.from_code(plan.code) == plan


def test_row_labels_count_through_all_stages() -> None:
    plan = with_modules(allocation((4,) * 24), SWIN, ("attn.qkv", "attn.proj"))
    assert plan.rows == 48
    assert plan.row_labels == (*(f"{n} qkv" for n in range(1, 25)), *(f"{n} proj" for n in range(1, 25)))


def test_kinds_with_the_same_last_name_are_named_in_full() -> None:
    mixer = catalog.backbone("mixer_b16_224.goog_in21k")
    plan = with_modules(dense(12), mixer, ("mlp_tokens.fc1", "mlp_channels.fc1"))
    assert len(set(plan.row_labels)) == plan.rows
    assert plan.row_labels[2] == f"3 {module_of(plan.targets[2])}"


def test_rows_of_a_kind_that_the_backbone_lacks_stay() -> None:
    plan = MaskPlan(((1,), (1,)), ((0,), (0,)), ("blocks.0.attn.qkv", "patch_embed"))
    assert with_modules(plan, LAB, ("mlp.fc1",)).targets[-1] == "patch_embed"


def test_no_kind_at_all_and_an_unknown_one_are_refused() -> None:
    with pytest.raises(PlanError, match=r"choose at least one of attn\.qkv"):
        with_modules(dense(), LAB, ())
    with pytest.raises(CatalogError, match=r"choose from attn\.qkv"):
        with_modules(dense(), LAB, ("attn.q",))
