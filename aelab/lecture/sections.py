"""The content of each topic of the page, made of the runs: figures, numbers, and what the page needs to be interactive."""

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import torch

from aelab import figures
from aelab.errors import UserError
from aelab.lecture.decoder import program
from aelab.lecture.models import Models
from aelab.lecture.topics import Number, Shown, Topic, Widget
from aelab.metrics import BASELINES, CONTROLS, against, definition, number
from aelab.recipe import Autoencodes, Decodes
from aelab.workflows import Run, faults

T = TypeVar("T")

log = logging.getLogger(__name__)

POINTS = 1000  # codes in the plane of the page
IMAGES = 10  # test images to walk between: the first ones


@dataclass(frozen=True)
class Drawn:
    """A figure: what it shows in words, the line of Python that draws it, and its files."""

    name: str
    summary: str
    code: str
    png: bytes = field(repr=False)
    svg: bytes = field(repr=False)

    @property
    def address(self) -> str:
        """The smaller of both as a data address."""
        kind, content = min((("svg+xml", self.svg), ("png", self.png)), key=lambda form: len(form[1]))
        return data_address(kind, content)


@dataclass(frozen=True)
class Missing:
    """A figure or a widget that could not be made, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Row:
    """A number of a run beside its reference; all of it text."""

    what: str
    of: str
    value: str
    reference: str
    source: str


@dataclass(frozen=True)
class Live:
    """What the page needs for a widget; `values` become JSON."""

    kind: str
    of: str
    values: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.of}"


@dataclass(frozen=True)
class Section:
    """A topic as the page shows it."""

    topic: Topic
    skipped: str = ""  # why it is not shown, if it is not
    commands: list[str] = field(default_factory=list)
    figures: list[Drawn | Missing] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    widgets: list[Live | Missing] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what is wrong with its models, in the words of their diagnosis

    @property
    def drawn(self) -> list[Drawn]:
        return [each for each in self.figures if isinstance(each, Drawn)]

    @property
    def missing(self) -> list[Missing]:
        return [each for each in (*self.figures, *self.widgets) if isinstance(each, Missing)]


def data_address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def section(topic: Topic, models: Models, skipped: str = "") -> Section:
    """A topic with all that its runs give. What fails is replaced by the reason."""
    if skipped:
        return Section(topic, skipped)
    return Section(
        topic,
        "",
        models.commands(topic.trainings),
        [_or_missing(each.figure, partial(drawn, each, models)) for each in topic.figures],
        [row for each in topic.numbers if each.of in models.runs and (row := row_of(each, models.runs[each.of]))],
        [_or_missing(each.kind, partial(live, each, models)) for each in topic.widgets],
        faults_of([run for name in topic.trainings for run in models.runs.get(name, [])]),
    )


def _or_missing(name: str, make: Callable[[], T]) -> T | Missing:
    try:
        return make()
    except UserError as problem:
        reason = " ".join(str(problem).split("\n"))
    except Exception as error:  # one figure of many: the page says so
        log.debug(f"{name} failed", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    log.warning(f"{name} is not made: {reason}")
    return Missing(name, reason)


def drawn(shown: Shown, models: Models) -> Drawn:
    """A figure. Raises UserError if its runs are missing or cannot make it."""
    runs = models.of(shown.of)
    function = shown.figure.replace("-", "_")
    draw = getattr(figures, function, None)
    if draw is None:
        raise UserError(f"there is no figure '{shown.figure}'")
    figure = draw(*runs)
    png, svg = figures.encoded(figure), figures.encoded(figure, "svg")
    if runs:
        writer = runs[0].store.annotate(runs[0].info)
        for ending, content in (("png", png), ("svg", svg)):
            writer.file(f"figures/{shown.figure}.{ending}", partial(_write, content=content))
        writer.close()
    loaded = ", ".join(f'aelab.load("{run.name}")' for run in runs)
    summary = (draw.__doc__ or "").partition("\n")[0]
    return Drawn(
        shown.figure,
        summary,
        f"aelab.figures.{function}({loaded})",
        png,
        svg,
    )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def faults_of(runs: Sequence[Run]) -> list[str]:
    """What is wrong with runs, each fault once with the names of those that have it."""
    having: dict[str, list[str]] = {}
    for run in runs:
        for fault in faults(run):
            having.setdefault(fault, []).append(run.name)
    return [f"{', '.join(names)}: {fault}" for fault, names in having.items()]


def row_of(entry: Number, runs: Sequence[Run]) -> Row | None:
    """A number, the mean over seeds, beside its reference; None if it was not measured."""
    value, known = _value(entry.metric, runs), definition(entry.metric)
    if not value:
        return None
    what = known.known_as if known else entry.metric
    if not entry.metric.startswith("test/"):
        what += " on validation images"
    unit = f", {known.unit}" if known and known.unit and known.unit not in what else ""
    better = f" ({known.better} is better)" if known and known.better else ""
    if entry.beside:
        of = against(entry.beside)[0]
        return Row(f"{what}{unit}{better}", entry.of, value, _value(entry.beside, runs), {**BASELINES, **CONTROLS}[of])
    return Row(f"{what}{unit}{better}", entry.of, value, entry.published, entry.source)


def _value(metric: str, runs: Sequence[Run]) -> str:
    """The value of a metric, with the standard deviation over several runs; empty if none has it."""
    values = [run.info.metrics[metric] for run in runs if metric in run.info.metrics]
    if len(values) < 2:
        return number(values[0]) if values else ""
    return f"{number(mean(values))} ± {stdev(values):.2g}"


def live(widget: Widget, models: Models) -> Live:
    """What a widget needs. Raises UserError if its run cannot give it."""
    run = models.of([widget.of])[0]
    values = {"plane": plane, "walk": walk, "epochs": epochs}[widget.kind](run)
    return Live(widget.kind, run.name, values)


def plane(run: Run) -> dict[str, Any]:
    """The decoder of a code of two numbers, with codes of test images and their classes."""
    data = run.data()
    x, y = data.test.batch(slice(0, POINTS))
    codes = run.encode(x)
    if codes.shape[1] != 2 or not isinstance(run.recipe, Decodes):
        raise UserError(f"{run.name} has a code of {codes.shape[1]} numbers: only two can be a point of the plane.")
    return {
        "program": program(run.recipe, codes[:1].to(run.device)),
        "points": [[round(each, 3) for each in code] for code in codes.tolist()],
        "labels": y.tolist(),
        "classes": list(data.classes),
        "colours": list(figures.CLASS_COLOURS),
    }


def walk(run: Run) -> dict[str, Any]:
    """The decoder, and the codes of the first test images with the images themselves, as values from 0 to 255."""
    if not isinstance(run.recipe, Autoencodes):
        raise UserError(f"{run.name} has no encoder, so there is nothing to walk between.")
    data = run.data()
    x, y = data.test.batch(slice(0, IMAGES))
    codes = run.encode(x)
    names = [data.classes[label] if label >= 0 else "" for label in y.tolist()]
    return {
        "program": program(run.recipe, codes[:1].to(run.device)),
        "codes": codes.tolist(),
        "names": [f"{name} (test image {k})" if name else f"test image {k}" for k, name in enumerate(names)],
        "images": (x.cpu() * 255).round().to(torch.uint8).flatten(1).tolist(),
    }


def epochs(run: Run) -> dict[str, Any]:
    """The samples of the same codes after several epochs, as pictures."""
    pictures = run.pictures_by_epoch("samples")
    return {
        "epochs": list(pictures),
        "pictures": [data_address("png", _png(picture)) for picture in pictures.values()],
        "size": list(next(iter(pictures.values())).shape[:2]),
    }


def _png(picture: figures.Picture) -> bytes:
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "png", optimize=True)
    return file.getvalue()
