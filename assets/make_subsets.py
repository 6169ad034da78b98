"""Make the bundled image sets from their sources; run once by the project, not by its users.

    python assets/make_subsets.py --fashion /usr/share/datasets/fashion-mnist

Fashion-MNIST comes from its four idx files (Debian package `dataset-fashion-mnist`), Digits from
scikit-learn's copy of the UCI test set. Both subsets are random samples with seed 0.
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
    """Read a gzipped idx file of bytes: two zero bytes, type 8, number of dimensions, sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def fashion(folder: Path) -> dict[str, np.ndarray]:
    """1,000 training images, then 2,000 test images."""
    rng = np.random.default_rng(SEED)
    images, labels = (read_idx(folder / f"train-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    train = rng.permutation(len(images))[:1000]
    test_images, test_labels = (read_idx(folder / f"t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    test = rng.permutation(len(test_images))[:2000]
    return {
        "images": np.concatenate([images[train], test_images[test]]),
        "labels": np.concatenate([labels[train], test_labels[test]]),
    }


def digits() -> dict[str, np.ndarray]:
    """All 1,797 images, shuffled."""
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]  # only this script needs it

    source = load_digits()
    order = np.random.default_rng(SEED).permutation(len(source.target))
    return {"images": source.images[order].astype(np.uint8), "labels": source.target[order].astype(np.uint8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fashion", type=Path, required=True, help="folder of the four idx files")
    options = parser.parse_args()
    for name, arrays in (("fashion_mnist_1k", fashion(options.fashion)), ("digits", digits())):
        np.savez_compressed(HERE / f"{name}.npz", images=arrays["images"], labels=arrays["labels"])


if __name__ == "__main__":
    main()
