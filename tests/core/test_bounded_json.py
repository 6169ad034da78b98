"""JSON that is refused before it is parsed."""

from __future__ import annotations

import io
import json
import tracemalloc

import pytest

from mlae_lab.core import bounded_json
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.runs.archive_checks import tensors_trouble


def test_ten_megabytes_of_empty_lists_take_no_memory() -> None:
    content = b"[" + b",".join([b"[]"] * 3_300_000) + b"]"
    tracemalloc.start()
    for text in (content, content.decode()):
        with pytest.raises(ValueError, match=r"values and may have 200,000"):
            bounded_json.parsed(text)
    assert "values and may have" in tensors_trouble(content, 0)
    with pytest.raises(PlanError, match="values and may have"):
        MaskPlan.from_json(content.decode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "first eight bytes"),
        ((10**9).to_bytes(8, "little"), "first eight bytes"),
        ((100).to_bytes(8, "little") + b"{}", "ends within its header"),
        ((4).to_bytes(8, "little") + b"[1] ", "not a JSON object"),
        ((2).to_bytes(8, "little") + b"{]", "Expecting"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_header_that_cannot_be_used(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bounded_json.safetensors_header(io.BytesIO(content))


def test_a_usual_header() -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(24)
    assert bounded_json.safetensors_header(io.BytesIO(content)) == (json.loads(header), 8 + len(header))


@pytest.mark.parametrize(
    "code", ["m1_512x1_1*512_.5*512_t" + "a" * 10**5, "m1_1x1_1_.5_n" + "a" * 121, "m1_" + "1" * 10**6]
)
def test_a_mask_code_is_bounded_before_a_name_is_repeated_in_every_row(code: str) -> None:
    tracemalloc.start()
    with pytest.raises(PlanError, match="characters: it may have") as error:
        MaskPlan.from_code(code)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert len(str(error.value)) < 250
