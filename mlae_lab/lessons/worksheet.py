"""The worksheet of a lesson: one HTML page to print, without answers, without anything from elsewhere."""

from __future__ import annotations

from html import escape

from mlae_lab.lessons.guess import Arrow, Cells, Curve, Row, Sliders, Verdict
from mlae_lab.lessons.lesson import Lesson
from mlae_lab.lessons.recording import Results

_STYLE = """
@page { size: A4; margin: 14mm; }
body { font: 11pt/1.4 system-ui, sans-serif; color: #1B2328; background: #fff;
  max-width: 180mm; margin: 6mm auto; padding: 0 4mm; }
h1 { font-size: 17pt; margin: 0 0 2mm; }
h2 { font-size: 12pt; margin: 4mm 0 1mm; }
p { margin: 1mm 0; }
header { display: flex; justify-content: space-between; border-bottom: 1px solid #5B6870; margin-bottom: 3mm;
  gap: 6mm; }
.line { border-bottom: 1px solid #9AA7AE; height: 7.5mm; }
.grid { display: grid; gap: 1mm; width: max-content; margin: 2mm 0; align-items: center; }
.grid i { width: 6mm; height: 4.4mm; border: 1px solid #5B6870; border-radius: 1mm; display: block; }
.grid span { font-size: 9pt; text-align: right; padding-right: 2mm; }
.scale { display: flex; justify-content: space-between; border-top: 1.5px solid #1B2328; margin: 5mm 0 1mm;
  font-size: 9pt; }
.scale span::before { content: ""; display: block; width: 1px; height: 2mm; background: #1B2328; margin: 0 auto; }
li { list-style: none; margin: 1mm 0; }
li::before { content: "□ "; font-size: 13pt; }
ul { margin: 1mm 0; padding: 0; }
svg { width: 120mm; max-width: 100%; height: auto; }
"""


def page(lesson: Lesson, results: Results) -> str:
    """The worksheet as one HTML document."""
    transfer = lesson.transfer(results)
    background = "".join(f"<p>{escape(text)}</p>" for text in lesson.background)
    options = "".join(f"<li>{escape(option.text)}</li>" for option in transfer.options)
    title = escape(lesson.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<header><span>MLAE Lab, lesson</span><span>Name: ______________________</span></header><h1>{title}</h1>"
        f"{background}<h2>1. Your guess</h2><p>{escape(lesson.question)}</p>{_space(lesson, results)}"
        f"<p>Why?</p>{_lines(2)}<h2>2. What the network did</h2>{_lines(2)}"
        f"<h2>3. What did you learn? One sentence.</h2>{_lines(2)}"
        f"<h2>4. One more question</h2><p>{escape(transfer.question)}</p><ul>{options}</ul></body></html>\n"
    )


def _lines(count: int) -> str:
    return '<div class="line"></div>' * count


def _space(lesson: Lesson, results: Results) -> str:
    """Where the guess is written or painted."""
    match lesson.guess:
        case Sliders(handles=handles, low=low, high=high, unit=unit):
            return "".join(
                f"<p>{escape(label)}, {escape(unit)}: mark your guess.</p>{_scale(low, high)}" for _, label in handles
            )
        case Row(arms=arms, columns=columns):
            return _grid(len(arms), columns)
        case Cells(rows=rows, columns=columns):
            return _grid(rows, columns)
        case Arrow(quantity=quantity):
            return f"<ul><li>↑ {escape(quantity)} rises</li><li>↓ {escape(quantity)} falls</li></ul>"
        case Verdict(labels=labels):
            return (
                f"<ul><li>{escape(labels[0])} is better</li><li>{escape(labels[1])} is better</li>"
                "<li>One cannot tell</li></ul><p>Seeds you would want to see: ________</p>"
            )
        case Curve() as curve:
            return _axes(curve, results.mean(curve.arms[0]))


def _scale(low: float, high: float) -> str:
    ticks = "".join(f"<span>{low + i * (high - low) / 10:g}</span>" for i in range(11))
    return f'<div class="scale">{ticks}</div>'


def _grid(rows: int, columns: int) -> str:
    cells = "".join(
        f"<span>{'input ' if row == 0 else 'output ' if row == rows - 1 else ''}{row + 1}</span>" + "<i></i>" * columns
        for row in range(rows)
    )
    return f'<div class="grid" style="grid-template-columns: 18mm repeat({columns}, 6mm)">{cells}</div>'


def _axes(curve: Curve, given: float) -> str:
    """Empty axes with the given point."""
    wide, high = 600, 240
    most = max(curve.x)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (curve.high - y) / (curve.high - curve.low)
        return 50 + x / most * (wide - 80), 12 + share * (high - 52)

    parts = []
    for level in (0, 25, 50, 75, 100):
        _, y = at(0, level)
        parts.append(f'<line x1="50" x2="{wide - 30}" y1="{y:.0f}" y2="{y:.0f}" stroke="#C5CCCA"/>')
        parts.append(f'<text x="42" y="{y + 4:.0f}" text-anchor="end" font-size="13">{level} %</text>')
    for x in curve.x:
        left, _ = at(x, 0)
        parts.append(f'<text x="{left:.0f}" y="{high - 24}" text-anchor="middle" font-size="13">{x:g}</text>')
    left, y = at(curve.x[0], given)
    parts.append(f'<circle cx="{left:.0f}" cy="{y:.0f}" r="6" fill="#1B2328"/>')
    parts.append(f'<text x="{wide / 2:.0f}" y="{high - 4}" text-anchor="middle" font-size="13">{curve.x_label}</text>')
    return f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="Empty axes">{"".join(parts)}</svg>'
