"""Tables of runs: which rows and columns there are, what is averaged, marked and refused, and how it is written."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from aelab import results
from aelab.errors import UserError
from aelab.results import comparable, comparison, grouped, listing_order, listing_row, markable, mixed, pivot
from aelab.results.compare import default_metrics, differences
from aelab.results.lecture import labels_table, latent_table, losses_table, models_table, noise_table
from aelab.tracking import RunInfo


def run(name, recipe="stacked", metrics=None, tags=None, **params):
    params = {key: str(value) for key, value in params.items()}
    tags = {"aelab.kind": "run", "aelab.recipe": recipe, "aelab.recipe_sha256": recipe * 8, "aelab.data_fingerprint": "d",
            "aelab.seconds": "3.0", **(tags or {})}  # fmt: skip
    return RunInfo(name * 4, name, "FINISHED", "1", 0.0, 3.0, params, tags, metrics or {}, "file:///x")


def seeds(recipe="stacked", **extra):
    return [
        run(f"{recipe}{d}{s}", recipe, {"test/sse": 10.0 / d + s, "test/loss": 1.0}, latent_dim=d, seed=s, **extra)
        for d in (10, 2) for s in (0, 1, 2)
    ]  # fmt: skip


def none(info, metric):
    return []


def test_a_group_has_the_mean_and_deviation_of_its_runs():
    table = grouped(seeds(), ["latent_dim"], ["test/sse"])
    assert list(table["latent_dim"]) == [2, 10], "by size, not as text"
    assert list(table["runs"]) == [3, 3]
    assert list(table["test/sse"]) == pytest.approx([6, 2]) and list(table["test/sse sd"]) == pytest.approx([1, 1])
    with pytest.raises(UserError, match="beta"):
        grouped(seeds(), ["beta"])


def test_what_a_mean_would_hide_is_named():
    assert mixed(seeds(), ["latent_dim"]) == []
    assert mixed([*seeds(epochs=1), *seeds(epochs=2)], ["latent_dim"]) == ["epochs"]
    assert mixed(seeds(), ["recipe"]) == ["latent_dim"]


def test_versions_of_a_recipe_file_are_told_apart():
    old, new = run("a", tags={"aelab.recipe_sha256": "1" * 64}), run("b", tags={"aelab.recipe_sha256": "2" * 64})
    assert differences([old, new]) == ["source"]
    assert list(comparison([old, new])["source"]) == ["1" * 8, "2" * 8]
    assert differences([old, run("c", "vae")]) == [], "two recipes have two files anyway"


def test_a_pivot_has_one_metric_in_its_cells():
    table = pivot([*seeds(), *seeds("vae")[:3]], "latent_dim", "recipe", "test/sse")
    assert list(table["latent_dim"]) == [2, 10]
    assert list(table["recipe stacked"]) == pytest.approx([6, 2]) and list(table["recipe stacked sd"]) == pytest.approx(
        [1, 1]
    )
    assert math.isnan(table["recipe vae"][0]) and table["recipe vae"][1] == pytest.approx(2)


def test_options_of_another_recipe_are_no_difference():
    assert differences([run("a", latent_dim=2, seed=0), run("b", "vae", latent_dim=2, seed=0, beta=4)]) == []
    assert differences([run("b", "vae", beta=1), run("c", "vae", beta=4)]) == ["beta"]


def evaluated(name, sha, n=1000):
    metrics = {"test/fd_lenet": 1.0, "test/classes": 10.0, "test/mse": 0.1}
    return run(name, "gan", metrics, {"aelab.lenet_sha256": sha, "aelab.compared_samples": str(n)})


def test_distances_by_different_weights_do_not_stand_side_by_side():
    names = ["test/mse", "test/fd_lenet", "test/classes"]
    for one, other in ((evaluated("a", "x"), evaluated("b", "y")), (evaluated("a", "x"), evaluated("b", "x", 10_000))):
        assert comparable([one, other], names, asked=False)[0] == ["test/mse"]
        with pytest.raises(UserError, match="lenet"):
            comparable([one, other], names, asked=True)
    assert comparable([evaluated("a", "x"), evaluated("b", "x"), run("c")], names, asked=True)[0] == names


def test_the_metrics_of_the_kept_weights_stand_under_the_weights_they_are_of():
    best, last = (
        run("a", metrics={"best/loss": 1.0, "last/loss": 9.0}),
        run("b", metrics={"last/loss": 2.0, "val/loss": 3.0}),
    )
    assert (best.validation, last.validation, run("c").validation) == ({"loss": 1.0}, {"loss": 2.0}, {})
    assert [listing_row(info)["loss"] for info in (best, last, run("c"))] == [1.0, 2.0, None]
    for infos, column in (([best, best], "best/loss"), ([last, run("c")], "last/loss"), ([run("c")], None)):
        table = comparison(infos)
        assert [name for name in table if "/" in name] == [column] * bool(column)
    both = comparison([best, last])
    assert list(both["best or last/loss"]) == [1.0, 2.0] and "best or last/loss" in markable([best, last], [*both])
    assert list(comparison([best, last], ["last/loss"])["last/loss"]) == [9.0, 2.0], "as it was asked for"
    assert grouped([best, last], ["recipe"])["best or last/loss"][0] == pytest.approx(1.5)
    evaluated_too = replace(best, metrics={**best.metrics, "test/loss": 5.0})
    assert "test/loss" in comparison([evaluated_too]) and "test/loss" not in comparison([evaluated_too, last])


def test_by_default_no_column_holds_losses_of_different_recipes():
    vae = run("a", "vae", {"best/loss": 90.0, "best/nll": 70.0, "best/mse": 0.1}, likelihood="bernoulli")
    gan = run("b", "gan", {"last/loss": 1.0, "last/d_loss": 1.0})
    table = comparison([vae, gan])
    assert [name for name in table if "/" in name] == ["best/nll", "best/mse", "last/d_loss"]
    assert default_metrics([vae, gan])[1] == ["best or last/loss"]
    grey = run("c", "vae", {"best/loss": -9.0, "best/nll": -9.0, "best/mse": 0.2}, likelihood="gaussian")
    assert [name for name in comparison([vae, grey]) if "/" in name] == ["best/mse"]
    assert [name for name in comparison([vae, run("d", "vae", vae.metrics, likelihood="bernoulli")]) if "/" in name] == [
        "best/loss", "best/nll", "best/mse"
    ]  # fmt: skip


# how it is written


FRAME = pd.DataFrame(
    {"run": ["a_1", "b", "c"], "recipe": ["vae"] * 3, "test/mse": [0.2, 0.1, None], "test/mse sd": [0.02, 0.013, None],
     "test/elbo": [-80.0, -90.0, -85.0], "test/kl": [1.0, 2.0, 3.0], "seconds": [1.0, 2.0, 3.0]}
)  # fmt: skip


def test_the_best_is_marked_whichever_way_is_better():
    rows = results.cells(FRAME, "terminal", mark=[*FRAME][:-1])
    assert [row["test/mse"] for row in rows] == ["0.2 ± 0.02", "0.1 ± 0.013 *", ""]
    assert [row["test/elbo"] for row in rows] == ["-80 *", "-90", "-85"]
    assert [row["test/kl"] for row in rows] == ["1", "2", "3"], "of a KL none is better"
    assert [row["seconds"] for row in rows] == ["1", "2", "3"]
    assert not any("*" in cell for row in results.cells(FRAME, "terminal") for cell in row.values())


def test_only_what_can_be_compared_has_a_best():
    names = ["test/loss", "test/elbo", "test/mse", "seconds"]
    metrics = dict.fromkeys(names[:3], 1.0)
    bits, grey = run("a", "vae", metrics, likelihood="bernoulli"), run("b", "vae", metrics, likelihood="gaussian")
    assert markable([bits, bits], names) == names[:3]
    assert markable([bits, grey], names) == ["test/mse"], "a density is no probability"
    assert markable([bits, run("c", "gan", {"test/loss": 1.0})], names) == ["test/elbo", "test/mse"]
    assert markable([bits, run("d", "vae", metrics, {"aelab.data_fingerprint": "other"})], names) == []


def test_no_combination_is_the_best_if_all_are_equally_good():
    low, high, other = (run(str(lr), "vae", {"best/loss": loss}, lr=lr) for lr, loss in [(1, 5.0), (2, 6.0), (3, 5.0)])
    assert results.best_runs([low, high], ["lr"], "best/loss") == [low]
    assert results.best_runs([low, other], ["lr"], "best/loss") == []
    assert results.best_runs([low], ["lr"], "best/loss") == [low]


def test_infinity_is_called_so():
    rows = results.cells(pd.DataFrame({"test/mse": [1.797e308, -1.797e308, 0.5]}), "terminal")
    assert [row["test/mse"] for row in rows] == ["inf", "-inf", "0.5"]


def test_markdown_latex_and_csv():
    lines = results.markdown(FRAME, mark=[*FRAME]).splitlines()
    assert lines[0] == "| run | recipe | test/mse | test/elbo | test/kl | seconds |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: |"
    assert lines[3] == "| b | vae | **0.1 ± 0.013** | -90 | 2 | 2 |"
    latex = results.latex(FRAME, mark=[*FRAME])
    assert "{llrrrr}" in latex and "a\\_1 & vae & 0.2 $\\pm$ 0.02" in latex and "\\textbf{0.1 $\\pm$ 0.013}" in latex
    odd = results.latex(pd.DataFrame({"50 % & more": ["x_1 {#}"]}))
    assert "50 \\% \\& more" in odd and "x\\_1 \\{\\#\\}" in odd
    head, first, *_ = results.csv(FRAME).splitlines()
    assert head.split(",")[:4] == ["run", "recipe", "test/mse", "test/mse sd"] and first.startswith("a_1,vae,0.2,0.02")


# the standard tables


def test_error_against_code_size():
    infos = [*seeds(), run("g", "gan", {"test/loss": 1.0}, latent_dim=2)]
    table = latent_table(infos, none)
    assert list(table["latent_dim"]) == [2, 10] and list(table["runs"]) == [3, 3] and "test/sse sd" in table
    assert latent_table([infos[-1]], none).empty


def test_psnr_against_level():
    metrics = {"test/denoised_psnr": 19.0, "test/linear_denoised_psnr": 17.0, "test/level-0.25/denoised_psnr": 20.0,
               "test/level-0.1/denoised_psnr": 18.0, "test/nothing_denoised_psnr": 6.0}  # fmt: skip
    table = noise_table([run("d", "denoising", metrics, level=0.5), run("v", "vae")], none)
    assert list(table["level"]) == [0.1, 0.25, 0.5] and list(table["d"]) == [18, 20, 19]
    assert table["d linear filter"][2] == 17 and table["d left alone"][2] == 6


def test_the_losses_of_a_generator():
    points = {"minimax": [(1, 0.1), (100, 0.3), (200, 9.0)], "non-saturating": [(1, 2.0), (100, 4.0), (200, 9.0)]}
    infos = [run(name, "gan", loss=name) for name in points]
    table = losses_table(infos, lambda info, metric: points[info.name])
    assert list(table["mean g_grad_norm"]) == pytest.approx([0.2, 3]), "the first 100 steps only"
    assert list(table["least g_grad_norm"]) == pytest.approx([0.1, 2])


def test_error_against_labels_is_paired_by_seed():
    infos = [
        run(f"{arm}{s}", "pretrained", {"val/error": e, "test/error": e}, labels=100, finetune=2, seed=s, pretrain=arm)
        for arm, errors in ((True, (20.0, 24.0)), (False, (21.0, 27.0))) for s, e in enumerate(errors)
    ]  # fmt: skip
    (row,) = results.records(labels_table(infos, none))
    assert (row["labels"], row["pairs"], row["unpaired"], row["difference"]) == (100, 2, 0, pytest.approx(-2))
    assert row["difference sd"] == pytest.approx(math.sqrt(2))
    longer = [replace(info, params={**info.params, "pseudo_label": "4"}, name=f"{info.name}-4") for info in infos[1:]]
    rows = {row["pseudo_label"]: row for row in results.records(labels_table([*infos, *longer], none))}
    assert rows.keys() == {"", 4}, "runs of other options are rows of their own"
    assert (rows[""]["pairs"], rows[""]["difference"]) == (2, pytest.approx(-2))
    four = rows[4]  # the pretrained run of seed 0 is missing
    assert (four["pairs"], four["unpaired"], four["difference"]) == (1, 1, pytest.approx(-3))
    assert (four["pretrained test/error"], four["scratch test/error"]) == (24, 27), (
        "the pairs' means, as the difference is"
    )
    (alone,) = results.records(labels_table(infos[:2], none))
    assert (alone["pairs"], alone["unpaired"], alone["difference"]) == (0, 2, None)
    assert alone["pretrained test/error"] == 22


def test_draws_of_two_data_sets_are_no_pair():
    """The seed draws the labels from one data set; another split has others."""
    infos = [
        run(arm, "pretrained", {"val/error": 1.0}, {"aelab.data_fingerprint": arm}, labels=9, finetune=2, seed=0, pretrain=arm)
        for arm in (True, False)
    ]  # fmt: skip
    (row,) = results.records(labels_table(infos, none))
    assert (row["pairs"], row["unpaired"]) == (0, 2)


def test_the_newest_evaluated_run_of_each_recipe():
    infos = [
        run("new", "vae", {"test/loss": 1.0, "test/sse": 5.0}), run("old", "vae", {"test/loss": 2.0}), run("open", "gan"),
        run("far", "linear", {"test/loss": 1.0}, {"aelab.data_fingerprint": "other"}),
    ]  # fmt: skip
    assert list(models_table(infos, none)["run"]) == ["new"]


def test_no_model_is_the_best_for_its_longer_code():
    metrics = {"test/loss": 1.0, "test/sse": 5.0, "test/pca_sse": 7.0, "test/ssim": 0.5, "test/sharpness": 1.0}
    infos = [
        run(name, name, metrics, latent_dim=size) for name, size in (("linear", 10), ("vae", 10), ("denoising", 512))
    ]
    table = models_table(infos, none)
    columns = list(table)
    assert columns.index("test/pca_sse") == columns.index("test/sse") + 1
    assert list(table["test/pca_sse"]) == [7.0] * 3, "the PCA of each one's code size"
    assert [name for name in markable(infos, columns) if "/" in name] == [
        name for name in columns if "/" in name and name not in ("test/sse", "test/pca_sse", "test/ssim")
    ]
    assert "test/sse" in markable(infos[:2], columns)
    longer = replace(infos[2], metrics={"test/loss": 1.0})
    assert "test/sse" in markable([*infos[:2], longer], columns), "a run without the metric does not count"


def test_a_parent_that_is_none_hides_no_run():
    runs = [
        replace(run(name), tags={**run(name).tags, "mlflow.parentRunId": parent * 4})
        for name, parent in (("a", "a"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "f"), ("f", "x"), ("g", "f"))
    ]
    assert sorted(info.name for info in listing_order(runs)) == list("abcdefg")
    assert [info.name for info in listing_order(runs)][-3:] == ["f", "g", "e"]


def test_csv_holds_no_formula():
    frame = pd.DataFrame({"run": ["=1+1", "@x", "+a", "-b", "-1.5", "a=b"], "=2": [-1.0, 2.0, -3.0, 0.5, -0.25, None]})
    lines = results.csv(frame).splitlines()
    assert lines == ["run,'=2", "'=1+1,-1.0", "'@x,2.0", "'+a,-3.0", "'-b,0.5", "-1.5,-0.25", "a=b,"]


# the verbs


@pytest.fixture
def two(cli, monkeypatch):
    monkeypatch.setattr("aelab.evaluation.classifier.EPOCHS", 1)
    monkeypatch.setattr("aelab.evaluation.generation.MAX_IMAGES", 500)
    for seed in (0, 1):
        cli(
            "train",
            "vae",
            "--data",
            "digits",
            "--epochs",
            1,
            "--latent-dim",
            3,
            "--seed",
            seed,
            "--name",
            f"v{seed}",
            "-q",
        )
    assert cli("eval", "v0", "v1", "--samples", 2, "--no-figures", "-q").code == 0


def test_compare_in_all_its_forms(two, cli, here):
    answer = cli("compare", "--group-by", "recipe", "--metric", "test/sse", "--json").json["runs"]
    assert len(answer) == 1 and answer[0]["runs"] == 2 and answer[0]["test/sse sd"] > 0
    assert "test/fd_lenet" in cli("compare").out and " *" in cli("compare").out
    assert cli("compare", "--csv").out.startswith("run,recipe,seed")
    assert cli("compare", "--markdown").out.startswith("| run |")
    assert "\\toprule" in cli("compare", "--latex").out
    pivoted = cli("compare", "--rows", "latent_dim", "--columns", "seed", "--metric", "test/sse", "--json").json["runs"]
    assert pivoted[0].keys() == {"latent_dim", "seed 0", "seed 1"}
    models = cli("compare", "v0", "v1", "--table", "models")
    assert "recipe" in models.out and "or not the newest: v0\n" in models.err
    drawn = cli("compare", "v0", "v1", "--pictures", "sheets")
    assert drawn.code == 0 and sorted(p.name for p in (here / "sheets").iterdir()) == [
        "reconstructions.png",
        "samples.png",
    ]
    for words, hint in (
        (("--rows", "seed"), "--columns"), (("--json", "--csv"), "one of"), (("--metric", "test/of_mine"), "of_mine"),
        (("--table", "latent", "--metric", "test/mse"), "--metric"), (("--metric", "mse"), "test/mse"),
    ):  # fmt: skip
        answer = cli("compare", *words)
        assert answer.code == 2 and hint in answer.err, words
    assert "level" in cli("compare", "--table", "noise").err or cli("compare", "--table", "noise").code == 1


def test_a_run_is_shown_registered_exported_and_removed(two, cli, here):
    assert "latent_dim" in cli("runs", "show", "v0").out and "test/marginal_nll" in cli("runs", "show", "v0").out
    assert cli("runs", "show", "v0", "--json").json["params"]["latent_dim"] == "3"
    assert "version 1" in cli("runs", "register", "v0", "digits", "--alias", "best").out
    assert "version 2" in cli("runs", "register", "v1", "digits", "--alias", "best").out
    assert cli("runs", "show", "models:/digits@best", "--json").json["name"] == "v1"
    assert cli("runs", "show", "models:/digits/1", "--json").json["name"] == "v0"
    assert cli("sample", "models:/digits@best", "-q").code == 0
    for name in ("models:/digits@worst", "models:/other@best", "models:digits"):
        assert cli("eval", name).code == 2
    assert "are: best" in cli("eval", "models:/digits@worst").err
    exported(cli, here)
    recipe, registered = cli("runs", "rm", "vae"), cli("runs", "rm", "v0")
    assert recipe.code == 2 and "aelab runs rm v1" in recipe.err
    assert registered.code == 2 and "models:/digits/1" in registered.err
    assert len(cli("runs", "--json").json["runs"]) == 2
    answer = cli("runs", "rm", "v0", "--force")
    assert answer.code == 0 and "v0" in answer.out
    assert cli("eval", "models:/digits/1").code == 2
    assert [row["name"] for row in cli("runs", "--json").json["runs"]] == ["v1"]
    assert cli("runs", "rm", "v0").code == 2
    assert (here / "mlruns").exists()


def exported(cli, here):
    """A model written to a folder works without aelab."""
    answer = cli("runs", "export", "v0", "out", "--programs")
    assert answer.code == 0, answer.err
    assert cli("runs", "export", "v0", "out").code == 2, "never over something"
    card = (here / "out" / "README.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0]
    assert len(lines.splitlines()) <= 12
    script = f"""
import sys
from dataclasses import replace
{lines}
import aelab
for module in (aelab, sys.modules["aelab.recipe"], sys.modules["aelab.networks"]):
    assert module.__file__.startswith({str(here / "out")!r}), module.__file__
assert not any(name in sys.modules for name in ("mlflow", "typer", "aelab.training.trainer"))
assert x.shape == (1, 1, 8, 8) and samples.shape == (16, 1, 8, 8)
z, images = torch.randn(5, 3), torch.rand(7, 1, 8, 8)
with torch.no_grad():
    torch.testing.assert_close(torch.export.load("decoder.pt2").module()(z), model.decode(z))
    torch.testing.assert_close(torch.export.load("encoder.pt2").module()(images), model.encode(images))
"""
    (here / "out" / "load.py").write_text(script)
    done = subprocess.run([sys.executable, "load.py"], cwd=here / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "out" / "config.json").read_text())["options"]["latent_dim"] == 3
    assert Path("out/example.png").stat().st_size > 500


def test_a_sampler_of_many_steps_is_exported_without_a_program(cli, here):
    cli("train", "pixelcnn", "--data", "digits", "--width", 4, "--depth", 1, "--max-steps", 2, "--name", "m", "-q")
    answer = cli("runs", "export", "m", "out", "--programs")
    assert answer.code == 0
    assert "no decoder.pt2: PixelCNN draws an image in many steps" in answer.err
    assert (here / "out" / "model.safetensors").exists() and not list((here / "out").glob("*.pt2"))
    assert ".pt2" not in (here / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["recurrent", "linear"])
def test_a_model_with_loops_or_shared_weights_is_exported(name, cli):
    cli("train", name, "--data", "digits", "--max-steps", 2, "--name", "m", "-q")
    answer = cli("runs", "export", "m", "out", "--programs")
    assert answer.code == 0 and "decoder.pt2" in answer.out + ("decoder.pt2" if name == "pretrained" else ""), (
        answer.err
    )
