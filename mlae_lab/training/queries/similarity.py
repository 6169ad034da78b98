"""Similarity of the experts of a run, at its end or at a kept checkpoint, alone or compared with another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlae_lab.analysis.similarity import cosines, off_diagonal_means, random_baseline_of
from mlae_lab.analysis.spectrum import Spectrum, effective_rank, overlap, overlaps, spectrum, stable_rank
from mlae_lab.core.plan import row_labels
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_overlap
from mlae_lab.methods.adapter import Factors
from mlae_lab.model.adapter_file import AdapterError, read_adapter
from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint
from mlae_lab.training.loaded_run import LoadedRun, QueryError
from mlae_lab.training.queries.images import check_names

MAX_TILE = 32  # experts or components of a layer whose cosines the answer holds


@dataclass(frozen=True)
class _Learned:
    """What was learned. layers: target to its experts or components, None for a row of a plan without experts."""

    layers: Mapping[str, Factors | None]
    rank: int

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.layers)


def similarity(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Cosines, spectra and spaces, row by row of the plan, or of the adapted layers of a low-rank method.

    For a low-rank method without experts, its rank-1 components are the experts.

    Arguments: file, path of a checkpoint of this run ("" for its end); other, path of another run's adapter or
    checkpoint ("" for none). Answer: targets; experts of each row; signed, absolute: mean cosine over pairs; matrices,
    None for a layer with more than MAX_TILE experts; values: singular values of ΔW; effective_rank, stable_rank;
    baseline, baseline_over_rows: the same cosine for random experts; reads, writes: overlap of the input and
    output subspaces of ΔW, row by row (None for different sizes); random_reads, random_writes: the overlap of random
    subspaces of these sizes; and `other`, the same for the other
    run, with same_reads, same_writes: the overlap with this run's row of the same name, and same_random_reads,
    same_random_writes: that of random subspaces, mean over these rows. None where nothing can be measured.
    """
    check_names(arguments, "file", "other")
    file, other = (_path(arguments, name) for name in ("file", "other"))
    learned = _of_file(file) if file else _of_run(loaded)
    answer, spectra = _measured(learned, on_progress, 0, 1 + bool(other))
    if other:
        other_run = _of_file(other)
        answer["other"], other_spectra = _measured(other_run, on_progress, 1, 2)
        rows = {target: row for row, target in enumerate(learned.targets)}
        for name, basis in (("reads", "right"), ("writes", "left")):
            pairs = [
                (getattr(spectra[rows[target]], basis), getattr(other_spectrum, basis)) if target in rows else None
                for target, other_spectrum in zip(other_run.targets, other_spectra, strict=True)
            ]
            answer["other"][f"same_{name}"] = [
                overlap(*pair) if pair and pair[0].shape[0] == pair[1].shape[0] else None for pair in pairs
            ]
            answer["other"][f"same_random_{name}"] = _random_pairs([pair for pair in pairs if pair])
    return answer


def _path(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise QueryError(f"{name} is {value!r}: it must be the path of an adapter or a checkpoint, or empty")
    return value


def _of_run(loaded: LoadedRun) -> _Learned:
    experts, layers = loaded.setup.experts, loaded.setup.adapter.factors()
    if experts is not None:
        return _Learned({target: layers.get(target) for target in experts.plan.targets}, experts.plan.expert_rank)
    if not layers:
        raise QueryError(
            f"the run ({loaded.setup.config.what}) has no experts and no factors by layer: choose a run with a "
            "mask or of a method such as LoRA"
        )
    return _Learned(layers, next(iter(layers.values())).rank)


def _of_file(file: str) -> _Learned:
    """The experts in an adapter or a checkpoint; a frozen λ is in no checkpoint and has its initial value."""
    try:
        adapter = read_adapter(Path(file))
        plan, tensors = adapter.plan, adapter.tensors
    except AdapterError:
        try:
            checkpoint = read_checkpoint(Path(file))
        except CheckpointError as error:
            raise QueryError(str(error)) from None
        tensors = checkpoint.tensors
        plan = checkpoint.config.plan if checkpoint.config.has_mask else None
    if plan is None:
        raise QueryError(f"{file} holds no experts: name a run with a mask")
    layers: dict[str, Factors | None] = {}
    for target, count in zip(plan.targets, plan.kept, strict=True):
        a, b = (tensors.get(f"{target}.{kind}") for kind in "ab")
        if not count:
            layers[target] = None
            continue
        shape = (count * plan.expert_rank,)
        if a is None or b is None or a.shape[:1] != shape or b.shape[1:] != shape:
            raise QueryError(f"{file} does not hold the experts of {target} that its plan has")
        initial = torch.full((count,), plan.coefficient_init)
        layers[target] = Factors(a, b, tensors.get(f"{target}.coefficient", initial), plan.expert_rank)
    return _Learned(layers, plan.expert_rank)


def _measured(learned: _Learned, on_progress: ProgressCallback, done: int, total: int) -> tuple[dict, list[Spectrum]]:
    rows = len(learned.layers)
    matrices, means, spectra, baselines = [], [], [], []
    for row, layer in enumerate(learned.layers.values()):
        on_progress(done * rows + row, total * rows)
        if layer is None:
            matrices.append([])
            means.append((None, None))
            spectra.append(Spectrum(torch.zeros(0), torch.zeros(0, 0), torch.zeros(0, 0)))
            baselines.append(None)
            continue
        matrix = cosines(*layer)
        is_small = len(matrix) <= MAX_TILE
        matrices.append([[round(value, 5) for value in line] for line in matrix.tolist()] if is_small else None)
        means.append(off_diagonal_means(matrix))
        spectra.append(spectrum(*layer))
        baselines.append(random_baseline_of(layer.a.shape[1], layer.b.shape[0], len(layer.coefficient), layer.rank))
    right, left = [s.right for s in spectra], [s.left for s in spectra]
    return {
        "targets": list(learned.targets), "labels": list(row_labels(learned.targets)),
        "experts": [len(layer.coefficient) if layer else 0 for layer in learned.layers.values()],
        "rank": learned.rank,
        "signed": [signed for signed, _ in means], "absolute": [absolute for _, absolute in means],
        "matrices": matrices,
        "values": [[float(f"{value:.6g}") for value in s.values.tolist()] for s in spectra],
        "effective_rank": [effective_rank(s.values) for s in spectra],
        "stable_rank": [stable_rank(s.values) for s in spectra],
        "baseline": [_baseline(baseline) for baseline in baselines],
        "baseline_over_rows": _baseline(over_layers(baselines)),
        "reads": overlaps(right), "writes": overlaps(left),
        "random_reads": _random(right), "random_writes": _random(left),
    }, spectra  # fmt: skip


def _baseline(baseline: RandomBaseline | None) -> dict | None:
    return None if baseline is None else {"mean": baseline.mean, "deviation": baseline.deviation}


def _random(spaces: list[torch.Tensor]) -> float | None:
    """Mean overlap of random subspaces over the pairs of rows that can be compared."""
    return _random_pairs([(space, other) for i, space in enumerate(spaces) for other in spaces[:i]])


def _random_pairs(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """The same for the given pairs, None if none can be compared."""
    values = [
        random_overlap(space.shape[1], other.shape[1], space.shape[0])
        for space, other in pairs
        if space.shape[0] == other.shape[0] and min(space.shape[1], other.shape[1])
    ]
    return sum(values) / len(values) if values else None


QUERIES = {"similarity": similarity}
