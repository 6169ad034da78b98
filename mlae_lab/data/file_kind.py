"""What a file holds, decided by its first bytes and not by its name."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import features

from mlae_lab.core.failed_download import LFS_POINTER, is_web_page
from mlae_lab.files import open_regular

HEAD = 512  # bytes that `kind_of` needs
VIDEO = "video"
_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "Photoshop"), (b"\x76\x2f\x31\x01", "OpenEXR"), (b"\x1a\x45\xdf\xa3", VIDEO),
    (LFS_POINTER, "Git LFS pointer"),
)  # fmt: skip
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # sizes of the second header, which follows the 14 bytes of the first
_RAW_SUFFIXES = {".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"}  # TIFF with sensor data

READABLE = {"JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "PPM", "TGA"} | {
    name for name, feature in (("AVIF", "avif"), ("JPEG 2000", "jpg_2000")) if features.check(feature)
}
OTHER_IMAGES = {"HEIC", "AVIF", "JPEG 2000", "JPEG XL", "Photoshop", "SVG", "camera raw", "DICOM", "OpenEXR"} - READABLE

_ADVICE = {
    "Git LFS pointer": "fetch the file that it stands for with `git lfs pull`",
    "HTML page": "download the file again, as the server sent a page in its place",
}


def kind_of(head: bytes, suffix: str = "") -> str:
    """The kind of a file, such as "JPEG", "HEIC", "Git LFS pointer" or "HTML page"; "" for any other.

    Args:
        head: Its first `HEAD` bytes, or all of a shorter file.
        suffix: Of its name, which tells camera raw from the TIFF that it is based on, and TGA, which has no signature.
    """
    if suffix.lower() in _RAW_SUFFIXES and head.startswith((b"II", b"MM")):
        return "camera raw"
    for start, name in _FORMATS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        return "WebP" if head[8:12] == b"WEBP" else VIDEO
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[4:8] == b"ftyp":
        return _of_brands({head[8:12], *(head[i : i + 4] for i in range(16, min(64, len(head)), 4))})
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-6]\s+[0-9#]", head):
        return "PPM"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<!doctype svg", b"<?xml", b"<!--")) and b"<svg" in text and b"<html" not in text:
        return "SVG"
    if is_web_page(head):
        return "HTML page"
    return "TGA" if suffix.lower() == ".tga" and head[1:2] in (b"\0", b"\1") else ""


def kind_of_file(path: Path) -> str:
    """`kind_of` a file on disk, "" for one that cannot be read."""
    try:
        with open_regular(path) as file:
            return kind_of(file.read(HEAD), path.suffix)
    except OSError:
        return ""


def not_an_image(head: bytes, suffix: str = "") -> tuple[str, str]:
    """What a file is that PIL cannot open as an image, and what helps, "" for nothing in particular."""
    kind = kind_of(head, suffix)
    if not head:
        return "empty file", ""
    if kind in _ADVICE:
        return f"{'an' if kind.startswith('H') else 'a'} {kind}, no image", _ADVICE[kind]
    if kind in OTHER_IMAGES:
        return f"{kind}, which the lab cannot read", "convert it to JPEG or PNG"
    return "no known image format", ""


def _of_brands(brands: set[bytes]) -> str:
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if b"crx " in brands:
        return "camera raw"
    return "HEIC" if brands & _HEIF else VIDEO
