"""One frozen network, several adapters, chosen for each request: python side_by_side.py IMAGE FOLDER [FOLDER ...]

Each FOLDER is an export in the format safetensors. The frozen network is never changed: a request runs with its own
W + b a and its own head, so the numbers of classes may differ.
"""

import sys
from pathlib import Path

import torch
from base import frozen, spec
from preprocess import prepared, read, show
from safetensors.torch import load_file

image, *folders = sys.argv[1:]
for folder in folders[1:]:
    if spec(folder)["fingerprint"] != spec(folders[0])["fingerprint"]:
        sys.exit(f"{folder} has another frozen network than {folders[0]}")
network = frozen(folders[0])
weights = dict(network.named_parameters())
adapters = {folder: load_file(Path(folder) / "adapter.safetensors") for folder in folders}
for folder, adapter in adapters.items():
    own = {name: value for name, value in adapter.items() if name.endswith((".weight", ".bias"))}
    for layer in [name.removesuffix(".a") for name in adapter if name.endswith(".a")]:
        own[f"{layer}.weight"] = weights[f"{layer}.weight"] + adapter[f"{layer}.b"] @ adapter[f"{layer}.a"]
    with torch.no_grad():
        pixels = torch.from_numpy(prepared(image, read(folder)))[None]
        logits = torch.func.functional_call(network, own, pixels)[0].numpy()
    show(folder, logits, read(folder)["classes"])
