"""The result of an examination: findings, sections and the report, and functions that make a finding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["good", "note", "trouble"]


@dataclass(frozen=True)
class Finding:
    """One examined thing, on one line.

    Attributes:
        name: What was examined.
        value: Its state in words.
        state: "good", "note" or "trouble".
        cure: What to type or do, with commands between backticks; a trouble always has one, else "".
    """

    name: str
    value: str
    state: State = "good"
    cure: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """All findings, section by section."""

    sections: tuple[Section, ...]

    @property
    def troubles(self) -> tuple[Finding, ...]:
        """The findings that need attention, in the order of the sections."""
        return tuple(f for section in self.sections for f in section.findings if f.state == "trouble")

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        count = len(self.troubles)
        if not count:
            return "Everything is in order."
        return "1 thing needs attention." if count == 1 else f"{count} things need attention."

    def to_dict(self) -> dict:
        """The report for JSON: verdict, troubles (their number) and the sections with their findings."""
        sections = [{"title": s.title, "findings": [asdict(f) for f in s.findings]} for s in self.sections]
        return {"verdict": self.verdict, "troubles": len(self.troubles), "sections": sections}

    def lines(self) -> list[str]:
        """Plain text: one aligned line per finding, marked `!` for a trouble and `-` for a note, its cure below it."""
        width = max((len(f.name) for section in self.sections for f in section.findings), default=0)
        marks = {"good": " ", "note": "-", "trouble": "!"}
        lines = [self.verdict]
        for section in self.sections:
            lines += ["", section.title]
            for finding in section.findings:
                lines.append(f"{marks[finding.state]} {finding.name:<{width}}  {finding.value}".rstrip())
                if finding.cure:
                    lines.append(f"  {'':<{width}}  > {finding.cure}")
        return lines


def _line(text: object) -> str:
    """Text from files and people as one printable line: no control characters, no lone surrogates."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).splitlines()))


def good(name: str, value: object) -> Finding:
    """A finding that is as it should be."""
    return Finding(_line(name), _line(value))


def note(name: str, value: object, cure: object = "") -> Finding:
    """A finding that is worth knowing and needs little or no action."""
    return Finding(_line(name), _line(value), "note", _line(cure))


def trouble(name: str, value: object, cure: object) -> Finding:
    """A finding that needs attention, with its remedy."""
    return Finding(_line(name), _line(value), "trouble", _line(cure))


def shortened(names: list[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
