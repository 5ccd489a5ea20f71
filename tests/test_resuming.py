"""Which run a resume means, and what a run says of itself once it is longer."""

import os
import shlex
import signal

from aelab.tracking import Store
from aelab.workflows.signals import Interrupted

SHORT = ("--data", "digits", "--max-steps", 4, "-q")


def stopped(cli, monkeypatch, *words):
    """Types a training that is stopped before its first step."""

    def follow(trainer, run, checkpoints, stop, watch):
        checkpoints.save(trainer)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        raise Interrupted(trainer.progress.step)

    with monkeypatch.context() as patched:
        patched.setattr("aelab.workflows.following.follow", follow)
        assert cli(*words, *SHORT).code == 130


def test_a_recipe_or_nothing_means_the_newest_run_that_was_stopped(cli, monkeypatch):
    answer = cli("resume")
    assert answer.code == 2 and "there are no runs in this folder" in answer.err
    stopped(cli, monkeypatch, "train", "linear", "--name", "first")
    stopped(cli, monkeypatch, "train", "linear", "--name", "second", "--seed", 1)
    stopped(cli, monkeypatch, "train", "stacked", "--name", "other")
    assert cli("train", "linear", *SHORT, "--seed", 2, "--name", "done").code == 0
    status = lambda: {info.name: info.status for info in Store().runs()}  # noqa: E731
    answer = cli("resume", "linear")
    assert answer.code == 0 and "second  is the newest run of linear that can be resumed" in answer.err, answer.err
    assert status() == {"first": "KILLED", "second": "FINISHED", "other": "KILLED", "done": "FINISHED"}
    answer = cli("resume")
    assert answer.code == 0 and "other  is the newest run that can be resumed" in answer.err, answer.err
    answer = cli("train", "linear", "--resume", "linear")
    assert answer.code == 0 and "first  is the newest" in answer.err, answer.err
    assert set(status().values()) == {"FINISHED"}
    for words in (("resume",), ("resume", "linear"), ("train", "--resume", "linear")):
        answer = cli(*words)
        assert answer.code == 2 and "done, has finished" in answer.err and "--epochs N" in answer.err, answer.err
        assert len(answer.err.splitlines()) <= 3


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(cli, monkeypatch):
    def follow(trainer, run, checkpoints, stop, watch):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        raise Interrupted(0)

    with monkeypatch.context() as patched:
        patched.setattr("aelab.workflows.following.follow", follow)
        assert cli("train", "linear", *SHORT, "--name", "early").code == 130
    answer = cli("resume", "early")
    assert answer.code == 0 and Store().find("early").status == "FINISHED", answer.err


def test_the_runs_of_a_sweep_come_last_and_those_that_cannot_go_on_are_passed_over(cli, monkeypatch):
    stopped(cli, monkeypatch, "train", "linear", "--name", "alone")
    store = Store()
    tags = {"aelab.recipe": "linear", "aelab.kind": "run"}
    store.create(None, "empty", params={}, tags=tags).close("KILLED")  # before its configuration was written
    parent = store.find("alone").id
    stopped(cli, monkeypatch, "train", "linear", "--name", "point", "--seed", 1)
    store.client.set_tag(store.find("point").id, "mlflow.parentRunId", parent)
    stopped(cli, monkeypatch, "train", "linear", "--name", "nan", "--seed", 2)
    store.client.set_tag(store.find("nan").id, "aelab.diagnostics", "not finite: loss nan")
    for name in ("alone", "point"):
        answer = cli("resume", "linear")
        assert answer.code == 0 and f"{name}  is the newest" in answer.err, answer.err
    answer = cli("resume")
    assert answer.code == 2 and "the newest, nan, was killed (stopped by SIGINT)" in answer.err


def test_a_run_that_has_become_longer_shows_the_epochs_that_it_has(cli):
    words = ("train", "linear", "--data", "digits", "--batch-size", 1000, "-q", "--epochs")
    assert cli(*words, 2, "--name", "longer").code == 0
    assert cli(*words, 2, "--name", "short", "--seed", 1).code == 0
    answer = cli("resume", "longer", "--epochs", 4)
    assert answer.code == 0, answer.err
    assert cli("resume", "linear", "--epochs", 5).code == 0, "of a recipe the newest one"
    for name, epochs in (("longer", "4"), ("short", "5")):
        assert cli("runs", "show", name, "--json").json["params"]["epochs"] == epochs
        shown = [line.split() for line in cli("runs", "show", name).out.splitlines()]
        assert ["epochs", epochs] in shown
    rows = cli("compare", "longer", "short", "--json").json["runs"]
    assert {row["run"]: row["epochs"] for row in rows} == {"longer": 4, "short": 5}
    rows = cli("compare", "--group-by", "epochs", "--metric", "last/loss", "--json").json["runs"]
    assert [row["epochs"] for row in rows] == [4, 5]
    assert cli("resume", "longer", "--epochs", 6).code == 0
    info = Store().find("longer")
    assert info.params["epochs"] == "6" and Store().client.get_run(info.id).data.params["epochs"] == "2"


def test_what_is_to_be_typed_next_can_be_pasted_whatever_the_name(cli):
    name = "$(touch pasted) it's"
    answer = cli("train", "linear", "--data", "digits", "--max-steps", 1, "--name", name)
    assert shlex.quote(name) in answer.err and f"eval {name}" not in answer.err
    answer = cli("resume", name)
    assert answer.code == 2 and answer.err.count(shlex.quote(name)) == 2
    card = Store().find(name).tags["mlflow.note.content"]
    assert f"aelab eval {shlex.quote(name)}" in card
