"""Data URLs of encoded images."""

from __future__ import annotations

import base64

import pytest

from mlae_lab.core.data_url import data_url, is_png


@pytest.mark.parametrize(("signature", "kind"), [(b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff\xe0", "jpeg")])
def test_the_signature_decides_the_type(signature: bytes, kind: str) -> None:
    encoded = base64.b64encode(signature + bytes(20)).decode()
    assert data_url(encoded) == f"data:image/{kind};base64,{encoded}"
    assert is_png(encoded) == (kind == "png")
