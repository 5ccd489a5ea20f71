"""What verbs print: tables that fit a terminal, epoch lines with each term once, commands and paths that can be copied."""

import io
import math
import re
import shlex
from pathlib import Path

import pytest

from aelab.cli import layout
from aelab.cli.console import Console
from aelab.metrics import DEFINITIONS, GROUPS, OTHER, beside, duration, group, in_a_line
from aelab.results import LISTING_COLUMNS, listing_row, shown_row, training_rows
from aelab.tracking import RunInfo

VAE = {"loss": 26.4, "nll": 26.1, "kl": 0.3, "elbo": -26.4, "mse": 0.07, "sse": 4.5, "psnr": 11.5}
GAN = {"loss": 1.1, "d_loss": 1.1, "g_loss": 1.0, "d_real": 0.5, "d_fake": 0.5, "d_grad_norm": 2.0}
OUTPUTS = sorted((Path(__file__).parent / "terminal").glob("*/*.out.txt"))


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A function that shows something on a terminal of so many columns, and returns the lines of stdout and of stderr."""

    def on(columns, show, encoding="utf-8"):
        sent = [Tty(), Tty()]
        sent[0].encoding = encoding
        monkeypatch.setattr("sys.stdout", sent[0])
        monkeypatch.setattr("sys.stderr", sent[1])
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        show(Console())
        return [re.sub(r"\x1b\[[\d;]*m", "", each.getvalue()).splitlines() for each in sent]

    return on


def run(metrics, split="best", name="vae-6a68b8", **tags):
    tags = {"aelab.recipe": "vae", **{key.replace("_", ".", 1): value for key, value in tags.items()}}
    metrics = {f"{split}/{key}": value for key, value in metrics.items()}
    return RunInfo("ab" * 16, name, "FINISHED", "0", 0.0, 91.0, {}, tags, metrics, "")


def test_every_metric_is_in_one_section():
    members = [name for names in GROUPS.values() for name in names]
    assert sorted(members) == sorted(DEFINITIONS)
    assert group("test/level-0.25/pca_denoised_mse") == "denoising" and group("val/mine") == OTHER
    assert group("test/real_fd_lenet") == "samples"


def test_rows_are_in_sections_with_their_baseline_and_their_control():
    metrics = {
        "test/kl": 1.0,
        "test/mine": 5.0,
        "test/mse": 2.0,
        "test/pca_mse": 3.0,
        "test/psnr": 4.0,
        "test/loss": 0.0,
    }
    rows = beside(metrics)
    assert [row["metric"] for row in rows] == ["test/loss", "test/mse", "test/psnr", "test/kl", "test/mine"]
    assert [row["section"] for row in rows] == ["losses", *["reconstruction (baseline: PCA)"] * 2, "likelihood", OTHER]
    assert [row["better"] for row in rows] == ["", "lower", "higher", "", ""]


@pytest.mark.parametrize(
    ("metrics", "of_the_recipe", "line"),
    [
        (VAE, (), "val/loss 26.4 (nll 26.1, kl 0.3)"),
        (GAN, (), "val/d_loss 1.1 (g_loss 1, d_real 0.5, d_fake 0.5)"),
        ({"loss": 0.07, "mse": 0.07, "sse": 4.5, "psnr": 11.5}, ("loss",), "val/loss 0.07"),
        ({"loss": 0.08, "mse": 0.07, "sparsity": 0.01}, ("loss", "mse"), "val/loss 0.08 (mse 0.07, sparsity 0.01)"),
        ({"loss": 0.07, "denoised_mse": 0.07, "mse": 0.06}, ("denoised_mse",), "val/denoised_mse 0.07"),
        ({"loss": 0.3, "error": 5.5}, (), "val/loss 0.3 (error 5.5)"),
        ({"loss": 5.0, "elbo": -4.0}, (), "val/loss 5 (elbo -4)"),
        ({"mine": 1.0, "other": 1.0}, (), "val/mine 1 (other 1)"),
        ({}, (), ""),
    ],
)
def test_a_line_has_each_term_once(metrics, of_the_recipe, line):
    """elbo stays where nll and kl are not shown; what is not aelab's own is always shown."""
    assert in_a_line(metrics, "val", of_the_recipe) == line


@pytest.mark.parametrize(
    ("metrics", "split", "tags", "main"),
    [
        (VAE, "best", {}, "best/elbo -26.4"),
        ({**VAE, "loss": 30.0}, "best", {}, "best/loss 30"),
        ({**VAE, "loss": 30.0}, "best", {"aelab_monitor": "nll"}, "best/nll 26.1"),
        ({"loss": 0.0603852871, "mse": 0.0603852850, "psnr": 12.0}, "best", {}, "best/mse 0.06039"),
        (GAN, "last", {}, "last/d_loss 1.1"),
        ({"loss": 0.1, "error": 4.2}, "last", {}, "last/error 4.2"),
        ({"loss": math.nan}, "last", {}, "last/loss nan"),
        ({}, "best", {}, ""),
    ],
)
def test_the_main_metric_goes_by_its_own_name(metrics, split, tags, main):
    assert shown_row(run(metrics, split, **tags))["main metric"] == main


def test_a_row_of_the_list_keeps_its_keys():
    row = listing_row(run(VAE, aelab_diagnostics="posterior collapse: the decoder ignores the code; try more"))
    assert tuple(row) == LISTING_COLUMNS
    assert (row["loss"], row["main_metric"], row["main_value"]) == (26.4, "best/elbo", -26.4)
    shown = shown_row(run(VAE, aelab_diagnostics=str(row["diagnosis"])))
    assert shown["diagnosis"] == "posterior collapse" and shown["time"] == "1 min 31 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0, "0.0 s"), (0.84, "0.84 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (91, "1 min 31 s"), (3599.6, "1 h 0 min"),
     (7500, "2 h 5 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_splits_of_a_training_are_columns():
    metrics = {"train/loss": 3.0, "val/loss": 2.0, "val/mse": 1.0, "best/loss": 1.5}
    both = RunInfo("ab" * 16, "", "", "", None, None, {}, {}, metrics, "")
    loss, mse = training_rows(both)
    assert (loss["train"], loss["val"], loss["best"], loss["section"]) == (3.0, 2.0, 1.5, "losses")
    assert (mse["metric"], mse["train"], mse["better"]) == ("mse", None, "lower")
    (stopped,) = training_rows(run({"loss": 9.0}, "step"))
    assert stopped["step"] == 9.0
    (last,) = training_rows(run({"loss": 9.0}, "last"))
    assert last["last"] == 9.0 and "val" not in last, "it would say the same"


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_list_keeps_ids_whole_and_fits(columns, terminal):
    rows = [
        {**shown_row(run(VAE, name=name)), "id": f"{k:08x}"}
        for k, name in enumerate(["vae-6a68b8", "a very long name which says what the run was about", "長い名前" * 9])
    ]
    out, err = terminal(
        columns, lambda c: c.table(rows, drop=["data", "time", "recipe", "started", "diagnosis"], shorten="name")
    )
    assert max(map(layout.cell_len, out)) <= columns
    assert [line for line in out if re.match(r"0000000\d  ", line)], out
    assert all(any(line.startswith(row["id"]) for line in out) for row in rows)
    assert ("best/elbo -26.4" in "".join(out)) and all("elbo" not in line or "-26.4" in line for line in out)
    assert (columns >= 120) == (err == []) and all(len(line) <= columns for line in err)


def test_a_short_name_is_not_shortened_for_a_long_one(terminal):
    rows = [{"run": name, "x": 1.0} for name in ("short", "a" * 50 + "b" * 49)]
    out, _ = terminal(60, lambda c: c.table(rows, shorten="run"))
    assert out[1].split()[0] == "short" and re.fullmatch("a{28}…b{28}  1", out[2])


def test_what_is_too_wide_is_turned_or_printed_in_parts(terminal):
    two = [{"run": f"run{k}", **{f"test/metric{n}": float(n + k / 8) for n in range(9)}} for k in range(2)]
    out, _ = terminal(60, lambda c: c.table(two, turn=True, shorten="run"))
    assert out[0].split() == ["run", "run0", "run1"] and out[3].split() == ["test/metric2", "2", "2.125"]
    many = [{**two[0], "run": f"run{k}"} for k in range(9)]
    out, _ = terminal(60, lambda c: c.table(many, turn=True, shorten="run"))
    heads = [line.split() for line in out if line.startswith("run ")]
    assert len(heads) == 3 and [name for head in heads for name in head[1:]] == [f"test/metric{n}" for n in range(9)]
    assert all(sum(line.startswith(f"run{k}") for line in out) == 3 for k in range(9)) and max(map(len, out)) <= 60


def test_a_column_of_prose_breaks_between_words_also_where_there_is_no_room(terminal):
    rows = [{"recipe": "convolutional", "what": "one two three"}]
    for columns, lines in ((19, 3), (26, 2), (28, 1), (8, 3)):
        out, _ = terminal(columns, lambda c: c.table(rows, wrap="what"))
        assert len(out) == 1 + lines and " ".join(out).split()[2:] == ["convolutional", "one", "two", "three"]


def test_prose_breaks_between_words_and_nothing_to_copy_breaks(terminal):
    path, command = "/somewhere/" + "a" * 80 + "/a file.png", "aelab eval " + "b" * 30 + " --tracking-uri " + "c" * 30

    def show(console):
        console.fields({"files": path, "why": "one two " * 20}, prose=["why"])
        console.next(command, "aelab ui")
        console.note("epoch 1/3  train/loss 30.12  val/loss 29.12 (nll 1.25, kl 0.31)")

    out, err = terminal(60, show)
    assert out[0] == f"files  {path}" and "".join(out[1:]).split() == ["why", *["one", "two"] * 20]
    assert max(map(len, out[1:])) <= 60 and all(re.match(" {7}(one|two)", line) for line in out[2:])
    assert err[:2] == [f"next     {command}", "         aelab ui"]
    assert err[2:] == ["epoch 1/3  train/loss 30.12  val/loss 29.12 (nll 1.25,", "  kl 0.31)"]


def test_the_better_direction_is_an_arrow_or_a_word(terminal):
    rows = beside({"test/mse": 0.25, "test/psnr": 6.0, "test/kl": 1.0})
    out, _ = terminal(80, lambda c: c.metrics(rows, "title"))
    assert [line.split()[1] for line in out[3:5]] == ["↓", "↑"] and out[6].split()[:2] == ["test/kl", "1"]
    plain, _ = terminal(80, lambda c: c.metrics(rows, "title"), "ascii")
    assert [line.split()[1] for line in plain[3:5]] == ["lower", "higher"]


def test_a_training_says_what_was_found_and_how_to_go_on(cli, tmp_path):
    store = f"sqlite:///{tmp_path / 'with space.db'}"
    answer = cli("train", "gan", "--data", "digits", "--epochs", 2, "--name", "of mine", "--tracking-uri", store)
    assert answer.code == 0, answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    for line in lines:
        values = re.findall(r"(\S+) (\d[\d.]*)", line.partition("val/")[2].replace("(", ""))
        assert [name for name, _ in values] == ["d_loss", "g_loss", "d_real", "d_fake"]
    assert (
        "\ndiagnosis  " in answer.out and answer.out.startswith("of mine finished in ") and "last/d_loss" in answer.out
    )
    commands = [line.removeprefix("next").strip() for line in answer.err.splitlines()[-5:]]
    assert [shlex.split(line) for line in commands] == [
        *(["aelab", verb, "of mine", "--tracking-uri", store] for verb in ("eval", "sample", "interpolate", "show")),
        ["aelab", "ui", "--tracking-uri", store],
    ]
    assert {"loss", "d_loss"} <= {
        k.removeprefix("train/")
        for k in cli("runs", "show", "of mine", "--tracking-uri", store, "--json").json["metrics"]
    }


def test_an_address_of_the_environment_is_not_repeated(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    answer = cli("train", "linear", "--data", "digits", "--max-steps", 2, "--name", "mine")
    assert answer.code == 0 and answer.err.splitlines()[-4:-1] == [
        "next     aelab eval mine",
        "         aelab interpolate mine",
        "         aelab show mine",
    ]
    assert "--tracking-uri" not in answer.err


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: f"{path.parent.name}-{path.name.partition('.')[0]}")
def test_what_is_committed_reads_well(path):
    """Only a path, a command or a title may be longer than the terminal; no id, path or command is broken."""
    columns, (typed, *lines) = int(path.parent.name), path.read_text(encoding="utf-8").splitlines()
    piped = typed.endswith("| cat")
    copied = re.compile(r"^(picture|next|restore|files|name|exported)? +|aelab |/|^stacked on the test")
    assert "Traceback" not in "".join(lines)
    assert [line for line in lines if len(line) > columns and not copied.search(line) and not piped] == []
    for line in lines:
        assert line == line.rstrip() and "�" not in line
        if line.startswith("epoch "):
            assert not re.search(r"elbo|sse|psnr|grad_norm", line)
        if line.startswith("picture"):
            assert line.endswith(".png") and re.search(r"/[0-9a-f]{32}/", line)
    if path.name.startswith("runs.") or path.name.startswith("runs-piped"):
        assert all(
            re.match(r"(id|[0-9a-f]{8})  ", line) for line in lines if not line.startswith(("Left", "started", "all"))
        )
