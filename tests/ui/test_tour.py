"""The tour: its recording agrees with the code, its texts with the recording, and Home offers it once."""

from __future__ import annotations

import html as entities
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file
from streamlit.testing.v1 import AppTest

from mlae_lab.core import tour as recorded
from mlae_lab.core.glossary import TERMS
from mlae_lab.locations import ASSETS
from mlae_lab.ui import tour
from tests.lab import html
from tests.reading import grade

ANN = "a" * 22


def message(at: AppTest) -> dict:
    """What the page sends to the tour."""
    (sent,) = [e.proto.json for e in at.main.get("bidi_component") if e.proto.component_name.endswith("mlae_lab_tour")]
    return json.loads(sent)


def plain(text: str) -> str:
    """A text of the tour without its markup."""
    return entities.unescape(re.sub(r"<[^>]+>", "", text.replace("</p>", " ")))


def test_the_recording_is_of_these_settings() -> None:
    run = tour.recording()
    assert run["hashes"] == {name: [c.hash for c in configs] for name, configs in recorded.configs().items()}, (
        "record it again: python assets/record_tour.py"
    )
    assert run["id"] == recorded.MASKED.hash
    assert (run["rows"], run["columns"]) == (recorded.MASKED.plan.rows, recorded.MASKED.plan.columns)
    assert len(run["accuracy"]) == len(run["contribution"]) == recorded.EPOCHS
    assert [epoch for epoch, _ in run["accuracy"]] == list(recorded.MASKED.evaluated_epochs)
    assert run["made"].startswith("torch ")


def test_the_recorded_weight_is_that_of_the_bundled_network() -> None:
    shown = tour.recording()["weights"]
    weight = load_file(ASSETS / "lab_vit_12x128.safetensors")[f"{shown['target']}.weight"]
    assert weight.shape == (shown["outputs"], shown["inputs"])
    part = np.array(shown["w"])
    assert np.allclose(part, weight[: part.shape[0], : part.shape[1]], rtol=1e-4)


def test_the_recorded_update_is_the_sum_of_its_experts() -> None:
    shown = tour.recording()["weights"]
    experts = np.array(shown["experts"])
    assert np.allclose(experts.sum(0), shown["delta"], atol=1e-4 * np.abs(experts).max() * len(experts))
    for expert in experts:  # of rank 1
        assert np.linalg.svd(expert, compute_uv=False)[1] < 1e-3 * np.linalg.norm(expert)


def test_the_recorded_similarity_is_the_mean_of_its_maps() -> None:
    run = tour.recording()
    off_diagonal = ~np.eye(run["columns"], dtype=bool)
    means = [np.abs(np.array(matrix))[off_diagonal].mean() for matrix in run["similarity"]]
    assert np.mean(means) == pytest.approx(run["arms"]["masked"][0]["similarity"], abs=1e-3)


def test_each_sampled_mask_drops_about_half_of_the_experts() -> None:
    active = sum(int(row, 16).bit_count() for step in tour.recording()["steps"] for row in step)
    total = len(tour.recording()["steps"]) * 96
    assert abs(active / total - (1 - recorded.DROP_RATE)) < 4 * (0.25 / total) ** 0.5


@pytest.mark.parametrize("step", tour.steps(), ids=lambda step: step.name)
def test_a_page_of_the_tour_is_easy_to_read(step: tour.Step) -> None:
    assert grade(plain(step.text)) < 8, "the Flesch-Kincaid grade"
    assert 20 < len(plain(step.text).split()) < 120
    assert step.alt
    assert set(re.findall(r'popovertarget="term-([^"]+)"', step.text)) <= {entry.name for entry in TERMS}


def test_the_verdict_follows_from_the_recorded_runs() -> None:
    arms = tour.recording()["arms"]
    differences = [m["similarity"] - d["similarity"] for m, d in zip(arms["masked"], arms["dense"], strict=True)]
    similarity = tour.verdict()["similarity"]
    assert similarity.mean == pytest.approx(np.mean(differences))
    half = 4.302653 * np.std(differences, ddof=1) / 3**0.5  # t(97.5 %, 2)
    assert (similarity.low, similarity.high) == pytest.approx((similarity.mean - half, similarity.mean + half))
    text = plain(tour.steps()[-1].text)
    assert f"{np.mean([run['similarity'] for run in arms['masked']]):.3f}" in text
    assert f"{np.mean([run['accuracy'] for run in arms['dense']]):.1f} %" in text
    assert f"{sum(d < 0 for d in differences)} of 3 pairs" in text


@pytest.mark.parametrize(("number", "step"), [("3", 2), ("99", 10), ("x", 0)])
def test_a_link_opens_a_page_of_the_tour(number: str, step: int, tab: Callable[..., AppTest]) -> None:
    sent = message(tab("tour", ANN, step=number))
    assert sent["step"] == step
    assert [page["name"] for page in sent["steps"]] == [page.name for page in tour.steps()]
    assert sent["close"] == ""


def test_home_offers_a_shorter_tour_until_it_is_closed(tab: Callable[..., AppTest]) -> None:
    at = tab("home", ANN)
    assert "New here?" in html(at)
    at.button(key="home_tour_start").click().run()
    assert not at.exception
    assert [page["name"] for page in message(at)["steps"]] == list(tour.SHORT)
    assert message(at)["close"]
    at = tab("home", ANN)
    at.button(key="home_tour_close").click().run()
    assert "New here?" not in html(at)
    (cookies,) = [e.proto.json for e in at.get("bidi_component") if e.proto.component_name.endswith("visitor")]
    assert json.loads(cookies)["tour"] is True, "the browser remembers it"
