"""The question `similarity`, on a real small run: against the matrices themselves, at a checkpoint, beside another run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mlae_lab.core.patterns import uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.checkpoint import save_checkpoint
from mlae_lab.training.loaded_run import LoadedRun, QueryError, load_run
from mlae_lab.training.queries import queries
from mlae_lab.training.queries.similarity import similarity
from mlae_lab.training.trainer import Training
from tests.training.test_trainer import config, small

QKV = ("blocks.0.attn.qkv", "blocks.4.attn.qkv", "blocks.11.mlp.fc1")
PLAN = MaskPlan(((1, 1, 1), (0, 0, 0), (0, 1, 1)), ((0.5, 0.25, 0), (0, 0, 0), (0, 0.5, 0)), QKV, expert_rank=2)
CHOSEN = config(PLAN, epochs=2, evaluations=1, seed=3)


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedRun, Path, Path]:
    """A run as a subject; a checkpoint of its middle; the adapter of the same run with another seed, λ left at 1."""
    folder = tmp_path_factory.mktemp("alike")
    training = Training(small(CHOSEN))
    running = training.run()
    for _ in range(2 + 3):
        next(running)
    save_checkpoint(folder / "middle", training.checkpoint())
    for _ in running:
        pass
    setup = training.setup
    save_adapter(folder / "end", setup.experts, setup.head, CHOSEN.backbone, CHOSEN.task)
    frozen = dataclasses.replace(PLAN, train_coefficients=False)
    other = Training(small(config(frozen, epochs=1, seed=4)))
    [*other.run()]
    save_adapter(folder / "other", other.setup.experts, other.setup.head, CHOSEN.backbone, CHOSEN.task)
    save_checkpoint(folder / "other-checkpoint", other.checkpoint())
    return LoadedRun(setup, folder / "end"), folder / "middle", folder / "other"


def deltas(loaded: LoadedRun) -> dict[str, Tensor]:
    return {target: layer.delta().detach().double() for target, layer in loaded.setup.experts.layers.items()}


def test_the_answer_is_that_of_the_matrices(trained: tuple[LoadedRun, Path, Path]) -> None:
    loaded, *_ = trained
    told = []
    found = queries()["similarity"](loaded, {}, lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert found["targets"] == list(QKV)
    assert found["experts"] == [3, 0, 2]
    assert found["rank"] == 2
    assert [len(matrix) for matrix in found["matrices"]] == [3, 0, 2]
    assert found["signed"][1] is found["effective_rank"][1] is found["baseline"][1] is None
    assert found["values"][1] == []
    for row, target in ((0, QKV[0]), (2, QKV[2])):
        matrix = deltas(loaded)[target]
        layer = loaded.setup.experts.layers[target]
        flat = [
            (layer.coefficient[i] * layer.b[:, 2 * i : 2 * i + 2] @ layer.a[2 * i : 2 * i + 2])
            .detach()
            .double()
            .flatten()
            for i in range(len(layer.columns))
        ]
        cosine = float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm()))
        assert found["matrices"][row][0][1] == pytest.approx(cosine, abs=1e-5)
        values = torch.linalg.svdvals(matrix)[: len(found["values"][row])]
        assert found["values"][row] == pytest.approx(values.tolist(), rel=1e-4)
        assert found["stable_rank"][row] == pytest.approx(float(matrix.square().sum() / values[0] ** 2), rel=1e-5)
        assert 0 < found["baseline"][row]["mean"] < 0.05
    left = [torch.linalg.svd(deltas(loaded)[t], full_matrices=False) for t in (QKV[0], QKV[2])]
    u, v = (svd.Vh[: len(found["values"][row])] for svd, row in zip(left, (0, 2), strict=False))
    assert found["reads"][0][2] == pytest.approx(float((u @ v.t()).square().sum() / min(len(u), len(v))), abs=1e-6)
    assert found["reads"][0][0] == pytest.approx(1)
    assert found["reads"][0][1] is None
    assert found["writes"][0][2] is None  # 384 numbers and 512: there is nothing to compare
    assert found["random_reads"] == pytest.approx(6 / 128)
    assert found["random_writes"] is None


def test_at_a_checkpoint_and_beside_another_run(trained: tuple[LoadedRun, Path, Path]) -> None:
    loaded, middle, other = trained
    end = similarity(loaded, {}, quiet)
    before = similarity(loaded, {"file": str(middle)}, quiet)
    assert before["values"][0] != end["values"][0]
    assert before["targets"] == end["targets"]
    both = similarity(loaded, {"other": str(other)}, quiet)
    assert {name: both[name] for name in end} == end
    its = both["other"]
    assert its["values"] != end["values"]
    assert its["same_reads"][1] is None
    assert all(0 < its[name][row] < 1 for name in ("same_reads", "same_writes") for row in (0, 2))
    assert its["same_random_reads"] == pytest.approx(5 / 128)
    assert its["same_random_writes"] == pytest.approx((6 / 384 + 4 / 512) / 2)
    itself = similarity(loaded, {"other": str(loaded.adapter)}, quiet)["other"]
    assert itself["same_reads"][0] == pytest.approx(1)
    assert itself["same_writes"][2] == pytest.approx(1)


def test_a_lambda_that_did_not_learn_is_in_no_checkpoint_and_has_its_start(
    trained: tuple[LoadedRun, Path, Path],
) -> None:
    loaded, _, other = trained
    by_adapter = similarity(loaded, {"file": str(other)}, quiet)
    by_checkpoint = similarity(loaded, {"file": str(other.with_name("other-checkpoint"))}, quiet)
    assert by_adapter == by_checkpoint


def test_the_network_is_left_as_it_was(trained: tuple[LoadedRun, Path, Path]) -> None:
    loaded, _, other = trained
    before = {name: value.clone() for name, value in loaded.setup.model.state_dict().items()}
    similarity(loaded, {"other": str(other)}, quiet)
    assert all(torch.equal(value, before[name]) for name, value in loaded.setup.model.state_dict().items())


def test_what_cannot_be_answered_is_a_sentence(trained: tuple[LoadedRun, Path, Path], tmp_path: Path) -> None:
    loaded, *_ = trained
    with pytest.raises(QueryError, match="does not exist"):
        similarity(loaded, {"other": str(tmp_path / "nothing")}, quiet)
    with pytest.raises(QueryError, match="file is 3: it must be the path"):
        similarity(loaded, {"file": 3}, quiet)
    setup = small(dataclasses.replace(CHOSEN, method="linear"))
    save_adapter(tmp_path / "probe", None, setup.head, CHOSEN.backbone, CHOSEN.task)
    with pytest.raises(QueryError, match="a linear probe, which has no experts"):
        similarity(loaded, {"other": str(tmp_path / "probe")}, quiet)
    with pytest.raises(QueryError, match="a linear probe has no experts"):
        similarity(LoadedRun(setup, tmp_path / "probe"), {}, quiet)
    damaged = dataclasses.replace(CHOSEN, plan=uniform(0.5, 12, 2))
    full = small(damaged)
    save_adapter(tmp_path / "whole", full.experts, full.head, CHOSEN.backbone, CHOSEN.task)
    loaded = load_run(damaged, tmp_path / "whole", device="cpu")
    assert similarity(loaded, {}, quiet)["effective_rank"] == [None] * 12  # fresh: ΔW is 0
