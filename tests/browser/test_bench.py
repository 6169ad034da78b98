"""The live bench in a real browser: a live run and a finished one, both with synthetic events."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from benchmarks.played_run import CONFIG, STEPS_AN_EPOCH, PlayedRun, opening, played
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.browser.conftest import Lab, free_port, serving
from tests.reference import unpacked

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EPOCHS = 8
OVER = replace(CONFIG, plan=pattern("incremental", "mixed", 0.3), epochs=EPOCHS, evaluations=4)
BOX = "document.querySelector('.lb')"
CURVE = "document.querySelector('.lb-accuracy .js-plotly-plot')"


def written(store: RunStore, config: RunConfig) -> str:
    """A finished run."""
    run = store.enqueue(config, "cpu").id
    events = played(config)
    store.append(run, [*opening(config), *(e for _ in range(config.epochs * STEPS_AN_EPOCH) for e in next(events))])
    store.move(run, Status.FINISHED)
    return run


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server on a separate store, in which no supervisor starts anything."""
    folder = tmp_path_factory.mktemp("bench")
    with serving(folder, free_port()) as url:
        yield Lab(url, RunStore(folder / "store"), folder / "data", None)


@pytest.fixture(scope="module")
def live(lab: Lab) -> Iterator[PlayedRun]:
    run = PlayedRun(lab.store, epochs_before=5)
    yield run
    run.close()


@pytest.fixture(scope="module")
def over(lab: Lab, live: PlayedRun) -> str:
    """A finished run; the store also has a dense run and a linear probe with the same settings."""
    written(lab.store, replace(OVER, plan=dense()))
    written(lab.store, replace(OVER, method="linear"))
    return written(lab.store, OVER)


def events(lab: Lab, run: str, kind: type[ev.E]) -> list[ev.E]:
    return [stored.event for stored in lab.store.events(run, kind)]


def opened(visit: Callable[..., Page], run: str, **how) -> Page:
    page = visit(f"/train?run={run}", **how)
    page.wait_for_function(f"{CURVE} && {CURVE}.querySelector('.js-line')", timeout=60_000)
    return page


@pytest.fixture(scope="module")
def looked(chromium: Browser, lab: Lab, over: str) -> Iterator[Page]:
    """The finished run, opened once for all tests that only read the page."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1500})
    page, broken = context.new_page(), []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(f"{lab.url}/train?run={over}")
    page.wait_for_function(f"{CURVE} && {CURVE}.querySelector('.js-line')", timeout=60_000)
    page.wait_for_selector(".lb-album li.correct, .lb-album li.wrong", timeout=30_000)
    yield page
    context.close()
    assert broken == []


# ---------------------------------------------------------------- live


def test_the_heartbeat_shows_the_active_experts_of_each_step(
    visit: Callable[..., Page], lab: Lab, live: PlayedRun
) -> None:
    page = opened(visit, live.id, motion=True)
    rings = f"""() => {{ const words = {BOX}.querySelector('.lb-step').textContent.match(/[\\d,]+/g);
        if (!words) return null;
        return {{ step: Number(words[0].replaceAll(',', '')), said: Number(words[1]),
            lit: [...{BOX}.querySelectorAll('.lb-grid g > rect:first-child')]
                .map(r => r.getAttribute('stroke-width') === '2.2') }}; }}"""
    seen = {}
    for _ in range(40):
        beat = page.evaluate(rings)
        if beat:
            seen[beat["step"]] = beat
        if len(seen) >= 4:
            break
        page.wait_for_timeout(300)
    drawn = {step.step: step.mask for step in events(lab, live.id, ev.TrainStep)}
    assert len(seen) >= 4
    for step, beat in seen.items():
        assert beat["lit"] == unpacked(drawn[step], 96)
        assert beat["said"] == sum(beat["lit"])


def test_colour_is_contribution_and_size_is_gradient(looked: Page, lab: Lab, over: str) -> None:
    page = looked
    cells = page.evaluate(f"""[...{BOX}.querySelectorAll('.lb-grid g')].map(g => {{
        const r = g.querySelectorAll('rect')[1];
        return r ? {{ fill: r.getAttribute('fill'), size: Number(r.getAttribute('width')) }} : null; }})""")
    stats = events(lab, over, ev.ExpertStats)[-1]
    flat = lambda canvas: [v for row in canvas for v in row]  # noqa: E731
    present = [i for i, v in enumerate(flat(stats.contribution)) if v is not None]
    assert [i for i, cell in enumerate(cells) if cell] == present
    assert len(present) < len(cells)

    def depth(fill: str) -> int:  # the scale runs from pale to deep in light mode
        return -sum(int(fill[at : at + 2], 16) for at in (1, 3, 5))

    for values, seen in (
        (stats.contribution, lambda i: depth(cells[i]["fill"])),
        (stats.gradient, lambda i: cells[i]["size"]),
    ):
        ordered = sorted(present, key=lambda i: flat(values)[i])
        low, high = ordered[: len(ordered) // 4], ordered[-len(ordered) // 4 :]
        assert max(map(seen, low)) < min(map(seen, high))
        assert [seen(i) for i in ordered] == sorted(seen(i) for i in ordered)
    for name in ("Contribution", "λ", "Active share", "Gradient", "Heartbeat"):
        button = page.locator(".lb-choose").get_by_role("button", name=name, exact=True)
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"


def test_coefficients_and_tiles_are_drawn_with_the_dense_run_as_reference(looked: Page, lab: Lab, over: str) -> None:
    page = looked
    stats, similarity = events(lab, over, ev.ExpertStats)[-1], events(lab, over, ev.SimilarityStats)[-1]
    values = [v for row in stats.coefficient for v in row if v is not None]
    dots = page.evaluate(f"[...{BOX}.querySelectorAll('.lb-dot')].map(d => Number(d.getAttribute('cx')))")
    order = sorted(range(len(values)), key=values.__getitem__)
    assert len(dots) == len(values)
    assert [dots[i] for i in order] == sorted(dots)
    tiles = page.evaluate(
        f"""[...{BOX}.querySelectorAll('.lb-tiles svg rect[rx="1"]')].map(r => r.getAttribute('fill'))"""
    )
    assert len(tiles) == sum(k * (k - 1) for k in OVER.plan.kept)
    assert "none" not in tiles
    headings = page.evaluate(f"[...{BOX}.querySelectorAll('.lb-tiles svg text')].map(t => t.textContent)")
    first = next(i for i, m in enumerate(similarity.absolute) if m is not None)
    assert f"{similarity.absolute[first]:.2f} / 0." in headings[first]
    assert "/ that of the dense run" in page.locator(".lb-tiles").inner_text()
    assert "in the dense run" in page.evaluate(
        "document.querySelector('.lb-similarity .js-plotly-plot').layout.title.text"
    )
    labels = page.evaluate(f"{CURVE}.layout.annotations.map(a => a.text)")
    assert any(label.startswith("probe ") for label in labels)


def test_the_twelve_images_show_predictions_and_mark_flips(looked: Page, lab: Lab, over: str) -> None:
    page = looked
    before, last = (e.predicted for e in events(lab, over, ev.Predictions)[-2:])
    truth = events(lab, over, ev.SampleImages)[0].labels
    seen = page.evaluate(f"""[...{BOX}.querySelectorAll('.lb-album li')].map(l => ({{
        flip: l.classList.contains('flip'),
        said: l.querySelector('b').textContent,
        wide: l.querySelector('img').naturalWidth, alt: l.querySelector('img').alt }}))""")
    assert len(seen) == 12
    assert all(item["wide"] > 0 for item in seen)
    assert [item["said"][2:] for item in seen] == list(last)
    assert [item["alt"] for item in seen] == list(truth)
    assert [item["flip"] for item in seen] == [a != b for a, b in zip(before, last, strict=False)]
    assert [item["said"][0] == "✓" for item in seen] == [a == b for a, b in zip(last, truth, strict=False)]


def test_other_statistics_are_drawn_when_expanded(looked: Page, lab: Lab, over: str) -> None:
    more = looked.locator(".lb-more")
    assert more.locator(".plot").count() == 0
    more.locator("summary").click()
    looked.wait_for_function("document.querySelector('.lb-more .plot .js-line')", timeout=30_000)
    last = events(lab, over, ev.Statistics)[-1].values["update_norm"]
    assert isinstance(last, tuple)
    drawn = looked.evaluate("document.querySelector('.lb-more .plot').data.map(trace => trace.y.at(-1))")
    known = [value for value in last if isinstance(value, float)]
    assert drawn == pytest.approx([*known, sum(known) / len(known)], rel=1e-3)
    assert more.locator(".plot").first.get_attribute("aria-label").startswith("Line chart. Norm of ΔW: mean")
    more.locator("summary").click()


def test_speed_time_left_and_load_are_shown(visit: Callable[..., Page], live: PlayedRun) -> None:
    page = opened(visit, live.id)
    page.wait_for_function(f"/CPU utilization/.test({BOX}.querySelector('.lb-facts').innerText)", timeout=30_000)
    facts = page.locator(".lb-facts").inner_text()
    assert "Time left" in facts
    assert "Images/s" in facts
    assert " of " in facts


def test_new_points_are_shown_in_time(visit: Callable[..., Page], lab: Lab, live: PlayedRun) -> None:
    """New points of a live run appear less than two seconds apart in the median, by the browser's clock and without the
    time in which the page itself was blocked. The latency from disk is not measured."""
    page = opened(visit, live.id)
    updates = page.evaluate(f"""async () => {{ const from = [];
        let last = {CURVE}.data[0].x.at(-1), changed = performance.now(), slack = 0, tick = performance.now();
        const end = tick + 8000;
        while (performance.now() < end) {{
            await new Promise(r => setTimeout(r, 50));
            slack += Math.max(0, performance.now() - tick - 70); tick = performance.now();
            const now = {CURVE}.data[0].x.at(-1);
            if (now !== last) {{ from.push([tick - changed, slack]); last = now; changed = tick; slack = 0; }}
        }}
        return from; }}""")
    gaps = sorted(gap - slack for gap, slack in updates)
    assert len(gaps) >= 3
    assert gaps[len(gaps) // 2] < 2000


def test_zoom_hidden_traces_and_scroll_survive_new_points(visit: Callable[..., Page], live: PlayedRun) -> None:
    page = opened(visit, live.id, height=700)
    page.evaluate(f"{CURVE}.querySelector('.nsewdrag').scrollIntoView({{ block: 'center' }})")
    page.wait_for_timeout(400)
    page.locator(".lb-accuracy .annotation", has_text="train").click()  # a click on the label of a line hides the line
    box = page.locator(".lb-accuracy .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 15, box["y"] + 15)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    page.evaluate(f"{CURVE}.dataset.mark = 'same'")
    state = f"""() => ({{ range: {CURVE}.layout.yaxis.range.join(),
        hidden: {CURVE}.data[0].visible, mark: {CURVE}.dataset.mark,
        scroll: document.querySelector('[data-testid=stMain]').scrollTop }})"""
    before = page.evaluate(state)
    count = page.evaluate(f"{CURVE}.data[0].x.at(-1)")
    page.wait_for_function(f"{CURVE}.data[0].x.at(-1) > {count} + 0.2", timeout=30_000)
    assert page.evaluate(state) == before
    assert before["hidden"] == "legendonly"
    assert before["scroll"] > 0


def test_pausing_the_display_freezes_it_until_it_is_resumed(
    visit: Callable[..., Page], lab: Lab, live: PlayedRun
) -> None:
    page = opened(visit, live.id)
    page.get_by_role("button", name="Pause display", exact=True).press("Enter")
    shown = f"""() => [{CURVE}.data[0].x.at(-1), {BOX}.querySelector('.lb-step').textContent,
        {BOX}.querySelector('.lb-facts').innerText].join()"""
    held = page.evaluate(shown)
    page.get_by_text("Display paused; the run continues.").wait_for(timeout=30_000)
    page.wait_for_timeout(2000)
    assert page.evaluate(shown) == held
    page.get_by_role("button", name="Resume display", exact=True).click()
    page.wait_for_function(f"before => ({shown})() !== before", arg=held, timeout=20_000)


# ---------------------------------------------------------------- replay


def test_the_scrubber_replays_by_keyboard_and_by_mouse(visit: Callable[..., Page], lab: Lab, over: str) -> None:
    page = opened(visit, over)
    slider, position = page.get_by_role("slider", name="Position in the run"), page.locator(".lb-where")
    measured = events(lab, over, ev.Evaluation)
    page.wait_for_function("document.querySelector('.lb-where').textContent !== ''")
    assert f"accuracy {measured[-1].accuracy:.1f} %" in position.inner_text()
    slider.focus()
    page.keyboard.press("Home")
    assert "Epoch 0.0" in position.inner_text()
    assert "not evaluated yet" in position.inner_text()
    assert "0" in slider.input_value()
    assert page.locator(".lb-album li.correct, .lb-album li.wrong").count() == 0
    for _ in range(measured[0].step):
        page.keyboard.press("ArrowRight")
    assert f"accuracy {measured[0].accuracy:.1f} %" in position.inner_text()
    steps = {s.step: s.mask for s in events(lab, over, ev.TrainStep)}
    caption = page.locator(".lb-step").inner_text()
    assert f"{sum(unpacked(steps[measured[0].step], 12 * OVER.plan.columns))} of" in caption
    assert f"Step {measured[0].step}:" in caption
    cursors = f"{CURVE}.layout.shapes.filter(shape => shape.yref === 'paper').map(shape => shape.x0)"
    (cursor,) = page.evaluate(cursors)  # one, not one for each key
    assert cursor == pytest.approx(measured[0].epoch, abs=0.01)
    assert page.evaluate(f"{CURVE}.querySelectorAll('.shapelayer path').length === {CURVE}.layout.shapes.length")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert abs(int(slider.input_value()) - EPOCHS * STEPS_AN_EPOCH / 2) < 6


def test_replay_at_each_speed_reaches_the_end(visit: Callable[..., Page], over: str) -> None:
    page = opened(visit, over)
    page.get_by_label("Speed of the replay").select_option("1")
    page.get_by_role("button", name="Play", exact=True).press("Enter")
    page.wait_for_function(
        "end => { const at = Number(document.querySelector('.lb-slider').value); return at > 5 && at < end; }",
        arg=EPOCHS * STEPS_AN_EPOCH,
        timeout=20_000,
    )
    page.get_by_role("button", name="Pause", exact=True).click()
    held = page.locator(".lb-slider").input_value()
    page.wait_for_timeout(600)
    assert page.locator(".lb-slider").input_value() == held
    page.get_by_label("Speed of the replay").select_option("16")
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("button", name="Play", exact=True).wait_for(timeout=20_000)
    assert page.locator(".lb-slider").input_value() == str(EPOCHS * STEPS_AN_EPOCH)


# ---------------------------------------------------------------- saved files and layout


@pytest.mark.parametrize(
    ("figure", "column"),
    [
        ("grid", "contribution"),
        ("tiles", "cosine"),
        ("drift", "coefficient"),
        ("accuracy", "series"),
        ("loss", "series"),
        ("similarity", "series"),
    ],
)
def test_every_figure_is_saved_as_png_svg_and_csv(figure: str, column: str, looked: Page) -> None:
    page = looked
    box = page.locator(f".lb-{figure}")
    box.scroll_into_view_if_needed()
    box.hover()
    own = figure in ("grid", "tiles", "drift")
    for kind, starts in (("PNG", b"\x89PNG\r\n"), ("SVG", b"<svg"), ("CSV", b"")):
        button = (
            box.get_by_role("button", name=f"Save this figure as {kind}") if own
            else box.locator(f"[data-title='Save as {kind}'], [aria-label='Save as {kind}']").first
        )  # fmt: skip
        with page.expect_download(timeout=30_000) as waiting:
            button.click()
        path = waiting.value.path()
        content = path.read_bytes()
        assert waiting.value.suggested_filename.endswith("." + kind.lower())
        assert content.startswith(starts)
        assert len(content) > 200
        if kind == "CSV":
            head, *rows = content.decode().splitlines()
            assert column in head.split(",")
            assert len(rows) >= 4


@pytest.mark.parametrize("figure", ["accuracy", "loss", "similarity"])
def test_the_tool_bar_of_a_figure_is_not_over_its_title(figure: str, looked: Page) -> None:
    box = looked.locator(f".lb-{figure}")
    box.scroll_into_view_if_needed()
    box.hover()
    bar, title = (box.locator(part).first.bounding_box() for part in (".modebar", ".gtitle"))
    assert bar is not None
    assert title is not None
    assert bar["y"] >= title["y"] + title["height"]


@pytest.mark.parametrize(
    ("figure", "legend", "parts"),
    [
        ("grid", "Fill: contribution of the expert", ("rect", "line")),
        ("tiles", "Cosine of two experts", ("rect",)),
        ("drift", "One dot per expert", ("line", "circle")),
    ],
)
def test_a_saved_figure_has_the_colours_and_the_legend_of_the_screen(
    figure: str, legend: str, parts: tuple[str, ...], looked: Page
) -> None:
    box = looked.locator(f".lb-{figure}")
    box.hover()
    with looked.expect_download(timeout=30_000) as waiting:
        box.get_by_role("button", name="Save this figure as SVG").click()
    drawing = ElementTree.parse(waiting.value.path())
    name = "{http://www.w3.org/2000/svg}"
    assert not [element for element in drawing.iter() if element.get("class") or element.get("style")]
    for part in parts:
        assert all(element.get("fill") or element.get("stroke") for element in drawing.iter(name + part)), part
    assert all(line.get("stroke") != "none" for line in drawing.iter(name + "line"))
    assert all(text.get("fill", "").startswith(("#", "rgb(")) for text in drawing.iter(name + "text"))
    assert legend in " ".join(text.text or "" for text in drawing.iter(name + "text"))


def test_a_queued_run_shows_its_mask_and_no_empty_chart(visit: Callable[..., Page], lab: Lab) -> None:
    page = visit(f"/train?run={lab.store.enqueue(OVER, 'cuda').id}")
    page.get_by_text(f"The mask: {OVER.plan.experts} experts, not evaluated yet").wait_for(timeout=30_000)
    assert page.locator(".lb-grid svg").is_visible()
    for empty in (".lb-tiles", ".lb-drift", ".lb-accuracy", ".lb-similarity", ".lb-play"):
        assert not page.locator(empty).is_visible(), empty


@pytest.mark.parametrize("state", ["live", "over"])
def test_nothing_is_cut(state: str, visit: Callable[..., Page], live: PlayedRun, over: str) -> None:
    page = opened(visit, live.id if state == "live" else over)
    for scheme, width in itertools.product(("light", "dark"), (1280, 800)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(800)
        cut = page.evaluate(f"""() => {{ const main = document.querySelector('[data-testid=stMain]');
            const frame = {BOX}.getBoundingClientRect();
            const out = [...{BOX}.querySelectorAll('svg, .plot, button, dd, .lb-title, select, input')].filter(e => {{
                const box = e.getBoundingClientRect();
                return box.width && (box.right > frame.right + 1 || box.left < frame.left - 1); }});
            return [main.scrollWidth - main.clientWidth, out.map(e => e.className.baseVal ?? e.className)]; }}""")
        assert cut == [0, []], (scheme, width)


def test_a_refresh_keeps_elements_and_layout(visit: Callable[..., Page], live: PlayedRun) -> None:
    page = opened(visit, live.id)
    page.wait_for_timeout(1500)
    height = "document.querySelector('[data-testid=stMain] > *').getBoundingClientRect().height"
    before, count = page.evaluate(height), page.evaluate(f"{CURVE}.data[0].x.at(-1)")
    kept = page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMain] .lb, .lb-images img')].forEach(e => e.kept = true)"
    )
    assert kept is None
    page.wait_for_function(f"{CURVE}.data[0].x.at(-1) > {count} + 0.2", timeout=30_000)
    assert abs(page.evaluate(height) - before) <= 1
    assert page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMain] .lb, .lb-images img')].every(e => e.kept)"
    )
