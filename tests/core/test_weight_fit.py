"""A weight file is compared with a backbone by its header alone, and the text names a backbone that fits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.weight_fit import fitting_architectures, require_fit, require_weights
from mlae_lab.core.weight_header import BackboneError, Shapes, shapes_of
from mlae_lab.core.weight_names import unwrapped
from mlae_lab.data.tasks import located

VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")


def vit_shapes(depth: int = 12, width: int = 768, patch: int = 16, prefix: str = "", tokens: int = 197) -> Shapes:
    shapes: Shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, tokens, width), "patch_embed.proj.bias": (width,),
        "patch_embed.proj.weight": (width, 3, patch, patch), "norm.weight": (width,), "norm.bias": (width,),
        "head.weight": (1000, width), "head.bias": (1000,),
    }  # fmt: skip
    for i in range(depth):
        for name, (out, into) in {
            "attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4),
        }.items():  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = (out * width, into * width)
            shapes[f"blocks.{i}.{name}.bias"] = (out * width,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (width,), f"blocks.{i}.{norm}.bias": (width,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def without(shapes: Shapes, start: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(start)}


def written(path: Path, shapes: Shapes, dtype: str = "F32") -> Path:
    """A safetensors file with these tensors, all zero and without space on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)  # more than small numbers need
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    "shapes",
    [
        vit_shapes(),
        vit_shapes(prefix="module.net."),
        vit_shapes(tokens=577),
        vit_shapes(prefix="x."),
    ],
    ids=["timm", "prefixes", "another grid", "any prefix"],
)
def test_a_file_that_fits(file: Path, shapes: Shapes) -> None:
    assert require_fit(VIT_B16, written(file, shapes)) == ()


@pytest.mark.parametrize(
    ("shapes", "trouble", "name"),
    [
        (vit_shapes(width=384), "blocks.0.attn.qkv.weight is (1152, 384), not (2304, 768)", "vit_small_patch16_224"),
        (vit_shapes(depth=24, width=1024), "and 47 more have wrong shapes", "vit_large_patch16_224"),
        (vit_shapes(patch=32, tokens=50), "its patches have 32 x 32 pixels, not 16 x 16", "vit_base_patch32_224"),
        (vit_shapes(depth=11), "it has no blocks.11", ""),
        (vit_shapes(depth=13), "it has blocks.12.attn.qkv, which is not part of it", ""),
        (without(vit_shapes(), "blocks.3.norm1."), "1,536 of 85,798,656 parameters are missing", ""),
        (without(vit_shapes(tokens=577), "norm."), "1,536 of 85,798,656 parameters are missing", ""),
        ({"layer.weight": (10, 10)}, "it holds 100 numbers, and the backbone has 85,798,656 parameters", ""),
        ({}, "it holds 0 numbers", ""),
    ],
)
def test_a_file_of_another_network(file: Path, shapes: Shapes, trouble: str, name: str) -> None:
    with pytest.raises(BackboneError) as error:
        require_fit(VIT_B16, written(file, shapes))
    text = str(error.value)
    assert trouble in text
    assert text.startswith(f"{file} does not fit {VIT_B16.name}: ")
    assert (f"it fits {name}" in text) if name else text.endswith("choose another file or another backbone")
    assert len(text) < 400


@pytest.mark.parametrize(("dtype", "kind"), [("I8", "int8"), ("U8", "uint8")])
def test_a_quantised_network_is_refused_by_its_header(file: Path, dtype: str, kind: str) -> None:
    with pytest.raises(BackboneError, match=rf"attn\.qkv\.weight holds integers \({kind}\), as of a quantised network"):
        require_fit(VIT_B16, written(file, vit_shapes(), dtype))
    assert require_fit(VIT_B16, written(file, vit_shapes(), "BF16")) == ()


def test_an_unknown_naming_is_left_to_the_loader(file: Path) -> None:
    shapes = {f"layers.{i}.weight": (768, 768 * 12) for i in range(12)}
    assert require_fit(VIT_B16, written(file, shapes)) == ()


def test_networks_with_stages_are_recognised() -> None:
    for name in ("swin_base_patch4_window7_224", "convnext_base", "mixer_b16_224"):
        entry = catalog.backbone(name)
        shapes = {f"{layer}.weight": (rows.d_out, rows.d_in) for rows in entry.linears for layer in rows.names}
        assert name in fitting_architectures(shapes)


def test_a_truncated_file(file: Path) -> None:
    size = written(file, vit_shapes()).stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size - 1)
    with pytest.raises(BackboneError, match="is not a readable safetensors file"):
        shapes_of(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x02(" + b"]" * 2_000_001 + b"l.", "more names and values than a network has"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00(" + b"K\x01" * 65 + b"ttR.", "has 65 dimensions"),
    ],
)
def test_a_pickle_that_would_fill_the_memory_is_not_loaded(tmp_path: Path, content: bytes, words: str) -> None:
    """Every `]` of the first one would be a list of 72 bytes."""
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(BackboneError, match=words):
        shapes_of(tmp_path / "w.pt")


def test_a_file_is_checked_before_the_folder_of_images_is_looked_at(file: Path, tmp_path: Path) -> None:
    written(file, vit_shapes(width=384))
    config = RunConfig(
        "own:birds", uniform(0.5), backbone=VIT_B16.name, weights=str(file), data=str(tmp_path / "no such folder")
    )
    for check in (require_weights, located):
        with pytest.raises(BackboneError, match="it fits vit_small_patch16_224"):
            check(config)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(BackboneError, match="is a Git LFS pointer of a file with 12 bytes"):
        located(config)


def test_wrappers_may_be_nested_and_empty_ones_are_passed_over() -> None:
    tensors = {"a": 1}
    assert unwrapped({"model": {"state_dict": tensors}, "epoch": 3}) == (tensors, ())
    assert unwrapped({"model_ema": {}, "net": tensors}) == (tensors, ())
    assert unwrapped({"model_ema": {"decay": 0.9, "module": tensors}}) == (tensors, ())
    assert unwrapped(tensors) == (tensors, ())
