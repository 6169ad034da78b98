"""The network as one ONNX file with any number of images, opset 20."""

from __future__ import annotations

import contextlib
import io
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from mlae_lab.exports.export import STEPS, Check, Export, copy_scripts, versions
from mlae_lab.exports.graph import traced

GRAPH, OPSET = "model.onnx", 20


def write(export: Export, folder: Path) -> Check:
    """Fill a folder and run it with onnxruntime, or check the file where that is not installed."""
    program = traced(export)
    export.report("translating the graph into ONNX")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # about its own internals
        torch.onnx.export(
            program, (), folder / GRAPH, input_names=["images"], output_names=["logits"], opset_version=OPSET,
            dynamo=True, external_data=False,
        )  # fmt: skip
    export.write_json(folder / STEPS, export.network.steps.as_data(export.network.classes))
    copy_scripts(folder, **{"preprocess.py": "preprocess.py", "classify.py": "classify_onnx.py"})
    if find_spec("onnxruntime") is None:
        import onnx

        onnx.checker.check_model(str(folder / GRAPH), full_check=True)
        return Check(
            versions("onnx"), float("nan"), "The file is valid; it was not run, as onnxruntime is not installed here."
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])

    def compute(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return export.check(compute, versions("onnxruntime"))
