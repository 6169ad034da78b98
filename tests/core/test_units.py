"""Numbers with units."""

import pytest

from mlae_lab.core.units import format_bytes, format_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (820, "820 bytes"), (999.4, "999 bytes"), (999.6, "1 kB"), (1000, "1 kB"),
        (4_100_000, "4.1 MB"), (343_254_000, "343 MB"), (999_499_000, "999 MB"), (999_600_000, "1 GB"),
        (4.664e9, "4.66 GB"), (2e12, "2 TB"), (999.6e12, "1000 TB"), (9.2e18, "9200000 TB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits_and_never_an_exponent(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"), (8.4, "8 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3780, "1 h 3 min"),
        (47.99 * 3600, "47 h 59 min"), (76 * 3600, "3 days 4 h"),
    ],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
