"""An uploaded image of 16 bits is scaled like the images of the run."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from mlae_lab.data.image_record import ImageList, ImageRecord
from mlae_lab.data.splits import LabelledImages
from mlae_lab.training.queries.images import pixels_of


@pytest.mark.parametrize(("depth", "grey"), [(12, 100), (None, 6), (16, 6)])
def test_an_uploaded_image_has_the_depth_of_the_run(depth: int | None, grey: int) -> None:
    none = ImageList((), (), np.zeros(0, dtype=np.uint64))
    part = LabelledImages(np.zeros((1, 8, 8, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64))
    setup = SimpleNamespace(record=ImageRecord(("a", "b"), none, none, depth), evaluation=SimpleNamespace(part=part))
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 1600, dtype=np.uint16)).save(file, "PNG")
    given = {"file": base64.b64encode(file.getvalue()).decode()}
    pixels, index = pixels_of(cast("Any", SimpleNamespace(setup=setup)), given)
    assert index is None
    assert set(pixels.flat) == {grey}
