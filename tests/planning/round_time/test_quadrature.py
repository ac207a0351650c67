"""Averages over the hats of nodes, and where nodes are placed."""

import numpy as np
import pytest

from fedpace.planning.round_time.quadrature import (
    average_over_hats,
    hats,
    place_quadrature,
    reaches,
)

QUADRATURE = np.array([0.0, 1.0, 1.5, 2.5, 3.0, 6.0])


def test_hats_add_up_to_one_so_a_single_step_is_integrated_exactly():
    start, cut = np.array([0.2, 1.1, 1.5, 2.9]), np.array([0.9, 0.3, 1.0, 0.05])
    hat = average_over_hats(QUADRATURE, *hats(QUADRATURE), start, cut)
    np.testing.assert_allclose(reaches(QUADRATURE) @ (1 - hat.open), start + cut, rtol=1e-12)


def test_averages_over_hats_are_those_of_a_fine_grid():
    start, cut = np.array([0.2, 1.3]), np.array([0.5, 1.9])
    before, after = hats(QUADRATURE)
    hat = average_over_hats(QUADRATURE, before, after, start, cut)
    s = np.linspace(-1, 9, 400001)
    for i, n in np.ndindex(6, 2):
        shape = np.interp(s, [before[i], QUADRATURE[i], after[i]], [0, 1, 0])
        behind = shape * (s > start[n] + cut[n])
        assert hat.open[i, n] == pytest.approx(behind.sum() / shape.sum(), abs=1e-4)
        if hat.open[i, n] > 0:
            mean = behind @ (s - start[n]) / behind.sum()
            assert hat.left[i, n] == pytest.approx(mean, rel=1e-4)


def test_the_slopes_of_averages_over_hats_are_their_differences():
    start, cut = np.array([0.2, 1.3]), np.array([0.5, 1.9])
    hat, more, less = (
        average_over_hats(QUADRATURE, *hats(QUADRATURE), start, cut + move)
        for move in (0, 1e-6, -1e-6)
    )
    by_open = (np.log(more.open[hat.cut]) - np.log(less.open[hat.cut])) / 2e-6
    np.testing.assert_allclose(hat.open_slope, by_open, rtol=1e-6)
    by_left = (more.left[hat.cut] - less.left[hat.cut]) / 2e-6
    np.testing.assert_allclose(hat.left_slope, by_left, rtol=1e-6)


def test_quadrature_is_placed_where_the_distribution_rises_and_stay_there_for_a_plan_nearby():
    def rise(s, at=37.0):
        return np.clip((s - at) / 0.5, 0, 1)

    quadrature = place_quadrature(2.0, rise)
    assert quadrature[0] == 0 and 0 < quadrature[1] <= 2 and quadrature[-1] >= 37.5
    assert np.sum((quadrature >= 36.9) & (quadrature <= 37.6)) >= 10
    assert reaches(quadrature) @ (1 - rise(quadrature)) == pytest.approx(37.25, rel=1e-3)
    np.testing.assert_array_equal(place_quadrature(2.001, lambda s: rise(s, 37.0001)), quadrature)
