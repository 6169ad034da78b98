"""Numbers with units."""

import pytest

from mlae_lab.core.units import format_bytes


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
