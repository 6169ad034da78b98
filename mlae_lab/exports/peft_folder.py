"""The adapter as a folder of Hugging Face's peft: ΔW of each layer as a LoRA with its own rank.

Experts that the mask excludes are not there, λ is part of B, and a layer without experts is not among the targets (peft
refuses a rank of 0). A pattern that matches nothing is ignored by peft, so the check also compares the loaded ranks.
"""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mlae_lab.core.export_formats import ExportError
from mlae_lab.exports.export import Check, Export, copy_scripts, versions

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def write(export: Export, folder: Path) -> Check:
    """Fill a folder and load it with peft, or read the files back where peft is not installed."""
    if not export.factors:
        raise ExportError("no layer of this run has an update, and peft has no adapter without one: use timm or onnx")
    tensors, ranks = _tensors(export)
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    export.write_json(folder / CONFIG, _config(export, ranks))
    export.write_base(folder)
    export.write_scripts(folder, "network_peft.py")
    copy_scripts(folder, **{"side_by_side.py": "side_by_side_peft.py"})
    return _checked(export, folder, ranks)


def _tensors(export: Export) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The file's tensors, and the rank of each layer that has one."""
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for layer, factors in export.factors.items():
        if len(factors.a) == 0:
            continue
        ranks[layer] = len(factors.a)
        name = f"{_PREFIX}{layer}"
        tensors[f"{name}.lora_A.weight"] = factors.a.contiguous()
        tensors[f"{name}.lora_B.weight"] = (
            factors.b * factors.coefficient.repeat_interleave(factors.rank)
        ).contiguous()
        if layer in export.magnitudes:
            tensors[f"{name}.lora_magnitude_vector"] = export.magnitudes[layer].contiguous()
    for part, value in export.network.head.named_parameters():
        tensors[f"{_PREFIX}{export.head_name}.{part}"] = value.detach().clone().contiguous()
    return tensors, ranks


def _config(export: Export, ranks: dict[str, int]) -> dict[str, Any]:
    """adapter_config.json; alpha = rank everywhere, a factor of 1."""
    common = max(ranks.values())
    return {
        "peft_type": "LORA", "task_type": None, "inference_mode": True,
        "base_model_name_or_path": f"timm/{export.architecture}" if export.public_base else None,
        "auto_mapping": {
            "base_model_class": type(export.network.model).__name__,
            "parent_library": type(export.network.model).__module__,
        },
        "r": common, "lora_alpha": common, "rank_pattern": ranks, "alpha_pattern": ranks,
        "target_modules": list(ranks), "modules_to_save": [export.head_name], "lora_dropout": 0.0, "bias": "none",
        "fan_in_fan_out": False, "init_lora_weights": True, "use_rslora": False, "use_dora": bool(export.magnitudes),
    }  # fmt: skip


def _checked(export: Export, folder: Path, ranks: dict[str, int]) -> Check:
    if find_spec("peft") is None:
        return export.check(_read_back(export, folder), "the lab, as peft is not installed here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its many dependencies
        from peft import PeftModel  # pyright: ignore[reportMissingImports] - an extra
    model: Any = PeftModel.from_pretrained(export.frozen_network(), str(folder)).eval()  # pyright: ignore
    loaded = {
        name.removeprefix(_PREFIX).partition(".lora_A.")[0]: len(value)
        for name, value in model.named_parameters()
        if ".lora_A." in name
    }
    if loaded != ranks:
        wrong = sorted(set(loaded.items()) ^ set(ranks.items()))[0][0]
        raise ExportError(f"the export was not kept: peft loads {wrong} with another rank than the run has")
    return export.check(model, versions("peft"), f"peft finds the {len(ranks)} adapted layers with their ranks.")


def _read_back(export: Export, folder: Path) -> nn.Module:
    """The network by the rules of peft, from the files alone."""
    config, tensors = json.loads((folder / CONFIG).read_text(encoding="utf-8")), load_file(folder / TENSORS)
    model = export.frozen_network().requires_grad_(False)
    for layer in config["target_modules"]:
        name, weight = f"{_PREFIX}{layer}", model.get_submodule(layer).get_parameter("weight")
        scale = config["alpha_pattern"][layer] / config["rank_pattern"][layer]
        whole = weight + scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        if config["use_dora"]:
            norms = tensors[f"{name}.lora_magnitude_vector"]
            whole *= (norms / torch.linalg.vector_norm(whole, dim=1))[:, None]
        weight.copy_(whole)
    for part, value in model.get_submodule(config["modules_to_save"][0]).named_parameters():
        value.copy_(tensors[f"{_PREFIX}{config['modules_to_save'][0]}.{part}"])
    return model
