"""Handles the events of a trainer: metrics, pictures, checkpoints and progress; and describes the finished run.

Nothing here trains. `follow` iterates a trainer, and logs, draws, saves or shows each event.
"""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import torch

from aelab.data import Dataset
from aelab.errors import UserError
from aelab.evaluation import diagnose, eval_mode, evaluate_loss
from aelab.figures import (
    VERMILION,
    Picture,
    completion_grid,
    filter_grid,
    grid,
    plane,
    plane_picture,
    reconstruction_grid,
)
from aelab.metrics import in_a_line, loss_terms
from aelab.progress_bar import Bar, progress_bar
from aelab.recipe import Autoencodes, Completes, Conditional, Discriminates, Generates, HasFilters, Recipe
from aelab.tracking import RunWriter, Store
from aelab.training import (
    Checkpoints,
    DivergedError,
    EpochDone,
    PhaseStopped,
    StepDone,
    StepSkipped,
    Trainer,
    finish,
)
from aelab.workflows.card import model_card
from aelab.workflows.planning import Plan
from aelab.workflows.pyfunc import Served, publish
from aelab.workflows.run import Run
from aelab.workflows.signals import Interrupted, Pruned
from aelab.workflows.together import any_caught, begin
from aelab.workflows.trying import check_names

log = logging.getLogger(__name__)

SLIDER_PICTURES = 20  # at most; each is two files, as MLflow keeps a small one too
EPOCH_LINES = 200  # at most, in a file or a pipe
LINES_ABOVE_A_BAR = 25  # at most, on a terminal: a training is then about one screen
INPUTS = 32  # images in the picture of reconstructions
SAMPLES = 64  # images in the picture of samples
POINTS = 500  # in a picture of points in the plane
FIELD = 64  # values of a discriminator along each side of it
COLUMNS = 8  # in which they are
COMPLETIONS = 3  # of each image
OF_EACH_CLASS, MOST_ROWS = 10, 20  # where there is a row for each class
FILTERS = 64  # in the picture of filters

Watch = Callable[
    [int, Mapping[str, float]], bool
]  # told an epoch's number and its validation metrics; True stops the training


def complete(
    trainer: Trainer, planned: Plan, run: RunWriter, caught: "list[signal.Signals]", watch: Watch | None = None
) -> dict[str, float]:
    """Trains to the end; then validates the kept weights, draws their pictures, diagnoses them, writes the model card
    and gives them to MLflow as a model.

    Returns the validation metrics. `watch` may stop it earlier, which raises Pruned.
    """
    data = trainer.data
    checkpoints = Checkpoints(run.folder / "checkpoints", {"run_id": run.id, **planned.facts(trainer.device)})
    group = trainer.group
    if group:
        begin(trainer, group)
    follow(trainer, run, checkpoints, lambda: any_caught(caught, group), watch)
    if group:
        group.leave()
    trainer.keep_best()
    validation = evaluate_loss(trainer.recipe, data.val)
    for name, picture in pictures(trainer.recipe, data):
        run.picture(f"pictures/{name}.png", picture)
    at = trainer.progress
    diagnosis = diagnose(trainer.recipe, data, validation, (at.best, at.latest), at.step)
    for each in diagnosis.faults:
        log.warning(each)
    for each in diagnosis.notes:
        log.info(each)
    card = model_card(planned, run.name, data, validation, diagnosis)
    run.text("README.md", card)
    at_step = at.best_step if trainer.best_weights else at.step
    names = data.classes
    model = Served(run.info, planned.config, planned.recipe_file, trainer.recipe, data.image, len(names), names)
    publish(run, model, at_step, data.val.showcase(1))
    run.tags({"mlflow.note.content": card, "aelab.diagnostics": diagnosis.text, "aelab.seconds": f"{at.spent:.1f}"})
    finish(checkpoints.folder)
    return validation


def finished(run: RunWriter, planned: Plan, trainer: Trainer, store: Store, validation: Mapping[str, float]) -> Run:
    """The run that was just trained, with the weights that were kept."""
    config, data = planned.config, planned.data
    return Run(
        store.get(run.id),
        config,
        planned.recipe_file,
        trainer.recipe.eval(),
        data.image,
        len(data.classes),
        store,
        validation=validation,
    )


def follow(
    trainer: Trainer,
    run: RunWriter,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    watch: Watch | None = None,
) -> None:
    """Iterates a trainer to its end: logs its metrics, draws its pictures, saves its state, and updates the progress bar.

    Raises, after saving, Interrupted when `stop` returns true and Pruned when `watch` does after an epoch; and UserError if
    the training diverges or the last checkpoint cannot be written.
    """
    at = trainer.progress
    names: list[str] = []
    if at.step == 0:
        draw(trainer, run)
    with progress_bar(trainer.title, trainer.steps, at.step, lines=False) as bar:
        try:
            for event in trainer:
                match event:
                    case StepDone(step, means, speed):
                        if means:
                            if list(means) != names:
                                check_names(means, type(trainer.recipe).__name__)
                                names = list(means)
                            run.metrics({f"step/{name}": value for name, value in means.items()}, step)
                            bar.update(step, trainer.title, f"{speed:,.0f} images/s  {in_a_line(means, 'step', means)}")
                    case StepSkipped(step, reason, skipped):
                        most = trainer.settings.skip_nonfinite
                        log.warning(f"step {step} is skipped: {reason} ({skipped} of {most})")
                        continue
                    case EpochDone():
                        _end_epoch(event, trainer, run, bar)
                        if watch and watch(event.epoch, event.val) and not event.last:
                            checkpoints.save(trainer)
                            raise Pruned(event.epoch)
                    case PhaseStopped(phase, patience, epoch):
                        of = f" of {phase}" if phase else ""
                        log.info(f"no better validation for {patience} epochs: epoch {epoch} is the last{of}")
                stopping = isinstance(event, StepDone) and stop()
                if stopping or checkpoints.due():
                    checkpoints.save(trainer)
                if stopping:
                    raise Interrupted(at.step)
            checkpoints.save(trainer)
        except DivergedError as error:
            run.tags({"aelab.diagnostics": f"not finite: {error.reason}"})
            if error.intact:  # the step was not taken
                with suppress(DivergedError):  # a forward pass may have ruined the averages of a batch normalisation
                    checkpoints.save(trainer)
            raise
    if checkpoints.error:
        raise UserError(
            f"the last checkpoint could not be written: {checkpoints.error}",
            f"Make room, then: {run.resume_command}",
        )


def _end_epoch(done: EpochDone, trainer: Trainer, run: RunWriter, bar: Bar) -> None:
    """Logs the metrics of an epoch, and at most SLIDER_PICTURES times its pictures."""
    run.metrics({f"train/{name}": value for name, value in done.train.items()}, done.epoch)
    run.metrics({f"val/{name}": value for name, value in done.val.items()}, done.epoch)
    run.metrics({"train/images_per_second": done.images_per_second, "train/seconds": done.seconds}, done.epoch)
    if done.improved:
        kept = "last" if trainer.recipe.monitor is None else "best"
        run.metrics({f"{kept}/{name}": value for name, value in done.val.items()}, done.epoch)
    if done.last or done.epoch % math.ceil(trainer.epochs / SLIDER_PICTURES) == 0:
        draw(trainer, run)
    if done.last or done.epoch % math.ceil(trainer.epochs / (LINES_ABOVE_A_BAR if bar.visible else EPOCH_LINES)) == 0:
        log.info(_epoch_line(done, with_speed=not bar.visible))


def _epoch_line(done: EpochDone, with_speed: bool) -> str:
    """The losses of an epoch, each term once, beside the validation loss; the speed too, unless a bar shows it."""
    train = {name: value for name, value in done.train.items() if name not in done.val}
    loss = next(iter(loss_terms(done.train, done.train)), "")
    parts = [
        done.title,
        in_a_line({name: done.train[name] for name in done.train if name == loss} | train, "train", done.train),
        in_a_line(done.val, "val", done.train),
        f"{done.images_per_second:,.0f} images/s" if with_speed else "",
    ]
    return "  ".join(filter(None, parts))


def draw(trainer: Trainer, run: RunWriter) -> None:
    """Logs the pictures of the present weights for MLflow's step slider; the folder of a key names a section of its page."""
    for name, picture in pictures(trainer.kept, trainer.data):
        run.stepwise_image(f"pictures/{name}", picture, trainer.progress.epochs)


def pictures(recipe: Recipe, data: Dataset) -> Iterator[tuple[str, Picture]]:
    """The pictures of a recipe: reconstructions below their inputs, samples, completions, filters; always of the same codes.

    Samples of a conditional recipe have a row for each class, if there are not too many. Points of the plane have pictures of
    their own.
    """
    if data.of_points:
        yield from pictures_of_points(recipe, data)
        return
    with eval_mode(recipe):
        codes, columns = None, COLUMNS
        if isinstance(recipe, Conditional) and recipe.conditional and len(data.classes) <= MOST_ROWS:
            classes = torch.arange(len(data.classes), device=next(recipe.parameters()).device)
            codes, columns = recipe.sample_class(classes.repeat_interleave(OF_EACH_CLASS)), OF_EACH_CLASS
        elif isinstance(recipe, Generates):
            codes = recipe.sample_prior(SAMPLES)
        if isinstance(recipe, Autoencodes):
            yield "reconstructions", reconstruction_grid(recipe, data.val.showcase(INPUTS))
        if isinstance(recipe, Generates) and codes is not None:
            yield "samples", grid(recipe.decode(codes), columns)
        if isinstance(recipe, Completes):
            x, y = data.val.examples(COLUMNS)
            if isinstance(recipe, Conditional) and recipe.conditional:
                draws = [recipe.sample_class(y) for _ in range(COMPLETIONS)]
            else:
                draws = [recipe.sample_prior(len(x)) for _ in range(COMPLETIONS)]
            yield "completions", completion_grid(recipe, x, draws)
        if isinstance(recipe, HasFilters):
            yield "filters", filter_grid(recipe.filters()[:FILTERS])


def pictures_of_points(recipe: Recipe, data: Dataset) -> Iterator[tuple[str, Picture]]:
    """Reconstructions and samples as dots over real points; behind samples the discriminator, if there is one."""
    with eval_mode(recipe):
        real = data.val.showcase(POINTS)
        codes = recipe.sample_prior(POINTS) if isinstance(recipe, Generates) else None
        if isinstance(recipe, Autoencodes):
            yield "reconstructions", reconstruction_grid(recipe, real)
        if isinstance(recipe, Generates) and codes is not None:
            d = None
            if isinstance(recipe, Discriminates) and not (isinstance(recipe, Conditional) and recipe.conditional):
                x = plane(FIELD).to(real)
                d = recipe.discriminate(x, torch.full((len(x),), -1, device=x.device)).sigmoid().reshape(FIELD, FIELD)
            yield "samples", plane_picture(recipe.decode(codes).flatten(1), VERMILION, real.flatten(1), d)
