"""Classify the images of a folder: python classify.py FOLDER (needs onnxruntime, numpy and Pillow)"""

import sys

import onnxruntime
from preprocess import HERE, images, prepared, read, show

session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
steps = read()
for file in images(sys.argv[1]):
    (logits,) = session.run(["logits"], {"images": prepared(file, steps)[None]})
    show(file, logits[0], steps["classes"])
