"""Benchmarks are run by hand; this holds the ones that bind kernels by name to names that exist."""

import pytest

from benchmarks import growth


@pytest.mark.parametrize("sides", [2, 3])
def test_a_point_of_a_growth_curve_is_measured_for_pairs_and_for_groups(sides):
    microseconds, compiling = growth.measure(rows=2, prompt=4, completion=4, sides=sides, vocabulary=32, layers=1)
    assert microseconds > 0 and compiling > 0
