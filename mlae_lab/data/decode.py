"""Decode one image file to RGB pixels of a fixed size, from any format and mode that PIL reads."""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from mlae_lab.core.units import format_bytes
from mlae_lab.data.bundled import DataError
from mlae_lab.data.content import content_hash
from mlae_lab.data.file_kind import HEAD, READABLE, not_an_image

KINDS = ("square", "short")
MAX_SIZE = 2048
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # of an uploaded image
# Of a dataset, which may be made of uploaded files: none of their decoders runs a program or reads another file.
_OPTIONAL = {"AVIF": "AVIF", "JPEG2000": "JPEG 2000"}  # of which Pillow may have no decoder
DATASET_FORMATS = (*FORMATS, "PPM", "TGA", *(name for name, kind in _OPTIONAL.items() if kind in READABLE))
MAX_FILE = 500_000_000  # bytes; a file is read whole
UPLOADED_PIXELS = 50_000_000  # of an uploaded file: several may be decoded at once, in the process of a page's query
MAX_PIXELS = 89_478_485  # pixels: where PIL itself warns; a quarter of a gigabyte when decoded

_BAND_PIXELS = 4_000_000

# `_opened` refuses such images itself; a warning would print PIL's source line in the terminal.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ResizeRule:
    """How an image is resized to size x size pixels, bicubic and antialiased (PIL's filter).

    Attributes:
        kind: "square" resizes the whole image to the square and ignores its aspect ratio, as VTAB does; "short"
            resizes the short side to `size` and keeps the centre, for evaluation only, as random crops need the
            whole image.
        size: 1 to 2048 pixels.
        depth: bits that the values of the dataset use in files of more than 8 bits per channel, 8 to 16 (`depth_of`);
            None where it is not known: then all 16, and in a grey file of 32 bits 8 or 16, whichever its values need.

    Raises:
        ValueError: another kind, size or depth.
    """

    kind: str
    size: int
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of a resize rule is {self.kind!r}: choose {' or '.join(KINDS)}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"the image size is {self.size!r}: it must be 1 to {MAX_SIZE} pixels")
        if self.depth is not None and self.depth not in range(8, 17):
            raise ValueError(f"the depth of an image is {self.depth!r}: it must be 8 to 16 bits")

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
    try:
        content = _content(path)
        return _pixels(content, rule, path.suffix), content_hash(content)
    except _Unreadable as error:
        raise DataError(f"{path} {error.problem}: {error.advice or 'restore it'}, or remove it from the list") from None


def problem_of(path: Path) -> tuple[str, int]:
    """Decode an image file completely, as `decoded_with_content` does, and compare its checksums.

    Returns:
        Why the lab cannot read it, "" for a readable file; and the largest value of a file of more than 8 bits per
        channel, else 0.
    """
    try:
        content = _content(path)
        with _opened(content, path.suffix) as image:
            image.verify()  # compares checksums, which decoding does not do for every format
        with _opened(content, path.suffix) as image:  # verify leaves an image unusable
            deep = _has_deep_colour(image)
            upright = _upright(image)
            if upright.mode.startswith("I"):
                return "", int(np.asarray(upright).max(initial=0))
            if deep:
                high = int(np.asarray(upright)[..., :3].max(initial=0))
                return "", high << 8 | 255 if high >= 128 else int(_deep_colour(content, path.suffix)[..., :3].max())
            _rgb(upright, None)
    except _Unreadable as error:
        return error.short, 0
    except Exception as error:
        return _reason(error), 0
    return "", 0


def examined(path: Path, rule: ResizeRule) -> tuple[np.ndarray, int] | str:
    """As `decoded_with_content`, for the DATASET_FORMATS and with a comparison of checksums; in place of an error, why
    the lab cannot read it."""
    try:
        content = _content(path)
        with _opened(content, path.suffix, DATASET_FORMATS) as image:
            image.verify()
        return _pixels(content, rule, path.suffix, DATASET_FORMATS), content_hash(content)
    except _Unreadable as error:
        return error.short
    except Exception as error:
        return _reason(error)


def depth_of(largest: int) -> int | None:
    """Bits, 8 to 16, that hold a dataset's largest value; None (for 0) without files of more than 8 bits."""
    return min(16, max(8, largest.bit_length())) if largest else None


def decoded_bytes(content: bytes, rule: ResizeRule) -> np.ndarray:
    """Like `decoded`, for the bytes of an uploaded file. Raises DataError.

    At most UPLOADED_PIXELS are decoded. Only the formats in FORMATS are tried, so that no file reaches a decoder that
    runs programs or reads other files.
    """
    try:
        return _pixels(content, rule, "", FORMATS)
    except _Unreadable as error:
        advice = error.advice or f"upload an image in one of the formats {', '.join(FORMATS)}"
        raise DataError(f"the file {error.problem}: {advice}") from None


def decoded_image(image: Image.Image, rule: ResizeRule) -> np.ndarray:
    """Like `decoded`, for an image that PIL has opened. Raises DataError."""
    try:
        return np.asarray(_resized(_rgb(_upright(image), rule.depth), rule))
    except Exception as error:
        raise DataError(f"the image cannot be read ({_reason(error)}): restore it") from None


class _Unreadable(Exception):
    """A file that is no readable image.

    Attributes:
        short: why, in a few words.
        problem: the same as the predicate of a sentence.
        advice: what the user can do, "" for nothing in particular.
    """

    def __init__(self, short: str, problem: str = "", advice: str = "") -> None:
        super().__init__(short)
        self.short = short
        self.problem = problem or f"cannot be read as an image ({short})"
        self.advice = advice


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            raise _Unreadable("no regular file", "is not a regular file")
        if status.st_size > MAX_FILE:
            size = format_bytes(status.st_size)
            raise _Unreadable(size, f"has {size}, more than {format_bytes(MAX_FILE)}", "store it smaller")
        return path.read_bytes()
    except OSError as error:
        raise _Unreadable(_reason(error)) from None


def _pixels(content: bytes, rule: ResizeRule, suffix: str, formats: tuple[str, ...] | None = None) -> np.ndarray:
    try:
        with _opened(content, suffix, formats) as image:
            if rule.depth not in (None, 16) and _has_deep_colour(image):
                values = _deep_colour(content, suffix, formats)
                shallow = _eight_bits(values, rule.depth)
                shallow[..., 3:] = values[..., 3:] >> 8  # transparency uses all 16 bits
                return np.asarray(_resized(_rgb(Image.fromarray(shallow), None), rule))
            return np.asarray(_resized(_rgb(_upright(image), rule.depth), rule))
    except _Unreadable:
        raise
    except Exception as error:
        raise _Unreadable(_reason(error)) from None


def _opened(content: bytes, suffix: str, formats: tuple[str, ...] | None = None) -> ImageFile.ImageFile:
    """Open an image without decoding it. formats: that are tried; None for all."""
    limit = UPLOADED_PIXELS if formats is FORMATS else MAX_PIXELS
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
        if image.width * image.height > limit:
            raise Image.DecompressionBombError
        return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"more than {limit / 1e6:.0f} million pixels"
        raise _Unreadable(most, f"has {most}, the most that the lab decodes", "store it smaller") from None
    except Image.UnidentifiedImageError:
        reason, advice = not_an_image(content[:HEAD], suffix)
        raise _Unreadable(reason, advice=advice) from None


# How PIL unpacks colour of 16 bits: the more significant byte of each channel. The other order gives the other byte.
_OTHER_ORDER = {f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA") for a, b in ("BL", "LB")}


def _has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an opened, not yet decoded image has 16 bits for each of red, green and blue."""
    return bool(image.tile) and all(_raw_mode(tile.args) in _OTHER_ORDER for tile in image.tile)


def _raw_mode(args: Any) -> Any:
    return args[0] if isinstance(args, tuple) and args else args


def _deep_colour(content: bytes, suffix: str, formats: tuple[str, ...] | None = None) -> np.ndarray:
    """(height, width, 3 or 4) uint16, upright, of a file of which `_has_deep_colour` is true."""
    with _opened(content, suffix, formats) as image:
        high = np.asarray(_upright(image)).astype(np.uint16)
    with _opened(content, suffix, formats) as image:
        image.tile = [
            tile._replace(
                args=(_OTHER_ORDER[tile.args[0]], *tile.args[1:])
                if isinstance(tile.args, tuple)
                else _OTHER_ORDER[str(tile.args)]
            )
            for tile in image.tile
        ]
        return high << 8 | np.asarray(_upright(image))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # so that damaged pixels are not mistaken for a damaged EXIF block below
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image  # PIL would copy it
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _rgb(image: Image.Image, depth: int | None) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), depth)).convert("RGB")  # PIL's own conversion would clip
    if image.mode == "F":
        raise ValueError("32-bit float pixels without a known white value")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """To RGB, in bands, as the whole image would be held five times."""
    result = Image.new("RGB", image.size)
    height = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, height):
        box = (0, top, image.width, min(top + height, image.height))
        band = _with_alpha(image.crop(box))
        white = Image.new("RGBA", band.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, band).convert("RGB"), box[:2])
    return result


def _with_alpha(image: Image.Image) -> Image.Image:
    """To RGBA; the premultiplied and paletted modes need an intermediate mode."""
    intermediate = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(intermediate) if intermediate else image).convert("RGBA")


def _eight_bits(values: np.ndarray, depth: int | None) -> np.ndarray:
    """Integers of 16 or 32 bits to 0..255, by the bits that the dataset uses (`ResizeRule`)."""
    if depth is None:  # 32-bit files hold 8-bit or 16-bit grey in practice
        depth = 8 if values.dtype.itemsize > 2 and values.max(initial=0) <= 255 else 16
    return (values.clip(0, 2**depth - 1) >> (depth - 8)).astype(np.uint8)


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
