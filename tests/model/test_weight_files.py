"""Weight files: three formats of one network, names of other programs, and files that do not fit."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core.weight_header import Shape, shapes_of
from mlae_lab.core.weight_names import unwrapped
from mlae_lab.model.backbones import fingerprint
from mlae_lab.model.weight_files import BackboneError, backbone_state, head_prefix, load_weights

State = dict[str, torch.Tensor]


def vit(seed: int, num_classes: int = 3, **arguments: object) -> VisionTransformer:
    """A narrow ViT of one block whose tensors all differ; the arguments are timm's."""
    usual = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    torch.manual_seed(seed)
    model = timm.create_model("vit_base_patch16_224", num_classes=num_classes, **{**usual, **arguments})
    with torch.no_grad():
        for (
            value
        ) in model.parameters():  # timm initialises biases and norms with 0 and 1: swapped tensors would not show
            value.copy_(torch.randn(value.shape) * 0.02)
    return model.eval()


def small(seed: int, name: str = "test_vit", **arguments: object) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=3, **arguments).eval()


def jax_names(model: VisionTransformer) -> dict[str, np.ndarray]:
    """The tensors of a ViT as google-research/vision_transformer writes them."""
    heads, width = model.blocks[0].attn.num_heads, model.embed_dim
    deep, state = width // heads, {name: value.numpy() for name, value in model.state_dict().items()}
    result = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        "pre_logits/kernel": np.zeros((width, width), np.float32),
    }
    for i in range(len(model.blocks)):
        block, own = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        for norm, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            result[f"{block}{name}/scale"] = state[f"{own}{norm}.weight"]
            result[f"{block}{name}/bias"] = state[f"{own}{norm}.bias"]
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            result[f"{attention}{part}/kernel"] = state[f"{own}attn.qkv.weight"][rows].T.reshape(width, heads, deep)
            result[f"{attention}{part}/bias"] = state[f"{own}attn.qkv.bias"][rows].reshape(heads, deep)
        result[f"{attention}out/kernel"] = state[f"{own}attn.proj.weight"].T.reshape(heads, deep, width)
        result[f"{attention}out/bias"] = state[f"{own}attn.proj.bias"]
        for j in (0, 1):
            result[f"{block}MlpBlock_3/Dense_{j}/kernel"] = state[f"{own}mlp.fc{j + 1}.weight"].T
            result[f"{block}MlpBlock_3/Dense_{j}/bias"] = state[f"{own}mlp.fc{j + 1}.bias"]
    return result


def written(path: Path, model: nn.Module) -> Path:
    """The network as a file in the format of the path's suffix."""
    if path.suffix == ".npz":
        np.savez(path, **jax_names(model))
    elif path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def equal(first: nn.Module, second: nn.Module) -> bool:
    a, b = backbone_state(first), backbone_state(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------- three formats, one network


def test_one_network_from_npz_safetensors_and_bin(tmp_path: Path) -> None:
    real = {"depth": 2, "embed_dim": 768, "num_heads": 12}  # ViT-B/16 in its own width, two of its twelve blocks
    source, marks = vit(seed=1, **real), set()
    model = vit(seed=2, num_classes=5, **real)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for ending in (".npz", ".safetensors", ".bin"):
        model.load_state_dict(before)
        head = model.head.weight.clone()
        assert load_weights(model, written(tmp_path / f"w{ending}", source)) == ()
        assert equal(model, source), ending
        assert torch.equal(model.head.weight, head)  # the head in the file is not this task's
        marks.add(fingerprint(model))
    model.load_state_dict(before)
    assert marks == {fingerprint(source)}
    assert fingerprint(model) not in marks


SWIN = {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("swin_tiny_patch4_window7_224", SWIN), ("mixer_s32_224", {}), ("convnext_tiny", CONVNEXT)],
)
def test_other_architectures_from_timms_names(tmp_path: Path, name: str, arguments: dict) -> None:
    source, model = small(1, name, **arguments), small(2, name, **arguments)
    assert load_weights(model, written(tmp_path / "w.safetensors", source)) == ()
    assert equal(model, source)
    state = backbone_state(source)  # a file without a head, in which timm's loader for Swin would see an old one
    torch.save(state, tmp_path / "headless.pth")
    second = small(3, name, **arguments)
    assert load_weights(second, tmp_path / "headless.pth") == ()
    assert equal(second, source)
    assert head_prefix(model) == ("head." if name.startswith("mixer") else "head.fc.")


def test_author_names_that_timm_translates(tmp_path: Path) -> None:
    source, model = small(1, "convnext_tiny", **CONVNEXT), small(2, "convnext_tiny", **CONVNEXT)
    state = {}
    for name, value in source.state_dict().items():
        for timm_name, author_name in (
            ("stem.", "downsample_layers.0."),
            (".blocks.", "."),
            ("conv_dw", "dwconv"),
            ("mlp.fc", "pwconv"),
            ("head.fc.", "head."),
            ("head.norm.", "norm."),
        ):
            name = name.replace(timm_name, author_name)
        for stage in (1, 2, 3):
            name = name.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
        state[name] = value
    torch.save({"model": state}, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    assert equal(model, source)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.model.{name}": value for name, value in state.items()}},
        lambda state: {f"backbone.{name}": value for name, value in state.items()} | {"head.mlp.0.bias": torch.ones(4)},
        lambda state: {name: value.half() for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"net": {f"module._orig_mod.encoder.vit.{name}": value for name, value in state.items()}},
        lambda state: {"params": {f"base_model.model.{name}": value for name, value in state.items()}},
        lambda state: {"model_state_dict": state, "args": Namespace(lr=0.1), "epoch": 3, "optimizer": {"state": {}}},
        lambda state: {"student": {f"net.{name}": value for name, value in state.items()}},
        lambda state: {
            **{f"teacher.backbone.{name}": value for name, value in state.items()},
            **{f"student.backbone.{name}": value + 1 for name, value in state.items()},
            "dino_loss.center": torch.ones(1, 8),
        },
    ],
    ids=[
        "state_dict", "model", "module.", "module.model.", "backbone.", "half", "compiled", "nested prefixes", "peft",
        "training script", "student", "teacher and student",
    ],
)  # fmt: skip
def test_wrappers_and_prefixes_of_other_programs(
    tmp_path: Path, wrap: Callable[[State], dict], request: pytest.FixtureRequest
) -> None:
    source, model, path = small(1).half().float(), small(2), tmp_path / "w.pt"
    torch.save(wrap(source.state_dict()), path)
    notes = load_weights(model, path)
    if "teacher and student" in request.node.name:
        assert notes == (
            "the file holds the network more than once: 'teacher.backbone.' is used, not 'student.backbone.'",
        )
    else:
        assert notes == ()
    assert equal(model, source)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert shapes_of(path)[0].keys() == (tensors := shapes_by_torch(path)).keys()
    assert all(tuple(shapes_of(path)[0][name]) == tuple(value.shape) for name, value in tensors.items())


def shapes_by_torch(path: Path) -> State:
    with torch.serialization.safe_globals([Namespace]):
        return dict(unwrapped(torch.load(path, weights_only=True))[0])


@pytest.mark.parametrize(
    ("averaged", "plain"), [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("teacher", "student")]
)
def test_averaged_weights_are_used_and_named_as_timm_does(tmp_path: Path, averaged: str, plain: str) -> None:
    source, model, other = small(1), small(2), small(3)
    torch.save({plain: other.state_dict(), averaged: source.state_dict()}, tmp_path / "w.pth.tar")
    note = f"the file holds averaged weights (EMA, {averaged}) and plain ones ({plain}): EMA is used"
    assert load_weights(model, tmp_path / "w.pth.tar") == (note,)
    assert equal(model, source)


def test_the_format_is_decided_by_the_content(tmp_path: Path) -> None:
    source, model = small(1), small(2)
    for ending in (".pth.tar", ".ckpt", "", ".weights"):
        torch.save({"state_dict": source.state_dict()}, tmp_path / f"w{ending}")
        assert load_weights(model, tmp_path / f"w{ending}") == ()
        assert equal(model, source)
        model = small(2)
    save_file(source.state_dict(), tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == ()
    assert equal(model, source)
    torch.save(source.state_dict(), tmp_path / "w.safetensors", _use_new_zipfile_serialization=False)
    second = small(3)
    assert load_weights(second, tmp_path / "w.safetensors") == ()
    assert equal(second, source)
    assert shapes_of(tmp_path / "w.safetensors") == shapes_of(tmp_path / "w.pth")


def hugging_face(state: State, prefix: str) -> State:
    """A timm ViT's tensors under the names of Hugging Face: ViT, or DINOv2 where there is a layer scale."""
    dino, result = "blocks.0.ls1.gamma" in state, {}
    names = {
        "attn.proj": "attention.output.dense", "norm1": "norm1" if dino else "layernorm_before",
        "norm2": "norm2" if dino else "layernorm_after", "mlp.fc1": "mlp.fc1" if dino else "intermediate.dense",
        "mlp.fc2": "mlp.fc2" if dino else "output.dense",
    }  # fmt: skip
    outside = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias",
    }  # fmt: skip
    for name, value in state.items():
        parts = name.split(".")
        if name.startswith("patch_embed.proj."):
            result[f"{prefix}embeddings.patch_embeddings.projection.{parts[-1]}"] = value
        elif name.startswith("blocks."):
            layer, inside, kind = f"{prefix}encoder.layer.{parts[1]}.", ".".join(parts[2:-1]), parts[-1]
            if inside == "attn.qkv":
                for key, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    result[f"{layer}attention.attention.{key}.{kind}"] = part.clone()
            elif inside in ("ls1", "ls2"):
                result[f"{layer}layer_scale{inside[2]}.lambda1"] = value
            else:
                result[f"{layer}{names[inside]}.{kind}"] = value
        elif name in outside:
            result[prefix + outside[name]] = value
    extra = {"embeddings.mask_token": torch.zeros(1, 1, 4), "pooler.dense.weight": torch.zeros(2, 2)}
    return result | {prefix + name: value for name, value in extra.items()} | {"classifier.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize("prefix", ["", "vit.", "module.dinov2."])
@pytest.mark.parametrize("arguments", [{}, {"init_values": 1.0}], ids=["ViT", "DINOv2"])
def test_the_names_of_hugging_face(tmp_path: Path, prefix: str, arguments: dict) -> None:
    source, model = vit(1, **arguments), vit(2, **arguments)
    save_file(hugging_face(source.state_dict(), prefix), tmp_path / "model.safetensors")
    assert load_weights(model, tmp_path / "model.safetensors") == ()
    assert equal(model, source)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_position_embedding_of_another_grid_is_resampled_with_a_note(tmp_path: Path, ending: str) -> None:
    source, model = vit(1, img_size=160), vit(2)
    notes = load_weights(model, written(tmp_path / f"w{ending}", source))
    assert notes == ("position embedding resampled from 10 x 10 to 14 x 14 patches",)
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert model.pos_embed.shape == (1, 197, 48)
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


# ---------------------------------------------------------------- files that do not fit


def refusal(model: nn.Module, path: Path) -> str:
    """The error of a file that is refused; it is one line and names the file."""
    with pytest.raises(BackboneError) as error:
        load_weights(model, path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 1200
    return text


def test_all_differences_are_reported_at_once_and_nothing_is_copied(tmp_path: Path) -> None:
    state = small(1).state_dict()
    for i in range(5):
        del state[f"blocks.{i}.attn.qkv.bias"]
    state |= {"extra.weight": torch.ones(1), "blocks.5.mlp.fc1.bias": torch.ones(7), "norm.bias": torch.ones(1)}
    save_file(state, tmp_path / "w.safetensors")
    model = small(2)
    before = fingerprint(model)
    text = refusal(model, tmp_path / "w.safetensors")
    assert "blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias, blocks.2.attn.qkv.bias and 2 more are missing" in text
    assert "extra.weight is not part of it" in text
    assert "blocks.5.mlp.fc1.bias is (7,), not (192,), norm.bias is (1,), not (64,) (wrong shapes)" in text
    assert fingerprint(model) == before


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".npz"])
def test_weights_of_a_network_of_another_size(tmp_path: Path, ending: str) -> None:
    assert "does not fit this backbone" in refusal(small(1), written(tmp_path / f"deep{ending}", vit(1)))
    assert "does not fit this backbone" in refusal(vit(1), written(tmp_path / f"more{ending}", vit(1, depth=2)))
    second = vit(1, patch_size=32)  # timm's own loaders would silently resample the patches
    assert "does not fit this backbone" in refusal(vit(1), written(tmp_path / f"patch{ending}", second))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 346284714\n"


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".npz", ".ckpt"])
def test_what_a_failed_download_left_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(POINTER)
    assert "is a Git LFS pointer of a file with 346,284,714 bytes, not the file itself" in refusal(small(1), path)
    for page in (b"<!DOCTYPE html><html>", b"\n<html lang=en>", b"<?xml version='1.0'?><Error>"):
        path.write_bytes(page)
        assert "is an HTML page, not the file itself" in refusal(small(1), path)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    assert "is not a regular file" in refusal(small(1), tmp_path / "w.pt")


def test_values_that_are_not_numbers(tmp_path: Path) -> None:
    state = small(1).state_dict()
    state["blocks.2.norm1.bias"][3] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    assert "blocks.2.norm1.bias holds values that are not finite" in refusal(small(2), tmp_path / "w.pt")


def test_weights_of_a_quantised_network(tmp_path: Path) -> None:
    state = {name: value.to(torch.int8) for name, value in small(1).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    assert "holds integers (int8), as of a quantised network" in refusal(small(2), tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "new.pt", "old.pt"):
        shapes, _ = shapes_of(tmp_path / name)
        assert {shape.integers for shape in shapes.values() if isinstance(shape, Shape)} == {"int8"}
    torch.save(small(1).half().state_dict(), tmp_path / "half.pt")
    shapes, _ = shapes_of(tmp_path / "half.pt")
    assert {shape.integers for shape in shapes.values() if isinstance(shape, Shape)} == {""}


def test_an_empty_file_and_a_single_tensor_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    assert "(it is empty): download it" in refusal(small(1), tmp_path / "w.pth")
    torch.save(torch.ones(2), tmp_path / "w.pt")
    with pytest.raises(BackboneError, match="holds a single tensor where names and tensors should be"):
        shapes_of(tmp_path / "w.pt")


def test_an_npz_that_lacks_an_array_or_holds_none_of_a_vit(tmp_path: Path) -> None:
    source = vit(1)
    arrays = jax_names(source)
    del arrays["Transformer/encoderblock_0/MlpBlock_3/Dense_1/bias"]
    np.savez(tmp_path / "less.npz", **arrays)
    assert "is not a fitting ViT file" in refusal(vit(2), tmp_path / "less.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    assert "it has no embedding/kernel" in refusal(vit(2), tmp_path / "other.npz")
    scaled = vit(2, init_values=1.0)  # layer scale: the original files have none
    assert "ls1.gamma" in refusal(scaled, written(tmp_path / "whole.npz", source))


def test_an_npz_is_for_vision_transformers(tmp_path: Path) -> None:
    path = written(tmp_path / "w.npz", vit(1))
    text = refusal(small(1, "mixer_s32_224"), path)
    assert "fits only timm's vision transformers: give a .safetensors or .bin file" in text


# ---------------------------------------------------------------- damaged and hostile files


JUNK = (b"", b"\x00", b"this is a text\n" * 40, b"PK\x03\x04" + b"\0" * 100, b"\xff" * 100, b"\x80\x04.", b"\x93NUMPY")


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".pth", ".npz", ".PT", ""])
def test_files_that_are_not_weights(tmp_path: Path, ending: str) -> None:
    model, path = vit(1), tmp_path / f"w{ending}"
    for content in JUNK:
        path.write_bytes(content)
        assert "is not a readable" in refusal(model, path)


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".npz"])
def test_a_truncated_file(tmp_path: Path, ending: str) -> None:
    model = vit(1)
    whole = written(tmp_path / f"whole{ending}", model).read_bytes()
    for length in (1, 20, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"cut{ending}"
        path.write_bytes(whole[:length])
        assert "is not a readable" in refusal(model, path)


class Malice:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
@pytest.mark.parametrize("ending", [".bin", ".pt", ".npz", ".safetensors"])
def test_a_pickle_with_code_does_not_run(tmp_path: Path, ending: str, save: Callable) -> None:
    mark, path = tmp_path / "it ran", tmp_path / f"w{ending}"
    save({"blocks.0.attn.qkv.weight": Malice(mark)}, path)
    text = refusal(small(1) if ending != ".npz" else vit(1), path)
    assert "is not" in text
    with pytest.raises(BackboneError, match="is not a readable"):
        shapes_of(path)
    assert not mark.exists()


def test_a_whole_network_in_place_of_its_tensors(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    assert "give a file that torch.save wrote from a state_dict" in refusal(small(1), tmp_path / "w.pt")


@pytest.mark.parametrize(
    "value", [[torch.ones(2)], torch.ones(2), {}, {"a": 3}, {3: torch.ones(2)}, {"model": {"x": "y"}}]
)
def test_containers_without_named_tensors(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.bin")
    assert "give a file that torch.save wrote from a state_dict" in refusal(small(1), tmp_path / "w.bin")


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".npz", ""])
def test_a_folder_and_a_missing_file(tmp_path: Path, ending: str) -> None:
    assert "does not exist" in refusal(small(1), tmp_path / f"w{ending}")
    (tmp_path / f"w{ending}").mkdir(exist_ok=True)
    assert "is a folder" in refusal(small(1), tmp_path / f"w{ending}")
