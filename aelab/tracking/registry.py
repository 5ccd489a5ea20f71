"""MLflow's model registry, which gives a run a name and an alias."""

import json
import re
import shlex
from contextlib import suppress

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab.errors import UserError
from aelab.tracking import models
from aelab.tracking.info import RunInfo


def register(client: MlflowClient, info: RunInfo, name: str, alias: str) -> str:
    """Registers a run's LoggedModel as a new version of a model, and points the alias to it. Returns the version.

    A run without one, in a store that has no such models, is registered by its files. Raises UserError for a name or an alias
    that MLflow does not accept.
    """
    try:
        model = models.current(client, info)
        with suppress(MlflowException):  # it may exist already
            client.create_registered_model(name, tags={"aelab.recipe": info.recipe})
        version = client.create_model_version(
            name,
            model.artifact_location if model else info.artifacts,  # models:/ID would be sought in MLflow's global store
            info.id,
            model_id=model.model_id if model else None,
        ).version
        client.set_registered_model_alias(name, alias, version)
        if model:  # its page shows its versions by this tag, which MLflow's client does not write
            known = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
            tag = json.dumps([*known, {"name": name, "version": version}])
            client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": tag})
    except MlflowException as error:
        raise UserError(
            f"MLflow cannot register {info.name} as '{name}': {str(error).splitlines()[0]}", code=2
        ) from error
    return str(version)


def versions_of(client: MlflowClient, info: RunInfo) -> list[tuple[str, str]]:
    """The name and the version of each model that a run is registered as."""
    found = client.search_model_versions(f"run_id = '{info.id}'")
    return [(version.name, str(version.version)) for version in found]


def run_of(client: MlflowClient, address: str) -> str:
    """The id of the run behind models:/NAME@ALIAS or models:/NAME/VERSION. Raises UserError if there is none."""
    match = re.fullmatch(r"models:/([^@/]+)(?:@([^@/]+)|/(\d+))", address)
    if not match:
        raise UserError(f"'{address}': write models:/NAME@ALIAS or models:/NAME/VERSION.", code=2)
    model, alias, number = match.groups()
    try:
        version = client.get_model_version_by_alias(model, alias) if alias else client.get_model_version(model, number)
    except MlflowException as error:
        with suppress(MlflowException):
            there = ", ".join(client.get_registered_model(model).aliases)
            raise UserError(
                f"there is no {address}; the aliases of this model are: {there or 'none'}.", code=2
            ) from error
        raise UserError(
            f"there is no model {address}.", f"Register a run: aelab runs register RUN {shlex.quote(model)}", code=2
        ) from error
    return str(version.run_id)
