"""The error by size of the code: means, bands, and PCA on the same images."""

import numpy as np
import pytest
import torch
from fake_run import FakeRun, dataset

from aelab.errors import UserError
from aelab.figures import error_by_code_size
from aelab.figures.bands import repetitions
from aelab.figures.code_size import pca_errors


def run(size, error, seed=0, **more):
    return FakeRun(metrics={"best/sse": error}, latent_dim=size, seed=seed, **more)


def line(figure, label):
    (found,) = (each for each in figure.axes[0].lines if each.get_label() == label)
    return found.get_xydata().tolist()


def test_runs_that_differ_in_the_seed_are_one_line_of_means_with_their_standard_deviation_as_band():
    errors = [10.0, 12.0, 17.0]
    figure = error_by_code_size(
        *(run(2, error, seed) for seed, error in enumerate(errors)), run(5, 6.0), run(5, 8.0, 1)
    )
    assert line(figure, "identity") == [[2, 13.0], [5, 7.0]]
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    for size, mean, spread in ((2, 13.0, np.std(errors, ddof=1)), (5, 7.0, np.sqrt(2))):
        heights = corners[corners[:, 0] == size][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((mean - spread, mean + spread))
    assert "2 to 3 runs a point" in figure.axes[0].get_title()


def test_one_run_a_point_has_no_band():
    figure = error_by_code_size(run(2, 3.0), run(5, 2.0))
    assert not figure.axes[0].collections
    assert "one run a point" in figure.axes[0].get_title()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2", "5"]
    assert figure.axes[0].get_xscale() == "log"


def test_runs_with_other_options_are_other_lines():
    figure = error_by_code_size(run(2, 3.0, lr=1), run(5, 2.0, lr=1), run(2, 7.0, lr=2, parameters=3))
    assert line(figure, "identity, lr 1") == [[2, 3.0], [5, 2.0]]
    assert line(figure, "identity, lr 2") == [[2, 7.0]]


def test_pca_stands_beside_it_on_the_images_of_the_error():
    data = dataset()
    figure = error_by_code_size(run(2, 3.0), run(5, 2.0))
    x = data.val.images.flatten(1).double() / 255
    mean, components = FakeRun().pca(5)
    for size, error in line(figure, "PCA"):
        c = components[: int(size)]
        back = (x - mean) @ c.T @ c + mean
        assert error == pytest.approx(float((back - x).square().sum(1).mean()))
    assert "validation" in figure.axes[0].get_title()


def test_the_test_error_counts_where_all_runs_have_it():
    tested = [
        FakeRun(metrics={"best/sse": 9.0, "test/sse": 1.0 / size, "test/pca_sse": 2.0 / size}, latent_dim=size)
        for size in (2, 4)
    ]
    figure = error_by_code_size(*tested)
    assert line(figure, "identity") == [[2, 0.5], [4, 0.25]]
    assert line(figure, "PCA") == [[2, 1.0], [4, 0.5]]
    assert ", test images" in figure.axes[0].get_title()
    mixed = error_by_code_size(*tested, run(8, 9.0))
    assert line(mixed, "identity") == [[2, 9.0], [4, 9.0], [8, 9.0]]


def test_more_numbers_than_components_leave_what_all_of_them_leave():
    data = dataset()
    mean, components = FakeRun().pca(3)
    errors = pca_errors(mean, components, data.test, [3, 100])
    assert errors[3] == errors[100] > 0
    everything = pca_errors(mean, torch.eye(16).double(), data.test, [16])
    assert everything[16] == pytest.approx(0, abs=1e-9)


def test_a_run_without_a_code_or_with_other_held_out_images_is_refused():
    with pytest.raises(UserError, match="no size of the code"):
        error_by_code_size(FakeRun(metrics={"best/sse": 1.0}))
    with pytest.raises(UserError, match="split-seed"):
        error_by_code_size(run(2, 1.0), run(2, 1.0, split_seed=1))


def test_the_number_of_runs_is_said():
    assert repetitions({1.0: [1]}, {2.0: [3]}) == "one run a point"
    assert repetitions({1.0: [1, 2]}) == "2 runs a point, band: standard deviation"
