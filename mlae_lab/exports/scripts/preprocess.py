"""From an image file to the network's input, by preprocessing.json; images of 8 bits per channel."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
KINDS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
BICUBIC = Image.Resampling.BICUBIC


def read(folder=HERE):
    """The steps and the classes of an export."""
    return json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))


def images(folder):
    """The image files below a folder."""
    return [file for file in sorted(Path(folder).rglob("*")) if file.suffix.lower() in KINDS]


def prepared(file, steps):
    """Upright, over white, resized to a square, cropped, normalised: (3, size, size) float32."""
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    square, size = steps["resize"], steps["image_size"]
    image = image.resize((square, square), BICUBIC).convert("L" if steps["grey"] else "RGB")
    if steps["crop"]:
        start = round((square - size) / 2)
        image = image.crop((start, start, start + size, start + size))
    bands = [np.asarray(band.convert("F").resize((size, size), BICUBIC)).clip(0, 255) for band in image.split()]
    pixels = np.stack(bands * (3 // len(bands))) / np.float32(255)
    mean, std = (np.array(steps[name], np.float32)[:, None, None] for name in ("mean", "std"))
    return (pixels - mean) / std


def show(file, logits, classes, top=3):
    """Print the most probable classes of an image."""
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    best = probability.argsort()[::-1][:top]
    print(file, *(f"{classes[i]} {probability[i]:.6f}" for i in best), sep="\t")
