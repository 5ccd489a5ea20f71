"""`aelab show`: figures of runs as files, artifacts, and in the terminal."""

import io
import shutil

import PIL.Image
import pytest
from opened import opened

import aelab
from aelab.cli.console import Console, Terminal
from aelab.figures import FIGURES
from aelab.workflows.showing import compares


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a run that samples and one that does not."""
    folder = tmp_path_factory.mktemp("lab")
    uri = f"sqlite:///{folder}/mlflow.db"
    for recipe in ("vae", "stacked"):
        aelab.train(recipe, data="digits", latent_dim=2, max_steps=5, name=recipe, tracking_uri=uri)
    return folder


@pytest.fixture
def store(lab, here):
    """A copy of that folder's database, for each test; the artifacts stay where they are."""
    shutil.copy(lab / "mlflow.db", here / "mlflow.db")
    return here


def test_a_figure_is_an_artifact_as_png_and_svg_and_wide_enough_for_a_slide(cli, store):
    answer = cli("show", "vae", "samples", "--out", store / "talk" / "vae.svg")
    assert answer.code == 0, answer.err
    assert answer.out == "figure   talk/vae.svg\n"
    assert (store / "talk" / "vae.svg").read_text().startswith("<?xml")
    folder = aelab.load("vae").folder / "figures"
    assert opened(folder / "samples.png").size[0] >= 1600
    assert (folder / "samples.svg").exists()


def test_a_figure_that_moves_is_a_gif_too(cli, store):
    answer = cli("show", "vae", "samples-over-training", "--out", "film.gif")
    assert answer.code == 0, answer.err
    for path in (store / "film.gif", aelab.load("vae").folder / "figures/samples-over-training.gif"):
        with PIL.Image.open(path) as film:
            assert film.n_frames > 1
    assert cli("show", "vae", "samples", "--out", "film.gif").code == 2, "one that stands still is not"


@pytest.mark.slow
def test_without_a_name_all_figures_are_made_that_the_run_can_make(cli, store):
    answer = cli("show", "stacked", "--out", "all")
    assert answer.code == 0, answer.err
    made = {path.stem for path in (store / "all").glob("*.png")}
    assert made == set(aelab.figures.available(aelab.load("stacked")))
    assert "reconstructions" in made and "samples" not in made
    assert {path.stem for path in (store / "all").glob("*.svg")} == made


def test_a_figure_that_fails_costs_neither_the_others_nor_the_evaluation(cli, store, monkeypatch):
    def broken(run):
        raise IndexError("list index out of range")

    drawn = []

    def whole(run):
        drawn.append(run.info.metrics)
        return FIGURES["reconstructions"](run)

    one = {"reconstructions": whole}
    monkeypatch.setattr("aelab.workflows.showing.available", lambda run: ["filters", "reconstructions"])
    monkeypatch.setattr("aelab.workflows.showing.figure_function", lambda name: one.get(name, broken))
    answer = cli("eval", "stacked")
    assert answer.code == 0 and "test/mse" in answer.out, answer.err
    assert "the figure filters failed, IndexError; where: aelab show stacked filters" in answer.err
    assert "test/mse" in drawn[0], "it has the metrics that were just measured"


def test_without_a_desktop_nothing_is_opened(cli, store, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    answer = cli("show", "vae", "samples", "--open")
    assert answer.code == 2 and answer.err.startswith("error: --open: there is no desktop here.\n")
    monkeypatch.setenv("DISPLAY", ":0")
    opened_files = []
    monkeypatch.setattr("typer.launch", opened_files.append)
    assert cli("show", "vae", "samples", "--open").code == 0 and opened_files[0].endswith("samples.png")


def test_runs_are_shown_beside_each_other(store):
    made = aelab.show("stacked", "reconstructions", beside=["vae"], out=store / "both.svg")
    assert list(made) == ["reconstructions"]
    text = (store / "both.svg").read_text()
    alone = aelab.show("stacked", "reconstructions", out=store / "one.svg")["reconstructions"][-1].read_text()
    assert text.count("<image") == alone.count("<image") + 10, "a row more"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stacked", "samples"), "has no figure 'samples': stacked has no prior to sample from."),
        (("vae", "sample"), "Did you mean samples or samples-over-training?"),
        (("vae", "samples", "--beside", "stacked"), "'samples' shows one run, not several."),
        (("vae", "--beside", "stacked"), "name the figure that shows these runs together."),
        (("nobody",), "there is no run 'nobody'"),
        ((), "name a run."),
        (("vae", "samples", "--out", "x.docx"), "pictures cannot be written as .docx"),
        (("vae", "--out", "mlflow.db"), "--out mlflow.db is a file"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line_or_two(cli, store, words, said):
    answer = cli("show", *words)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.removeprefix("figures ...\n").strip().split("\n")) <= 3


def test_the_list_says_what_each_figure_shows(cli, store):
    everything, some = cli("show", "--list").out, cli("show", "stacked", "--list").out
    assert all(f"\n{name} " in everything for name in FIGURES)
    assert "\nreconstructions " in some and "\nsamples " not in some


def test_a_figure_that_takes_one_run_is_told_from_one_that_compares():
    assert compares("reconstructions") and not compares("samples")


@pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")  # of textual-image
def test_a_terminal_shows_the_picture_and_a_file_does_not(store):
    path = aelab.show("vae", "samples")["samples"][0]
    console = Console()
    for terminal in (True, False):
        console.out = Terminal(file=io.StringIO(), force_terminal=terminal, width=60)
        console.image(path, "samples")
        shown = console.out.file.getvalue()
        assert (len(shown.split("\n")) > 6) is terminal
