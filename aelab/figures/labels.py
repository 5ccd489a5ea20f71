"""The error of classifiers against the number of labels, pretrained and from scratch."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aelab.errors import visible
from aelab.figures.bands import MARKERS, Points, draw_line, repetitions, ticks_at
from aelab.figures.style import COLOURS, new_figure, plain
from aelab.figures.tiles import visible_lines
from aelab.figures.trained import TrainedRun, described, need, need_one_data_set, options_apart
from aelab.recipe import Classifies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draws = dict[str, float]  # the seed that drew the labels -> the error


def _without_labels(run: TrainedRun) -> str:
    params = run.info.params
    told = {"labels", "seed", "pretrain"} <= params.keys() and params.get("finetune", "0") != "0"
    return "" if told else "it was not trained with labels"


@need(Classifies, metrics=("val/error",), unless=_without_labels)
def error_by_labels(*runs: TrainedRun) -> "Figure":
    """The classification error against the number of labels, pretrained and from scratch; a band spans several draws.

    It is that of the test images if all runs were evaluated, else that of the validation images.
    """
    need_one_data_set(runs, "error-by-labels")
    metric = "test/error" if all("test/error" in run.info.metrics for run in runs) else "val/error"
    found: defaultdict[str, defaultdict[str, defaultdict[int, Draws]]]
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    labels = options_apart(runs, "labels", "pretrain", "start", "epochs")
    for run, options in zip(runs, labels, strict=True):
        params = run.info.params
        number = int(params["labels"]) or int(params["images_train"])  # 0 means all
        found[options][_arm(params)][number][params["seed"]] = run.info.metrics[metric]
    lines: dict[str, Points] = {}
    for options, arms in found.items():
        other = options.partition(", ")[2]
        for arm, points in paired(arms).items():
            lines[f"{arm}, {other}" if other else arm] = points
    split = "test" if metric == "test/error" else "validation"
    return labels_figure(lines, f"{described(*runs)}: error on {split} images by number of labels")


def _arm(params: Mapping[str, str]) -> str:
    """How a classifier began. Without pretraining the option `epochs` has no effect."""
    if "start" in params:
        return "pretrained, weights of another run"
    return f"pretrained for {params['epochs']} epochs" if params["pretrain"] == "True" else "from scratch"


def paired(arms: Mapping[str, Mapping[int, Draws]]) -> dict[str, dict[float, list[float]]]:
    """The errors of each arm by number of labels, {arm: {labels: errors}}.

    Where all arms have runs with the same labels, drawn by one seed, only such runs count.
    """
    lines: dict[str, dict[float, list[float]]] = {}
    for arm, numbers in sorted(arms.items(), reverse=True):  # pretrained, then from scratch
        lines[arm] = {}
        for number, draws in numbers.items():
            common = set.intersection(*(set(other[number]) for other in arms.values() if number in other))
            lines[arm][number] = [error for seed, error in draws.items() if seed in common or not common]
    return lines


@plain
def labels_figure(lines: Mapping[str, Points], title: str) -> "Figure":
    """Errors in percent by number of labels, {line: {labels: errors of its runs}}."""
    figure = new_figure()
    axes = figure.subplots()
    for k, (label, points) in enumerate(lines.items()):
        draw_line(axes, points, visible(label), COLOURS[k % len(COLOURS)], f"{MARKERS[k % len(MARKERS)]}-")
    ticks_at(axes, sorted({number for points in lines.values() for number in points}))
    axes.set_ylim(0, None)
    axes.set_xlabel("labelled images", fontsize=11)
    axes.set_ylabel("misclassified images, %", fontsize=11)
    axes.set_title(visible_lines(f"{title}\n{repetitions(*lines.values())}"), fontsize=12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=10)
    return figure
