"""The launch: the estimated time, the changes since the last run, and three ways to start.

These are: this mask alone, or a study: a comparison with another mask, or a race of several masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog, study_presets
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.difference import plan_difference
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import setting_of
from mlae_lab.core.study import Study
from mlae_lab.core.units import format_bytes
from mlae_lab.data.tasks import located
from mlae_lab.errors import LabError
from mlae_lab.runs import studies
from mlae_lab.runs.comparability import beyond_the_cells, unpaired_because
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.estimate import Estimate, estimated_memory, memory_warning
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.choice_view import draw_choose_link
from mlae_lab.ui.estimating import estimated_or_rough
from mlae_lab.ui.image_size_view import draw_sizes
from mlae_lab.ui.navigation import go
from mlae_lab.ui.pair_view import MAX_SEEDS, open_study, other_masks, started_text
from mlae_lab.ui.preview_view import draw_previews
from mlae_lab.ui.task_view import census_notes
from mlae_lab.ui.thumbnails import mask_image

_WAYS = {"one": "This mask", "pair": "Compare with another mask", "race": "A race"}
_RIVALS = "launch_others"


def launch_panel(config: RunConfig) -> str:
    """Draw the launch of a run whose requirements are met.

    The images are located and counted on the click, as that can take seconds.

    Returns:
        The equivalent command.

    Raises:
        ConfigError, CatalogError: If the runs cannot start together.
        DataError: If the images cannot be used.
    """
    counted_config = replace(config, data_label=census_notes(config.task, config.data) or config.data_label)
    estimate = estimated_or_rough(counted_config)
    _show_cost(config, estimate)
    command = _ways(config, estimate)
    _explain_cost(estimate)
    draw_sizes(counted_config)
    _show_changes(config)
    draw_choose_link(config)
    draw_previews(config)
    return command


def _ways(config: RunConfig, estimate: Estimate) -> str:
    """Draw what can start, with its button; returns the equivalent command."""
    way = "one"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        if config.has_mask:
            way = st.segmented_control(
                "What starts",
                list(_WAYS),
                format_func=lambda way: _WAYS[way],
                default="one",
                required=True,
                key="launch_way",
                width="content",
            )
        if way == "one" and st.button("Start the run", type="primary", key="train_start"):
            go("train", run=run_actions.start(_located(config)))
    if way == "one":
        return config.command()
    return _pair(config, estimate) if way == "pair" else _race(config, estimate)


def _located(config: RunConfig) -> RunConfig:
    """The config with its images (`data.tasks.located`), and a progress bar while a user's own are first decoded."""
    bar = st.empty()

    def show(done: int, total: int) -> None:
        bar.progress(done / total, f"Checking the images: {done:,} of {total:,}")

    try:
        return located(config, show)
    finally:
        bar.empty()


# ---------------------------------------------------------------- before it starts


def _show_cost(config: RunConfig, estimate: Estimate) -> None:
    facts = [("Estimated time", _duration_text(estimate))]
    if estimate.steps is not None:
        facts.append(("Steps", f"{estimate.steps:,}"))
    facts.append(("Trainable parameters", _trainable_text(config)))
    facts.append(("Estimated memory", format_bytes(estimated_memory(config).total)))
    page.facts(*facts)
    if warning := memory_warning(config):
        st.warning(warning)


def _explain_cost(estimate: Estimate) -> None:
    busy = "" if estimate.seconds is None else " The load of the machine, then and now, is not considered."
    page.note(
        f"{escape(estimate.reason)}{busy} Memory: the frozen weights, the trained parameters, the state of the "
        "optimizer and the activations of a batch; images and PyTorch itself are additional."
    )


def _duration_text(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "not available"
    low, high = page.seconds_text(estimate.low), page.seconds_text(estimate.high)
    return page.seconds_text(estimate.seconds) + ("" if low == high else f" ({low} to {high})")


def _trainable_text(config: RunConfig) -> str:
    backbone, task = config.network, catalog.task(config.task)
    head = f"{(backbone.width + 1) * task.classes:,} in the head" if task.classes else "the head"
    tuning = config.tuning
    if tuning.trains_only_head:
        return head
    return f"{tuning.parameters(backbone):,} in {'experts' if tuning.has_mask else tuning.title}, {head}"


def _show_changes(config: RunConfig) -> None:
    last = next((run for run in queries.runs() if visitor.is_mine(run)), None)
    if last is not None:
        page.note(escape(since(last, config)))


def since(last: Run, config: RunConfig) -> str:
    """How a config differs from an earlier run: settings with both values, and the mask in counted cells."""
    last_config = last.config
    differing = {
        name: values
        for name, values in differences(last_config, config).items()
        if name not in ("plan", "data", "data_label")
    }
    parts = []
    for name, (old, new) in differing.items():
        setting = setting_of(RunConfig, name)
        parts.append(f"{setting.noun} {setting.shown(new)}, was {setting.shown(old)}")
    have_masks = last_config.has_mask and config.has_mask
    if have_masks and last_config.plan != config.plan:
        parts.append(_plan_changes(last_config.plan, config.plan))
    what = f"your last run ({last.id})"
    if not parts:
        return f"Nothing differs from {what}: this would repeat it."
    text = f"Compared with {what}: {'; '.join(parts)}."
    return (
        f"{text} The two runs would be a pair."
        if have_masks and unpaired_because(last_config, config) is None
        else text
    )


def _plan_changes(before: MaskPlan, after: MaskPlan) -> str:
    names = "the last run", "this one"
    counts = plan_difference(before, after).summary(*names)
    return "; ".join([f"{counts[:1].lower()}{counts[1:]}", *beyond_the_cells(before, after, *names)])


# ---------------------------------------------------------------- a comparison


def _pair(config: RunConfig, estimate: Estimate) -> str:
    plans = _other_plans(config)
    kept = st.session_state.get("launch_against")
    chosen = kept if kept in plans else next(iter(plans))
    picked = _cards(plans, [chosen], "launch_pair_cards", "Masks to compare with")
    if picked and picked != chosen:
        st.session_state["launch_against"] = picked
        st.rerun()
    plan = plans[chosen][1]
    seeds = _seeds("launch_pair_seeds")
    probe = st.checkbox("Train the linear probe, too", key="launch_pair_probe")
    known = _saved(plans)
    study = study_presets.pair(config, plan, seeds, probe, known)
    if st.button("Start the pair", type="primary", key="launch_pair"):
        open_study(study_presets.pair(_located(config), plan, seeds, probe, known))
    page.note(f"This mask compared with “{escape(plans[chosen][0])}”. {_together(study, estimate)}")
    return study_presets.race_command(config, [config.plan, plan], seeds, probe)


# ---------------------------------------------------------------- a race


def _race(config: RunConfig, estimate: Estimate) -> str:
    plans = _other_plans(config)
    kept = [name for name in st.session_state.get(_RIVALS, ["dense.dense", "uniform.stochastic"]) if name in plans]
    picked = _cards(plans, kept, "launch_race_cards", "Masks to race against")
    if picked:
        st.session_state[_RIVALS] = [name for name in kept if name != picked] if picked in kept else [*kept, picked]
        st.rerun()
    masks = [config.plan, *(plans[name][1] for name in kept)]
    seeds = _seeds("launch_race_seeds")
    if len(masks) < 2:
        page.note("Choose at least one mask above to race against yours.")
        return config.command()
    known = _saved(plans)
    study = study_presets.race(config, masks, seeds, known)
    if st.button(f"Start the race of {len(masks)} masks", type="primary", key="launch_race"):
        open_study(study_presets.race(_located(config), masks, seeds, known))
    page.note(f"This mask and {_listed([plans[name][0] for name in kept])}. {_together(study, estimate)}")
    return study_presets.race_command(config, masks, seeds)


# ---------------------------------------------------------------- pieces


def _other_plans(config: RunConfig) -> dict[str, tuple[str, MaskPlan]]:
    """Masks to compare the draft with, by name: dense, uniform, the saved ones and others of the paper."""
    paper = other_masks(config, config.plan)
    first = {name: paper.pop(name) for name in ("dense.dense", "uniform.stochastic") if name in paper}
    saved = {}
    try:
        for entry in queries.store().plans():
            saved[f"saved.{entry.id}"] = (entry.name, _fitting(entry.plan, config))
    except EXPECTED_ERRORS:
        pass  # the masks of the paper are offered without the store
    plans: dict[str, tuple[str, MaskPlan]] = {}
    seen = {config.plan}
    for name, (title, plan) in {**first, **saved, **paper}.items():
        if plan not in seen:
            seen.add(plan)
            plans[name] = (title, plan)
    return plans


def _saved(plans: dict[str, tuple[str, MaskPlan]]) -> dict[MaskPlan, str]:
    """The names of the saved masks among those that are offered."""
    return {plan: title for name, (title, plan) in plans.items() if name.startswith("saved.")}


def _fitting(plan: MaskPlan, config: RunConfig) -> MaskPlan:
    """The plan, or if the backbone lacks its layers, the plan stretched over those of the draft."""
    try:
        replace(config, plan=plan)
    except LabError:
        return fitted(plan, config.plan.targets)
    return plan


def _cards(plans: dict[str, tuple[str, MaskPlan]], chosen: Sequence[str], key: str, label: str) -> str | None:
    items = [
        Card(
            id=name,
            title=title,
            line=plan.kind_name + (" · saved" if name.startswith("saved.") else ""),
            images=(mask_image(plan),),
            chosen=name in chosen,
        )
        for name, (title, plan) in plans.items()
    ]
    return cards(items, key=key, label=label, size="small")


def _seeds(key: str) -> int:
    seeds = st.segmented_control(
        "Seeds",
        range(1, MAX_SEEDS + 1),
        default=1,
        required=True,
        key=key,
        help="One seed cannot tell a lead from noise: three show how much the seed alone changes the result.",
    )
    return int(seeds)


def _together(study: Study, estimate: Estimate) -> str:
    """What starts, and its estimated time."""
    entries = studies.reusable(queries.store(), study)
    new = sum(run is None for _, run in entries)
    if not catalog.task(study.arms[0].config.task).bundled:  # the label of the images is known after the census
        return f"At most {new} runs start; existing runs on the same images are reused."
    took = (
        f" About {page.seconds_text(new * estimate.seconds)} in all, one after the other."
        if new and estimate.seconds
        else ""
    )
    return started_text(entries) + took


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(f"“{escape(title)}”" for title in titles)
