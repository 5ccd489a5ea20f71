"""Sweeps: what is typed for them, the points that they train, their table, their figure and their best point; searches."""

import math
import signal
import statistics
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import aelab
from aelab import recipe_files
from aelab.figures import sweep_figure
from aelab.results import best_runs, sweep_values
from aelab.tracking import Store
from aelab.workflows import Stopped, launching, plan_sweep, searching
from aelab.workflows.space import Range, lists, space

QUICK = {"data": "digits", "max_steps": 2}
WORDS = ("--data", "digits", "--max-steps", 2)


def values(recipe="vae", **given):
    return lists(recipe_files.find(recipe), given)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"latent_dim": "2,5,10"}, [2, 5, 10]),
        ({"latent_dim": "2..5"}, [2, 3, 4, 5]),
        ({"latent_dim": ["2..4", "4,9"]}, [2, 3, 4, 9]),
        ({"latent_dim": "1..100:log:3"}, [1, 10, 100]),
        ({"lr": "1e-4..1e-2:log:3"}, [1e-4, 1e-3, 1e-2]),
        ({"lr": "1e-4..1e-2:log:5"}, [1e-4, 0.0003162, 1e-3, 0.003162, 1e-2]),
        ({"beta": "0..1:5"}, [0, 0.25, 0.5, 0.75, 1]),
        ({"beta": ".5..1:2"}, [0.5, 1]),
        ({"net": "mlp,conv"}, ["mlp", "conv"]),
        ({"conditional": "true,false"}, [True, False]),
        ({"seed": range(3)}, [0, 1, 2]),
        ({"epochs": "5,10"}, [5, 10]),
        ({"ema": "0,0.99"}, [0.0, 0.99]),
        ({"data": "digits,mnist-5k"}, ["digits", "mnist-5k"]),
        ({"augment": ["shift,flip", "flip"]}, ["flip,shift", "flip"]),
        ({"latent_dim": np.array([2, 3])}, [2, 3]),
        ({"latent_dim": 7}, [7]),
        ({"patience": "none,3"}, [None, 3]),
        ({"augment": ["none", "flip"]}, [None, "flip"]),
        ({"start": "none,base"}, [None, "base"]),
    ],
    ids=str,
)
def test_what_is_typed_for_an_option(given, wanted):
    (name,) = given
    assert values(**given)[name] == pytest.approx(wanted) if name == "lr" else values(**given)[name] == wanted


def test_an_option_with_several_numbers_has_one_value_each_time_it_is_given(caplog):
    caplog.set_level("INFO")
    assert values("stacked", hidden=["500,250", "300"])["hidden"] == [(500, 250), (300,)]
    assert "write hidden=500 hidden=250" not in caplog.text
    assert values("stacked", hidden="500,250")["hidden"] == [(500, 250)]
    assert (
        "hidden=500,250 is one value, a list of numbers; for several values write hidden=500 hidden=250" in caplog.text
    )
    assert values("stacked", hidden=[500, 250])["hidden"] == [(500, 250)]
    assert values("stacked", hidden=[[500, 250], [300]])["hidden"] == [(500, 250), (300,)]


def test_a_search_takes_a_range_as_it_is():
    found = space(recipe_files.find("vae"), {"lr": "1e-4..1e-2:log", "latent_dim": "2..8"}, search=True)
    assert found == {"lr": Range(1e-4, 1e-2, True), "latent_dim": Range(2, 8, False)}
    assert found["latent_dim"].whole and not found["lr"].whole


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["latentdim=2,3"], "Did you mean latent_dim"),
        (["latent_dim=0,2"], "latent_dim: '0' should be greater"),
        (["latent_dim=9..2"], "is empty"),
        (["latent_dim=two"], "latent_dim: 'two'"),
        (["latent_dim="], "write an option and its values"),
        (["latent_dim"], "write an option and its values"),
        (["lr=1e-4..1e-2"], "say how many values"),
        (["beta=0..1:log:5"], "begins above 0"),
        (["net=mlp..conv"], "a range needs numbers"),
        (["latent_dim=2..3:1"], "2 to 1,000 values"),
        (["latent_dim=1..2000"], "more than 1,000"),
        (["latent_dim=2"], "nothing varies"),
        ([], "nothing varies"),
        (["epochs=0,1"], "epochs: '0'"),
        (
            ["samples=1,5", "beta=1,2"],
            "samples 5, beta 2: vae does not accept these options: --beta cannot be combined with --samples above 1",
        ),
        (["seed=1,2", "latent_dim=2,3", "--seeds", "2"], "leave --seed and --seeds out"),
        (["max_steps=2,3"], "given twice"),
        (["latent_dim=2,3", "--metric", "best/los"], "Did you mean best/loss"),
        (["latent_dim=2,3", "--metric", "test/loss"], "chosen by validation images"),
        (["latent_dim=2..9", "--trials", "2", "--seeds", "2"], "a search has one seed"),
        (["latent_dim=2..9", "--trials", "2", "--dry-run"], "--dry-run"),
        (["latent_dim=1..999", "width=1..999"], "10,000 at most"),
        (["latent_dim=2,3", "--launcher", "slurm", "--slurm", "time"], "NAME=VALUE"),
        (["device=cpu,auto"], "are the same training"),
        (["latent_dim=2,3", "--device", "cuda:7"], "--device cuda:7: this machine"),
        (["latent_dim=2,3", "--device", "cuda:7", "--dry-run"], "--device cuda:7: this machine"),
        (["latent_dim=2,3", "--metric", "best/los", "--dry-run"], "Did you mean best/loss"),
        (["latent_dim=2,3", "--slurm", "partition=x", "--dry-run"], "--launcher slurm, which is not given"),
        (["latent_dim=2,3", "--ray", "gpus=1"], "--launcher ray, which is not given"),
        (["latent_dim=2,3", "--ray-address", "10.0.0.1:6379"], "--launcher ray, which is not given"),
        (["latent_dim=2..9", "--trials", "2", "--launcher", "ray"], "a search trains on this machine"),
        (["trials=1,2"], "trials cannot vary: it is an option of the sweep itself"),
        (["lr=1e-9..1:log:1000000"], "2 to 1,000 values"),
        (["lr=1e-3..1e-1:3:log"], "a range is LOW..HIGH"),
        (["latent_dim=2..1000000000"], "999,999,999 values are more than 1,000"),
        (["epochs=none,3"], "epochs: 'none' should be a valid integer"),
        (["latent_dim=2..6:9"], "there are only 5 whole numbers"),
        (["latent_dim=2,,3"], "a value is empty"),
        (["conditional=maybe,true"], "'maybe' should be a valid boolean\n"),
        (["beta=1", "--trials", "2"], "there is nothing to search"),
        (["beta=1,2", "--latent-dim", "5"], "write latent_dim=VALUE"),
        (["latent_dim=2,3", "start=nobody"], "there are no runs in this folder"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_trained(cli, typed, says, here):
    answer = cli("sweep", "vae", *typed, *WORDS)
    assert answer.code == 2 and says in answer.err, answer.err
    assert answer.err.count("\n") <= 3 and not list(Path("mlruns").rglob("config.json"))


def test_a_setting_that_a_recipe_cannot_have_is_refused_before_anything_is_trained(cli, here):
    answer = cli("sweep", "linear", "patience=none,3", *WORDS)
    assert answer.code == 2 and "patience 3: --patience: this recipe keeps its last weights" in answer.err
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize("values", ["likelihood=bernoulli,gaussian", "conditional=true,false"])
def test_no_point_is_best_by_a_loss_that_means_different_things(values, cli, here):
    answer = cli("sweep", "vae", values, *WORDS)
    assert answer.code == 0 and "best/loss cannot be compared between these points, so none is best" in answer.err
    assert "\nbest  " not in answer.out and "aelab train" not in answer.err


def test_a_loss_that_is_not_monitored_is_said_to_rank_little(cli, here):
    answer = cli("sweep", "gan", "latent_dim=2,3", *WORDS)
    assert answer.code == 0 and "gan monitors no metric: its loss may not tell which point is better" in answer.err


@pytest.fixture
def swept(here):
    return aelab.sweep("linear", latent_dim=[2, 4], lr=[0.01, 0.1], seed=range(2), **QUICK)


def test_a_grid_trains_each_combination_once_and_its_table_averages_the_seeds(swept, cli):
    assert [run.status for run in swept.runs] == ["FINISHED"] * 8
    assert {run.parent for run in swept.runs} == {swept.info.id}
    by = {}
    for run in swept.runs:
        by.setdefault((int(run.params["latent_dim"]), float(run.params["lr"])), []).append(run.metrics["last/loss"])
    table = swept.table()
    assert list(zip(table["latent_dim"], table["lr"], strict=True)) == sorted(by)
    assert list(table["runs"]) == [2] * 4
    for _, row in table.iterrows():
        found = by[row["latent_dim"], row["lr"]]
        assert row["last/loss"] == pytest.approx(statistics.mean(found))
        assert row["last/loss sd"] == pytest.approx(statistics.stdev(found))
    assert aelab.compare(swept.info.name).equals(table)
    files = {path.name for path in swept.pictures}
    assert files == {"sweep.png", "sweep.svg"}
    answer = cli("compare", swept.info.name, "--out", "map.png")
    best = min(by, key=lambda key: statistics.mean(by[key]))
    assert f"best  latent_dim {best[0]}, lr {best[1]:g}: last/loss" in answer.out
    assert f"aelab train linear --latent-dim {best[0]} --lr {best[1]:g}" in answer.err
    assert Path("map.png").exists()
    command = next(line for line in answer.err.splitlines() if "aelab train" in line).split("aelab ")[1].split()
    assert cli(*command, "--name", "again").code == 0
    again, (first, _) = Store().find("again"), best_runs(swept.runs, swept.varied, swept.metric)
    assert again.tags["aelab.identity"] == first.tags["aelab.identity"], (
        "the printed command trains the best point again"
    )
    found = sweep_values(swept.runs, swept.varied, "last/loss")
    assert len(found) == 8 and all(set(each) == {"latent_dim", "lr"} for each, _ in found), "the seed is no axis"


def test_another_value_trains_only_that_and_the_new_sweep_has_the_old_runs_too(swept):
    more = aelab.sweep("linear", latent_dim=[2, 4, 5], lr=[0.01, 0.1], seed=range(2), **QUICK)
    assert {run.id for run in swept.runs} < {run.id for run in more.runs} and len(more.runs) == 12
    runs = aelab.runs()
    assert len(runs) == 12 + 2, "twelve runs, two parents"
    assert len(aelab.compare(more.info.name)) == 6 and len(aelab.compare(swept.info.name)) == 4
    again = aelab.sweep("linear", latent_dim=[2, 4, 5], lr=[0.01, 0.1], seed=range(2), **QUICK)
    assert again.info.id == more.info.id and len(aelab.runs()) == 14


def test_a_dry_run_prints_the_points_and_writes_nothing(cli, here):
    answer = cli("sweep", "linear", "latent_dim=2,3", *WORDS, "--seeds", 2, "--dry-run", "--json")
    assert [(p["latent_dim"], p["seed"], p["done"]) for p in answer.json["points"]] == [
        (2, 0, False), (2, 1, False), (3, 0, False), (3, 1, False)
    ]  # fmt: skip
    assert not Path("mlflow.db").exists()
    cli("sweep", "linear", "latent_dim=2", *WORDS, "--seeds", 2, "-q")
    answer = cli("sweep", "linear", "latent_dim=2,3", *WORDS, "--seeds", 2, "--dry-run", "--json")
    assert [p["done"] for p in answer.json["points"]] == [True, True, False, False] and answer.json[
        "seconds"
    ] is not None


def test_the_time_of_a_sweep_is_estimated_by_steps(here):
    runs = aelab.sweep("linear", latent_dim=[2, 3], **QUICK).runs
    a_step = statistics.median(run.seconds / 2 for run in runs)
    planned = plan_sweep("linear", latent_dim=[4, 5], data="digits", max_steps=100)
    assert planned.seconds == pytest.approx(2 * 100 * a_step)
    planned = plan_sweep("linear", latent_dim=[4, 5], data="digits", epochs=3)
    (steps,) = {each.plan.config.settings.steps(1318) for each in planned.points}
    assert planned.seconds == pytest.approx(2 * steps * a_step) and steps % 3 == 0


def test_a_dry_run_shows_values_as_they_are_typed(cli, here):
    answer = cli("sweep", "vae", "beta=1,0.5", "conditional=true,false", *WORDS, "--dry-run")
    assert [line.split()[:2] for line in answer.out.splitlines()[1:5]] == [
        ["1", "true"], ["1", "false"], ["0.5", "true"], ["0.5", "false"]
    ], answer.out  # fmt: skip
    answer = cli("sweep", "stacked", "hidden=500,250", "hidden=300", *WORDS, "--dry-run")
    assert [line.split()[0] for line in answer.out.splitlines()[1:3]] == ["500,250", "300"]


def test_a_point_that_starts_from_a_run_is_the_training_that_starts_from_it(cli, here):
    base = aelab.train("linear", latent_dim=2, name="base", **QUICK)
    aelab.train("linear", latent_dim=2, start="base", **QUICK)
    done = aelab.sweep("linear", start=["base", None], latent_dim=2, **QUICK)
    assert [run.params.get("start") for run in done.runs] == [base.id, None]
    assert len(Store().runs("tags.`aelab.kind` = 'run'")) == 2, "both were trained before"


def test_a_finished_run_counts_even_if_it_was_trained_again_and_stopped(swept):
    done = swept.runs[0]
    store = Store()
    tags = {key: value for key, value in done.tags.items() if key.startswith("aelab.")}
    store.create(None, "again", params={}, tags=tags).close("KILLED")
    again = aelab.sweep("linear", latent_dim=[2, 4], lr=[0.01, 0.1], seed=range(2), **QUICK)
    assert {run.id for run in again.runs} == {run.id for run in swept.runs}
    assert store.find("again").status == "KILLED"


def test_points_that_agree_in_four_digits_have_labels_of_their_own(here):
    points = plan_sweep("linear", lr=[0.100001, 0.100002], seed=[0], **QUICK).points
    assert [str(each) for each in points] == ["lr 0.100001", "lr 0.100002"]


BROKEN = '''"""A recipe that fails for some options."""
from torch import nn
from aelab import Recipe

class Broken(Recipe):
    def __init__(self, image, *, width: int = 1):
        super().__init__()
        self.net, self.width, self.steps, self.lr = nn.Linear(1, 1), width, 0, 0.1

    def loss(self, x, y):
        self.steps += self.training
        if self.width == 2 and self.steps > 3:
            raise ValueError("width 2 does not work")
        return self.net(x.mean().view(1, 1)).square().mean(), {}
'''


def test_a_point_that_fails_is_named_and_the_others_go_on(cli, here):
    Path("broken.py").write_text(BROKEN)
    answer = cli("sweep", "./broken.py", "width=1,2,3", "--data", "digits", "--max-steps", 6, "--json")
    assert answer.code == 1 and "1 of 3 points failed" in answer.err
    assert len(answer.json["runs"]) == 2
    (failed,) = answer.json["failed"]
    assert failed.startswith("width 2: ") and "width 2 does not work" in failed
    assert Store().get(answer.json["id"]).status == "FAILED"


def test_a_point_that_another_process_trains_is_waited_for(here, caplog):
    first = plan_sweep("linear", latent_dim=[2, 3], **QUICK).points[0]
    with FileLock(launching.point_lock(Store(), first.plan.identity), thread_local=False) as held:
        threading.Timer(1.5, held.release).start()
        done = aelab.sweep("linear", latent_dim=[2, 3], **QUICK)
    assert len(done.runs) == 2 and "another process trains this point" in caplog.text


def test_a_sweep_that_is_interrupted_says_how_to_continue_all_of_it(cli, here, monkeypatch):
    def stop(*_, **__):
        run = Store().create(None, "one", params={}, tags={})
        run.close("KILLED")
        raise Stopped(signal.SIGINT, run, 3)

    monkeypatch.setattr(launching, "start_run", stop)
    answer = cli("sweep", "linear", "latent_dim=2,3", *WORDS)
    assert answer.code == 130 and answer.err.count("one is saved at step 3.") == 1, answer.err
    assert answer.err.endswith("; all of them: type the same command again\n")


def test_points_may_differ_in_their_data(here):
    done = aelab.sweep("linear", data=["digits", "mnist-5k"], max_steps=2, latent_dim=2)
    assert {run.params["images_train"] for run in done.runs} == {"1318", "3666"} or len(done.runs) == 2
    assert list(done.table()["data"]) == ["digits", "mnist-5k"]


def searched(trials, **more):
    how = {"data": "digits", "epochs": 2, "lr": "1e-4..1e-1:log", "latent_dim": "2..9", **more}
    return aelab.sweep("linear", trials=trials, metric="last/loss", **how)


def tried(parent):
    runs = [run for run in Store().runs() if run.parent == parent]
    return [(run.params["lr"], run.params["latent_dim"]) for run in sorted(runs, key=lambda run: run.started)]


def test_a_search_that_was_stopped_tries_what_an_unstopped_one_does(here, monkeypatch):
    whole = searched(5)
    trials = tried(whole.info.id)
    assert len(set(trials)) == 5 and all(1e-4 <= float(lr) <= 0.1 and 2 <= int(d) <= 9 for lr, d in trials)
    Path("second").mkdir()
    monkeypatch.chdir("second")
    searched(3)
    more = searched(5)
    assert tried(more.info.id) == trials, "the store is the study: it does not matter when the search was stopped"
    assert len(aelab.runs()) == 6 and searched(5).info.id == more.info.id and len(aelab.runs()) == 6


def test_a_search_minimises_a_loss_and_maximises_an_elbo(here):
    how = {"data": "digits", "max_steps": 2, "latent_dim": "2..4"}
    done = aelab.sweep("vae", trials=2, metric="best/elbo", **how)
    (best,) = best_runs(done.runs, done.varied, done.metric)
    assert best.metrics["best/elbo"] == max(run.metrics["best/elbo"] for run in done.runs)
    done = aelab.sweep("vae", trials=2, **how)
    (best,) = best_runs(done.runs, done.varied, done.metric)
    assert done.metric == "best/loss" and best.metrics["best/loss"] == min(r.metrics["best/loss"] for r in done.runs)


def test_a_trial_worse_than_the_median_is_stopped_and_not_tried_again(here, monkeypatch, caplog):
    """Any trial is pruned after its first epoch once two are complete and it is worse than their median then."""
    monkeypatch.setattr(searching, "STARTUP_TRIALS", 2)
    done = aelab.sweep("linear", trials=8, metric="last/loss", data="digits", epochs=3, lr="1e-6..1:log", latent_dim=3)
    runs = [run for run in Store().runs() if run.parent == done.info.id]
    pruned = [run for run in runs if searching.is_pruned(run)]
    assert len(runs) == 8 and pruned and {run.status for run in pruned} == {"KILLED"}
    store = Store()
    first = {run.id: dict(store.curve(run, "val/loss"))[1] for run in runs}
    for run in pruned:
        before = [first[other.id] for other in runs if other.status == "FINISHED" and other.started < run.started]
        assert len(store.curve(run, "val/loss")) < 3
        if len(store.curve(run, "val/loss")) == 1:
            assert first[run.id] > statistics.median(before)
    assert len(done.runs) == 8 - len(pruned) and len(done.table()) == len(done.runs)
    aelab.sweep("linear", trials=8, metric="last/loss", data="digits", epochs=3, lr="1e-6..1:log", latent_dim=3)
    assert len([run for run in Store().runs() if run.parent == done.info.id]) == 8


def test_a_recipe_that_monitors_nothing_needs_a_metric_to_search_by(here):
    how = {"trials": 2, "latent_dim": "2..4", **QUICK}
    with pytest.raises(aelab.UserError, match="say which with --metric"):
        aelab.sweep("gan", **how)
    with pytest.raises(aelab.UserError, match="not defined which values"):
        aelab.sweep("gan", metric="last/d_real", **how)


def test_the_figure_of_a_sweep_shows_means_bands_and_cells():
    points = [({"width": w}, v) for w, v in [(1, 2.0), (1, 4.0), (10, 1.0), (100, 5.0)]]
    axes = sweep_figure(points, "best/loss").axes[0]
    assert list(axes.lines[0].get_ydata()) == [3, 1, 5] and axes.get_xscale() == "log"
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(3 + math.sqrt(2))
    grid = [({"a": a, "b": b}, 10 * a + b) for a in (1, 2) for b in (3, 4, 5)] + [({"a": 1, "b": 3}, 15)]
    figure = sweep_figure(grid, "best/loss")
    assert figure.axes[0].images[0].get_array().tolist() == [[14, 14, 15], [23, 24, 25]]
    assert [text.get_text().partition("\n")[0] for text in figure.axes[0].texts][:2] == ["14", "14"]
    sparse = [({"a": k, "b": 10.0**k}, k) for k in range(5)]
    dots = sweep_figure(sparse, "best/loss").axes[0].collections[0]
    assert dots.get_array().tolist() == [0, 1, 2, 3, 4]
    names = sweep_figure([({"net": net}, 1.0) for net in ("mlp", "conv")], "x").axes[0]
    assert [label.get_text() for label in names.get_xticklabels()] == ["conv", "mlp"]
    assert sweep_figure([({"a": 1, "b": 2, "c": 3}, 1.0)], "x") is None and sweep_figure([], "x") is None


def test_a_run_like_another_has_its_options_but_for_those_that_are_typed(cli):
    cli("train", "linear", *WORDS, "--latent-dim", 3, "--lr", 0.02, "--seed", 4, "--name", "first")
    assert cli("train", "--like", "first", "--lr", 0.5, "--name", "second").code == 0
    first, second = (Store().find(name).params for name in ("first", "second"))
    assert {key for key in first if first[key] != second.get(key)} == {"lr"} and second["lr"] == "0.5"
    assert cli("train", "linear", "--like=first", "--name", "third").code == 0
    assert Store().find("third").tags["aelab.identity"] == Store().find("first").tags["aelab.identity"]
    for typed, says in (
        (["--like"], "needs a run"),
        (["--like", "nothing"], "no run 'nothing'"),
        (["gan", "--like", "first"], "is a run of linear"),
        (["linear", "--like", "first", "--resume", "first"], "give one of them"),
    ):
        answer = cli("train", *typed)
        assert answer.code == 2 and says in answer.err, answer.err
    assert aelab.train_like("first", latent_dim=2).info.params["latent_dim"] == "2"


@pytest.mark.slow
def test_offline_points_in_processes_of_their_own_are_marked_for_sync(here):
    done = aelab.sweep("linear", latent_dim=[2, 3], jobs=2, offline=True, **QUICK)
    assert len(done.runs) == 2 and {run.tags.get("aelab.offline") for run in (done.info, *done.runs)} == {"yes"}
