"""Real image files of many formats and modes, written here and read back."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import resize

from mlae_lab.data import decode
from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import ResizeRule, decoded, decoded_bytes, depth_of, problem_of

SQUARE = ResizeRule("square", 8)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """32 x 16: two even squares side by side."""
    image = Image.new(mode, (32, 16), left)
    image.paste(right, (16, 0, 32, 16))
    return image


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right."""
    return [tuple(int(v) for v in pixels[row, column]) for row in (0, -1) for column in (0, -1)]


def near(result: list[tuple[int, ...]], expected: list[tuple[int, ...]], by: int = 3) -> bool:
    return bool(np.abs(np.array(result) - np.array(expected)).max() <= by)


def test_a_plain_image(tmp_path: Path) -> None:
    halves(RED, BLUE).save(tmp_path / "a.png")
    result = decoded(tmp_path / "a.png", SQUARE)
    assert result.shape == (8, 8, 3)
    assert result.dtype == np.uint8
    assert corners(result) == [RED, BLUE, RED, BLUE]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, BLUE, RED, BLUE]),
        (2, [BLUE, RED, BLUE, RED]),
        (3, [BLUE, RED, BLUE, RED]),
        (6, [RED, RED, BLUE, BLUE]),  # rotated clockwise: the left is now on top
        (8, [BLUE, BLUE, RED, RED]),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, expected: list[tuple[int, ...]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves(RED, BLUE).save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif)
    assert near(corners(decoded(tmp_path / "a.jpg", SQUARE)), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_leaves_the_image_as_it_is_stored(tmp_path: Path) -> None:
    halves(RED, BLUE).save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01")
    assert near(corners(decoded(tmp_path / "a.jpg", SQUARE)), [RED, BLUE, RED, BLUE])


def test_grey_cmyk_and_black_and_white(tmp_path: Path) -> None:
    halves((40,), (200,), "L").save(tmp_path / "grey.png")
    assert corners(decoded(tmp_path / "grey.png", SQUARE)) == [(40,) * 3, (200,) * 3] * 2
    halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert near(corners(decoded(tmp_path / "cmyk.jpg", SQUARE)), [RED, BLUE] * 2, by=6)
    halves((0,), (255,), "L").convert("1").save(tmp_path / "one.png")
    assert corners(decoded(tmp_path / "one.png", SQUARE)) == [(0,) * 3, WHITE] * 2


def test_palettes_with_and_without_a_transparent_colour(tmp_path: Path) -> None:
    paletted = halves(RED, BLUE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    paletted.save(tmp_path / "a.gif")
    assert corners(decoded(tmp_path / "a.gif", SQUARE)) == [RED, BLUE] * 2
    paletted.save(tmp_path / "b.png", transparency=paletted.getpixel((0, 0)))
    assert corners(decoded(tmp_path / "b.png", SQUARE)) == [WHITE, BLUE] * 2


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    halves((0, 0, 0, 0), (255, 0, 0, 255), "RGBA").save(tmp_path / "a.png")
    assert corners(decoded(tmp_path / "a.png", SQUARE)) == [WHITE, RED] * 2
    halves((0, 255), (0, 0), "LA").save(tmp_path / "b.png")
    assert corners(decoded(tmp_path / "b.png", SQUARE)) == [(0, 0, 0), WHITE] * 2
    halves((255, 0, 0, 128), (255, 0, 0, 255), "RGBA").save(tmp_path / "c.png")
    assert near(corners(decoded(tmp_path / "c.png", SQUARE)), [(255, 127, 127), RED] * 2)


def test_a_large_transparent_image_is_held_twice_not_six_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """9,000 x 9,000 pixels took 1.7 GB."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    image, white = Image.fromarray(noise), Image.new("RGBA", (40, 50), WHITE)
    whole = Image.alpha_composite(white, image).convert("RGB")
    sizes = []
    compose = Image.alpha_composite
    monkeypatch.setattr(Image, "alpha_composite", lambda a, b: sizes.append(b.size) or compose(a, b))
    monkeypatch.setattr(decode, "_BAND_PIXELS", 300)
    assert np.array_equal(np.asarray(decode._over_white(image)), np.asarray(whole))
    assert set(sizes) == {(40, 7), (40, 1)}


def test_an_uploaded_image_has_fewer_pixels_than_one_in_a_folder() -> None:
    content = io.BytesIO()
    Image.new("1", (9000, 9000)).save(content, "PNG")
    with pytest.raises(DataError, match="more than 50 million pixels, the most that the lab decodes: store it smaller"):
        decoded_bytes(content.getvalue(), SQUARE)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 0x8000, dtype=np.uint16)).save(tmp_path / "a.png")
    assert corners(decoded(tmp_path / "a.png", SQUARE)) == [(128,) * 3] * 4
    Image.fromarray(np.full((9, 9), 70, dtype=np.int32)).save(tmp_path / "b.tiff")
    assert corners(decoded(tmp_path / "b.tiff", SQUARE)) == [(70,) * 3] * 4


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (31, 100), (16, 17), (101, 7)])
def test_both_rules_equal_torchvision(tmp_path: Path, size: tuple[int, int]) -> None:
    """On PIL images torchvision resizes by PIL: the square is equal, the crop to the last rounding."""
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    expected = np.asarray(resize(image, [24, 24], InterpolationMode.BICUBIC))
    assert np.array_equal(decoded(tmp_path / "a.png", ResizeRule("square", 24)), expected)
    expected = np.asarray(CenterCrop(24)(Resize(24, InterpolationMode.BICUBIC)(image)))
    result = decoded(tmp_path / "a.png", ResizeRule("short", 24))
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_long_strip_needs_no_memory_for_cropped_parts(tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 1), RED).save(tmp_path / "a.png")
    assert corners(decoded(tmp_path / "a.png", ResizeRule("short", 224))) == [RED] * 4  # whole: 3 GB


@pytest.mark.parametrize("megapixels", [100, 400])
def test_an_image_of_enormous_size_is_refused(tmp_path: Path, megapixels: int) -> None:
    (tmp_path / "bomb.ppm").write_bytes(b"P6 %d 1000 255\n" % (megapixels * 1000))
    with pytest.raises(DataError, match=r"bomb\.ppm has more than 89 million pixels"):
        decoded(tmp_path / "bomb.ppm", SQUARE)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    halves(RED, BLUE).resize((300, 300)).save(tmp_path / "whole.jpg")
    half = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(half[: len(half) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tiff")
    for name in ("cut.jpg", "text.jpg", "empty.jpg", "folder.jpg", "float.tiff", "missing.jpg"):
        with pytest.raises(DataError) as caught:
            decoded(tmp_path / name, SQUARE)
        text = str(caught.value)
        assert str(tmp_path / name) in text
        assert "\n" not in text
        assert text.endswith("remove it from the list")


@pytest.mark.parametrize(
    ("content", "reason", "advice"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer, no image", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>", "an HTML page, no image", "download the file again"),
        (b"<HTML><body>", "an HTML page, no image", "download the file again"),
        (b"<!-- saved -->\n<html><svg>", "an HTML page, no image", "download the file again"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error>", "an HTML page, no image", "download the file again"),
        (b"<?xml version='1.0'?><!-- drawn --><svg>", "SVG, which the lab cannot read", "convert it to JPEG or PNG"),
        (b"<!-- drawn -->\n<svg>", "SVG, which the lab cannot read", "convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which the lab cannot read", "convert it to JPEG or PNG"),
        (b"\xff\x0a\x00", "JPEG XL, which the lab cannot read", "convert it to JPEG or PNG"),
        (b"", "empty file", "remove it from the list"),
        (b"hello", "no known image format", "remove it from the list"),
    ],
)
def test_files_that_are_no_images_are_called_by_their_name(
    tmp_path: Path, content: bytes, reason: str, advice: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError) as caught:
        decoded(tmp_path / "a.jpg", SQUARE)
    assert f"({reason}): " in str(caught.value)
    assert advice in str(caught.value)
    with pytest.raises(DataError, match="the file cannot be read as an image") as caught:
        decoded_bytes(content, SQUARE)
    assert reason in str(caught.value)
    assert problem_of(tmp_path / "a.jpg") == (reason, 0)


@pytest.mark.parametrize("save", ["a.png", "a.tiff"])
@pytest.mark.parametrize(("largest", "depth"), [(200, 8), (1000, 10), (4095, 12), (16_383, 14), (65_535, 16)])
def test_grey_of_any_depth_uses_the_whole_range(tmp_path: Path, save: str, largest: int, depth: int) -> None:
    Image.fromarray(np.full((9, 9), largest, dtype=np.uint16)).save(tmp_path / save)
    assert problem_of(tmp_path / save) == ("", largest)
    assert depth_of(largest) == depth
    pixels = decoded(tmp_path / save, ResizeRule("square", 8, depth))
    assert corners(pixels) == [(largest >> (depth - 8),) * 3] * 4
    assert np.array_equal(decoded_bytes((tmp_path / save).read_bytes(), ResizeRule("square", 8, depth)), pixels)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colour, which PIL cannot write. values: (height, width, 3 or 4)."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(values: np.ndarray) -> bytes:
    """The same as an uncompressed TIFF. values: (height, width, 3)."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
               (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 14 + len(data)) + struct.pack("<HHH", 16, 16, 16) + data + directory


@pytest.mark.parametrize("largest", [200, 1000, 4095, 30_000, 65_535])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff"])
def test_colour_of_any_depth_uses_the_whole_range(tmp_path: Path, largest: int, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (8, 8, 3))
    values[0, 0, 0] = largest
    opaque = np.full((8, 8, 1), 65_535)
    whole = np.concatenate([values, opaque], axis=2) if kind == "png with alpha" else values
    (tmp_path / "a.img").write_bytes(deep_tiff(whole) if kind == "tiff" else deep_png(whole))
    problem, value = problem_of(tmp_path / "a.img")
    depth = depth_of(value)
    assert (problem, depth) == ("", max(8, largest.bit_length()))
    assert value == largest or largest > 2**15
    assert depth is not None
    pixels = decoded(tmp_path / "a.img", ResizeRule("square", 8, depth))
    assert np.array_equal(pixels, values >> (depth - 8))
    assert np.array_equal(decoded(tmp_path / "a.img", SQUARE), values >> 8)


def test_files_of_eight_bits_have_no_depth(tmp_path: Path) -> None:
    halves(RED, BLUE).save(tmp_path / "a.png")
    assert problem_of(tmp_path / "a.png") == ("", 0)
    assert depth_of(0) is None
    assert np.array_equal(decoded(tmp_path / "a.png", ResizeRule("square", 8, 12)), decoded(tmp_path / "a.png", SQUARE))
    with pytest.raises(ValueError, match="must be 8 to 16 bits"):
        ResizeRule("square", 8, 7)


def test_a_flipped_bit_anywhere_gives_an_image_or_a_sentence(tmp_path: Path) -> None:
    halves(RED, BLUE).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "b.png").write_bytes(damaged)
        try:
            decoded(tmp_path / "b.png", SQUARE)
        except DataError:
            refused += 1
    assert refused > len(whole) // 2


@pytest.mark.parametrize("values", [("long", 8), ("square", 0), ("square", 2049), ("short", 8.0), ("short", True)])
def test_other_rules_are_refused(values: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"choose|must be 1 to 2048"):
        ResizeRule(*values)


# ---------------------------------------------------------------- uploaded bytes


def test_bytes_give_the_pixels_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rule = ResizeRule("square", 8)
    assert np.array_equal(decoded_bytes((tmp_path / "a.png").read_bytes(), rule), decoded(tmp_path / "a.png", rule))


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"P6 2 2 255\n" + bytes(12)],
)
def test_bytes_of_other_formats_are_refused_without_decoding(content: bytes) -> None:
    with pytest.raises(
        DataError, match=r"the file cannot be read as an image .*upload an image in one of the formats JPEG"
    ):
        decoded_bytes(content, ResizeRule("square", 8))


def test_an_image_that_is_too_large_is_refused_without_a_warning_in_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "bomb.ppm").write_bytes(b"P6 12000 9000 255\n")
    code = (
        "import pathlib, sys; from mlae_lab.data.decode import problem_of; print(problem_of(pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "bomb.ppm")], capture_output=True, text=True)
    assert "more than 89 million pixels" in done.stdout
    assert done.stderr == ""
