"""The lecture: its page from tiny trainings, made twice, with failures, and what it promises to a reader."""

import logging
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import aelab
from aelab import figures, recipe_files
from aelab.errors import UserError
from aelab.evaluation import Report
from aelab.lecture import TOPICS, TRAININGS, Number, Shown, Topic, Training, Widget, make_lecture, models, sections
from aelab.lecture.making import choose
from aelab.lecture.models import Model, Setting
from aelab.lecture.page import Head, as_json, mathml, page
from aelab.lecture.sections import Drawn, Live, Missing, Row, Section
from aelab.tracking import Store

HEAD = Head("aelab lecture --quick", "digits", 0, "1.2.3", "today")
TINY = {"net": "mlp", "hidden": (4,), "latent_dim": 2, "max_steps": 2}
TINY_TRAININGS = {
    "small": Training("vae", TINY, data="digits"),
    "two-seeds": Training("linear", {"max_steps": 2}, data="digits", seeds=2),
    "impossible": Training("vae", {"samples": 2, "beta": 2.0}, data="digits"),
}
TOPIC = Topic(
    slug="small",
    title="Small & tidy",
    says="It says so.",
    equation=r"x < y, \qquad \frac{a}{b}",
    figures=(Shown("reconstructions", ("small",)),),
    notice="Notice this.",
    question="Why?",
    numbers=(
        Number("small", "test/sse", "test/pca_sse"),
        Number("small", "test/elbo", published="1.5", source="A 2020"),
    ),
    widgets=(Widget("plane", "small"),),
)
FAILING = replace(
    TOPIC,
    slug="failing",
    figures=(Shown("reconstructions", ("impossible",)), Shown("no-such-figure", ("small",))),
    numbers=(),
    widgets=(Widget("plane", "two-seeds"),),
)


class Reader(HTMLParser):
    """Checks that elements are closed in their order, and keeps what a reader sees and what the page points to."""

    VOID = ("meta", "img", "input", "br", "link", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.images, self.words = [], [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[key] for key in ("src", "href") if key in found]
        self.images += [found] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data if "script" not in self.open and "style" not in self.open else ""


def lecture(here, **options):
    chosen = {"quick": True, "topics": [TOPIC], "trainings": TINY_TRAININGS, "device": "cpu", **options}
    return make_lecture(here / "out", **chosen)


def test_a_second_time_trains_nothing_and_the_page_holds_what_the_runs_say(here, caplog):
    caplog.set_level(logging.INFO, "aelab")
    made = lecture(here, slides=True)
    assert (made.failed, made.skipped) == ([], [])
    assert "0 of 1 models are there already; 1 to train or measure, about" in caplog.text
    (run,) = [info for info in Store().runs() if info.tags["aelab.kind"] == "run"]
    assert re.fullmatch("small-[0-9a-f]{6}", run.name)
    read = Reader(made.page.read_text())
    for text in ("Small & tidy", "It says so.", "Notice this.", "Why?", aelab.figures.reconstructions.__doc__[:60]):
        assert text in read.words
    assert f'aelab.figures.reconstructions(aelab.load("{run.name}"))' in read.words
    assert f"{run.metrics['test/sse']:.4g}" in read.words
    assert f"{run.metrics['test/pca_sse']:.4g}" in read.words
    assert f"{run.metrics['test/elbo']:.4g}" in read.words
    assert "1.5" in read.words and "A 2020" in read.words
    assert "aelab train vae --net mlp --hidden 4 --latent-dim 2 --max-steps 2 --data digits --seed 0" in read.words
    assert [path.name for path in made.figures] == ["small-1-reconstructions.png", "small-1-reconstructions.svg"]
    assert made.figures[0].read_bytes()[:4] == b"\x89PNG" and b"<svg" in made.figures[1].read_bytes()
    assert Reader(made.slides.read_text()).words.count("Small & tidy") == 2  # among the topics, and its own
    (logged,) = [info for info in Store().runs() if info.tags["aelab.kind"] == "lecture"]
    assert (Store().folder(logged) / "lecture.html").read_bytes() == made.page.read_bytes()

    caplog.clear()
    again = lecture(here)
    assert "1 of 1 models are there already" in caplog.text and "to train" not in caplog.text
    assert {info.id for info in Store().runs()} == {run.id, logged.id}
    assert Reader(again.page.read_text()).words.replace("\n", "") != ""
    assert again.slides is None


def test_a_page_needs_nothing_from_elsewhere_and_is_sound(here):
    for text in (page([_section()], HEAD), page([_section()], HEAD, slides=True)):
        read = Reader(text)
        assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
        assert len(read.ids) == len(set(read.ids))
        for address in read.addresses:
            assert address.startswith("data:") or address[1:] in read.ids, address
        assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/)", text)
        assert all(image.get("alt") is not None for image in read.images)
        assert text.count("<math") == 2  # the equation is broken at \qquad, where a narrow screen may break it
        assert "<mo>&lt;</mo>" in text


def _section(**changes):
    drawn = Drawn("figure", "What is <seen>", 'aelab.figures.f(aelab.load("<b>run"))', b"\x89PNG...", b"<svg/>")
    row = Row("error", "</table><script>alert(1)</script>", "1.0", "", "")
    live = Live("plane", "<run>", {"text": "</script><script>alert(2)</script>"})
    section = Section(TOPIC, "", ["aelab train <x>"], [drawn, Missing("other", "<no> reason")], [row], [live])
    return replace(section, **changes)


def test_no_text_of_a_run_becomes_markup():
    text = page([_section()], HEAD)
    assert "<script>alert" not in text
    for escaped in ("What is &lt;seen&gt;", "&lt;b&gt;run", "aelab train &lt;x&gt;", "&lt;no&gt; reason"):
        assert escaped in text
    assert as_json({"a": "</script>"}) == '{"a":"\\u003c/script>"}'
    assert "\\u003c/script>\\u003cscript>alert(2)" in text


def test_what_fails_is_said_on_the_page_and_the_rest_is_made(here, caplog):
    made = lecture(here, topics=[FAILING, TOPIC])
    assert len(made.failed) == 4
    assert (
        made.failed[0].startswith("impossible: ")
        and "--beta cannot be combined with --samples above 1" in made.failed[0]
    )
    assert "failing: no-such-figure: there is no figure 'no-such-figure'" in made.failed
    words = Reader(made.page.read_text()).words
    assert "The figure reconstructions was not made: impossible could not be trained" in words
    assert "Small & tidy" in words and len(made.figures) == 2


def test_what_the_diagnosis_finds_wrong_is_on_the_page(here):
    words = Reader(lecture(here, topics=[TOPIC]).page.read_text()).words
    (run,) = Store().runs("tags.`aelab.kind` = 'run'")
    assert run.tags["aelab.diagnostics"].startswith("hardly trained")
    assert f"{run.name}: {run.tags['aelab.diagnostics']}" in words


def test_a_figure_of_the_lecture_is_an_artifact_of_its_run(here):
    lecture(here, topics=[TOPIC])
    (run,) = Store().runs("tags.`aelab.kind` = 'run'")
    made = {path.name for path in (Store().folder(run) / "figures").iterdir()}
    assert made == {f"{shown.figure}.{ending}" for shown in TOPIC.figures if shown.of for ending in ("png", "svg")}


@pytest.mark.parametrize("given", [{"device": "cuda:7"}, {"colour": "empty"}])
def test_a_device_or_a_folder_that_is_not_there_is_refused_before_a_page_is_written(here, given):
    (here / "empty").mkdir()
    topic = replace(TOPIC, needs="cifar10") if "colour" in given else TOPIC
    trainings = {"small": Training("vae", {"max_steps": 2}, data="cifar10")} if "colour" in given else TINY_TRAININGS
    with pytest.raises(UserError) as refused:
        lecture(here, topics=[topic], trainings=trainings, **given)
    assert refused.value.code == 2 and not list(here.rglob("*.html"))


def test_the_command_line_ends_with_one_line_about_failures(here, cli, monkeypatch):
    failed = ["one: it broke", "two: it broke too"]
    result = aelab.lecture.Lecture(here / "lecture.html", None, [], failed, [])
    monkeypatch.setattr("aelab.lecture.make_lecture", lambda *arguments, **options: result)
    answer = cli("lecture", "--quick", "--only", "vae, gan", "--out", here)
    assert answer.code == 1
    assert answer.out.splitlines()[-1].split() == ["page", "lecture.html"]
    assert answer.err.startswith("error: 2 of the lecture's models and figures failed; the page says why.\n")
    assert cli("lecture", "--json").json["failed"] == failed


def test_a_signal_stops_it_and_the_same_command_continues(here, monkeypatch):
    class Writer:
        name, resume_command = "small-123456", "aelab resume 123456"

    def stopped(*arguments, **options):
        import signal

        from aelab.workflows import Stopped

        raise Stopped(signal.SIGTERM, Writer(), 7)

    monkeypatch.setattr(models, "train", stopped)
    with pytest.raises(UserError, match=r"small-123456 is saved at step 7.*\nThe same command continues") as ended:
        lecture(here)
    assert ended.value.code == 143


def test_topics_are_chosen_by_name_or_by_what_begins_with_it():
    assert [topic.slug for topic in choose(TOPICS, ["vae"])] == ["vae", "vae-manifold", "vae-interpolation"]
    assert [topic.slug for topic in choose(TOPICS, ["gan-ring", "linear"])] == ["linear", "gan-ring"]
    assert choose(TOPICS, []) == list(TOPICS)
    with pytest.raises(UserError, match=r"no topic 'vea'\. Did you mean vae") as refused:
        choose(TOPICS, ["vea"])
    assert refused.value.code == 2


def test_a_topic_whose_data_are_missing_is_skipped_with_the_command_that_fetches_them(here):
    made = lecture(here, topics=[replace(TOPIC, needs="cifar10")])
    assert made.skipped == [f"small: {words}" for words in made.skipped[0].split("small: ")[1:]]
    assert "aelab data --fetch cifar10" in Reader(made.page.read_text()).words
    assert not Store().runs("tags.`aelab.kind` = 'run'")


def test_a_folder_of_pictures_takes_the_place_of_cifar10(here):
    folder = here / "my pictures"
    for part, count in (("train", 30), ("test", 10)):
        for label in ("cat", "ship"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(256, (8, 8, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / part / label / f"{number}.jpg")
    topic = replace(TOPIC, needs="cifar10", figures=(Shown("reconstructions", ("colours",)),), numbers=(), widgets=())
    training = Training("convolutional", {"latent_dim": 2, "width": 4, "max_steps": 2}, data="cifar10")
    given = {"topics": [topic], "trainings": {"colours": training}, "colour": folder}
    made = lecture(here, **given)
    assert made.skipped == made.failed == [] and made.figures
    (run,) = Store().runs("tags.`aelab.kind` = 'run'")
    assert run.params["image_size"] == "3x8x8"
    words = Reader(made.page.read_text()).words
    assert f"--data '{folder}'" in words and f"--colour '{folder}'" in words
    with pytest.raises(UserError, match="there is no such folder") as refused:
        lecture(here, **given | {"colour": here / "nowhere"})
    assert refused.value.code == 2


def test_the_command_on_the_page_is_that_of_the_run(here, cli):
    """Typed at the prompt it makes the run that the lecture then finds."""
    model = Model("small", TINY_TRAININGS["small"], Setting(True, 3, "cpu", None, None), 3)
    assert cli(*shlex.split(model.command)[1:], "--quiet").code == 0
    assert model.find(Store()).params["seed"] == "3"
    assert replace(model, seed=4).find(Store()) is None


def test_only_the_full_lecture_has_several_seeds():
    quick, full = (Setting(quick, 5, "cpu", None, None) for quick in (True, False))
    assert [m.seed for m in models.models_of(["two-seeds"], TINY_TRAININGS, quick)] == [5]
    assert [m.seed for m in models.models_of(["two-seeds"], TINY_TRAININGS, full)] == [5, 6]


def test_numbers_of_several_seeds_are_means_with_their_deviation():
    runs = [
        SimpleNamespace(info=SimpleNamespace(metrics={"test/sse": value, "test/pca_sse": 3.0})) for value in (1.0, 3.0)
    ]
    row = sections.row_of(Number("a", "test/sse", "test/pca_sse"), runs)
    assert row == Row("squared error per image (lower is better)", "a", "2 ± 1.4", "3 ± 0", "PCA")
    assert sections.row_of(Number("a", "test/elbo"), runs) is None


def test_the_time_left_is_corrected_by_what_the_first_models_took(monkeypatch):
    now = iter([0.0, 40.0])
    monkeypatch.setattr(models, "time", SimpleNamespace(monotonic=lambda: next(now)))
    setting = Setting(True, 0, "cpu", None, None)
    todo = {Model(name, TINY_TRAININGS["small"], setting, 0): 20.0 for name in ("a", "b")}
    lines = [line for _, line in models._with_time_left(todo)]
    assert lines == ["1 of 2: a, seed 0; about 40 s left", "2 of 2: b, seed 0; about 40 s left"]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.slug)
def test_every_topic_names_what_there_is(topic):
    assert set(topic.trainings) <= TRAININGS.keys()
    for shown in topic.figures:
        assert callable(getattr(figures, shown.figure.replace("-", "_"), None)), shown.figure
    for formula in topic.equation.split(r"\qquad"):
        assert "merror" not in mathml(formula) and "<math" in mathml(formula)
    assert 1 <= len(re.findall(r"[.?](?= |$)", topic.says)) <= 3
    assert topic.question.endswith("?")
    for each in topic.numbers:
        assert bool(each.published) == bool(each.source) and not (each.beside and each.published)


def test_topics_have_names_of_their_own():
    assert len({topic.slug for topic in TOPICS}) == len(TOPICS)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_option_of_a_training_exists(name):
    training = TRAININGS[name]
    file = recipe_files.trust(training.recipe)
    own = {option.name for option in recipe_files.signature(file).options}
    settings = set(signature(aelab.train).parameters)
    for options in (training.quick, training.full):
        every = {**training.options, **options}
        assert every.keys() <= own | settings
        recipe_files.check(file, {key: value for key, value in every.items() if key in own})
    assert training.levels.keys() <= own


@pytest.mark.parametrize("name", [name for name, training in TRAININGS.items() if training.levels])
def test_what_was_measured_at_a_level_is_not_measured_again(name):
    """A level of 1.0 is 1.0 in the name of its metrics, as `aelab eval --set level=1.0` writes it."""
    model = Model(name, TRAININGS[name], Setting(True, 0, "cpu", None, None), 0)
    metrics = {"test/loss": 1.0}
    for option, values in model.training.levels.items():
        for value in values:
            metrics |= Report({"test/loss": 1.0}).under({option: value}).metrics
    assert model.measurements(SimpleNamespace(metrics=metrics)) == []
    assert len(model.measurements(None)) == len(metrics)
