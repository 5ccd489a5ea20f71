"""The models of the lecture: which of them are trained and measured already, and the rest trained and measured."""

import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aelab.errors import UserError
from aelab.lecture.topics import COLOUR, DATA, Training
from aelab.metrics import duration
from aelab.tracking import RunInfo, Store
from aelab.workflows import Run, Stopped, evaluate, open_run, plan, train

log = logging.getLogger(__name__)

SAMPLES, IMAGES = 50, 500  # importance samples for each of so many images, in the quick lecture
SECONDS_TO_MEASURE = {"quick": (1, 8), "all": (12, 90)}  # about, in the quick and in the full lecture


@dataclass(frozen=True)
class Setting:
    """How the lecture is made: quick or full, its seed, and where its runs and its data are.

    `colour` is a folder of pictures that takes the place of CIFAR-10.
    """

    quick: bool
    seed: int
    device: str
    data_dir: Path | None
    tracking_uri: str | None
    colour: Path | None = None

    @property
    def form(self) -> str:
        return "quick" if self.quick else "full"

    def data_of(self, training: Training) -> str:
        """The name of the data set of a training, or the folder."""
        data = training.data or DATA[self.form]
        return str(self.colour) if self.colour and data == COLOUR else data

    @property
    def places(self) -> dict[str, Any]:
        """The arguments of `train` and `evaluate` that say where."""
        return {"device": self.device, "data_dir": self.data_dir, "tracking_uri": self.tracking_uri}


@dataclass(frozen=True, eq=False)  # compared by identity
class Model:
    """A training of the lecture with one seed."""

    name: str
    training: Training
    setting: Setting
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """The options of `aelab train`, with the seed and the data."""
        own = self.training.quick if self.setting.quick else self.training.full
        return {**self.training.options, **own, "data": self.setting.data_of(self.training), "seed": self.seed}

    @property
    def command(self) -> str:
        """The command that trains it."""
        words = [f"aelab train {self.training.recipe}"]
        for name, value in self.options.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words.append(f"--{flag} {shlex.quote(text)}")
        return " ".join(words)

    @property
    def seconds(self) -> float:
        """About how long its training takes."""
        return self.training.seconds[not self.setting.quick]

    @property
    def seconds_to_measure(self) -> float:
        every = SECONDS_TO_MEASURE[self.training.evaluation][not self.setting.quick]
        return every * (1 + sum(map(len, self.training.levels.values())))

    def find(self, store: Store) -> RunInfo | None:
        """The finished run of exactly this training. Raises UserError if it cannot be planned."""
        planned = plan(self.training.recipe, device=self.setting.device, data_dir=self.setting.data_dir, **self.options)
        found = store.newest(kind="run", identity=planned.identity)
        return found if found and found.status == "FINISHED" else None

    def trained(self, store: Store) -> Run:
        """The run, trained if it is not there yet; one that was stopped is continued."""
        if found := self.find(store):
            return open_run(found, store, self.setting.device, self.setting.data_dir)
        return train(
            self.training.recipe,
            **self.options,
            **self.setting.places,
            name=f"{self.name}-",
            resume_stopped=lambda stopped: True,
        )

    def measurements(self, info: RunInfo | None) -> list[dict[str, Any]]:
        """The options of `evaluate` for what the run lacks."""
        metrics = info.metrics if info else {}
        missing: list[dict[str, Any]] = []
        if self.training.evaluation == "quick" and "test/loss" not in metrics:
            missing.append({"plain": True})
        if self.training.evaluation == "all" and "test/sample_seconds" not in metrics:
            missing.append({"samples": SAMPLES, "images": IMAGES} if self.setting.quick else {})
        for option, values in self.training.levels.items():
            missing += [{"options": {option: v}} for v in values if f"test/{option}-{v}/loss" not in metrics]
        return missing

    def measured(self, run: Run) -> Run:
        """The run with all of its measurements."""
        for options in self.measurements(run.info):
            evaluate(run, figures=False, **options, **self.setting.places)
        info = run.store.get(run.info.id)
        return open_run(info, run.store, self.setting.device, self.setting.data_dir)


@dataclass
class Models:
    """The runs of the lecture by the names of their trainings, one for each seed, and why others failed."""

    wanted: list[Model]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, names: Sequence[str]) -> list[Run]:
        """The runs of these trainings. Raises UserError if one of them failed."""
        for name in names:
            if name in self.failed:
                raise UserError(f"{name} could not be trained or measured: {self.failed[name]}")
        return [run for name in names for run in self.runs[name]]

    def commands(self, names: Sequence[str]) -> list[str]:
        return [model.command for model in self.wanted if model.name in names]


def models_of(names: Sequence[str], trainings: Mapping[str, Training], setting: Setting) -> list[Model]:
    """The models of these trainings, those of one training with one seed after the other."""
    return [
        Model(name, trainings[name], setting, setting.seed + k)
        for name in names
        for k in range(1 if setting.quick else trainings[name].seeds)
    ]


def obtain(wanted: list[Model], store: Store) -> Models:
    """Trains and measures what is missing. A failure is kept, and the others go on.

    Raises UserError with the code 130 or 143 if a signal stops it; the same call continues.
    """
    models = Models(wanted)
    todo: dict[Model, float] = {}  # and about how many seconds each takes
    for model in wanted:
        try:
            found = model.find(store)
        except UserError as problem:
            models.failed[model.name] = _one_line(problem)
            continue
        missing = model.measurements(found)
        todo[model] = model.seconds * (found is None) + model.seconds_to_measure * bool(missing)
    new = sum(seconds > 0 for seconds in todo.values())
    done = f"{len(todo) - new} of {len(todo)} models are there already"
    log.info(f"{done}; {new} to train or measure, about {duration(sum(todo.values()))}" if new else done)
    for model, line in _with_time_left(todo):
        if line:
            log.info(line)
        try:
            models.runs.setdefault(model.name, []).append(model.measured(model.trained(store)))
        except Stopped as stopped:
            again = UserError(str(stopped).splitlines()[0], "The same command continues the lecture.")
            again.code = stopped.code
            raise again from None
        except UserError as problem:
            models.failed[model.name] = _one_line(problem)
        except Exception as error:  # noqa: BLE001  # one model of many; the page says so
            models.failed[model.name] = f"{type(error).__name__}: {_one_line(error)}"
        if model.name in models.failed:
            log.warning(f"{model.name}: {models.failed[model.name]}")
    return models


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _with_time_left(todo: Mapping[Model, float]) -> Iterator[tuple[Model, str]]:
    """The models, each with a line that says how many follow and about how long that takes, if it takes any time.

    What was estimated before is corrected by how long the first models really took.
    """
    begun, expected = time.monotonic(), 0.0
    number, total = 0, sum(seconds > 0 for seconds in todo.values())
    left = sum(todo.values())
    for model, seconds in todo.items():
        if not seconds:
            yield model, ""
            continue
        number += 1
        pace = (time.monotonic() - begun) / expected if expected > 10 else 1.0
        yield model, f"{number} of {total}: {model.name}, seed {model.seed}; about {duration(left * pace)} left"
        expected += seconds
        left -= seconds
