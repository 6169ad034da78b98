"""The merged weights as one file, and the adapter as plain low-rank factors, each with a JSON header."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from mlae_lab.exports.export import Check, Export, copy_scripts, versions

WEIGHTS, ADAPTER = "model.safetensors", "adapter.safetensors"


def write(export: Export, folder: Path) -> Check:
    """Fill a folder and read it back into a new network.

    The adapter has `<layer>.a` (n, d_in) and `<layer>.b` (d_out, n) with λ in b, so that ΔW = b a, and the head. A
    method whose update is not such a sum has no adapter file.
    """
    network = export.network
    header = {
        "architecture": export.architecture, "classes": list(network.classes), "method": network.config.method,
        "settings": list(network.config.method_settings), "frozen_weights": network.weights, "head": export.head_name,
    }  # fmt: skip
    metadata = {"format": "pt", "mlae_lab_export": json.dumps(header, ensure_ascii=False)}
    head = {f"{export.head_name}.{name}": value.detach().clone() for name, value in network.head.named_parameters()}
    save_file(export.state(), folder / WEIGHTS, metadata=metadata)
    export.write_base(folder)
    export.write_scripts(folder, "network_safetensors.py")
    if export.factors and not export.magnitudes:
        tensors = dict(head)
        for layer, factors in export.factors.items():
            tensors[f"{layer}.a"] = factors.a.contiguous()
            tensors[f"{layer}.b"] = (factors.b * factors.coefficient.repeat_interleave(factors.rank)).contiguous()
        save_file(tensors, folder / ADAPTER, metadata=metadata)
        copy_scripts(folder, **{"side_by_side.py": "side_by_side.py"})
    return export.check(export.with_weights(load_file(folder / WEIGHTS)), versions("safetensors", "timm"))
