"""Classify image files: the most probable classes of each, preprocessed as the run's evaluation images are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.decode import examined
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, QueryError
from mlae_lab.training.queries.images import PIECE, check_names, like_the_task, rule_of, whole

MAX_FILES = 1_000  # of one query
MAX_TOP = 100  # classes of each image


def classify(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """The most probable classes of image files; the run's own images are not needed.

    Arguments: folder, its path; files, up to 1,000 paths below it; top, how many classes for each; stamp, a text that
    changes with the content of the files, so that no earlier answer is taken. Answer: classes, and rows with, for each
    file, top (class number and probability, the most probable first) and problem, why it cannot be read ("" if it can).
    """
    check_names(arguments, "folder", "files", "top", "stamp")
    folder, files = arguments.get("folder"), arguments.get("files")
    if not isinstance(folder, str) or not isinstance(files, list) or not 0 < len(files) <= MAX_FILES:
        raise QueryError(f"files are classified by their folder and a list of 1 to {MAX_FILES:,} paths: give both")
    setup, rule = loaded.setup, rule_of(loaded)
    top = min(whole(arguments.get("top", 5), "top", 1, MAX_TOP), len(setup.classes))
    rows: list[dict] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release Python's lock
        for done in range(0, len(files), PIECE):
            on_progress(done, len(files))
            results = list(
                pool.map(lambda path: examined(path, rule), [Path(folder, f) for f in files[done : done + PIECE]])
            )
            pixels = [like_the_task(loaded, result[0]) for result in results if not isinstance(result, str)]
            answers = iter(_most_probable(loaded, np.stack(pixels), top) if pixels else ())
            rows += [
                {"top": [], "problem": result} if isinstance(result, str) else {"top": next(answers), "problem": ""}
                for result in results
            ]
    return {"classes": list(setup.classes), "rows": rows, "private": True}  # paths of the user are not kept


QUERIES = {"classify": classify}


@torch.no_grad()
def _most_probable(loaded: LoadedRun, pixels: np.ndarray, top: int) -> list[list[list]]:
    """Class number and probability of the first classes of each image; of equals the lower number first."""
    setup = loaded.setup
    entering = setup.evaluation.before(setup.evaluation.normalised(pixels))
    with autocast(setup):
        logits = setup.behind(entering).float()
    probability = logits.double().softmax(1).cpu()  # as `analysis.errors.compare`
    order = probability.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        [[k, round(float(row[k]), 6)] for k in numbers]
        for row, numbers in zip(probability, order.tolist(), strict=True)
    ]
