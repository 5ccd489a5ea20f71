"""The kept weights as a model of MLflow's: loaded, asked, served, measured; sent once, whatever happens."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import aelab
from aelab.tracking import Store, models
from aelab.workflows import pyfunc, register

SMALL = {
    "vae": {"latent_dim": 2, "net": "mlp", "hidden": (8,)},
    "pretrained": {"latent_dim": 4, "hidden": (8,), "pretrain": False, "finetune": 1},
    "gan": {"conditional": True},
    "pixelcnn": {"width": 4, "depth": 1},
}


def trained(recipe="vae", name="one", **options):
    return aelab.train(recipe, data="digits", max_steps=2, name=name, **SMALL.get(recipe, {}), **options)


def client():
    return MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")


def models_in(store):
    return sorted(
        (model for info in store.runs() for model in models.models_of(store.client, info)), key=lambda each: each.name
    )


def loaded(address, uri=None):
    """The model as MLflow loads it, for somebody who has no aelab in mind."""
    mlflow.set_tracking_uri(uri or f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    return mlflow.pyfunc.load_model(address)


@pytest.fixture(autouse=True)
def afterwards(in_a_store):
    yield
    mlflow.set_tracking_uri(None)


def address(run):
    return f"models:/{run.info.tags['aelab.model']}"


@pytest.mark.parametrize("recipe", list(SMALL))
def test_a_model_answers_as_its_run_does(recipe):
    run = trained(recipe)
    model = loaded(address(run))
    images = run.data().test.images[:3].float() / 255
    codes = run.recipe.sample_prior(3) if recipe == "pixelcnn" else None
    wanted = {
        "vae": {"reconstruct": run.reconstruct, "encode": run.encode},
        "pretrained": {"classify": run.classify, "encode": run.encode},
        "gan": {},
        "pixelcnn": {"decode": run.decode},
    }[recipe]
    for k, (task, function) in enumerate(wanted.items()):
        x = images if codes is None else codes
        answer = model.predict(x.numpy(), params={"task": task})
        np.testing.assert_array_equal(answer, function(x).numpy())
        if k == 0:
            np.testing.assert_array_equal(model.predict(x.numpy()), answer, "the first task is the default")
            declared = model.metadata.signature.outputs.inputs[0].shape
            assert declared[1:] == answer.shape[1:] and declared[0] == -1
    example = model.input_example
    assert example is None or example.dtype == np.float32
    x = np.asarray(json.loads((folder_of(run) / "input_example.json").read_text()), np.float32)
    if recipe != "pretrained":
        for asked in ({"n": 2, "seed": 5}, {}):
            answer = model.predict(x, params={"task": "sample", **asked})
            np.testing.assert_array_equal(answer, run.sample(asked.get("n", 64), seed=asked.get("seed", 0)).numpy())
    if recipe == "gan":
        answer = model.predict(x, params={"task": "sample", "label": "7", "n": 2})
        np.testing.assert_array_equal(answer, run.sample(2, label="7").numpy())
        with pytest.raises(MlflowException, match="digits has no class 'seven'"):
            model.predict(x, params={"task": "sample", "label": "seven"})


def folder_of(run):
    return run.folder.parents[1] / "models" / run.info.tags["aelab.model"] / "artifacts"


def test_what_a_model_cannot_do_is_said():
    run = trained()
    model = loaded(address(run))
    images = np.zeros((2, 1, 8, 8), np.float32)
    with pytest.raises(MlflowException, match=r"no task 'encod'. Did you mean encode.*\n.*reconstruct, encode, sample"):
        model.predict(images, params={"task": "encod"})
    with pytest.raises(MlflowException, match="does not match expected shape"):
        model.predict(images[:, :, :7], params={"task": "encode"})
    with pytest.raises(MlflowException, match="n: 0 should be greater than or equal to 1"):
        model.predict(images, params={"task": "sample", "n": 0})
    served = pyfunc._load_pyfunc(str(folder_of(run) / "data"))  # where MLflow's own checks are not in the way
    with pytest.raises(MlflowException, match="takes images"):
        served.predict(images[:, :, :7])


def test_a_model_has_what_the_pages_of_mlflow_show():
    run = trained()
    (model,) = models_in(Store())
    assert model.status == "READY" and model.name == "one-step2" and model.source_run_id == run.id
    assert model.params["latent_dim"] == "2"
    assert [(each.model_id, each.step) for each in client().get_run(run.id).outputs.model_outputs] == [
        (model.model_id, 2)
    ]
    best = {each.key: (each.value, each.dataset_name, each.dataset_digest) for each in model.metrics}
    assert len(client().get_metric_history(run.id, "best/loss")) == 1, "the run has its point once"
    assert best["best/loss"] == (run.metrics["best/loss"], "digits", run.data().digest)
    pinned = (folder_of(run) / "requirements.txt").read_text().splitlines()
    assert f"aelab=={aelab.__version__}" in pinned and all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in pinned)
    assert not list(run.folder.glob("model-*")), "it lies in one place"


def test_the_metrics_of_an_evaluation_are_those_of_the_model_and_its_data():
    run = trained()
    measured = aelab.evaluate("one", plain=True, figures=False).report.metrics
    (model,) = models_in(Store())
    logged = {each.key: each for each in model.metrics}
    assert {key: logged[key].value for key in measured} == measured
    mse = logged["test/mse"]
    assert (mse.dataset_name, mse.dataset_digest) == ("digits", run.data().digest)
    inputs = client().get_run(run.id).inputs.dataset_inputs[0].dataset
    assert (inputs.name, inputs.digest) == (mse.dataset_name, mse.dataset_digest), "MLflow opens the data by them"
    aelab.evaluate("one", plain=True, figures=False)
    assert len(client().get_metric_history(run.id, "test/mse")) == 1, "what is known is not logged again"


def test_a_longer_run_has_another_model_and_the_first_stays():
    run = aelab.train("vae", data="digits", epochs=1, name="one", **SMALL["vae"])
    first = run.info.tags["aelab.model"]
    longer = aelab.resume("one", epochs=2)
    names = [model.name for model in models_in(Store())]
    assert names == ["one-step20", "one-step40"] and longer.info.tags["aelab.model"] != first
    assert address(longer).endswith(next(m.model_id for m in models_in(Store()) if m.name == "one-step40"))


def test_while_a_run_goes_on_its_metrics_belong_to_no_older_model(monkeypatch):
    trained()
    store = Store()
    run = store.reopen(store.find("one"))
    run.close("KILLED")
    store.add_metrics(store.find("one"), {"test/mse": 0.5}, ("digits", "0"))
    (model,) = models_in(store)
    assert "test/mse" not in {each.key for each in model.metrics} and store.find("one").metrics["test/mse"] == 0.5


def test_a_model_that_could_not_be_sent_is_sent_by_sync_and_once(cli, monkeypatch):
    upload = MlflowClient.log_model_artifacts

    def fail(*arguments, **named):
        raise OSError("connection broken")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", fail)
    monkeypatch.setattr("aelab.tracking.sender.END_SECONDS", 1.0)
    with pytest.raises(aelab.UserError, match="aelab sync"):
        trained()
    (left,) = models_in(Store())
    assert left.status == "PENDING"
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    answer = cli("sync")
    assert answer.code == 0, answer.err
    (model,) = models_in(Store())
    assert model.model_id == left.model_id and model.status == "READY"
    run = aelab.load("one")
    assert run.info.status == "FINISHED" and not list(run.folder.glob("model-*"))
    assert loaded(address(run)).predict(np.zeros((1, 1, 8, 8), np.float32)).shape == (1, 1, 8, 8)
    assert "0 runs sent" in cli("sync").out


def test_a_server_without_models_is_named_and_the_run_finishes(monkeypatch, caplog):
    def missing(*arguments, **named):
        raise MlflowException("API request to endpoint /api failed with error code 404 != 200")

    monkeypatch.setattr(MlflowClient, "search_logged_models", missing)
    run = trained()
    assert run.info.status == "FINISHED" and "a server of MLflow 3 is needed" in caplog.text


def test_a_run_that_was_trained_offline_takes_its_model_along(cli, here, empty_store):
    run = trained(offline=True)
    aelab.evaluate("one", plain=True, figures=False)
    (local,) = models_in(Store())
    (here / "lab").mkdir()
    shutil.copy(empty_store, "lab/mlflow.db")
    uri = f"sqlite:///{here}/lab/mlflow.db"
    assert cli("sync", "--tracking-uri", uri).code == 0
    there = Store(uri)
    (model,) = models_in(there)
    assert model.source_run_id == there.find("one").id != run.id and model.model_id != local.model_id
    assert {m.key: m.value for m in model.metrics} == {m.key: m.value for m in local.metrics}
    assert there.find("one").tags["aelab.model"] == model.model_id
    shutil.rmtree(here / "mlruns")
    assert loaded(f"models:/{model.model_id}", uri).metadata.model_id == model.model_id
    aelab.evaluate("one", plain=True, figures=False, tracking_uri=uri)
    assert cli("sync", "--tracking-uri", uri).code == 0 and len(models_in(there)) == 1


def test_a_registered_run_is_loaded_by_its_alias_also_one_that_had_no_model(cli):
    run = trained()
    client().delete_logged_model(run.info.tags["aelab.model"])
    assert "version 1" in cli("runs", "register", "one", "digits").out
    x = np.zeros((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(loaded("models:/digits@best").predict(x), run.reconstruct(torch.tensor(x)).numpy())
    assert aelab.load("models:/digits@best").id == run.id
    assert "version 2" in cli("runs", "register", "one", "digits").out
    (model,) = models_in(Store())
    versions = [(each["name"], int(each["version"])) for each in json.loads(model.tags["mlflow.modelVersions"])]
    assert versions == [("digits", 1), ("digits", 2)], "MLflow's page of the model shows them"


def test_a_run_whose_recipe_is_gone_is_registered_by_its_files(here, caplog):
    (here / "recipes").mkdir()
    source = (Path(aelab.__file__).parents[1] / "recipes/stacked.py").read_text()
    (here / "recipes/mine.py").write_text(source)
    run = aelab.train("mine", data="digits", max_steps=1, hidden=[8], name="one")
    client().delete_logged_model(run.info.tags["aelab.model"])
    (here / "recipes/mine.py").unlink()
    store = Store()
    assert register(store.find("one"), store, "digits", "best") == "1"
    assert "there is no recipe 'mine'" in caplog.text and store.find("models:/digits@best").id == run.id


def test_the_code_among_the_files_of_a_model_is_not_executed(here, caplog):
    run = trained()
    data = folder_of(run) / "data"
    (data / "vae.py").write_text("raise SystemExit('executed')")
    assert pyfunc._load_pyfunc(str(data)).tasks == ["reconstruct", "encode", "sample"]
    facts = json.loads((data / "config.json").read_text())
    evil = here / "evil.py"
    evil.write_text("raise SystemExit('executed')")
    for path, reason in ((evil, "not executed"), (data / "vae.py", "not executed"), ("other.py", "no recipe")):
        facts["config"]["recipe"], facts["recipe"] = str(path), "other"
        (data / "config.json").write_text(json.dumps(facts))
        with pytest.raises(aelab.UserError, match=reason):
            pyfunc._load_pyfunc(str(data))


def test_a_damaged_model_is_refused_in_a_line():
    data = folder_of(trained()) / "data"
    good = (data / "config.json").read_text()
    for key, value in (("image", [1, 0, 8]), ("image", "x"), ("config", {}), ("classes", 3)):
        (data / "config.json").write_text(json.dumps({**json.loads(good), key: value}))
        with pytest.raises(aelab.UserError, match="cannot be read"):
            pyfunc._load_pyfunc(str(data))
    (data / "config.json").write_text(good.replace('"latent_dim": 2', '"latent_dim": 3'))
    with pytest.raises(aelab.UserError, match="do not fit vae"):
        pyfunc._load_pyfunc(str(data))
    (data / "config.json").write_text(good)
    (data / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(aelab.UserError, match="cannot be read"):
        pyfunc._load_pyfunc(str(data))


def test_a_model_of_another_place_or_with_a_link_is_not_sent(cli, here, empty_store):
    shutil.copy(empty_store, "lab.db")
    run = trained(offline=True)
    (folder_of(run) / "data/secret").symlink_to("/etc/hostname")
    answer = cli("sync", "--tracking-uri", f"sqlite:///{here}/lab.db")
    assert answer.code == 1 and "links are refused" in answer.err


def test_a_removed_run_leaves_no_model_and_a_restored_one_gets_it_again(cli):
    run = trained()
    assert cli("runs", "rm", "one").code == 0
    assert not models.models_of(client(), run.info)
    client().restore_run(run.id)
    assert cli("runs", "register", "one", "digits").code == 0
    assert loaded("models:/digits@best").predict(np.zeros((1, 1, 8, 8), np.float32)).shape == (1, 1, 8, 8)


@pytest.mark.slow
def test_mlflow_serves_a_model_over_http(here):
    run = trained()
    store = Store()
    register(run.info, store, "digits", "best")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/digits@best", "--env-manager", "local"]
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, "PATH": bin_first, "MLFLOW_TRACKING_URI": store.uri},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(**content):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.asarray(json.load(answer)["predictions"], np.float32)

    try:
        for _ in range(1200):  # five minutes: the machine may be busy
            assert server.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except OSError:
                time.sleep(0.25)
        else:
            pytest.fail("MLflow's server does not answer")
        images = run.data().test.images[:2].float() / 255
        np.testing.assert_allclose(ask(inputs=images.tolist()), run.reconstruct(images), atol=1e-6)
        codes = ask(inputs=images.tolist(), params={"task": "encode"})
        np.testing.assert_allclose(codes, run.encode(images), atol=1e-6)
        drawn = ask(inputs=images[:1].tolist(), params={"task": "sample", "n": 3, "seed": 1})
        np.testing.assert_allclose(drawn, run.sample(3, seed=1), atol=1e-6)
        for content, why in (
            ({"inputs": images.tolist(), "params": {"task": "dream"}}, "no task 'dream'"),
            ({"inputs": [[1.0]]}, "does not match expected shape"),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(**content)
            assert refused.value.code == 400 and why in json.load(refused.value)["message"]
    finally:
        server.terminate()
        server.wait()
