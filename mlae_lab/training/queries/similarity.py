"""Similarity of the experts of a run, at its end or at a kept checkpoint, alone or compared with another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlae_lab.analysis.similarity import cosines, off_diagonal_means, random_baseline_of
from mlae_lab.analysis.spectrum import Spectrum, effective_rank, overlap, overlaps, spectrum, stable_rank
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_overlap
from mlae_lab.model.adapter_file import AdapterError, read_adapter
from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint
from mlae_lab.training.loaded_run import LoadedRun, QueryError
from mlae_lab.training.queries.images import check_names


@dataclass(frozen=True)
class _Layer:
    """The factors of one layer: a (E k, d_in), b (d_out, E k), coefficient (E,), rank k."""

    a: torch.Tensor
    b: torch.Tensor
    coefficient: torch.Tensor
    rank: int

    @property
    def factors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        return self.a, self.b, self.coefficient, self.rank


@dataclass(frozen=True)
class _Learned:
    """The experts in a file. layers: row by row of the plan."""

    plan: MaskPlan
    layers: tuple[_Layer | None, ...]


def similarity(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Cosines, spectra and spaces, row by row of the plan.

    Arguments: file, path of a checkpoint of this run ("" for its end); other, path of another run's adapter or
    checkpoint ("" for none). Answer: targets; experts of each row; signed, absolute: mean cosine over pairs; matrices;
    values: singular values of ΔW; effective_rank, stable_rank; baseline, baseline_over_rows: the same cosine for random
    experts; reads, writes: overlap of the input and output subspaces of ΔW, row by row (None for different sizes);
    random_reads, random_writes: the overlap of random subspaces of these sizes; and `other`, the same for the other
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
        rows = {target: row for row, target in enumerate(learned.plan.targets)}
        for name, basis in (("reads", "right"), ("writes", "left")):
            pairs = [
                (getattr(spectra[rows[target]], basis), getattr(other_spectrum, basis)) if target in rows else None
                for target, other_spectrum in zip(other_run.plan.targets, other_spectra, strict=True)
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
    experts = loaded.setup.experts
    if experts is None:
        raise QueryError(f"the run ({loaded.setup.config.what}) has no experts: choose a run with a mask")
    layers = {
        target: _Layer(layer.a.detach().cpu(), layer.b.detach().cpu(), layer.coefficient.detach().cpu(), layer.rank)
        for target, layer in experts.layers.items()
    }
    return _Learned(experts.plan, tuple(layers.get(target) for target in experts.plan.targets))


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
    layers: list[_Layer | None] = []
    for target, count in zip(plan.targets, plan.kept, strict=True):
        a, b = (tensors.get(f"{target}.{kind}") for kind in "ab")
        if not count:
            layers.append(None)
            continue
        shape = (count * plan.expert_rank,)
        if a is None or b is None or a.shape[:1] != shape or b.shape[1:] != shape:
            raise QueryError(f"{file} does not hold the experts of {target} that its plan has")
        initial = torch.full((count,), plan.coefficient_init)
        layers.append(_Layer(a, b, tensors.get(f"{target}.coefficient", initial), plan.expert_rank))
    return _Learned(plan, tuple(layers))


def _measured(learned: _Learned, on_progress: ProgressCallback, done: int, total: int) -> tuple[dict, list[Spectrum]]:
    plan, rows = learned.plan, learned.plan.rows
    matrices, means, spectra, baselines = [], [], [], []
    for row, layer in enumerate(learned.layers):
        on_progress(done * rows + row, total * rows)
        if layer is None:
            matrices.append([])
            means.append((None, None))
            spectra.append(Spectrum(torch.zeros(0), torch.zeros(0, 0), torch.zeros(0, 0)))
            baselines.append(None)
            continue
        matrix = cosines(*layer.factors)
        matrices.append([[round(value, 5) for value in line] for line in matrix.tolist()])
        means.append(off_diagonal_means(matrix))
        spectra.append(spectrum(*layer.factors))
        baselines.append(random_baseline_of(layer.a.shape[1], layer.b.shape[0], len(layer.coefficient), layer.rank))
    right, left = [s.right for s in spectra], [s.left for s in spectra]
    return {
        "targets": list(plan.targets), "labels": list(plan.row_labels), "experts": list(plan.kept),
        "rank": plan.expert_rank,
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
