"""Cut the bundled image sets out of their sources; run once by the project, not by its users.

    python assets/make_subsets.py --fashion /usr/share/datasets/fashion-mnist

Fashion-MNIST comes from its four idx files (Debian package `dataset-fashion-mnist`), Digits from
scikit-learn's copy of the UCI test set. Both cuts are plain random draws with seed 0.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SEED = 0


def read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes, gzipped: two zero bytes, type 8, number of dimensions, sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def fashion(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    images, labels = (read_idx(folder / f"train-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    known = rng.permutation(len(images))[:1000]
    fresh, fresh_labels = (read_idx(folder / f"t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    test = rng.permutation(len(fresh))[:2000]
    return {
        "images": np.concatenate([images[known], fresh[test]]),
        "labels": np.concatenate([labels[known], fresh_labels[test]]),
    }


def digits() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    source = load_digits()
    order = np.random.default_rng(SEED).permutation(len(source.target))
    return {"images": source.images[order].astype(np.uint8), "labels": source.target[order].astype(np.uint8)}


if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--fashion", type=Path, required=True)
    np.savez_compressed(HERE / "fashion_mnist_1k.npz", **fashion(ask.parse_args().fashion))
    np.savez_compressed(HERE / "digits.npz", **digits())
