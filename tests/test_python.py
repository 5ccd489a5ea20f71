"""The Python API: the options and checks of the command line, and what a run can do."""

import logging
import subprocess
import sys

import matplotlib.figure
import pandas as pd
import pytest
import torch

import aelab

TINY = {"data": "digits", "epochs": 1, "net": "mlp", "hidden": (16,)}


@pytest.fixture
def run(here):
    return aelab.train("vae", **TINY, latent_dim=3, name="one")


def test_importing_it_is_light():
    code = (
        "import time; begun = time.process_time(); import aelab, sys; spent = time.process_time() - begun\n"
        "assert not {'torch', 'mlflow', 'pandas', 'numpy', 'typer', 'rich'} & set(sys.modules)\n"
        "assert set(aelab.__all__) <= set(dir(aelab)) and aelab.__version__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_it_is_there_and_explained():
    for name in aelab.__all__:
        assert getattr(aelab, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        aelab.nothing  # noqa: B018


def test_a_run_is_trained_loaded_and_used(run, monkeypatch):
    loaded = aelab.load("vae")
    assert (loaded.id, loaded.name) == (run.id, "one") and loaded.config.options["latent_dim"] == 3
    assert loaded.validation == pytest.approx(run.validation)
    images = loaded.data().test.showcase(5)
    z = loaded.encode(images)
    assert z.shape == (5, 3) and torch.equal(z, run.encode(images.numpy())), "numpy's arrays are taken too"
    assert torch.equal(loaded.reconstruct(images), loaded.decode(z))
    drawn = loaded.sample(300, seed=4)
    assert drawn.shape == (300, 1, 8, 8) and torch.equal(drawn[:2], drawn[:2].clamp(0, 1))
    assert torch.equal(drawn, loaded.sample(300, seed=4)) and not torch.equal(drawn, loaded.sample(300, seed=5))
    names = ["reconstructions", "samples", "interpolation", "elbo", "latent-space"]
    assert set(names) <= set(aelab.figures.available(loaded))
    monkeypatch.setattr("aelab.workflows.run.available", lambda run: names[:2])  # all of them take long
    figures = loaded.figures()
    assert list(figures) == names[:2]
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures.values())


def test_an_evaluation_is_a_series_and_is_logged(run):
    metrics = run.evaluate(plain=True)
    assert isinstance(metrics, pd.Series) and metrics.name == "one"
    errors = run.reconstruct(x := run.data().test.batch(slice(None))[0]) - x
    assert metrics["test/mse"] == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert aelab.load("one").metrics["test/mse"] == metrics["test/mse"]
    quick = aelab.evaluate("one", options={"beta": 2.0}).series()
    assert quick["test/beta-2.0/loss"] > metrics["test/loss"]


def test_the_command_line_and_python_give_the_same_bits(run, cli):
    words = ("train", "vae", "--data", "digits", "--epochs", 1, "--net", "mlp", "--hidden", 16, "--latent-dim", 3)
    assert cli(*words, "--name", "two", "-q").code == 0
    other = aelab.load("two")
    assert other.info.tags["aelab.identity"] == run.info.tags["aelab.identity"]
    for name, value in run.recipe.state_dict().items():
        assert torch.equal(value, other.recipe.state_dict()[name]), name


def test_runs_and_comparisons_are_data_frames(run):
    aelab.train("linear", data="digits", epochs=1, latent_dim=2, name="two")
    listed = aelab.runs()
    assert list(listed["name"]) == ["two", "one"] and list(aelab.runs(recipe="vae")["name"]) == ["one"]
    compared = aelab.compare("one", "two")
    assert set(compared["recipe"]) == {"vae", "linear"} and set(compared["latent_dim"]) == {2, 3}
    assert list(aelab.compare(metrics=["val/mse"], group_by=["recipe"])["runs"]) == [1, 1]


def test_a_sweep_gives_a_table_and_is_not_trained_twice(here, caplog):
    how = {"data": "digits", "epochs": 1, "hidden": [8], "latent_dim": [2, 3], "seed": range(2)}
    table = aelab.compare_latent("stacked", **how).table()
    assert list(table["latent_dim"]) == [2, 3] and list(table["runs"]) == [2, 2] and (table["mse sd"] > 0).all()
    caplog.set_level(logging.INFO, "aelab")
    again = aelab.compare_latent("stacked", **how)
    assert caplog.text.count("is done already") == 4 and again.table()["mse"].equals(table["mse"])
    assert len(aelab.runs()) == 5


def test_a_finished_run_becomes_longer_and_nothing_else(run):
    with pytest.raises(aelab.UserError, match="has finished"):
        aelab.resume("one")
    longer = aelab.resume("one", epochs=2)
    assert longer.id == run.id and longer.info.params["epochs"] == "2" and len(aelab.runs()) == 1


def test_a_model_is_exported(run, here):
    files = {path.name for path in aelab.export("one", "out")}
    assert {"vae.py", "model.safetensors", "config.json", "README.md", "example.png"} <= files


@pytest.mark.parametrize("recipe", ["gan", "vaegan"])
def test_a_run_tells_how_real_images_look(here, recipe):
    run = aelab.train(recipe, data="digits", epochs=1, max_steps=2, name=recipe)
    images = run.data().test.batch(slice(0, 5))[0]
    assert run.discriminate(images).shape == (5,) and torch.isfinite(run.discriminate(images)).all()


def test_pictures_are_logged_to_the_run(run):
    for drawing in (aelab.sample("one", 4), aelab.reconstruct("one", 4), aelab.interpolate("one")["linear"]):
        assert drawing.path.exists() and drawing.path in aelab.load("one").pictures
    assert aelab.sample(run, 4).images.shape == (4, 1, 8, 8)


BAD = {
    "an option out of range": (lambda: aelab.train("vae", latent_dim=0), "latent_dim"),
    "an option of another type": (lambda: aelab.train("vae", latent_dim="many"), "latent_dim"),
    "no option": (lambda: aelab.train("vae", latentdim=2), "Did you mean latent_dim"),
    "a setting out of range": (lambda: aelab.train("vae", epochs=0), "epochs"),
    "a setting of another type": (lambda: aelab.train("vae", seed=1.5), "seed"),
    "no recipe": (lambda: aelab.train("vea"), "Did you mean vae"),
    "no data": (lambda: aelab.train("vae", data="nothing"), "no data set"),
    "no run": (lambda: aelab.load("nothing"), "no run"),
    "no table": (lambda: aelab.compare(table="none"), "no table"),
    "no path": (lambda: aelab.interpolate("one", path="zigzag"), "path: 'zigzag' should be"),
    "no dimension": (lambda: aelab.compare_latent("vae", latent_dim=[]), "whole number"),
    "a name of another type": (lambda: aelab.train("vae", name=3), "name: 3 should be a valid string"),
    "a recipe that is no name": (lambda: aelab.train(3), "recipe: 3 should be"),
    "a text for several": (lambda: aelab.compare(metrics="test/mse"), "metrics: 'test/mse'"),
    "nothing to sweep": (lambda: aelab.compare_latent("vae"), "latent_dim is missing"),
    "no such argument": (lambda: aelab.compare(metric=["test/mse"]), "it has runs, recipe"),
    "no job": (lambda: aelab.compare_latent("vae", latent_dim=2, jobs=0), "jobs: 0 should be"),
    "no sample": (lambda: aelab.sample("one", 0), "n: 0 should be"),
    "no step": (lambda: aelab.interpolate("one", steps=1), "steps: 1 should be"),
    "no recipe of that name": (lambda: aelab.runs(recipe="vea"), "Did you mean vae"),
    "seeds that are none": (lambda: aelab.compare_latent("vae", latent_dim=2, seed="ab"), "whole number"),
    "what it cannot do": (lambda: aelab.compare_latent("gan", latent_dim=2, data="digits"), "does not reconstruct"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_user_error_in_a_few_lines(name, run):
    call, says = BAD[name]
    with pytest.raises(aelab.UserError, match=says) as caught:
        call()
    assert str(caught.value).count("\n") <= 2
    assert len(aelab.runs()) == 1, "nothing was trained"


def test_images_of_another_shape_or_scale_are_refused(run):
    with pytest.raises(aelab.UserError, match="1 x 8 x 8"):
        run.encode(torch.rand(2, 1, 9, 8))
    with pytest.raises(aelab.UserError, match="divide them by 255"):
        run.encode(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    for codes in ([[0.0, 1.0]], [1.0], "codes"):
        with pytest.raises(aelab.UserError, match=r"one (takes|does not take)"):
            run.decode(codes)
    gan = aelab.train("gan", data="digits", max_steps=2, hidden=8)
    for what in (gan.encode, gan.reconstruct):
        with pytest.raises(aelab.UserError, match=r"cannot encode|does not reconstruct"):
            what(torch.rand(2, 1, 8, 8))


def test_it_writes_to_the_log_and_not_to_the_screen(here, capfd, caplog):
    caplog.set_level(logging.INFO, "aelab")
    aelab.train("linear", data="digits", max_steps=3)
    assert "3 steps" in caplog.text and "hardly trained" in caplog.text
    assert capfd.readouterr().out == ""


def test_it_trains_in_a_thread_too(here):
    from threading import Thread

    trained = []
    thread = Thread(target=lambda: trained.append(aelab.train("linear", data="digits", max_steps=3)))
    thread.start()
    thread.join()
    assert trained[0].info.status == "FINISHED"
