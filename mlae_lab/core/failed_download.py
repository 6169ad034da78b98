"""What a failed download or clone leaves in place of a file, judged by its first bytes."""

from __future__ import annotations

LFS_POINTER = b"version https://git-lfs.github.com/spec"
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--", b"<?xml")


def is_web_page(start: bytes) -> bool:
    """Whether a file begins like an HTML page, or like the XML with which file servers report errors."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE)
