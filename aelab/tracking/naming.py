"""Finds the run that a user named by an id, the start of an id, a name, a recipe or a path."""

import os
import re
from collections.abc import Callable, Sequence

from aelab.errors import UserError
from aelab.tracking.info import RunInfo


def equal(field: str, text: str) -> str:
    """A filter for the runs whose attribute or tag is this text, and perhaps some more.

    MLflow's filters have no way to write a quote in a text: there any character fits.
    """
    plain = re.sub(r"['\\]", "_", text)
    return f"{field} = '{text}'" if plain == text else f"{field} LIKE '{plain}'"


def wanted_in(name: str) -> str:
    """The id or name that was typed, which may be that of a path: the last id in it."""
    in_path = re.findall(r"[0-9a-f]{32}", name) if os.sep in name else []
    return in_path[-1] if in_path else name


def candidates(name: str, search: Callable[..., list[RunInfo]]) -> list[RunInfo]:
    """The runs, newest first, among which `find_run` finds what it would find among all; `search` is Store.runs.

    The store is asked for ids and names, then for a recipe, then for the starts of ids, each only if the one before has none.
    """
    wanted = wanted_in(name)
    found = search(equal("attributes.run_name", wanted))
    if re.fullmatch("[0-9a-f]{32}", wanted):
        found += search(f"attributes.run_id = '{wanted}'")
    if any(wanted in (run.id, run.name) for run in found):
        return found
    trained = search("tags.`aelab.kind` = 'run'", recipe=wanted, limit=1) if wanted else []
    if trained and (trained[0].status != "FINISHED" or trained[0].parent):
        finished = "tags.`aelab.kind` = 'run' and attributes.status = 'FINISHED'"
        alone = search(f"{finished} and tags.`mlflow.parentRunId` IS NULL", recipe=wanted, limit=1)
        trained += alone or search(finished, recipe=wanted, limit=1)
    if not any(run.status == "FINISHED" for run in trained) and re.fullmatch("[0-9a-f]{2,32}", wanted.lower()):
        trained += search(f"attributes.run_id LIKE '{wanted.lower()}%'")
    return trained


def find_run(name: str, runs: Sequence[RunInfo], store: str) -> RunInfo:
    """The run that `name` means, among `runs` (newest first).

    `name` is compared with ids and names first, then with recipes, then with the starts of ids. A recipe means its newest
    finished run, outside of sweeps if there is one. A path means the last id in it. Raises UserError if there is no such run
    or more than one; the message shows `store`, the address.
    """
    wanted = wanted_in(name)
    exact = [run for run in runs if wanted in (run.id, run.name)]
    trained = [run for run in runs if run.recipe == wanted and run.tags.get("aelab.kind") == "run"]
    finished = [run for run in trained if run.status == "FINISHED"]
    finished = [run for run in finished if not run.parent] or finished
    prefixed = [run for run in runs if len(wanted) > 1 and run.id.startswith(wanted.lower())]
    for matches in (exact, finished[:1], prefixed):
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(f"{run.id[:12]} ({run.name}, {run.status.lower()})" for run in matches[:4])
            raise UserError(
                f"'{name}' fits {len(matches)} runs: {listed}{' ...' if len(matches) > 4 else ''}",
                "Name one by its id.",
                code=2,
            )
    if trained:
        raise UserError(f"no run of {name} has finished; give the run's id: aelab runs", code=2)
    raise UserError(f"there is no run '{name}' in {store}.", "See what is there: aelab runs", code=2)
