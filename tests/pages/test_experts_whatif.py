"""What-if and expert importance, opened through app.py on a real run, with its probe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, ExpertStats
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import paths, probe
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import old_links
from mlae_lab.ui.expert_views.switches import State, state_of
from tests.lab import end_probe, figures, finished, html, measured, open_page

opened = partial(open_page, "experts")

OLD_IMAGES = "pictures"  # the parameter of version 0.5
PLAN = allocation((0,) * 10 + (1, 2), drop_rate=0.5)


@pytest.fixture(scope="module")
def store(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    """A store with one finished run whose probe has loaded it; no probe outlives the tests."""
    lab = RunStore(tmp_path_factory.mktemp("inside"))
    config = RunConfig("digits", PLAN, backbone="lab_vit_12x128.random", epochs=1, device="cpu", learning_rate=5e-3)
    run = finished(lab, config)
    for query in ("whatif", "importance", "image_importance"):
        assert probe.wait(lab, run, query, {"image": 0} if query == "image_importance" else {}).state == "done"
    yield lab
    end_probe(lab, run)


@pytest.fixture
def run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    return store.runs()[0].id


def address(at: AppTest, name: str) -> str:
    value = at.query_params[name]
    return value[0] if isinstance(value, list) else value


def component(at: AppTest, entry: str) -> dict:
    for element in at.main.get("bidi_component"):
        data = json.loads(element.proto.json) if element.proto.json else {}
        if entry in data:
            return data
    raise AssertionError(f"no component has {entry}")


# ---------------------------------------------------------------- the state in a link


def test_a_link_is_a_state() -> None:
    assert state_of(PLAN, {}) == State()
    assert state_of(PLAN, {"off": "L12E2,L11", "scale": "0.5"}) == State(((10, 0), (11, 1)), 0.5)
    assert state_of(PLAN, {"scale": "99"}).scale == 2.0
    assert state_of(PLAN, {"scale": "nan"}).scale == 1.0
    wrong = state_of(PLAN, {"off": "L1E1", "scale": "much"})
    assert wrong.off == ()
    assert wrong.scale == 1.0
    assert "layer 1 has none" in wrong.trouble


# ---------------------------------------------------------------- the pages


def test_what_if_shows_the_number_of_the_run_and_follows_a_link(store: RunStore, run: str) -> None:
    plain = opened(run=run, view="whatif")
    accuracy = f"{store.last(run, Evaluation).accuracy:.1f} %"
    assert html(plain).count(f"<dd>{accuracy}</dd>") == 2
    assert "<dd>none</dd>" in html(plain)
    assert component(plain, "fill")["off"] == []
    assert "whatif-classes" not in figures(plain)
    assert "The accuracy of every class is as trained." in html(plain)
    assert "off" not in plain.query_params
    changed = opened(run=run, view="whatif", off="L12", scale="0.5")
    board = component(changed, "fill")
    assert board["off"] == [[11, 0], [11, 1]]
    assert board["keep"][11] == [1, 1]
    assert board["keep"][0] == [0, 0]
    expected = probe.wait(store, run, "whatif", {"off": "L12", "scale": 0.5, "images": 200}).value["now"]
    assert f"<dd>{expected['accuracy']:.1f} %</dd>" in html(changed)
    assert "whatif-classes" in figures(changed)
    assert changed.slider(key=f"whatif_{run}_scale").value == 0.5
    reset = changed.button(key=f"whatif_{run}_reset").click().run()
    assert not reset.exception
    assert "off" not in reset.query_params
    assert "scale" not in reset.query_params
    assert html(reset).count(f"<dd>{accuracy}</dd>") == 2
    assert component(reset, "fill")["rev"] > board["rev"]


def test_mask_is_applied_to_the_run(run: str) -> None:
    at = opened(run=run, view="whatif")
    at.selectbox(key=f"whatif_{run}_mask").set_value("Incremental, fixed").run()
    assert not at.exception
    assert component(at, "fill")["off"] == []
    assert "experts that this run does not have; they are ignored: layer 1, expert 1" in html(at)
    at.slider(key=f"whatif_{run}_scale").set_value(0.0).run()
    assert at.query_params["scale"] in ("0", ["0"])


def test_a_link_that_does_not_fit_is_one_sentence(run: str) -> None:
    at = opened(run=run, view="whatif", off="L1E1")
    assert len(at.warning) == 1
    assert "does not fit this run" in at.warning[0].value


def test_a_run_deleted_while_a_query_waits_is_one_sentence(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = measured(store, store.enqueue(RunConfig("digits", PLAN), "cpu"), 50.0).id
    store.append(deleted, [ExpertStats(1, *[((None,) * 2,) * 12] * 4)])
    requested = []

    def delete_at_the_second(lab: RunStore, run_id: str, *_: object) -> probe.Answer:
        requested.append(run_id)
        if len(requested) > 1:
            lab.delete(run_id)
            lab.run(run_id)  # StoreError, as in `probe.ask`
        return probe.Answer("loading")

    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    monkeypatch.setattr(probe, "ask", delete_at_the_second)
    at = opened(run=deleted, view="whatif")
    assert len(requested) == 2
    (warning,) = at.warning
    assert f"Run {deleted} was deleted on" in warning.value


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"view": "matters"}, {"view": "importance"}),
        ({"view": "attention", OLD_IMAGES: "3,5"}, {"view": "attention", "images": "3,5"}),
        (
            {"view": "matters", "robust": "0.3,200"},
            {"view": "importance", "robustness": "0.3,200"},
        ),
    ],
)
def test_links_of_version_0_5_open(run: str, old: dict[str, str], new: dict[str, str]) -> None:
    assert old_links.translate({"run": run, **old}) == {"run": run, **new}
    at = opened(run=run, **old)
    assert not at.warning
    assert at.session_state["experts_view"] == new["view"]
    assert {name: address(at, name) for name in new} == new
    if "robustness" in new:
        assert at.slider(key=f"robustness_{run}_rate").value == 0.3
    assert not set(old_links.OLD_NAMES) & set(at.query_params)


def test_links_of_version_0_5_every_row() -> None:
    for old, new in old_links.OLD_NAMES.items():
        assert old_links.translate({old: "1", "off": "L2"}) == {new: "1", "off": "L2"}
        assert old_links.translate({new: "2", old: "1"}) == {new: "2"}
    for (name, old), new in old_links.OLD_VALUES.items():
        assert old_links.translate({name: old}) == {name: new}
        assert old_links.translate({"other": old}) == {"other": old}


def test_remaining_experts_are_saved_as_a_mask(store: RunStore, run: str) -> None:
    at = opened(run=run, view="whatif", off="L11")
    at.text_input(key=f"whatif_{run}_keep_name").set_value("the last layer")
    at.button(key=f"whatif_{run}_keep_save").click().run()
    assert not at.exception
    (saved,) = store.plans()
    assert saved.name == "the last layer"
    assert saved.plan.kept == (0,) * 11 + (2,)


def test_importance_shows_exact_values_estimates_and_explanations(run: str) -> None:
    at = opened(run=run, view="importance")
    names = {
        data.get("name")
        for element in at.main.get("bidi_component")
        if (data := json.loads(element.proto.json or "{}"))
    }
    assert {"importance-exact", "importance-estimate", "importance-layers", "image-importance"} <= names
    assert "6 evaluations per curve" in html(at)
    assert "Two runs are evaluated under the same masks" in html(at)
    at.button(key=f"greedy_{run}_go").click().run()
    assert not at.exception
    assert component(at, "alt")
    assert "greedy" in {json.loads(e.proto.json or "{}").get("name") for e in at.main.get("bidi_component")}
    at.button(key=f"robustness_{run}_go").click().run()
    assert not at.exception
    at.slider(key=f"greedy_{run}_kept").set_value(1).run()
    assert not at.exception
    assert "1 of 3 experts remain" in html(at)
    assert address(at, "greedy") == "50"
    assert address(at, "robustness") == "0.5,200"


def test_parameters_of_a_query_survive_a_reload(run: str) -> None:
    at = opened(run=run, view="importance", greedy="100", robustness="0.3,500,,plain")
    assert at.selectbox(key=f"greedy_{run}_images").value == 100
    assert "Two runs are evaluated under the same masks" not in html(at)
    assert at.slider(key=f"robustness_{run}_rate").value == 0.3
    assert at.selectbox(key=f"robustness_{run}_samples").value == 500
    assert at.toggle(key=f"robustness_{run}_rescaled").value is False
    assert address(at, "robustness") == "0.3,500,,plain"
    at = opened(run=run, view="importance", robustness="much")
    assert "Two runs are evaluated under the same masks" in html(at)
    assert not at.exception


def test_a_dead_link_shows_nothing_of_another_run(run: str) -> None:
    at = opened(run="aaaaaaaa", view="whatif")
    assert len(at.warning) == 1
    assert "aaaaaaaa" in at.warning[0].value
    assert "As trained" not in html(at)
    assert not at.main.get("button_group")
    assert at.selectbox(key="experts_run_").options


@pytest.mark.parametrize(
    ("view", "opens"), [("importance", False), ("predict", False), ("errors", False), ("grids", True)]
)
def test_active_run_shows_one_message(
    store: RunStore, run: str, view: str, opens: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live = RunStore(tmp_path)
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path))
    lock = locks.take(paths.supervisor_lock(live.folder))  # nobody starts it
    try:
        waits = live.enqueue(store.run(run).config, device="cpu")
        live.append(waits.id, [stored.event for stored in store.events(run)])
        at = opened(run=waits.id, view=view)
    finally:
        os.close(lock)
    assert [element.value for element in at.info if "this view opens when it is over" in element.value] == (
        []
        if opens
        else [
            f"Run {waits.id} is queued: this view opens when it is over. Grids, Similarity, Diversity, Seeds show the "
            "results so far."
        ]
    )
    assert not at.warning
