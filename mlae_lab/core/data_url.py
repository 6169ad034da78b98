"""Images in pages: base64 of a PNG or JPEG, as answers and events hold them, as a data URL.

Tiny images are PNGs. Pages show the pixels of a PNG and smooth a JPEG.
"""

from __future__ import annotations

TINY = 32  # pixels, the largest width and height of a tiny image


def is_png(encoded: str) -> bool:
    """Whether base64 text holds a PNG, by its signature."""
    return encoded.startswith("iVBOR")


def data_url(encoded: str) -> str:
    """The data URL of a PNG or JPEG in base64."""
    return f"data:image/{'png' if is_png(encoded) else 'jpeg'};base64,{encoded}"
