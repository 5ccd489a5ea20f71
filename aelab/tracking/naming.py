"""Finds the run that a user named by an id, the start of an id, a name, a recipe or a path."""

import os
import re
from collections.abc import Sequence

from aelab.errors import UserError
from aelab.tracking.info import RunInfo


def find_run(name: str, runs: Sequence[RunInfo], store: str) -> RunInfo:
    """The run that `name` means, among `runs` (newest first).

    `name` is compared with ids and names first, then with recipes, then with the starts of ids. A recipe means its newest
    finished run, outside of sweeps if there is one. A path means the last id in it. Raises UserError if there is no such run
    or more than one; the message shows `store`, the address.
    """
    in_path = re.findall(r"[0-9a-f]{32}", name) if os.sep in name else []
    wanted = in_path[-1] if in_path else name
    exact = [run for run in runs if wanted in (run.id, run.name)]
    trained = [run for run in runs if run.recipe == wanted and run.tags.get("aelab.kind") == "run"]
    finished = [run for run in trained if run.status == "FINISHED"]
    finished = [run for run in finished if not run.parent] or finished
    prefixed = [run for run in runs if len(wanted) > 1 and run.id.startswith(wanted.lower())]
    for matches in (exact, finished[:1], prefixed):
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(f"{run.id[:12]} ({run.name})" for run in matches[:4])
            raise UserError(
                f"'{name}' fits {len(matches)} runs: {listed}{' ...' if len(matches) > 4 else ''}",
                "Name one by its id.",
                code=2,
            )
    if trained:
        raise UserError(f"no run of {name} has finished; give the run's id: aelab runs", code=2)
    raise UserError(f"there is no run '{name}' in {store}.", "See what is there: aelab runs", code=2)
