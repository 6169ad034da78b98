"""Decode one image file to RGB pixels of a fixed size, from any format and mode that PIL reads."""

from __future__ import annotations

import io
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mlae_lab.core.units import format_bytes
from mlae_lab.data.bundled import DataError
from mlae_lab.data.content import content_hash

KINDS = ("square", "short")
MAX_SIZE = 2048
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_FILE = 500_000_000  # bytes; a file is read whole
MAX_PIXELS = 89_478_485  # pixels: where PIL itself warns; a quarter of a gigabyte when decoded


@dataclass(frozen=True)
class ResizeRule:
    """How an image is resized to size x size pixels, bicubic and antialiased (PIL's filter).

    Attributes:
        kind: "square" resizes the whole image to the square and ignores its aspect ratio, as VTAB does; "short"
            resizes the short side to `size` and keeps the centre, for evaluation only, as random crops need the
            whole image.
        size: 1 to 2048 pixels.

    Raises:
        ValueError: another kind or size.
    """

    kind: str
    size: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of a resize rule is {self.kind!r}: choose {' or '.join(KINDS)}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"the image size is {self.size!r}: it must be 1 to {MAX_SIZE} pixels")

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image."""
        return self.size * self.size * 3


def decoded(path: Path, rule: ResizeRule) -> np.ndarray:
    """The pixels of one image file, as `decoded_with_content` gives them."""
    return decoded_with_content(path, rule)[0]


def decoded_with_content(path: Path, rule: ResizeRule) -> tuple[np.ndarray, int]:
    """Read one image: rotated by its EXIF orientation, converted to RGB (transparency over white), then resized.

    Args:
        path: of the image file.
        rule: how it is resized.

    Returns:
        (size, size, 3) uint8, and the `content_hash` of the file.

    Raises:
        DataError: the file, which the text names, is missing, damaged, too large (89 million pixels), no regular file,
            or holds numbers with no known white (32-bit float).
    """
    remove = "or remove it from the list"
    smaller, restore = f"store it smaller {remove}", f"restore it {remove}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            raise DataError(f"{path} is not a regular file: {restore}")
        if status.st_size > MAX_FILE:
            raise DataError(f"{path} has {format_bytes(status.st_size)}, more than {format_bytes(MAX_FILE)}: {smaller}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image ({_reason(error)}): {restore}") from None
    return _decoded(io.BytesIO(content), str(path), rule, None, smaller, restore), content_hash(content)


def decoded_bytes(content: bytes, rule: ResizeRule) -> np.ndarray:
    """Like `decoded`, for the bytes of an uploaded file. Raises DataError.

    Only the formats in FORMATS are tried, so that no file reaches a decoder that runs programs or reads other files.
    """
    advice = f"upload an image in one of the formats {', '.join(FORMATS)}"
    return _decoded(io.BytesIO(content), "the file", rule, FORMATS, "store it smaller", advice)


def _decoded(
    source: io.BytesIO, name: str, rule: ResizeRule, formats: tuple[str, ...] | None, smaller: str, other: str
) -> np.ndarray:
    """Decode an image. smaller, other: what the user can do about a file that is too large, or wrong otherwise."""
    try:
        with Image.open(source, formats=formats) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return np.asarray(_resized(_rgb(_upright(image)), rule))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that the lab decodes: {smaller}"
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
    image.load()  # so that damaged pixels are not mistaken for a damaged EXIF block below
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")  # PIL's own conversion would clip
    if image.mode == "F":
        raise ValueError("32-bit float pixels without a known white value")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = _with_alpha(image)
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _with_alpha(image: Image.Image) -> Image.Image:
    """To RGBA; the premultiplied and paletted modes need an intermediate mode."""
    intermediate = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(intermediate) if intermediate else image).convert("RGBA")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Integers of 16 or 32 bits to 0..255; 32-bit files hold 8-bit or 16-bit grey in practice."""
    if values.dtype.itemsize > 2 and values.max(initial=0) <= 255:
        return values.clip(0, 255).astype(np.uint8)
    return (values.clip(0, 65_535) >> 8).astype(np.uint8)


def _resized(image: Image.Image, rule: ResizeRule) -> Image.Image:
    size = (rule.size, rule.size)
    if rule.kind == "square":
        return image.resize(size, Image.Resampling.BICUBIC)
    # Only the kept part is computed: the whole of a 1 x 10,000 strip would have 655 million pixels. Lengths and
    # offsets are rounded as torchvision's Resize and CenterCrop do.
    short = min(image.size)
    box: list[float] = []
    for length in image.size:
        long = int(rule.size * length / short)
        start = round((long - rule.size) / 2)
        box.append(start * length / long)
        box.append(min((start + rule.size) * length / long, length))
    left, right, top, bottom = box
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
