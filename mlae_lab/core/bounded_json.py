"""JSON from untrusted files, bounded before it is parsed: 10 MB of empty lists would take 305 MB of memory."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

MAX_BYTES = 10_000_000
MAX_VALUES = 200_000  # the largest checkpoint has 6,000 tensors with ten values each, and 16,000 cells of a mask


def parsed(text: str | bytes, most: int = MAX_VALUES) -> Any:
    """The value of a JSON text.

    Args:
        text: As read from a file.
        most: Values that it may have, approximately.

    Raises:
        ValueError: It is not JSON, or has more values, or more than `MAX_BYTES` bytes.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has {len(text):,} bytes and may have {MAX_BYTES:,}")
    if isinstance(text, bytes):
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
    else:
        values = text.count(",") + text.count("[") + text.count("{")
    if values > most:
        raise ValueError(f"it has {values:,} values and may have {most:,}")
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None


def safetensors_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the number of bytes before its tensors.

    Raises:
        ValueError: The file does not begin with such a header, or it is too large (`parsed`).
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > MAX_BYTES:
        raise ValueError("its first eight bytes do not give the length of a header")
    content = file.read(length)
    if len(content) < length:
        raise ValueError("it ends within its header")
    header = parsed(content)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length
