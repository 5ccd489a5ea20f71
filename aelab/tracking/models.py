"""The kept weights of a run as a LoggedModel of MLflow's: a folder that is written first, and sent later.

    run's folder/model-00001250/   MLmodel  requirements.txt  conda.yaml  python_env.yaml
                                   input_example.json  serving_input_example.json  data/

MLflow's own `save_model` takes a second for the same files, as it looks through all installed packages.
"""

import json
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking import MlflowClient

from aelab.errors import UserError
from aelab.tracking.info import RunInfo, local_path
from aelab.tracking.trouble import collided

READY, LONGEST_NAME = "READY", 200
KEPT = ("best/", "last/")  # metrics of the kept weights on the validation images
EXAMPLE = {
    "artifact_path": "input_example.json",
    "serving_input_path": "serving_input_example.json",
    "type": "ndarray",
}

Shape = Sequence[int]  # of an array; -1 where any length will do


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives: arrays of float32, and parameters with their defaults."""

    inputs: Shape
    outputs: Shape
    params: Mapping[str, str | int]


def write(
    folder: Path, name: str, step: int, loader: str, signature: Signature, example: Any, packages: Sequence[str]
) -> None:
    """Writes all files of a model but its data, which `loader`, a module, loads from `folder`/data.

    `example` is an array that the model takes, `packages` are its requirements. Raises OSError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of type hints in MLflow's own modules
        import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    def tensor(shape: Shape) -> Any:
        return Schema([TensorSpec(np.dtype("float32"), tuple(shape))])

    kinds: dict[type, Any] = {str: "string", int: "long"}
    params = ParamSchema([ParamSpec(key, kinds[type(value)], value) for key, value in signature.params.items()])
    model = Model(
        signature=ModelSignature(tensor(signature.inputs), tensor(signature.outputs), params),
        saved_input_example_info=EXAMPLE,
        metadata={"name": plain_name(name, step), "step": step},
    )
    mlflow.pyfunc.add_to_model(model, loader, data="data", conda_env="conda.yaml", python_env="python_env.yaml")
    values = np.asarray(example).tolist()
    python = platform.python_version()
    conda = {
        "name": "aelab",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": list(packages)}],
    }
    contents = {
        "input_example.json": values,
        "serving_input_example.json": {"inputs": values},
        "conda.yaml": conda,  # JSON is YAML
        "python_env.yaml": {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
    }
    for file, content in contents.items():
        (folder / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
    model.save(str(folder / "MLmodel"))


def plain_name(run: str, step: int) -> str:
    """The name of a model, without the characters that MLflow refuses."""
    plain = re.sub(r"[^\w -]", "-", run)[:LONGEST_NAME]
    return f"{plain}-step{step}"


def send(client: MlflowClient, info: RunInfo, folder: Path) -> str:
    """Makes a LoggedModel of a folder, unless the run has one of this name, and returns its id.

    It becomes the run's model: its output, its tag aelab.model, and the model of its metrics KEPT. Raises what MLflow raises.
    """
    from mlflow.models import Model

    written = Model.load(str(folder))
    facts = written.metadata or {}
    name, step = str(facts["name"]), int(facts["step"])
    run = client.get_run(info.id)
    try:
        model = _only_model(client, info, name)
        if model is None:
            client.create_logged_model(info.experiment_id, name, info.id, params=dict(run.data.params))
            model = _only_model(client, info, name)
    except MlflowException as error:
        if "error code 404" in str(error):
            raise ValueError("a server of MLflow 3 is needed for models") from error
        raise
    assert model
    if model.status != READY:
        written.model_id, written.run_id = model.model_id, info.id
        written.save(str(folder / "MLmodel"))
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, READY)  # type: ignore[arg-type]  # MLflow's own spelling
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {each.model_id for each in outputs}:
        try:
            client.log_outputs(info.id, [LoggedModelOutput(model.model_id, step)])
        except MlflowException as error:
            if not collided(error):  # another client has just logged it
                raise
    dataset = info.dataset
    kept = [
        Metric(each.key, each.value, each.timestamp, each.step, model.model_id, *dataset)
        for each in run.data._metric_objs
        if each.key.startswith(KEPT)
    ]
    client.log_batch(info.id, metrics=kept, tags=[RunTag("aelab.model", model.model_id)])
    return str(model.model_id)


def _only_model(client: MlflowClient, info: RunInfo, name: str) -> LoggedModel | None:
    """The model of a run with this name. Of those that several clients made at the same moment one stays, as of runs."""
    same = sorted((each for each in models_of(client, info) if each.name == name), key=lambda each: each.model_id)
    for each in same[1:]:
        with suppress(MlflowException):  # its own client was faster
            client.delete_logged_model(each.model_id)
    return same[0] if same else None


def models_of(client: MlflowClient, info: RunInfo) -> list[LoggedModel]:
    """The LoggedModels of a run, oldest first."""
    where = f"source_run_id = '{info.id}'"
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([info.experiment_id], where, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda model: model.creation_timestamp)


def current(client: MlflowClient, info: RunInfo) -> LoggedModel | None:
    """The LoggedModel of the kept weights of a run; None if there is none, or if it was deleted."""
    model_id = info.tags.get("aelab.model")
    if not model_id:
        return None
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def copy(source: MlflowClient, of: RunInfo, target: MlflowClient, to: RunInfo) -> None:
    """Copies the LoggedModels of a run, with their metrics, to its copy in another store. What is there already stays.

    Only models of a store on this machine, where MLflow puts them.
    """
    now = ""
    for model in models_of(source, of):
        folder = _local_folder(of, model)
        if model.status != READY or folder is None:
            continue
        with tempfile.TemporaryDirectory(prefix="aelab-model-") as place:
            shutil.copytree(folder, f"{place}/model", symlinks=True)
            if any(path.is_symlink() for path in Path(place).rglob("*")):
                raise UserError(f"{folder} holds a link; links are refused.")
            made = send(target, to, Path(place) / "model")
        points = [
            Metric(m.key, m.value, m.timestamp, m.step, made, m.dataset_name, m.dataset_digest)
            for m in model.metrics or []
        ]
        target.log_batch(to.id, metrics=points)
        now = made if model.model_id == of.tags.get("aelab.model") else now
    if now:
        target.log_batch(to.id, tags=[RunTag("aelab.model", now)])


def _local_folder(info: RunInfo, model: LoggedModel) -> Path | None:
    """Where MLflow keeps a model of a run on this machine; None if it is not there."""
    run = local_path(info)
    if run is None or not re.fullmatch("m-[0-9a-f]{32}", model.model_id):
        return None
    folder = run.parents[1] / "models" / model.model_id / "artifacts"
    return folder if folder.is_dir() and not folder.is_symlink() else None


def invalid_input(problem: UserError) -> Exception:
    """A user's mistake as an error of MLflow's, whose servers answer with its text."""
    return MlflowException(str(problem), INVALID_PARAMETER_VALUE)
