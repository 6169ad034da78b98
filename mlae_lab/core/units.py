"""Formatting of numbers with units."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def format_bytes(count: float) -> str:
    """A size with three significant digits and a decimal unit: "4.66 GB", "343 MB", "820 bytes"."""
    for name, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * unit:
            return f"{count / unit:{'.3g' if count < 999.5 * unit else '.0f'}} {name}"
    return f"{count:.0f} bytes"


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: "8 s", "2 min 5 s", "1 h 3 min", "3 days 4 h"."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} days {whole % _DAY // _HOUR} h"
