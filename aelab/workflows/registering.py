"""Registers a run's model in MLflow's registry."""

import logging

from aelab.errors import UserError
from aelab.tracking import RunInfo, Store
from aelab.workflows.loading import kept_step, open_run
from aelab.workflows.pyfunc import Served, publish

log = logging.getLogger(__name__)


def register(info: RunInfo, store: Store, name: str, alias: str) -> str:
    """Registers a run's model under a name, and points an alias to it. Returns the version.

    A run of an older version of aelab gets its model now. If that cannot be made, its files are registered, with a warning:
    aelab finds the run by them, MLflow cannot load it. Raises UserError for a name or an alias that MLflow does not accept.
    """
    if not store.has_model(info):
        try:
            run = open_run(info, store, "cpu")
            data = run.data()
            model = Served(run.info, run.config, run.recipe_file, run.recipe, run.image, run.classes, data.classes)
            writer = store.annotate(info)
            publish(writer, model, kept_step(info, store), data.val.showcase(1))
            writer.close()
            info = store.get(info.id)
        except UserError as problem:
            log.warning(f"{info.name} is registered without a model that MLflow can load: {problem}")
    return store.register(info, name, alias)
