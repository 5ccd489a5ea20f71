"""Makes the lecture: models, figures, and the page."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from aelab.data import Offline, listing, open_data
from aelab.errors import UserError, checked, did_you_mean, similar
from aelab.lecture.models import Models, Setting, models_of, obtain
from aelab.lecture.page import Head, page
from aelab.lecture.sections import Section, section
from aelab.lecture.topics import COLOUR, DATA, TOPICS, TRAININGS, Topic, Training
from aelab.progress_bar import progress_bar
from aelab.tracking import RunWriter, Store
from aelab.training import pick_device

LARGEST_SEED = 2**32 - 11  # some models have ten seeds from there on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lecture:
    """The files of a lecture, and what could not be made."""

    page: Path
    slides: Path | None
    figures: list[Path]
    failed: list[str] = field(default_factory=list)  # models and figures, each with the reason
    skipped: list[str] = field(default_factory=list)  # topics, for want of their data


@checked
def make_lecture(
    out: Path | str = "lecture",
    *,
    quick: bool = False,
    only: Iterable[str] = (),
    slides: bool = False,
    seed: Annotated[int, Interval(ge=0, le=LARGEST_SEED)] = 0,
    device: str = "auto",
    data_dir: Path | str | None = None,
    colour: Path | str | None = None,
    tracking_uri: str | None = None,
    topics: Sequence[Topic] = TOPICS,
    trainings: Mapping[str, Training] = TRAININGS,
) -> Lecture:
    """Makes the lecture: trains and measures what is missing, draws every figure, and writes one HTML page into `out`.

    `quick` takes few epochs and the bundled images, minutes instead of hours. `only` names topics by their slugs; "vae" also
    means those that begin with "vae-". `slides` writes slides.html too, one topic a screen. `colour` is a folder of colour
    pictures of one size, as those of CIFAR-10, in whose place it is used. Runs that are tracked already are
    used as they are. What fails is said on the page, and listed in the result. Raises UserError for an unknown topic, if there
    are no images, and with the code 130 or 143 if a signal stops a training: the same call continues.
    """
    folder = Path(out)
    at, pictures = (Path(place) if place else None for place in (data_dir, colour))
    setting = Setting(quick, seed, device, at, tracking_uri, pictures)
    asked = list(only)
    chosen = choose(topics, asked)
    pick_device(device)  # which refuses one that is not there
    if pictures and not pictures.is_dir():
        raise UserError(f"--colour {pictures}: there is no such folder.", code=2)
    skipped = without_data(chosen, setting)
    made = [topic for topic in chosen if topic.slug not in skipped]
    _check_folder(folder)
    names = list(dict.fromkeys(name for topic in made for name in topic.trainings))
    _check_images(names, trainings, setting)
    _check_colour(names, trainings, setting)
    store = Store(tracking_uri, warn=log.warning)
    models = obtain(models_of(names, trainings, setting), store)
    sections = []
    with progress_bar("figures", len(chosen)) as bar:
        for topic in chosen:
            sections.append(section(topic, models, skipped.get(topic.slug, "")))
            bar.advance(1)
    data = dict.fromkeys(setting.data_of(trainings[name]) for name in names)
    return _write(folder, sections, models, Head.now(setting, asked, data), slides, store)


def choose(topics: Sequence[Topic], only: Sequence[str]) -> list[Topic]:
    """The topics with these names; without names all. Raises UserError for a name that no topic has."""
    slugs = [topic.slug for topic in topics]
    for name in only:
        if not any(_means(name, slug) for slug in slugs):
            hint = did_you_mean(similar(name, slugs))
            raise UserError(f"there is no topic '{name:.60}'.{hint}", f"There are: {', '.join(slugs)}", code=2)
    return [topic for topic in topics if not only or any(_means(name, topic.slug) for name in only)]


def _means(name: str, slug: str) -> bool:
    return slug == name or slug.startswith(f"{name}-")


def without_data(topics: Sequence[Topic], setting: Setting) -> dict[str, str]:
    """Which topics have to be skipped, by slug, and why: their data is not on this disk. It is never fetched unasked."""
    here = {row["data"] for row in listing(setting.data_dir) if row["here"] == "yes"}
    here |= {COLOUR} if setting.colour else set()
    instead = {COLOUR: "; or name a folder of pictures: --colour FOLDER"}
    skipped = {
        topic.slug: f"{topic.needs} is not on this disk. Fetch it, then make the lecture again: aelab data --fetch {topic.needs}"
        + instead.get(topic.needs, "")
        for topic in topics
        if topic.needs and topic.needs not in here
    }
    for slug, why in skipped.items():
        log.info(f"{slug} is skipped: {why}")
    return skipped


def _check_folder(folder: Path) -> None:
    """Raises UserError, before any work, if the page cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}.", code=2) from error
    if not writable:
        raise UserError(f"--out {folder}: the folder is not writable.", code=2)


def _check_images(names: Sequence[str], trainings: Mapping[str, Training], setting: Setting) -> None:
    """Raises UserError if the images of the lecture are neither on this disk nor can be fetched."""
    data = DATA[setting.form]
    if all(trainings[name].data for name in names):
        return
    try:
        open_data(data, data_dir=setting.data_dir)
    except Offline as problem:
        first, *_ = str(problem).splitlines()
        raise UserError(
            f"the full lecture needs all of MNIST. {first}", "With bundled images: aelab lecture --quick"
        ) from None


def _check_colour(names: Sequence[str], trainings: Mapping[str, Training], setting: Setting) -> None:
    """Raises UserError if the folder of colour pictures cannot be trained on."""
    if setting.colour and any(trainings[name].data == COLOUR for name in names):
        try:
            open_data(str(setting.colour), data_dir=setting.data_dir)
        except UserError as problem:
            first, *_ = str(problem).splitlines()
            need = "--colour takes a folder of whole colour pictures, all of one size."
            raise UserError(f"--colour {setting.colour}: {first}", need, code=2) from None


def _write(
    folder: Path, sections: Sequence[Section], models: Models, head: Head, slides: bool, store: Store
) -> Lecture:
    """Writes figures and pages, and logs them to the run of this lecture."""
    writer = _run(head, store)
    figures = []
    for part in sections:
        for k, drawn in enumerate(part.drawn, 1):
            for ending, content in (("png", drawn.png), ("svg", drawn.svg)):
                figures.append(folder / "figures" / f"{part.topic.slug}-{k}-{drawn.name}.{ending}")
                write_file(figures[-1], content)
    pages = {"lecture.html": page(sections, head)} | (
        {"slides.html": page(sections, head, slides=True)} if slides else {}
    )
    for name, text in pages.items():
        write_file(folder / name, text.encode())
        writer.text(name, text)
    writer.close("FINISHED")
    failed = [f"{name}: {reason}" for name, reason in models.failed.items()]
    failed += [f"{part.topic.slug}: {each.name}: {each.reason}" for part in sections for each in part.missing]
    skipped = [f"{part.topic.slug}: {part.skipped}" for part in sections if part.skipped]
    return Lecture(folder / "lecture.html", folder / "slides.html" if slides else None, figures, failed, skipped)


def _run(head: Head, store: Store) -> RunWriter:
    """The run that holds the page, so that it is found in MLflow: that of the same command before, if there is one."""
    identity = hashlib.sha256(head.command.encode()).hexdigest()
    if before := store.newest(kind="lecture", identity=identity):
        return store.annotate(before)
    tags = {
        "aelab.kind": "lecture",
        "aelab.identity": identity,
        "aelab.recipe": "lecture",
        "aelab.version": metadata.version("aelab"),
        "aelab.data": head.data,
        "mlflow.note.content": f"The page of the lecture, made by `{head.command}`: lecture.html among the artifacts.",
    }
    return store.create(None, "lecture-", params={"command": head.command}, tags=tags)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all. Raises UserError if it cannot be written."""
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
