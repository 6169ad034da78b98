"""The query `similarity` on a small run: compared with the full matrices, at a checkpoint, with another run."""

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
CONFIG = config(PLAN, epochs=2, evaluations=1, seed=3)


def quiet(done: int, total: int) -> None:
    """Ignore progress."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedRun, Path, Path]:
    """A loaded run, a checkpoint of its middle, and the adapter of a run with another seed and λ fixed at 1."""
    folder = tmp_path_factory.mktemp("similarity")
    training = Training(small(CONFIG))
    running = training.run()
    for _ in range(2 + 3):
        next(running)
    save_checkpoint(folder / "middle", training.checkpoint())
    for _ in running:
        pass
    setup = training.setup
    save_adapter(folder / "end", setup.experts, setup.head, CONFIG.backbone, CONFIG.task)
    frozen = dataclasses.replace(PLAN, train_coefficients=False)
    other = Training(small(config(frozen, epochs=1, seed=4)))
    [*other.run()]
    save_adapter(folder / "other", other.setup.experts, other.setup.head, CONFIG.backbone, CONFIG.task)
    save_checkpoint(folder / "other-checkpoint", other.checkpoint())
    return LoadedRun(setup, folder / "end"), folder / "middle", folder / "other"


def deltas(loaded: LoadedRun) -> dict[str, Tensor]:
    return {target: layer.delta().detach().double() for target, layer in loaded.setup.experts.layers.items()}


def test_the_answer_agrees_with_the_full_matrices(trained: tuple[LoadedRun, Path, Path]) -> None:
    loaded, *_ = trained
    reports = []
    answer = queries()["similarity"](loaded, {}, lambda done, total: reports.append((done, total)))
    assert reports == [(0, 3), (1, 3), (2, 3)]
    assert answer["targets"] == list(QKV)
    assert answer["experts"] == [3, 0, 2]
    assert answer["rank"] == 2
    assert [len(matrix) for matrix in answer["matrices"]] == [3, 0, 2]
    assert answer["signed"][1] is answer["effective_rank"][1] is answer["baseline"][1] is None
    assert answer["values"][1] == []
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
        assert answer["matrices"][row][0][1] == pytest.approx(cosine, abs=1e-5)
        values = torch.linalg.svdvals(matrix)[: len(answer["values"][row])]
        assert answer["values"][row] == pytest.approx(values.tolist(), rel=1e-4)
        assert answer["stable_rank"][row] == pytest.approx(float(matrix.square().sum() / values[0] ** 2), rel=1e-5)
        assert 0 < answer["baseline"][row]["mean"] < 0.05
    svds = [torch.linalg.svd(deltas(loaded)[t], full_matrices=False) for t in (QKV[0], QKV[2])]
    u, v = (svd.Vh[: len(answer["values"][row])] for svd, row in zip(svds, (0, 2), strict=True))
    assert answer["reads"][0][2] == pytest.approx(float((u @ v.t()).square().sum() / min(len(u), len(v))), abs=1e-6)
    assert answer["reads"][0][0] == pytest.approx(1)
    assert answer["reads"][0][1] is None
    assert answer["writes"][0][2] is None  # of 384 and 512 numbers: not comparable
    assert answer["random_reads"] == pytest.approx(6 / 128)
    assert answer["random_writes"] is None


@pytest.mark.parametrize(("method", "experts", "rank"), [("lora", 2, 1), ("mola", 2, 3)])
def test_the_components_of_a_low_rank_method_are_compared(
    method: str, experts: int, rank: int, tmp_path: Path, trained: tuple[LoadedRun, Path, Path]
) -> None:
    settings = ("rank=2",) if method == "lora" else ("rank=3", "pattern=2468")
    training = Training(small(config(method=method, method_settings=settings, epochs=1)))
    [*training.run()]
    answer = similarity(LoadedRun(training.setup, tmp_path), {"other": str(trained[2])}, quiet)
    assert (answer["experts"][0], answer["rank"], len(answer["targets"])) == (experts, rank, 12)
    own = training.setup.adapter.factors()[QKV[0]]
    first, second = (own.b[:, i * rank : (i + 1) * rank] @ own.a[i * rank : (i + 1) * rank] for i in range(2))
    cosine = float((first * second).sum() / (first.norm() * second.norm()))
    assert answer["matrices"][0][0][1] == pytest.approx(cosine, abs=1e-4)
    values = torch.linalg.svdvals((own.b @ own.a).double())[: len(answer["values"][0])]
    assert answer["values"][0] == pytest.approx(values.tolist(), rel=1e-3)
    assert answer["other"]["same_reads"][0] is not None  # compared with a run with a mask


def test_at_a_checkpoint_and_compared_with_another_run(trained: tuple[LoadedRun, Path, Path]) -> None:
    loaded, middle, other = trained
    at_end = similarity(loaded, {}, quiet)
    at_middle = similarity(loaded, {"file": str(middle)}, quiet)
    assert at_middle["values"][0] != at_end["values"][0]
    assert at_middle["targets"] == at_end["targets"]
    comparison = similarity(loaded, {"other": str(other)}, quiet)
    assert {name: comparison[name] for name in at_end} == at_end
    of_other = comparison["other"]
    assert of_other["values"] != at_end["values"]
    assert of_other["same_reads"][1] is None
    assert all(0 < of_other[name][row] < 1 for name in ("same_reads", "same_writes") for row in (0, 2))
    assert of_other["same_random_reads"] == pytest.approx(5 / 128)
    assert of_other["same_random_writes"] == pytest.approx((6 / 384 + 4 / 512) / 2)
    itself = similarity(loaded, {"other": str(loaded.adapter)}, quiet)["other"]
    assert itself["same_reads"][0] == pytest.approx(1)
    assert itself["same_writes"][2] == pytest.approx(1)


def test_a_fixed_lambda_has_its_initial_value_in_a_checkpoint(
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


def test_an_invalid_query_is_an_error(trained: tuple[LoadedRun, Path, Path], tmp_path: Path) -> None:
    loaded, *_ = trained
    with pytest.raises(QueryError, match="does not exist"):
        similarity(loaded, {"other": str(tmp_path / "nothing")}, quiet)
    with pytest.raises(QueryError, match="file is 3: it must be the path"):
        similarity(loaded, {"file": 3}, quiet)
    with pytest.raises(QueryError, match="'files' is not an argument of this query: it takes file, other"):
        similarity(loaded, {"files": ""}, quiet)
    setup = small(dataclasses.replace(CONFIG, method="linear"))
    save_adapter(tmp_path / "probe", None, setup.head, CONFIG.backbone, CONFIG.task)
    with pytest.raises(QueryError, match="probe holds no experts: name a run with a mask"):
        similarity(loaded, {"other": str(tmp_path / "probe")}, quiet)
    with pytest.raises(QueryError, match=r"the run \(linear probe\) has no experts"):
        similarity(LoadedRun(setup, tmp_path / "probe"), {}, quiet)
    full_config = dataclasses.replace(CONFIG, plan=uniform(0.5, 12, 2))
    fresh = small(full_config)
    save_adapter(tmp_path / "whole", fresh.experts, fresh.head, CONFIG.backbone, CONFIG.task)
    loaded = load_run(full_config, tmp_path / "whole", device="cpu")
    assert similarity(loaded, {}, quiet)["effective_rank"] == [None] * 12  # fresh: ΔW is 0
