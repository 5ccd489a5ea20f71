"""The error by number of labels: which runs count, and which are pairs."""

import pytest
from fake_run import FakeRun, Identity

from aelab.errors import UserError
from aelab.figures import error_by_labels
from aelab.figures.labels import paired


class Classifier(Identity):
    def classify(self, x):
        return x.flatten(1)[:, :3]


def run(labels, error, *, pretrain, seed=0, metric="val/error", epochs=5, **more):
    return FakeRun(
        Classifier(),
        metrics={"val/error": 99.0, metric: error},
        of="pretrained",
        labels=labels,
        pretrain=pretrain,
        seed=seed,
        epochs=epochs,
        **{"finetune": 10, "images_train": 4000, **more},
    )


def lines(figure):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}


def test_a_line_pretrained_and_a_line_from_scratch_with_bands_over_draws():
    runs = [run(100, 10.0 + seed, pretrain=True, seed=seed) for seed in range(3)]
    runs += [run(100, 20.0 + 2 * seed, pretrain=False, seed=seed, epochs=20) for seed in range(3)]
    figure = error_by_labels(*runs)
    assert lines(figure) == {"pretrained for 5 epochs": [[100, 11]], "from scratch": [[100, 22]]}
    for band, mean, spread in zip(figure.axes[0].collections, (11, 22), (1, 2), strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (mean - spread, mean + spread)
    assert "3 runs a point" in figure.axes[0].get_title()


def test_all_labels_stand_at_the_number_of_training_images():
    figure = error_by_labels(run(100, 9.0, pretrain=True), run(0, 2.0, pretrain=True))
    assert lines(figure) == {"pretrained for 5 epochs": [[100, 9], [4000, 2]]}
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "4,000"]


def test_draws_that_only_one_arm_has_do_not_count_beside_pairs():
    runs = [run(100, 10.0, pretrain=True), run(100, 30.0, pretrain=True, seed=1), run(100, 20.0, pretrain=False)]
    assert lines(error_by_labels(*runs)) == {"pretrained for 5 epochs": [[100, 10]], "from scratch": [[100, 20]]}
    without_pairs = {"a": {100: {"0": 1.0, "1": 3.0}}, "b": {100: {"2": 5.0}, 600: {"0": 7.0}}}
    assert paired(without_pairs) == {"b": {100: [5.0], 600: [7.0]}, "a": {100: [1.0, 3.0]}}


def test_other_options_are_other_lines():
    figure = error_by_labels(run(100, 10.0, pretrain=True, noise=0), run(100, 20.0, pretrain=True, noise=0.3))
    assert lines(figure) == {
        "pretrained for 5 epochs, noise 0": [[100, 10]],
        "pretrained for 5 epochs, noise 0.3": [[100, 20]],
    }


def test_the_test_error_counts_where_all_runs_have_it():
    tested = [run(n, n / 10, pretrain=True, metric="test/error") for n in (100, 200)]
    figure = error_by_labels(*tested)
    assert list(lines(figure).values()) == [[[100, 10], [200, 20]]]
    assert "error on test images" in figure.axes[0].get_title()
    mixed = error_by_labels(*tested, run(300, 5.0, pretrain=True))
    assert lines(mixed)["pretrained for 5 epochs"] == [[100, 99], [200, 99], [300, 5]]
    assert "error on validation images" in mixed.axes[0].get_title()


def test_a_run_without_labels_is_refused():
    with pytest.raises(UserError, match="not trained with labels"):
        error_by_labels(run(100, 1.0, pretrain=True, finetune=0))
    with pytest.raises(UserError, match="identity has no classes to predict"):
        error_by_labels(FakeRun(metrics={"val/error": 1.0}))
