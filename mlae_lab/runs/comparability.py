"""Whether two runs can be compared: equal in all settings except the mask, and started from the same.

Two runs with one seed share the initial head, the initial a of every expert that both masks have, the batches and the
random numbers from which masks are sampled. So B - A after an epoch is the effect of the mask for this seed; its
variation between seeds needs several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.events import Started
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import setting_of
from mlae_lab.core.study_presets import MAX_MASKS
from mlae_lab.runs import devices
from mlae_lab.runs.outcomes import may_be_same_images
from mlae_lab.runs.store import Run, RunStore


def unpaired_because(a: RunConfig, b: RunConfig) -> str | None:
    """Why two configs are not a pair, as the end of a sentence; None if they are.

    All settings except the mask must be equal, the seed included. The folder of the images does not count, nor how
    the device is written if it is the same one on this machine.
    """
    return _unpaired(a, b, devices.kind(a.device), devices.kind(b.device))


def is_paired(a: RunConfig, b: RunConfig) -> bool:
    """Whether two configs differ in the mask only."""
    return unpaired_because(a, b) is None


def unpaired_runs_because(store: RunStore, a: Run, b: Run) -> str | None:
    """Like `unpaired_because` for two runs: compares the devices they ran on and what they started from, too."""
    return _unpaired(a.config, b.config, a.device, b.device) or unlike_because(store, a, b)


def is_one_family(a: Run, b: Run) -> bool:
    """Whether two runs differ in mask and seed only, so that runs of both masks with one seed are a pair."""
    is_branched = "branched" in (a.relation, b.relation)
    return not is_branched and _unpaired(a.config, replace(b.config, seed=a.config.seed), a.device, b.device) is None


def _unpaired(a: RunConfig, b: RunConfig, device_a: str, device_b: str) -> str | None:
    without = [f"{name} ({config.what})" for name, config in (("A", a), ("B", b)) if not config.has_mask]
    if without:
        return f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no mask"
    differing = {name: values for name, values in differences(a, b).items() if name not in ("plan", "data", "device")}
    if device_a != device_b:
        differing["device"] = (device_a, device_b)
    if differing:
        described = [(setting_of(RunConfig, name), values) for name, values in differing.items()]
        return "; ".join(
            f"their {setting.plural} differ: {setting.shown(x)} and {setting.shown(y)}" for setting, (x, y) in described
        )
    if a.plan == b.plan:
        return "their masks are the same"
    return _time_limited(a)


def _time_limited(config: RunConfig) -> str | None:
    if config.early_stopping:
        return f"they have {config.ends_early}, so they may train for different numbers of steps"
    if config.max_seconds is None:
        return None
    return (
        f"they stop after {config.max_seconds:g} seconds and their learning rate depends on the time, so it differs "
        "between them at the same step"
    )


def unlike_because(store: RunStore, a: Run, b: Run, started: Mapping[str, Started] | None = None) -> str | None:
    """Why two runs whose configs are paired, or equal up to the seed, did not start from the same; None if they did.

    Args:
        store: Of the runs.
        a: A run.
        b: Another one.
        started: How runs started, by id, if that was read already.
    """
    for run in (a, b):
        if run.relation == "branched":
            return f"run {run.id} was branched from a checkpoint of another run, so the two starts differ"
    if not may_be_same_images(a.config, b.config):
        return f"their images differ: fingerprints {a.config.data_fingerprint} and {b.config.data_fingerprint}"
    started = store.last_of_each([a.id, b.id], Started) if started is None else started
    start_a, start_b = started.get(a.id), started.get(b.id)
    if start_a and start_b:
        random_weights = a.config.seed != b.config.seed and not catalog.backbone(a.config.backbone).trained
        if start_a.weights and start_b.weights and start_a.weights != start_b.weights and not random_weights:
            return f"their weights differ: fingerprints {start_a.weights} and {start_b.weights}"
        if start_a.precision != start_b.precision:
            return f"their precisions differ: {start_a.precision} and {start_b.precision}"
        for name, x, y in (
            ("training", start_a.train_images, start_b.train_images),
            ("evaluation", start_a.evaluation_images, start_b.evaluation_images),
        ):
            if x != y:
                return f"their numbers of {name} images differ: {x:,} and {y:,}"
    return None


def beyond_the_cells(a: MaskPlan, b: MaskPlan, name_a: str = "A", name_b: str = "B") -> list[str]:
    """Differences of two plans other than cells and drop rates, each as one sentence without its full stop."""
    sentences = []
    if a.expert_rank != b.expert_rank:
        sentences.append(f"the experts have rank {a.expert_rank} in {name_a} and {b.expert_rank} in {name_b}")
    if a.coefficient_init != b.coefficient_init:
        sentences.append(f"the initial λ is {a.coefficient_init:g} in {name_a} and {b.coefficient_init:g} in {name_b}")
    if a.train_coefficients != b.train_coefficients:
        sentences.append(f"λ is trained in {name_a if a.train_coefficients else name_b} only")
    if a.targets != b.targets:
        sentences.append("the masks are on other layers, and only cells of shared layers start equal")
    return sentences


def unequal_because(store: RunStore, runs: Sequence[Run]) -> str | None:
    """Why runs differ in more than mask and seed, as the end of a sentence; None if they do not."""
    if len({run.config.plan for run in runs}) < 2:
        return "they have one mask; choose runs with two or more"
    if len({run.config.plan for run in runs}) > MAX_MASKS:
        return f"they have more than {MAX_MASKS} masks"
    of_seed: dict[int, Run] = {}
    for run in runs:
        if run.relation == "branched":
            return f"run {run.id} was branched from a checkpoint of another run, so its start differs"
        if why := _unequal_configs(runs[0], run):
            return f"of {runs[0].id} and {run.id} {why}"
        peer = of_seed.setdefault(run.config.seed, run)  # per seed: random weights depend on it
        if peer.config.plan != run.config.plan and (why := unpaired_runs_because(store, peer, run)):
            return f"of {peer.id} and {run.id} {why}"
    return None


def _unequal_configs(a: Run, b: Run) -> str | None:
    """The settings other than mask, seed and folder of the images in which two runs differ; None for none."""
    config = replace(a.config, device=a.device)
    plan = b.config.plan
    if plan == config.plan:  # any other mask: a pair needs two
        plan = replace(plan, expert_rank=plan.expert_rank % 2 + 1)
    return unpaired_because(config, replace(b.config, device=b.device, seed=config.seed, plan=plan))
