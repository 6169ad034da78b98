"""The merged network as a folder of timm: `timm.create_model("local-dir:DIR", pretrained=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from mlae_lab.exports.export import Check, Export, versions

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_COPIED = ("fixed_input_size", "first_conv", "classifier", "license")  # of timm's description of the architecture


def write(export: Export, folder: Path) -> Check:
    """Fill a folder and load it with timm."""
    model: Any = export.with_weights(export.state())
    save_file(model.state_dict(), folder / WEIGHTS, metadata={"format": "pt"})
    export.write_json(folder / CONFIG, _config(export, model))
    export.write_scripts(folder, "network_timm.py")
    loaded = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True).eval()
    return export.check(loaded, versions("timm"))


def _config(export: Export, model: Any) -> dict[str, Any]:
    steps, known = export.network.steps, dict(model.pretrained_cfg)
    pretrained = {
        "tag": "mlae_lab", "custom_load": False, "input_size": [3, steps.image_size, steps.image_size],
        "interpolation": "bicubic", "crop_pct": steps.crop_fraction, "crop_mode": "squash",
        "mean": list(steps.mean), "std": list(steps.deviation), "num_classes": len(export.network.classes),
        "pool_size": known.get("pool_size") if not export.network_args else None,
        **{name: known[name] for name in _COPIED if known.get(name) is not None},
    }  # fmt: skip
    config: dict[str, Any] = {
        "architecture": known.get("architecture") or export.architecture.partition(".")[0],
        "num_classes": len(export.network.classes),
        "num_features": model.num_features,
        "label_names": list(export.network.classes),
        "pretrained_cfg": pretrained,
    }
    if isinstance(pool := getattr(model, "global_pool", None), str):
        config["global_pool"] = pool
    if export.network_args:
        config["model_args"] = export.network_args
    return config
