"""The launch on the page Train, opened through app.py: estimate, differences, three ways to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui.launch_view import since
from tests.lab import html, open_page

ADA, BOB = "ada-" + "a" * 20, "bob-" + "b" * 20
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


@pytest.fixture
def train(store: RunStore) -> Callable[..., AppTest]:
    def opened(way: str = "one", **query: str) -> AppTest:
        return open_page("train", {"visitor_id": ADA, "launch_way": way}, **{"task": "digits"} | query)

    return opened


def timed(store: RunStore, config: RunConfig, owner: str = ADA) -> Run:
    """A run of half a second a step."""
    run = store.enqueue(config, "cpu", owner)
    store.claim(run.id, "cpu")
    events: list[ev.Event] = [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 2.0)]
    events += [ev.TrainStep(n, 1, 1.0, 50.0, 1e-3, 48, 0.5 * n) for n in range(1, 14)]
    events.append(ev.Evaluation(1, 13, "val", 50.0, 1.0, 6.5))
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)
    return store.run(run.id)


def test_no_estimate_without_earlier_runs(train: Callable[..., AppTest]) -> None:
    at = train()
    assert "No run like this one has been timed on this machine yet. Rough, perhaps half or twice as long" in html(at)
    assert "Steps</dt><dd>208" in html(at)
    assert "1,290 in the head" in html(at)
    assert "your last run" not in html(at)


def test_time_and_memory_by_image_size(train: Callable[..., AppTest], store: RunStore) -> None:
    timed(store, replace(FIRST_RUN, task="digits", device="auto"))
    at = train(set="image-size:64")
    shown = html(at)
    assert "here at 64 px, 65 tokens" in shown
    assert "They had images of 48 pixels: the time is assumed to grow with the multiply-adds of an image" in shown
    for cell in ("32 px", "48 px (its own)", "<b>64 px</b>", "<b>65</b>", "96 px", "1 min 46 s"):
        assert f">{cell}</td>" in shown, cell


def test_a_backbone_that_does_not_take_the_image_size_gets_its_own(train: Callable[..., AppTest]) -> None:
    at = train(set="image-size:64")
    (box,) = (box for box in at.selectbox if box.label == "Backbone")
    described = "vit_small_patch14_dinov2.lvd142m · 518 px · 22.1 M parameters · apache-2.0"
    assert described in box.options
    box.select(described).run()
    assert not at.error
    assert next(field for field in at.number_input if field.label == "Image size").value == 0
    assert "vit_small_patch14_dinov2.lvd142m takes multiples of 14 pixels" in html(at)
    next(field for field in at.number_input if field.label == "Image size").set_value(64).run()
    assert "takes multiples of 14 pixels from 42 to 1022: choose 56 or 70" in at.error[0].value


def test_estimate_uses_earlier_runs(train: Callable[..., AppTest], store: RunStore) -> None:
    timed(store, replace(FIRST_RUN, task="digits", device="auto"))
    at = train()
    assert "Estimated time</dt><dd>1 min 46 s" in html(at)  # 2 + 208 x 0.5
    assert "From the last run with this backbone, device, precision and batch size on this machine." in html(at)
    assert "The load of the machine, then and now, is not considered." in html(at)


def test_what_differs_from_the_last_run_of_this_visitor(train: Callable[..., AppTest], store: RunStore) -> None:
    mine = timed(store, replace(FIRST_RUN, task="digits", epochs=8))
    timed(store, replace(FIRST_RUN, task="fashion"), BOB)
    at = train(mask=dense().code)
    assert (
        f"Compared with your last run ({mine.id}): epochs 16, was 8; experts: 96 with another drop rate, 0 the same."
        in html(at)
    )


def test_differences_in_words(store: RunStore) -> None:
    base = replace(FIRST_RUN, task="digits")
    last = store.enqueue(base, "cpu")
    assert since(last, base).startswith("Nothing differs from your last run")
    pair = since(last, replace(base, plan=allocation((8,) * 11 + (7,), columns=8, drop_rate=0.3)))
    assert pair.endswith(": experts: 1 only in the last run, 95 the same. The two runs would be a pair.")
    rank = since(last, replace(base, plan=replace(base.plan, expert_rank=2)))
    assert "all 96 experts are the same; the experts have rank 1 in the last run and 2 in this one" in rank
    assert "method linear, was mlae" in since(last, replace(base, method="linear"))
    assert "learning rate 0.1, was 0.005" in since(last, replace(base, learning_rate=0.1))


def test_one_click_starts_this_mask(train: Callable[..., AppTest], store: RunStore) -> None:
    at = train(mask=pattern("hourglass").code)
    at.button(key="train_start").click().run()
    assert not at.exception
    (run,) = store.runs()
    assert (run.config.plan, run.owner, run.relation) == (pattern("hourglass"), ADA, "")


def test_comparison_with_a_saved_mask(train: Callable[..., AppTest], store: RunStore) -> None:
    saved = store.save_plan("Half", allocation((4,) * 12))
    at = train("pair")
    assert "This mask compared with “Dense”. 2 runs start, with seed 0." in html(at)
    at.session_state["launch_against"] = f"saved.{saved.id}"
    at.run()
    assert "This mask compared with “Half”" in html(at)
    assert at.code[0].value.startswith("python -m mlae_lab race ")
    assert at.code[0].value.count("--mask") == 2
    at.button(key="launch_pair").click().run()
    assert not at.exception
    b, a = store.runs()
    assert (a.config.plan, b.config.plan) == (FIRST_RUN.plan, saved.plan)
    assert replace(b.config, plan=a.config.plan) == a.config
    (stored,) = store.studies()
    assert (stored.owner, [arm.name for arm in stored.study.arms][1]) == (ADA, "Half")
    assert {(run.relation, run.source) for run in (a, b)} == {("study", stored.id)}
    assert at.query_params["study"] in (stored.id, [stored.id])


def test_a_race_of_three_masks_over_two_seeds(train: Callable[..., AppTest], store: RunStore) -> None:
    at = train("race")
    at.session_state["launch_race_seeds"] = 2
    at.run()
    assert "This mask and “Dense”, “Uniform, p = 0.5”. 6 runs start, with seeds 0, 1." in html(at)
    at.button(key="launch_race").click().run()
    assert not at.exception
    assert len(store.runs()) == 6
    assert {run.config.plan for run in store.runs()} == {FIRST_RUN.plan, dense(), uniform(0.5)}
    assert "No mask has been evaluated yet." in html(at)  # this is the page of the study now
    again = train("race")
    assert "All of these runs exist already: nothing new starts." in html(again)


def test_a_race_with_too_many_or_no_masks_is_one_sentence(train: Callable[..., AppTest], store: RunStore) -> None:
    at = train("race")
    at.session_state["launch_others"] = []
    at.run()
    assert "Choose at least one mask above" in html(at)
    at.session_state["launch_others"] = [
        "dense.dense", "uniform.stochastic",
        *(f"{n}.fixed" for n in ("incremental", "decremental", "hourglass", "random")),
        "hourglass.mixed", "random.mixed",
    ]  # fmt: skip
    at.run()
    assert [e.value for e in at.error] == ["A race has 9 masks: choose 2 to 8."]
    assert not store.runs()


def test_a_time_limit_makes_no_race(train: Callable[..., AppTest], store: RunStore) -> None:
    at = train("race", set="seconds:60")
    assert "its runs would train for different numbers of steps" in at.error[0].value
    assert not store.runs()


def test_a_linear_probe_starts_alone(train: Callable[..., AppTest], store: RunStore) -> None:
    at = train("race", set="method:linear")
    assert not at.error
    at.button(key="train_start").click().run()
    assert [run.config.method for run in store.runs()] == ["linear"]
