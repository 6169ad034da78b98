"""Adapter files: a round trip, and one sentence for every other file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core.patterns import allocation, dense, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model.adapter_file import (
    FORMAT,
    AdapterError,
    InputDescription,
    adapter_state,
    load_adapter,
    read_adapter,
    save_adapter,
)
from mlae_lab.model.inject import Experts, inject

Build = Callable[..., VisionTransformer]

PLANS = {
    "uniform": uniform(0.5, 3, 4),
    "holes": allocation((2, 0, 4)),
    "rank 2": replace(uniform(0.25, 3, 2), expert_rank=2, coefficient_init=0.125, train_coefficients=False),
    "none": allocation((0, 0, 0)),
}
EXPECTED = InputDescription(
    ("a", "b", "c", "d", "e"), 224, "vtab", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "0123456789ab", ("aa", "bb"), 12
)


def adapted(build: Build, plan: MaskPlan, seed: int = 0) -> tuple[VisionTransformer, Experts]:
    """A network with trained experts, in eval mode."""
    model = build()
    experts = inject(model, plan, seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in [*experts.parameters(), *model.head.parameters()]:
            p.copy_(torch.randn(p.shape, generator=rng))
    return model.eval(), experts


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_saved_adapter_restores_the_trained_network(small_vit: Build, tmp_path: Path, plan: MaskPlan) -> None:
    model, experts = adapted(small_vit, plan)
    path = tmp_path / "adapter.safetensors"
    size = save_adapter(path, experts, model.head, "lab_vit_12x128", "digits")
    assert size == path.stat().st_size > 0
    result = read_adapter(path)
    assert result.plan == plan
    assert result.plan.hash == plan.hash
    assert (result.backbone, result.task, result.classes) == ("lab_vit_12x128", "digits", 5)

    other = small_vit()
    fresh = inject(other, result.plan, seed=99)
    load_adapter(result, fresh, other.head)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.eval()(x), model(x))


def test_what_the_network_expects_is_in_the_header(small_vit: Build, tmp_path: Path) -> None:
    model, path = small_vit(), tmp_path / "adapter.safetensors"
    save_adapter(path, None, model.head, "b", "t", EXPECTED)
    assert read_adapter(path).input == EXPECTED
    save_adapter(path, None, model.head, "b", "t")
    assert read_adapter(path).input == InputDescription()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_names": ["a"]}, "it names 1 of 5 classes"),
        ({"class_names": [1, 2, 3, 4, 5]}, "class_names must be a list of str"),
        ({"mean": ["0.5"] * 3}, "mean must be a list of float"),
        ({"image_size": "224"}, "image_size must be an integer"),
        ({"weights": 3}, "preprocessing and weights strings"),
        ({"depth": 7}, "depth must be 8 to 16 bits, or 0"),
        ({"depth": True}, "depth must be 8 to 16 bits, or 0"),
    ],
)
def test_a_damaged_description_of_the_input(small_vit: Build, tmp_path: Path, change: dict, reason: str) -> None:
    model, path = small_vit(), tmp_path / "adapter.safetensors"
    save_adapter(path, None, model.head, "b", "t", EXPECTED)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["mlae_lab"])
    header["input"] |= change
    save_file(adapter_state(None, model.head), path, metadata={"mlae_lab": json.dumps(header)})
    with pytest.raises(AdapterError, match=f"has a damaged header .*{reason}"):
        read_adapter(path)


def test_adapter_of_a_linear_probe_holds_only_the_head(small_vit: Build, tmp_path: Path) -> None:
    model, other = small_vit(seed=1), small_vit(seed=2)
    save_adapter(tmp_path / "a", None, model.head, "lab_vit_12x128", "digits")
    result = read_adapter(tmp_path / "a")
    assert result.plan is None
    assert set(result.tensors) == {"head.weight", "head.bias"}
    load_adapter(result, None, other.head)
    assert torch.equal(other.head.weight, model.head.weight)


def test_file_holds_exactly_the_trained_tensors(small_vit: Build, tmp_path: Path) -> None:
    model, experts = adapted(small_vit, PLANS["holes"])
    save_adapter(tmp_path / "a", experts, model.head, "lab_vit_12x128", "digits")
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert set(file.keys()) == {
            "head.weight",
            "head.bias",
            *(f"blocks.{i}.attn.qkv.{part}" for i in (0, 2) for part in ("a", "b", "coefficient")),
        }
        assert json.loads(file.metadata()["mlae_lab"])["format"] == FORMAT


def test_adapter_state_is_a_copy(small_vit: Build) -> None:
    model, experts = adapted(small_vit, PLANS["uniform"])
    state = adapter_state(experts, model.head)
    before = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        for p in (*experts.parameters(), *model.head.parameters()):
            p.zero_()
    assert all(torch.equal(state[name], before[name]) for name in state)


# ---------------------------------------------------------------- atomic writes


def test_saving_leaves_one_file_and_replaces_an_older_one(small_vit: Build, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    for seed in (1, 2):
        model, experts = adapted(small_vit, PLANS["uniform"], seed)
        save_adapter(path, experts, model.head, "lab_vit_12x128", "digits")
        assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"]
        assert torch.equal(read_adapter(path).tensors["head.bias"], model.head.bias)


def test_a_save_that_fails_leaves_nothing_behind(small_vit: Build, tmp_path: Path) -> None:
    """The target is a folder, so the last step, the renaming, fails."""
    (tmp_path / "adapter.safetensors").mkdir()
    with pytest.raises(OSError, match=r"adapter\.safetensors"):
        save_adapter(tmp_path / "adapter.safetensors", None, small_vit().head, "lab_vit_12x128", "digits")
    assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"]


# ---------------------------------------------------------------- files that are not adapters


@pytest.fixture
def whole(small_vit: Build, tmp_path: Path) -> bytes:
    """The bytes of a valid adapter."""
    model, experts = adapted(small_vit, dense(3, 1))
    save_adapter(tmp_path / "whole", experts, model.head, "lab_vit_12x128", "digits")
    return (tmp_path / "whole").read_bytes()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"gone.safetensors does not exist"):
        read_adapter(tmp_path / "gone.safetensors")


def test_a_folder_is_not_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="is not a readable safetensors file"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not an adapter", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64])
def test_files_that_are_not_adapters(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(AdapterError, match="is not a readable safetensors file"):
        read_adapter(tmp_path / "a")


def test_a_truncated_file_at_any_length(tmp_path: Path, whole: bytes) -> None:
    lengths = sorted({*range(64), *range(64, len(whole), 97), len(whole) - 1})
    for length in lengths:
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(AdapterError, match="is not a readable safetensors file"):
            read_adapter(tmp_path / "a")


def test_a_file_with_damaged_bytes_is_read_or_refused(tmp_path: Path, whole: bytes) -> None:
    """Up to three bytes of the header changed, many times: an adapter or an AdapterError, nothing else."""
    rng = random.Random(7)
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(header)] = rng.choice((rng.randrange(256), *b'0123456789"{}[],:-tfn'))
        (tmp_path / "a").write_bytes(damaged)
        try:
            read_adapter(tmp_path / "a")
        except AdapterError:
            refused += 1
    assert refused > 50


def test_safetensors_without_header(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(5, 32)}, tmp_path / "a")
    with pytest.raises(AdapterError, match="is not an adapter of this lab"):
        read_adapter(tmp_path / "a")
    save_file({"head.weight": torch.zeros(5, 32)}, tmp_path / "a", metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="is not an adapter of this lab"):
        read_adapter(tmp_path / "a")


GOOD = {"format": FORMAT, "plan": None, "backbone": "lab_vit_12x128", "task": "digits", "classes": 5}


HEADERS = {
    "text": "not json",
    "null": "null",
    "list": "[]",
    "number": "3",
    "word": '"text"',
    "empty": "{}",
    "deep": "[" * 100_000,
    **{f"no {gone}": json.dumps({k: v for k, v in GOOD.items() if k != gone}) for gone in GOOD},
    **{
        f"{name} {value}": json.dumps({**GOOD, name: value})
        for name, value in [
            ("format", FORMAT + 1),
            ("format", None),
            ("format", str(FORMAT)),
            ("plan", {}),
            ("plan", 3),
            ("plan", "m1"),
            ("plan", {**dense(1, 1).to_dict(), "keep": [[2]]}),
            ("classes", "many"),
            ("classes", None),
            ("classes", []),
            ("classes", -5),
            ("classes", 5.5),
            ("backbone", None),
            ("backbone", ["a"]),
            ("task", 7),
        ]
    },
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=[name[:20] for name in HEADERS])
def test_a_damaged_header(tmp_path: Path, header: str) -> None:
    save_file({"head.weight": torch.zeros(5, 32)}, tmp_path / "a", metadata={"mlae_lab": header})
    with pytest.raises(AdapterError) as error:
        read_adapter(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)


# ---------------------------------------------------------------- adapters of another network


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (dense(2, 4), "blocks.2.attn.qkv.a is only in the file"),
        (dense(3, 3), r"blocks.0.attn.qkv.a is \(4, 32\), not \(3, 32\)"),
        (
            MaskPlan(((1,) * 4,) * 3, ((0,) * 4,) * 3, block_targets(3, "mlp.fc1")),
            "blocks.0.attn.qkv.a is only in the file",
        ),
        (MaskPlan(((1,) * 4,) * 4, ((0,) * 4,) * 4, (*block_targets(3), "blocks.0.mlp.fc1")), "is only in the network"),
    ],
)
def test_an_adapter_of_another_plan_is_refused_and_nothing_copied(
    small_vit: Build, tmp_path: Path, plan: MaskPlan, words: str
) -> None:
    model, experts = adapted(small_vit, dense(3, 4))
    save_adapter(tmp_path / "a", experts, model.head, "lab_vit_12x128", "digits")
    other = small_vit(seed=5)
    fresh = inject(other, plan)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(AdapterError, match=f"the adapter does not fit: .*{words}"):
        load_adapter(read_adapter(tmp_path / "a"), fresh, other.head)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_head_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path / "a", None, nn.Linear(32, 5), "lab_vit_12x128", "digits")
    with pytest.raises(AdapterError, match=r"head.weight is \(5, 32\), not \(6, 32\)"):
        load_adapter(read_adapter(tmp_path / "a"), None, nn.Linear(32, 6))


def test_integers_in_place_of_numbers_are_refused(small_vit: Build, tmp_path: Path) -> None:
    model, path = small_vit(), tmp_path / "adapter.safetensors"
    save_adapter(path, None, model.head, "b", "t")
    stored = read_adapter(path)
    whole = replace(stored, tensors={name: tensor.long() for name, tensor in stored.tensors.items()})
    with pytest.raises(AdapterError, match=r"head\.weight is torch\.int64, not torch\.float32"):
        load_adapter(whole, None, model.head)
