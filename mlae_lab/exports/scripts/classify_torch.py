"""Classify the images of a folder: python classify.py FOLDER"""

import sys

import torch
from network import load
from preprocess import images, prepared, read, show

network, steps = load(), read()
for file in images(sys.argv[1]):
    with torch.no_grad():
        logits = network(torch.from_numpy(prepared(file, steps))[None])[0].numpy()
    show(file, logits, steps["classes"])
