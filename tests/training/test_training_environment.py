"""What changed between two parts of a training, in words."""

from __future__ import annotations

import torch

from mlae_lab.training.environment import change_note, environment_of

NOW = {
    "device": "cpu",
    "gpu": "",
    "cpu": "AVX2",
    "torch": "2.9",
    "precision": "bfloat16",
    "float32_products": "highest",
}


def test_the_same_environment_needs_no_note() -> None:
    here = environment_of(torch.device("cpu"), torch.bfloat16)
    assert set(here) == set(NOW)
    assert here["precision"] == "bfloat16"
    assert change_note(here, here) == ""
    assert change_note({}, here) == ""  # the first step, or a checkpoint of an earlier version


def test_a_change_is_named_with_what_stays() -> None:
    assert change_note({**NOW, "cpu": "AVX512 with bfloat16", "torch": "2.8"}, NOW) == (
        "Resumed in another environment: CPU instructions AVX2 (before: AVX512 with bfloat16), torch 2.9 (before: 2.8)."
        " The precision bfloat16 is kept, but the numbers may differ from those of an uninterrupted run."
    )
    note = change_note({**NOW, "device": "cuda", "gpu": "H100", "precision": "float16"}, NOW)
    assert "GPU none (before: H100), precision bfloat16 (before: float16)" in note
    assert "is kept" not in note
