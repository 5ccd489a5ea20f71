"""The classifier that judges samples: trained once, the same ever after, and right on cases with a known answer."""

import pytest
import torch

from aelab.data import open_data
from aelab.metrics.classifier import class_metrics, judge_of, shares


def test_it_is_trained_once_and_knows_its_data(tmp_path):
    data, steps = open_data("digits"), []
    torch.manual_seed(1)
    first = judge_of(data, steps.append, tmp_path)
    assert steps and first.error < 4
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "the random state is untouched"
    steps.clear()
    again = judge_of(data, steps.append, tmp_path)
    assert not steps and again.sha256 == first.sha256 and again.error == first.error
    real = shares(again, data.test.batch(slice(None))[0], 10)
    truth = torch.bincount(data.test.labels, minlength=10).double() / len(data.test)
    assert (real - truth).abs().max() < 0.02
    zeros = data.test.batch(data.test.labels == 0)[0]
    assert class_metrics(shares(again, zeros, 10))["classes"] == 1
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert judge_of(data, steps.append, tmp_path).sha256 == first.sha256, "a damaged file is made anew"
    assert judge_of(data, steps.append, tmp_path / "elsewhere").sha256 == first.sha256, "the seed is fixed"


@pytest.mark.parametrize(
    ("share", "classes", "distance"),
    [([0.1] * 10, 10, 0.0), ([1.0] + [0.0] * 9, 1, 0.9), ([0.5, 0.5], 2, 0.0), ([0.991, 0.009] + [0.0] * 8, 1, 0.891)],
)
def test_class_figures(share, classes, distance):
    figures = class_metrics(torch.tensor(share, dtype=torch.float64))
    assert figures["classes"] == classes
    assert figures["class_distance"] == pytest.approx(distance, abs=1e-9)
