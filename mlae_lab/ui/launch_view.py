"""The launch: how long it would take, what differs from the last run, and three ways to start: this mask alone, this
mask against another, or a race of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.difference import plan_difference
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import setting_of
from mlae_lab.core.units import format_bytes
from mlae_lab.data.tasks import located
from mlae_lab.errors import LabError
from mlae_lab.runs import pairs, race
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.estimate import Estimate, minimum_memory
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.estimating import estimated
from mlae_lab.ui.navigation import go
from mlae_lab.ui.pair_view import other_masks, started_text
from mlae_lab.ui.thumbnails import mask_image

_WAYS = {"one": "This mask", "pair": "Against another", "race": "A race"}
_OTHERS = "launch_others"


def launch_panel(config: RunConfig) -> str:
    """Draw the launch of a run that lacks nothing. Returns the command that does the same.

    The images are located and counted on the click, as that can take seconds. Raises ConfigError or CatalogError for
    what cannot start together, DataError for images that something is wrong with.
    """
    found = estimated(config)
    _what_it_takes(config, found)
    _since_the_last(config)
    if config.method != "mlae":
        if st.button("Start the run", type="primary", key="train_start"):
            go("train", run=run_actions.start(located(config)))
        return config.command()
    way = st.segmented_control(
        "What starts", list(_WAYS), format_func=lambda way: _WAYS[way], default="one", required=True, key="launch_way"
    )
    if way == "one":
        if st.button("Start the run", type="primary", key="train_start"):
            go("train", run=run_actions.start(located(config)))
        return config.command()
    return _pair(config, found) if way == "pair" else _race(config, found)


# ---------------------------------------------------------------- before it starts


def _what_it_takes(config: RunConfig, found: Estimate) -> None:
    facts = [("Estimated time", _about(found))]
    if found.steps is not None:
        facts.append(("Steps", f"{found.steps:,}"))
    facts.append(("Parameters that learn", _learned(config)))
    facts.append(("Memory, at the least", format_bytes(minimum_memory(config))))
    page.facts(*facts)
    busy = "" if found.seconds is None else " How busy the machine was then, and will be, it does not know."
    page.note(
        f"{escape(found.reason)}{busy} Memory: the frozen weights, and what the optimizer keeps for the experts; "
        "activations come on top and are not estimated."
    )


def _about(found: Estimate) -> str:
    if found.seconds is None:
        return "not known yet"
    low, high = page.seconds_text(found.low), page.seconds_text(found.high)
    return page.seconds_text(found.seconds) + ("" if low == high else f" ({low} to {high})")


def _learned(config: RunConfig) -> str:
    backbone, task = catalog.backbone(config.backbone), catalog.task(config.task)
    head = f"{(backbone.width + 1) * task.classes:,} in the head" if task.classes else "the head"
    if config.method != "mlae":
        return head
    experts = budget(config.plan, backbone.shapes(config.plan.targets)).parameters
    return f"{experts:,} in experts, {head}"


def _since_the_last(config: RunConfig) -> None:
    last = next((run for run in queries.runs() if visitor.is_mine(run)), None)
    if last is not None:
        page.note(escape(since(last, config)))


def since(last: Run, config: RunConfig) -> str:
    """What a run would have different from an earlier one: settings with both values, and the mask in counted cells."""
    old = last.config
    found = {
        name: values for name, values in differences(old, config).items() if name not in ("plan", "data", "data_label")
    }
    parts = []
    for name, (before, new) in found.items():
        setting = setting_of(RunConfig, name)
        parts.append(f"{setting.noun} {setting.shown(new)}, was {setting.shown(before)}")
    both = old.method == config.method == "mlae"
    if both and old.plan != config.plan:
        parts.append(f"of the mask's experts {_cells(old.plan, config.plan)}")
    what = f"your last run ({last.id})"
    if not parts:
        return f"Nothing differs from {what}: this would be the same once more."
    text = f"Against {what}: {'; '.join(parts)}."
    return f"{text} The two would be a pair." if both and pairs.unpaired_because(old, config) is None else text


def _cells(before: MaskPlan, now: MaskPlan) -> str:
    cells = plan_difference(before, now)
    words = cells.words("that one", "this one")
    if before.targets != now.targets:
        words += ", on other layers"
    beyond = [text for text in pairs.beyond_the_cells(before, now) if "on other layers" not in text]
    settings = f"; besides, with A for that one, {' and '.join(beyond)}" if beyond else ""
    counted = words.removeprefix("Experts: ")
    return f"{counted[:1].lower()}{counted[1:]}{settings}"


# ---------------------------------------------------------------- against another


def _pair(config: RunConfig, found: Estimate) -> str:
    plans = _plans(config)
    kept = st.session_state.get("launch_against")
    chosen = kept if kept in plans else next(iter(plans))
    picked = _cards(plans, [chosen], "launch_pair_cards", "The other mask")
    if picked and picked != chosen:
        st.session_state["launch_against"] = picked
        st.rerun()
    masks = [config.plan, plans[chosen][1]]
    seeds = _seeds("launch_pair_seeds")
    todo = race.wanted(queries.store(), config, masks, seeds)
    if st.button("Start the pair", type="primary", key="launch_pair"):
        runs = race.launch(queries.store(), located(config), masks, seeds, visitor.current(), "paired")
        queries.refresh()
        go("compare", a=runs[0].id, b=runs[1].id)
    page.note(f"This mask against “{escape(plans[chosen][0])}”. {_together(config, todo, found)}")
    return race.command(config, masks, seeds)


# ---------------------------------------------------------------- a race


def _race(config: RunConfig, found: Estimate) -> str:
    plans = _plans(config)
    kept = [name for name in st.session_state.get(_OTHERS, ["dense.dense", "uniform.stochastic"]) if name in plans]
    picked = _cards(plans, kept, "launch_race_cards", "Masks that race against this one")
    if picked:
        st.session_state[_OTHERS] = [name for name in kept if name != picked] if picked in kept else [*kept, picked]
        st.rerun()
    masks = [config.plan, *(plans[name][1] for name in kept)]
    seeds = _seeds("launch_race_seeds")
    if len(masks) < 2:
        page.note("Choose at least one mask above: yours races against it.")
        return config.command()
    todo = race.wanted(queries.store(), config, masks, seeds)
    if st.button(f"Start the race of {len(masks)} masks", type="primary", key="launch_race"):
        runs = race.launch(queries.store(), located(config), masks, seeds, visitor.current())
        queries.refresh()
        go("race", runs=",".join(run.id for run in runs))
    page.note(f"This mask and {_listed([plans[name][0] for name in kept])}. {_together(config, todo, found)}")
    return race.command(config, masks, seeds)


# ---------------------------------------------------------------- pieces


def _plans(config: RunConfig) -> dict[str, tuple[str, MaskPlan]]:
    """Masks that can stand against the draft's, by a name for each: dense and uniform, the saved ones, the paper's
    others; all different, none the draft's own."""
    paper = other_masks(config, config.plan)
    first = {name: paper.pop(name) for name in ("dense.dense", "uniform.stochastic") if name in paper}
    saved = {}
    try:
        for entry in queries.store().plans():
            saved[f"saved.{entry.id}"] = (entry.name, _fitting(entry.plan, config))
    except EXPECTED_ERRORS:
        pass  # the paper's are there all the same
    found: dict[str, tuple[str, MaskPlan]] = {}
    there = {config.plan}
    for name, (title, plan) in {**first, **saved, **paper}.items():
        if plan not in there:
            there.add(plan)
            found[name] = (title, plan)
    return found


def _fitting(plan: MaskPlan, config: RunConfig) -> MaskPlan:
    """The plan as it is where the backbone has its layers, else stretched over those of the draft's."""
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
            line=plan.kind.value + (" · saved" if name.startswith("saved.") else ""),
            images=(mask_image(plan),),
            chosen=name in chosen,
        )
        for name, (title, plan) in plans.items()
    ]
    return cards(items, key=key, label=label, size="small")


def _seeds(key: str) -> int:
    seeds = st.segmented_control(
        "Seeds",
        range(1, race.MAX_SEEDS + 1),
        default=1,
        required=True,
        key=key,
        help="One seed tells no lead from noise: three show how far the seed alone moves the result.",
    )
    return int(seeds)


def _together(config: RunConfig, todo: Sequence[Run | RunConfig], found: Estimate) -> str:
    """What starts, and how long all of it takes."""
    new = sum(isinstance(entry, RunConfig) for entry in todo)
    if not catalog.task(config.task).bundled:  # what the images may be called is known when they are counted
        return f"At most {new} runs start; those that are there already, on the same images, are taken."
    took = (
        f" About {page.seconds_text(new * found.seconds)} in all, one after the other." if new and found.seconds else ""
    )
    return started_text(todo) + took


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(f"“{escape(title)}”" for title in titles)
