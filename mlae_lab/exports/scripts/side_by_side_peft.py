"""One frozen network, several adapters, chosen for each request: python side_by_side.py IMAGE FOLDER [FOLDER ...]

Each FOLDER is an export in the format peft. peft keeps one head per adapter, all with the same number of classes.
"""

import sys

import torch
from base import frozen, spec
from peft import PeftModel
from preprocess import prepared, read, show

image, first, *others = sys.argv[1:]
for folder in others:
    if any(spec(folder)[name] != spec(first)[name] for name in ("fingerprint", "num_classes")):
        sys.exit(f"{folder} has another frozen network or another number of classes than {first}")
network = PeftModel.from_pretrained(frozen(first), first, adapter_name="0").eval()
for number, folder in enumerate(others, 1):
    network.load_adapter(folder, adapter_name=str(number))
for number, folder in enumerate([first, *others]):
    network.set_adapter(str(number))
    with torch.no_grad():
        logits = network(torch.from_numpy(prepared(image, read(folder)))[None])[0].numpy()
    show(folder, logits, read(folder)["classes"])
