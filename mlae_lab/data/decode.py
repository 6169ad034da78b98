"""One image file to pixels of a fixed size: any format and mode that PIL reads, always RGB in the end.

What this file does not know: lists of images, labels, where decoded images are kept (`data.cache`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mlae_lab.data.bundled import DataError

KINDS = ("square", "short")
MAX_SIZE = 2048
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_IMAGE = 89_478_485  # pixels: where PIL itself begins to warn; a quarter of a gigabyte once decoded


@dataclass(frozen=True)
class ResizeRule:
    """How an image becomes side x side pixels, bicubic and antialiased (PIL's filter).

    kind: "square" squeezes the whole image into the square, aspect ignored, as VTAB does; "short"
    brings the short side to `size` and keeps the centre, for evaluation only: whoever draws random
    crops needs the whole image. side: 1 to 2048 pixels. Raises ValueError for anything else.
    """

    kind: str
    size: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a resize rule of kind {self.kind!r} is unknown: choose {' or '.join(KINDS)}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"a stored side of {self.size!r} is out of range: choose 1 to {MAX_SIZE} pixels")

    @property
    def image_bytes(self) -> int:
        """What one stored image takes."""
        return self.size * self.size * 3


def decoded(path: Path, rule: ResizeRule) -> np.ndarray:
    """Read one image: turned as its EXIF says, made RGB (transparency over white), then resized.

    Returns (side, side, 3) uint8. Raises DataError, naming the file, if it is missing, damaged, too
    large (89 million pixels) or holds numbers with no known white (32-bit float).
    """
    cure = "or take it out of the list"
    return _decoded(path, str(path), rule, None, f"store it smaller {cure}", f"restore it {cure}")


def decoded_bytes(content: bytes, rule: ResizeRule) -> np.ndarray:
    """Like `decoded`, for the bytes of a file that a stranger handed in: only formats of FORMATS are tried, so that no
    file reaches a decoder that runs programs or reads other files. Raises DataError."""
    advice = f"hand in an image of one of the formats {', '.join(FORMATS)}"
    return _decoded(io.BytesIO(content), "the file", rule, FORMATS, "store it smaller", advice)


def _decoded(
    source: Path | io.BytesIO, name: str, rule: ResizeRule, formats: Sequence[str] | None, smaller: str, other: str
) -> np.ndarray:
    try:
        with Image.open(source, formats=formats) as image:
            width, height = image.size
            if width * height > MAX_IMAGE:
                raise Image.DecompressionBombError
            return np.asarray(_resized(_rgb(_upright(image)), rule))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{name} has more than {MAX_IMAGE / 1e6:.0f} million pixels, more than the lab decodes: {smaller}"
        ) from None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} cannot be read as an image ({_reason(error)}): {other}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # so that damage to the pixels is not taken for damage to the EXIF block below
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")  # PIL's own conversion would clip
    if image.mode == "F":
        raise ValueError("32-bit float pixels, and nothing says which number is white")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = _with_alpha(image)
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _with_alpha(image: Image.Image) -> Image.Image:
    """To RGBA; the premultiplied and the paletted modes only go there by a stop on the way."""
    stop = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(stop) if stop else image).convert("RGBA")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Whole numbers of 16 or 32 bits to 0..255; 32-bit files hold 8-bit or 16-bit grey in practice."""
    if values.dtype.itemsize > 2 and values.max(initial=0) <= 255:
        return values.clip(0, 255).astype(np.uint8)
    return (values.clip(0, 65_535) >> 8).astype(np.uint8)


def _resized(image: Image.Image, rule: ResizeRule) -> Image.Image:
    size = (rule.size, rule.size)
    if rule.kind == "square":
        return image.resize(size, Image.Resampling.BICUBIC)
    # Only the part that is kept is computed: of a 1 x 10,000 strip the whole would have 655 million pixels. The
    # lengths and offsets are rounded as torchvision's Resize and CenterCrop do.
    short = min(image.size)
    box: list[float] = []
    for length in image.size:
        long = int(rule.size * length / short)
        start = round((long - rule.size) / 2)
        box.append(start * length / long)
        box.append(min((start + rule.size) * length / long, length))
    left, right, top, bottom = box
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
