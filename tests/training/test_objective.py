"""The loss of a step: against torch's, and its parts against the whole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mlae_lab.core.config import RunConfig
from mlae_lab.training.objective import Mix, Objective, class_weights, mix_of_step, order_of_epoch

BASE = RunConfig("digits", method="linear")
CPU = torch.device("cpu")
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 3])


def logits(images: int = 9, classes: int = 4) -> torch.Tensor:
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(1))


def whole(config: RunConfig, mix: Mix | None = None) -> torch.Tensor:
    (part,) = Objective(config, LABELS, 4).parts(LABELS, mix, 1)
    return part.loss(logits())


def test_without_settings_it_is_cross_entropy_to_the_last_bit() -> None:
    assert torch.equal(whole(BASE), F.cross_entropy(logits(), LABELS))


def test_smoothing_spreads_a_share_of_the_target_evenly() -> None:
    target = 0.8 * F.one_hot(LABELS, 4).float() + 0.2 / 4
    expected = -(target * logits().log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(whole(replace(BASE, label_smoothing=0.2)), expected)


def test_weighted_classes_count_equally() -> None:
    weights = class_weights(LABELS, 4)
    assert weights.tolist() == pytest.approx([9 / (3 * 6), 9 / (3 * 2), 0, 9 / 3])
    of_class = [F.cross_entropy(logits()[c == LABELS], LABELS[c == LABELS]) for c in (0, 1, 3)]
    torch.testing.assert_close(whole(replace(BASE, class_balance="loss")), torch.stack(of_class).mean())


@pytest.mark.parametrize("number", [2, 3, 9])
@pytest.mark.parametrize("settings", [{}, {"class_balance": "loss"}, {"mixup": 0.4, "class_balance": "loss"}])
def test_the_parts_of_a_batch_add_up_to_its_loss(number: int, settings: dict) -> None:
    config = replace(BASE, **settings)
    mix = mix_of_step(config, 3, len(LABELS), CPU)
    parts = [*Objective(config, LABELS, 4).parts(LABELS, mix, number)]
    assert len(parts) == number
    torch.testing.assert_close(sum(part.loss(logits()[part.images]) for part in parts), whole(config, mix))


def test_a_small_batch_has_fewer_parts() -> None:
    assert len([*Objective(BASE, LABELS, 4).parts(LABELS[:2], None, 8)]) == 2


def test_a_mix_depends_on_seed_and_step_only_and_mixes_labels_as_images() -> None:
    config = replace(BASE, mixup=0.4)
    mix, again = (mix_of_step(config, 7, 9, CPU) for _ in range(2))
    other = mix_of_step(config, 8, 9, CPU)
    assert mix is not None
    assert again is not None
    assert other is not None
    assert mix.share == again.share != other.share
    assert torch.equal(mix.partners, again.partners)
    assert sorted(mix.partners.tolist()) == list(range(9))
    images = torch.rand(9, 3, 4, 4)
    torch.testing.assert_close(mix.of(images), mix.share * images + (1 - mix.share) * images[mix.partners])
    target = mix.of(F.one_hot(LABELS, 4).float())
    torch.testing.assert_close(whole(config, mix), -(target * logits().log_softmax(1)).sum(1).mean())
    assert mix_of_step(BASE, 7, 9, CPU) is None


def test_shares_of_mixup_follow_their_beta_distribution() -> None:
    config = replace(BASE, mixup=0.5)
    shares = [mix.share for step in range(2000) if (mix := mix_of_step(config, step, 2, CPU))]
    mean, variance = sum(shares) / 2000, sum((s - 0.5) ** 2 for s in shares) / 2000
    assert mean == pytest.approx(0.5, abs=4 * math.sqrt(0.125 / 2000))
    assert variance == pytest.approx(1 / 8, rel=0.08)  # 1 / (4 (2 α + 1))


def test_balanced_sampling_takes_every_class_equally_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    config = replace(BASE, class_balance="sampling")
    order = order_of_epoch(config, labels, torch.Generator().manual_seed(0))
    assert len(order) == 1000
    counts = torch.bincount(labels[order], minlength=3).tolist()
    assert all(count == pytest.approx(333, abs=60) for count in counts)  # four standard deviations
    plain = order_of_epoch(BASE, labels, torch.Generator().manual_seed(0))
    assert torch.equal(plain, torch.randperm(1000, generator=torch.Generator().manual_seed(0)))
