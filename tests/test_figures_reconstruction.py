"""The figure of reconstructions: which images, in which order, with which numbers below them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_run import FakeRun, Identity, dataset

from aelab.errors import UserError
from aelab.figures import reconstructions
from aelab.figures.tiles import rows_of_images
from aelab.figures.trained import described


class Darker(Identity):
    """Its reconstructions miss half of each pixel."""

    def decode(self, z):
        return super().decode(z) / 2


def cells(figure, rows):
    return np.array(figure.axes).reshape(rows, -1)


def pixels(cell):
    return cell.images[0].get_array()


def test_the_first_test_images_in_their_order_and_below_them_what_became_of_them():
    figure = reconstructions(FakeRun(Darker()), FakeRun(name="same"))
    above, darker, same = cells(figure, 3)
    x = dataset().test.images[:10, 0] / 255
    assert len(above) == 10
    for k in range(10):
        assert np.allclose(pixels(above[k]), x[k])
        assert np.allclose(pixels(darker[k]), x[k] / 2)
        assert np.allclose(pixels(same[k]), x[k])


def test_the_number_below_is_the_squared_error_of_that_image():
    figure = reconstructions(FakeRun(Darker()), n=3)
    above, below = cells(figure, 2)
    x = dataset().test.images[:3].double() / 255
    expected = [f"{each:.1f}" for each in (x / 2).square().sum((1, 2, 3)).tolist()]
    assert [cell.get_xlabel() for cell in below] == expected
    assert not any(cell.get_xlabel() for cell in above)


def test_a_label_says_name_code_parameters_and_time_on_lines_of_their_own():
    figure = reconstructions(FakeRun(name="mine\x1b", seconds=200.0, latent_dim=5), n=2)
    label = cells(figure, 2)[1, 0].get_ylabel()
    assert label.split("\n") == ["mine\\x1b", "code of 5", "2 parameters", "3 min of training"]
    assert "noise" in figure.get_suptitle()


def test_runs_on_other_images_are_refused():
    with pytest.raises(UserError, match="different data"):
        reconstructions(FakeRun(), FakeRun(data=dataset(seed=1)))


def test_colours_stay_colours_and_are_not_smoothed():
    x = torch.rand(2, 3, 4, 4)
    figure = rows_of_images({"a": x}, "first\nsecond")
    image = figure.axes[0].images[0]
    assert np.allclose(image.get_array(), x[0].permute(1, 2, 0))
    assert image.get_interpolation() == "nearest"
    assert figure.get_suptitle() == "first\nsecond"


def test_a_title_names_a_folder_of_pictures_without_its_path():
    run = FakeRun(data=replace(dataset(), name="/home/lab/faces"), latent_dim=5)
    assert described(run) == "identity on faces, code of 5"
    assert reconstructions(run).get_suptitle().startswith("faces: the first")
