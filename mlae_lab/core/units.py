"""Formatting of numbers with units."""


def format_bytes(count: float) -> str:
    """A size with three significant digits and a decimal unit: "4.66 GB", "343 MB", "820 bytes"."""
    for name, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * unit:
            return f"{count / unit:{'.3g' if count < 999.5 * unit else '.0f'}} {name}"
    return f"{count:.0f} bytes"


def duration_text(seconds: float) -> str:
    """A duration in its largest unit: "8 s", "12 min", "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
