"""A study as one HTML file that opens without a network: verdict, figures, arms, all settings, commands, versions.

The figures are those of the page, drawn by the same scripts; plotly.js is part of the file.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from html import escape
from importlib import metadata
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.seed_statistics import between, points
from mlae_lab.core.settings import Setting, settings_of
from mlae_lab.core.study import Study, shown
from mlae_lab.core.study_file import as_yaml
from mlae_lab.locations import PROGRAM, lab_version
from mlae_lab.runs.studies import State
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui.figures.studies import study_figures
from mlae_lab.ui.figures.study_parts import Curves, mean_of
from mlae_lab.ui.thumbnails import mask_image

_SCRIPTS = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "timm", "torchvision", "numpy", "scipy")
_STYLE = """
:root { color-scheme: light dark; --st-background-color: #FAFAF7; --ink: #1B2328; --quiet: #5B6870; --line: #DDE2E0;
  --raised: #FFFFFF; }
@media (prefers-color-scheme: dark) { :root { --st-background-color: #101418; --ink: #E8EDEE; --quiet: #9AA7AE;
  --line: #2B343B; --raised: #171D23; } }
body { font: 15px/1.5 Inter, system-ui, sans-serif; background: var(--st-background-color); color: var(--ink);
  max-width: 1240px; margin: 0 auto; padding: 2rem 1.2rem 4rem; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -.015em; }
h2 { font-size: 1.06rem; margin: 2.2rem 0 .4rem; }
.question { color: var(--quiet); margin: .4rem 0 0; max-width: 70ch; }
.verdict { font-size: 1.5rem; font-weight: 620; line-height: 1.3; max-width: 62ch; margin: 1.2rem 0 .6rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr)); gap: 1.6rem 2rem; }
.figures .wide { grid-column: 1 / -1; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption, .note { font-size: .86rem; color: var(--quiet); max-width: 84ch; }
.titled .modebar-container { top: auto !important; bottom: 0; height: 26px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--quiet); }
td img { width: 44px; display: block; }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto;
  font-size: .82rem; }
td { min-width: 4.5rem; }
td code { white-space: nowrap; }
@media print { details:not([open]) > * { display: none; } }
"""
_DRAW = """
const drawn = JSON.parse(document.getElementById("data").textContent);
const plots = drawn.map((entry, i) => new Plot(document.getElementById("figure" + i)));
function drawAll() {
  drawn.forEach((entry, i) => {
    const palette = paletteOf(document.documentElement);
    plots[i].draw(JSON.parse(entry.spec), entry.spec + palette.surface, palette, "", entry.name, entry.alt);
  });
}
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
"""


def _most(tasks: Sequence[str]) -> int | None:
    """How many figures of each task: of several tasks the arms and their differences to the reference."""
    return 2 if len(tasks) > 1 else None


def _task_title(task: str, tasks: Sequence[str]) -> str:
    return f"<b>{escape(catalog.task(task).title)}.</b> " if len(tasks) > 1 else ""


def study_report(results: Results, state: State, curves: Curves, choice: Sequence[str] = ()) -> str:
    """The report of a study as far as it is.

    Args:
        results: Of the study.
        state: From which they were made.
        curves: Of its arms, as of `study_figures`.
        choice: What it has chosen, in sentences, for a study that chooses (`runs.choosing`).
    """
    study, stored = results.study, state.stored
    tasks = list(dict.fromkeys(arm.config.task for arm in study.arms))
    titled = [(task, entry) for task in tasks for entry in study_figures(results, curves, task=task)[: _most(tasks)]]
    figures = [entry for _, entry in titled]
    data = [{"spec": entry.figure.spec, "alt": entry.figure.alt, "name": entry.figure.name} for entry in figures]
    drawn = "".join(
        f'<figure class="{"wide" if entry.is_wide else ""}"><div class="plot" role="figure" id="figure{number}"></div>'
        f"<figcaption>{_task_title(task, tasks)}{escape(entry.caption)}</figcaption></figure>"
        for number, (task, entry) in enumerate(titled)
    )
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    missing = len(state.cells) - state.done
    progress = f"{state.done} of {len(state.cells)} runs are through." if missing else f"All {state.done} runs."
    scripts = "".join(
        f"<script>{_inline(text)}</script>" for text in (_plotly(), _read("palette.js") + _read("plotting.js") + _DRAW)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(study.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(study.title)}</h1>"
        + (f'<p class="question">{escape(study.question)}</p>' if study.question else "")
        + f'<p class="verdict">{escape(choice[0] if choice else results.verdict)}</p>'
        + (f"<p>{escape(' '.join(choice[1:]))}</p><p>{escape(results.verdict)}</p>" if choice else "")
        + f'<p class="note">{len(study.arms)} arms × {len(study.seeds)} seeds. {progress} Study {stored.id}, version '
        f"{stored.version}; report of {date}, MLAE Lab {escape(lab_version())}.</p>"
        + (f"<p>{escape(study.notes)}</p>" if study.notes else "")
        + f'<div class="figures">{drawn}</div><h2>Arms</h2>{_arms(results)}'
        f"<h2>Settings</h2>{_settings(study)}"
        f"<h2>Runs</h2>{_runs(results)}"
        "<h2>Repeat the study</h2>"
        f"<p>Save the lines below as study.yaml and type <code>{PROGRAM} study new study.yaml</code>.</p>"
        f"<pre>{escape(as_yaml(study))}</pre>"
        f"<details><summary>The command of each arm with its first seed</summary><pre>{escape(_commands(study))}</pre>"
        f"</details><h2>Versions</h2>{_versions()}"
        f'<script type="application/json" id="data">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>'
        f"{scripts}</body></html>"
    )


def _inline(script: str) -> str:
    return script.replace("</script", r"<\/script")


def _read(name: str) -> str:
    return (_SCRIPTS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    import plotly  # only its script is needed; the import takes a tenth of a second

    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


# ---------------------------------------------------------------- tables


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _arms(results: Results) -> str:
    masked = any(result.arm.config.has_mask for result in results.arms)
    ranked = results.ranked
    rows = [
        [
            *([_mask(result)] if masked else []), escape(result.arm.name), mean_of(result), *_difference(result),
            escape(result.verdict), "–" if result.parameters is None else f"{result.parameters:,}",
            "–" if result.seconds is None else f"{result.seconds:,.0f}", str(len(result.values)),
        ]
        for result in (*ranked, *(result for result in results.arms if result not in ranked))
    ]  # fmt: skip
    head = ["Arm", "Accuracy", "Difference, points", "Adjusted p", "Verdict", "Parameters", "Seconds", "Seeds"]
    return _table([*(["Mask"] if masked else []), *head], rows)


def _mask(result: ArmResult) -> str:
    return f'<img src="{mask_image(result.arm.config.plan)}" alt="">' if result.arm.config.has_mask else ""


def _difference(result: ArmResult) -> tuple[str, str]:
    comparison = result.comparison
    if comparison is None:
        return "–", "–"
    mean = points(comparison.mean, signed=True)
    if comparison.low is None or comparison.high is None or comparison.adjusted is None:
        return mean, "–"
    return f"{mean} ({between(comparison.low, comparison.high)})", f"{comparison.adjusted:.3g}"


def _settings(study: Study) -> str:
    """Every setting: those that all arms share, and a table of the others."""
    described = [entry for entry in settings_of(RunConfig) if entry.name not in ("seed", "plan", "data_notes")]
    shared, differing = [], []
    for entry in described:
        values = {entry.shown(getattr(arm.config, entry.name)) for arm in study.arms}
        (shared if len(values) == 1 else differing).append(entry)
    first = study.arms[0].config
    plans = {arm.config.plan for arm in study.arms if arm.config.has_mask}
    rows = [(escape(entry.label), escape(_shown(entry, first))) for entry in shared]
    if len(plans) == 1:
        rows.append(("Mask", f"<code>{escape(next(iter(plans)).code)}</code>"))
    rows.append(("Seeds", ", ".join(map(str, study.seeds))))
    if study.margin is not None:
        rows.append(("Margin of equivalence", f"{points(study.margin)} points"))
    html = _table(("Shared by all arms", "Value"), rows)
    if differing or len(plans) > 1:
        head = ["Arm", *(entry.label for entry in differing), *(["Mask"] if len(plans) > 1 else [])]
        html += _table(
            head,
            [
                [
                    escape(arm.name),
                    *(escape(_shown(entry, arm.config)) for entry in differing),
                    *([f"<code>{escape(_code(arm.config))}</code>"] if len(plans) > 1 else []),
                ]
                for arm in study.arms
            ],
        )
    return html


def _shown(entry: Setting, config: RunConfig) -> str:
    value = getattr(config, entry.name)
    if entry.name == "task":
        return catalog.task(value).title
    return shown(entry.name, value) if entry.name in ("method", "backbone") else entry.shown(value) or "none"


def _code(config: RunConfig) -> str:
    return config.plan.code if config.has_mask else "–"


def _runs(results: Results) -> str:
    seeds = results.study.seeds
    rows = []
    for result in results.arms:
        cells = {cell.seed: cell for cell in result.cells}
        row = [escape(result.arm.name)]
        for seed in seeds:
            cell = cells[seed]
            value = "–" if cell.accuracy is None else f"{cell.accuracy:.1f} %"
            row.append(f"{value}<br><code>{cell.run.id if cell.run else 'no run'}</code>")
        rows.append(row)
    return _table(("Arm", *(f"Seed {seed}" for seed in seeds)), rows)


def _commands(study: Study) -> str:
    return "\n".join(f"# {arm.name}\n{arm.config.command()}" for arm in study.arms)


def _versions() -> str:
    rows = [("MLAE Lab", escape(lab_version())), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            rows.append((name, escape(metadata.version(name))))
        except metadata.PackageNotFoundError:
            continue
    table = _table(("Package", "Version"), rows)
    return f'{table}<p class="note">Of the installation that wrote this report, {escape(platform.platform())}.</p>'
