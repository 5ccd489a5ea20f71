"""The classifier that samples are evaluated with: trained once, deterministic, and right on cases with a known answer."""

import pytest
import torch

from aelab.data import open_data
from aelab.evaluation.classifier import class_metrics, classifier_of, shares


@pytest.fixture(autouse=True)
def trained_once():
    """Not here: the training itself is what is tested."""


def test_it_is_trained_once_and_knows_its_data(tmp_path):
    data, steps = open_data("digits"), []
    torch.manual_seed(1)
    first = classifier_of(data, steps.append, tmp_path)
    assert steps and first.error(data.test) < 4
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "the random state is untouched"
    steps.clear()
    again = classifier_of(data, steps.append, tmp_path)
    assert not steps and again.sha256 == first.sha256
    logits = again.net(data.test.batch(slice(None))[0])
    assert torch.equal(again.logits(again.net[0](data.test.batch(slice(None))[0])), logits)
    real = shares(logits)
    truth = torch.bincount(data.test.labels, minlength=10).double() / len(data.test)
    assert (real - truth).abs().max() < 0.02
    assert class_metrics(logits[data.test.labels == 0])["classes"] == 1
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert classifier_of(data, steps.append, tmp_path).sha256 == first.sha256, "a damaged file is made anew"
    assert classifier_of(data, steps.append, tmp_path / "elsewhere").sha256 == first.sha256, "the seed is fixed"


@pytest.mark.parametrize(
    ("share", "classes", "distance"),
    [([0.1] * 10, 10, 0.0), ([1.0] + [0.0] * 9, 1, 0.9), ([0.5, 0.5], 2, 0.0), ([0.991, 0.009] + [0.0] * 8, 1, 0.891)],
)
def test_class_metrics(share, classes, distance):
    counts = torch.tensor([round(1000 * part) for part in share])
    sure = 50 * torch.eye(len(share))[torch.repeat_interleave(torch.arange(len(share)), counts)]  # (1000, K)
    metrics = class_metrics(sure)
    assert metrics["classes"] == classes
    assert metrics["class_distance"] == pytest.approx(distance, abs=1e-9)


def test_the_score_is_the_number_of_classes_where_they_are_sure_and_equal():
    sure = 50 * torch.eye(10)[torch.arange(1000) % 10]
    assert class_metrics(sure)["inception_score_lenet"] == pytest.approx(10, rel=0.05)  # ten shuffled parts of 100
    assert class_metrics(torch.zeros(100, 10))["inception_score_lenet"] == pytest.approx(1), "unsure of everything"
    assert "inception_score_lenet" not in class_metrics(sure[:9])
