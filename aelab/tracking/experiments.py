"""MLflow's experiments: found by name, or created with their artifacts beside the database."""

import hashlib
import os
import re
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab.errors import UserError

DEFAULT_EXPERIMENT = "aelab"
TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # its page shows trainings
    "mlflow.note.content": """Trainings of autoencoders and generative models by `aelab`.

- **Metrics.** `train/` and `val/` by epoch, `step/` by optimizer step; `best/` or `last/`: validation of the weights that
  were kept; `test/`: `aelab eval`.
- **Charts.** The x axis "Step" counts epochs in the sections `train` and `val`, and optimizer steps in the section `step`.
  "Time (relative)" is the same for all of them.
- **Pictures.** By epoch, with a slider: the Model metrics of a run. Figures with words: its artifacts under `figures/`, made
  by `aelab show RUN`.
- **A run.** Its description says what was trained and how it went. `aelab resume RUN` continues it; `aelab compare RUN RUN`
  puts it beside others.
""",
}
LONGEST_NAME = 500  # characters that MLflow accepts


def experiment_id(client: MlflowClient, name: str | None, database: Path | None, on_server: bool) -> str:
    """The id of an experiment, which is created if necessary. Its default name is MLFLOW_EXPERIMENT_NAME, else "aelab".

    Its artifacts go into mlruns/ beside the `database`, or into the working directory for another kind of store. If the store
    is `on_server`, the server decides. Raises UserError for an invalid name, and for an experiment that was deleted or that
    belongs to a server.
    """
    if name is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        root = database.parent if database else Path.cwd()
        folder = folder_name(name)
        location = None if on_server else (root.resolve() / "mlruns" / folder).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=TAGS))
        except MlflowException:  # another process may just have created it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(f"the experiment '{name}' has been deleted in MLflow; restore it or name another: --experiment")
    if database and found.artifact_location.startswith("mlflow-artifacts:"):
        raise UserError(f"the experiment '{name}' belongs to an MLflow server; name another: --experiment")
    return str(found.experiment_id)


def folder_name(experiment: str) -> str:
    """The name of an experiment's folder: the experiment's name if it is a plain one, else a plain one with a digest.

    No two experiments share a folder. Raises UserError for a name that cannot be that of a folder.
    """
    bare = experiment.strip(" .")
    if not bare or not experiment.isprintable() or set(experiment) & set("/\\") or len(experiment) > LONGEST_NAME:
        raise UserError(
            f"'{experiment[:60]}' cannot be the name of an experiment (--experiment, MLFLOW_EXPERIMENT_NAME).",
            f"Use letters or digits, at most {LONGEST_NAME} characters, no / and no \\",
            code=2,
        )
    plain = re.sub(r"[^\w.-]+", "-", experiment)
    if plain == experiment and len(plain) <= 60 and not plain.startswith("."):
        return plain
    return f"{plain.lstrip('.')[:60]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"
