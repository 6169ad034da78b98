"""What an examination hands back: findings, their sections and the report, and the makers of a finding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["good", "note", "trouble"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, on one line. value: what it is; cure: what to type or do, "" where nothing is
    asked; a trouble always has one. Commands in it stand between backticks."""

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
        """What needs attention, in the order of the sections."""
        return tuple(f for section in self.sections for f in section.findings if f.state == "trouble")

    @property
    def verdict(self) -> str:
        """One sentence."""
        count = len(self.troubles)
        if not count:
            return "Everything is in order."
        return "1 thing needs attention." if count == 1 else f"{count} things need attention."

    def to_dict(self) -> dict:
        """The report as JSON can hold it: verdict, troubles (how many) and the sections with their findings."""
        sections = [{"title": s.title, "findings": [asdict(f) for f in s.findings]} for s in self.sections]
        return {"verdict": self.verdict, "troubles": len(self.troubles), "sections": sections}

    def lines(self) -> list[str]:
        """Plain text: a line per finding, aligned, marked `!` for a trouble and `-` for a note, its cure below it."""
        width = max((len(f.name) for section in self.sections for f in section.findings), default=0)
        marks = {"good": " ", "note": "-", "trouble": "!"}
        told = [self.verdict]
        for section in self.sections:
            told += ["", section.title]
            for finding in section.findings:
                told.append(f"{marks[finding.state]} {finding.name:<{width}}  {finding.value}".rstrip())
                if finding.cure:
                    told.append(f"  {'':<{width}}  > {finding.cure}")
        return told


def _line(text: object) -> str:
    """Text from files and people as one printable line: no control characters, no half characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).splitlines()))


def good(name: str, value: object) -> Finding:
    """What is as it should be."""
    return Finding(_line(name), _line(value))


def note(name: str, value: object, cure: object = "") -> Finding:
    """What is worth knowing and asks for little or nothing."""
    return Finding(_line(name), _line(value), "note", _line(cure))


def trouble(name: str, value: object, cure: object) -> Finding:
    """What needs attention, with what to do about it."""
    return Finding(_line(name), _line(value), "trouble", _line(cure))


def some(names: list[str], most: int = 8) -> str:
    """The first of these names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
