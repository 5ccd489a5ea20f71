"""Lists the tracked runs, and compares them in tables. This does not import torch."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from aelab import aliases, recipe_files
from aelab.errors import UserError, checked
from aelab.metrics import definition
from aelab.results import (
    EITHER,
    LISTING_COLUMNS,
    NOTHING_TO_SHOW,
    TABLES,
    comparable,
    comparison,
    default_metrics,
    grouped,
    listing_order,
    listing_row,
    markable,
    mixed,
    pivot,
    sweep_metric,
    sweep_table,
)
from aelab.tracking import RunInfo, Store

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: the table, the columns in which a best value may be marked, and the runs.

    For a sweep also the options that vary, and the metric that it is ranked by.
    """

    frame: "pd.DataFrame"
    markable: list[str]
    runs: list[RunInfo]
    varied: Sequence[str] = ()
    metric: str = ""


@checked
def runs(
    recipe: str | None = None,
    *,
    filter: str = "",
    limit: Annotated[int, Ge(1)] | None = None,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """The tracked runs as a pandas DataFrame, newest first, one row each, as `aelab runs` lists them.

    The runs of a sweep follow their parent. `filter` is a filter of MLflow's, such as "params.latent_dim = '2'"; `limit` asks
    for so many of the newest. Raises UserError if there is no store.
    """
    import pandas as pd

    found, _ = listed(Store(tracking_uri, create=False, warn=log.warning), recipe, filter, limit)
    rows = [{**listing_row(info), "id": info.id, "name": info.name, "parent": info.parent} for info in found]
    if recipe and not rows:
        recipe_files.find(recipe)  # raises where there is none of that name
    return pd.DataFrame(rows, columns=[*LISTING_COLUMNS, "parent"])


def listed(
    store: Store, recipe: str | None = None, filter_string: str = "", limit: int | None = None
) -> tuple[list[RunInfo], bool]:
    """The newest runs, all without a `limit`, in the order of a list, and whether there are more.

    Runs whose process has died are first marked as failed. Where the limit cuts a sweep, its parent is listed beyond the limit.
    """
    store.mark_dead()
    found = store.runs(typed=filter_string, recipe=recipe, limit=None if limit is None else limit + 1)
    more = limit is not None and len(found) > limit
    if more:
        del found[limit:]
        if cut := {info.parent for info in found if info.parent} - {info.id for info in found}:
            ids = ", ".join(f"'{each}'" for each in sorted(cut) if re.fullmatch("[0-9a-f]{32}", each))
            found += store.runs(f"attributes.run_id IN ({ids})", typed=filter_string, recipe=recipe) if ids else []
    return listing_order(found), more


@checked
def compare(
    *runs: str,
    recipe: str | None = None,
    filter: str = "",
    metrics: Sequence[str] = (),
    group_by: Sequence[str] = (),
    rows: str | None = None,
    columns: str | None = None,
    table: str | None = None,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """Runs side by side; a sweep stands for all its runs, and no names for all finished runs.

    A sweep alone is averaged over its seeds, with a row for each combination of the options that it varies.

    Else there is one row per run, with the options in which the runs differ and their metrics: `metrics`, else those of the
    test images if all runs have been evaluated, else those of the validation images. `group_by` averages the runs that agree in
    these options, into columns NAME and NAME sd. `rows` and `columns` are options that span a table of one metric. `table` is
    one of the lecture's: latent, labels, noise, losses, models. Raises UserError if no run fits.
    """
    store = Store(tracking_uri, create=False, warn=log.warning)
    chosen = choose(store, runs, recipe, filter)
    sweep = sweep_named(runs, store)
    if sweep and not (group_by or rows or columns or table):
        return swept(chosen, sweep, metrics).frame
    return compared(chosen, store, metrics, group_by, rows, columns, table).frame


def choose(store: Store, names: Sequence[str], recipe: str | None = None, filter_string: str = "") -> list[RunInfo]:
    """The runs with these names, a sweep replaced by its runs; without names all finished runs. Raises UserError if none fit."""
    if not names:
        found = store.runs(
            "attributes.status = 'FINISHED' and tags.`aelab.kind` = 'run'", typed=filter_string, recipe=recipe
        )
    else:
        named: list[RunInfo] = []
        for info in map(store.find, names):
            named += sweep_runs(info, store) if info.tags.get("aelab.kind") == "sweep" else [info]
        fitting = {info.id for info in store.runs(typed=filter_string)} if filter_string else None
        found = [
            info
            for info in {info.id: info for info in named}.values()
            if recipe in (None, info.recipe) and (fitting is None or info.id in fitting)
        ]
    if not found:
        if recipe:
            recipe_files.find(recipe)  # raises where there is none of that name
        raise UserError("there is no such finished run.", "List the runs: aelab runs")
    return found


def sweep_runs(parent: RunInfo, store: Store) -> list[RunInfo]:
    """The runs of a sweep, oldest first: those that it trained, and those that were done when it found them."""
    own = store.runs(f"tags.`mlflow.parentRunId` = '{parent.id}'")
    if not parent.tags.get("aelab.varies"):  # of an older version
        return own[::-1]
    others = store.runs(f"tags.`{_member_tag(parent)}` = 'yes'")
    found = {each.id: each for each in [*own, *others]}
    return sorted(found.values(), key=lambda each: each.started or 0)


def mark_members(runs: Sequence[RunInfo], parent: RunInfo, store: Store) -> None:
    """Marks the runs that a sweep found done, as parts of other sweeps or alone, as its own too."""
    for info in runs:
        if info.parent != parent.id and _member_tag(parent) not in info.tags:
            store.tag(info, {_member_tag(parent): "yes"})


def _member_tag(parent: RunInfo) -> str:
    return f"aelab.sweep.{parent.tags['aelab.identity'][:16]}"


def sweep_named(names: Sequence[str], store: Store) -> RunInfo | None:
    """The sweep that is named, if nothing else is."""
    found = store.find(names[0]) if len(names) == 1 else None
    return found if found and found.tags.get("aelab.varies") else None


def compared(
    chosen: list[RunInfo],
    store: Store,
    metrics: Sequence[str] = (),
    group_by: Sequence[str] = (),
    rows: str | None = None,
    columns: str | None = None,
    table: str | None = None,
) -> Comparison:
    """The table of `compare` for these runs. Warns of what cannot be compared."""
    if (rows is None) != (columns is None) or (rows and (len(metrics) != 1 or group_by or table)):
        raise UserError(
            "--rows and --columns go together, with one --metric.",
            "aelab compare --rows latent_dim --columns recipe --metric test/sse",
            code=2,
        )
    frame = (
        _table(chosen, metrics, group_by, rows, columns)
        if table is None
        else _lecture_table(chosen, store, metrics, group_by, table)
    )
    shown = [info for info in chosen if info.name in set(frame["run"])] if table == "models" else chosen
    marked = markable(shown, list(map(str, frame))) if table in (None, "models") else []
    if len({info.tags.get("aelab.data_fingerprint") for info in chosen}) > 1 and table in (None, "models"):
        left = "runs on other data than the newest evaluated one are left out" if table else "no best is marked"
        log.warning(f"these runs were trained on different data: {left}")
    return Comparison(frame, marked, chosen)


def swept(chosen: list[RunInfo], sweep: RunInfo, metrics: Sequence[str] = ()) -> Comparison:
    """The table of a sweep: its finished runs, averaged over the seed. Raises UserError if none has finished."""
    done = [info for info in chosen if info.status == "FINISHED"]
    if not done:
        raise UserError(f"no point of {sweep.name} has finished.", "See why: aelab runs", code=1)
    pruned = sum(info.tags.get("aelab.reason", "").startswith("pruned") for info in chosen)
    if pruned:
        log.info(f"{pruned} pruned trial{'s' * (pruned > 1)} left out")
    if left := len(chosen) - len(done) - pruned:
        log.warning(f"{left} run{'s' * (left > 1)} of the sweep that did not finish left out")
    asked = [present_name(name, done) for name in metrics]
    for name in asked:
        if not any(name in info.metrics for info in done):
            raise UserError(f"none of these runs has a metric '{name}'.", similar_metrics(done, name), code=2)
    varied = sweep.tags["aelab.varies"].split()
    metric = sweep_metric(done, asked[0] if asked else sweep.tags.get("aelab.metric"))
    frame = grouped(done, [name for name in varied if name != "seed"] or ["recipe"], asked) if asked else None
    frame = sweep_table(done, varied, metric) if frame is None else frame
    return Comparison(frame, markable(done, list(map(str, frame))), done, varied, metric)


def _lecture_table(
    chosen: list[RunInfo], store: Store, metrics: Sequence[str], group_by: Sequence[str], table: str
) -> "pd.DataFrame":
    if table not in TABLES:
        raise UserError(f"there is no table '{table}': {', '.join(TABLES)}.", code=2)
    if metrics or group_by:
        raise UserError(f"--table {table} has its own columns; leave out --metric and --group-by.", code=2)
    frame = TABLES[table](chosen, store.curve)
    if frame.empty:
        raise UserError(*NOTHING_TO_SHOW[table])
    shown = [info for info in chosen if "run" in frame and info.name in set(frame["run"])]
    comparable(shown, list(map(str, frame)), asked=True)
    if shown and (left := [info.name for info in chosen if info not in shown]):
        more = f" and {len(left) - 4} more" if len(left) > 4 else ""
        log.info(
            f"left out, as not evaluated for this table, on other data or not the newest: {', '.join(left[:4])}{more}"
        )
    return frame


def _table(
    chosen: list[RunInfo], metrics: Sequence[str], group_by: Sequence[str], rows: str | None, columns: str | None
) -> "pd.DataFrame":
    metrics = list(dict.fromkeys(present_name(name, chosen) for name in metrics))
    for name in metrics:
        if not any(name in info.metrics for info in chosen):
            raise UserError(f"none of these runs has a metric '{name}'.", similar_metrics(chosen, name), code=2)
    if metrics:
        having = [info for info in chosen if any(name in info.metrics for name in metrics)]
        if without := len(chosen) - len(having):
            log.warning(f"{without} run{'s' * (without > 1)} without such a metric left out")
        chosen = having
        comparable(chosen, metrics, asked=True)
    if rows and columns:
        keys, frame = [rows, columns], pivot(chosen, rows, columns, metrics[0])
    elif group_by:
        keys, frame = list(group_by), grouped(chosen, group_by, metrics)
    else:
        keys, frame = [], comparison(chosen, metrics)
    if keys and (names := mixed(chosen, keys)):
        log.warning(f"the runs of one row differ in {', '.join(names)} too; their mean hides it")
    if metrics:
        return frame
    if own := default_metrics(chosen)[1]:
        left = ", ".join(name.rsplit("/", 1)[-1] for name in own)
        typed = own[0].replace(EITHER, "val/")
        log.info(f"left out: {left}, by which each recipe means its own. To see one: --metric {typed}")
    names = [name for name in map(str, frame) if "/" in name and not name.endswith(" sd")]
    kept, reason = comparable(chosen, names, asked=False)
    if reason:
        log.warning(f"{reason}: their distances are left out")
    return frame.drop(columns=[n for n in map(str, frame) if "/" in n and n.removesuffix(" sd") not in kept])


def present_name(metric: str, chosen: Sequence[RunInfo]) -> str:
    """What a metric that was typed by its name of version 0.1.0 is called now; a warning says so."""
    if any(metric in info.metrics for info in chosen):
        return metric
    names = [aliases.metric(metric, info.recipe) for info in chosen]
    names += [name.replace("best/", "last/", 1) for name in names]
    known = [name for name in names if any(name in info.metrics for info in chosen)]
    new = next(iter(known), metric)
    if new != metric:
        log.warning(f"{metric} is called {new} now.", extra={"once": True})
    return new


def similar_metrics(chosen: list[RunInfo], name: str) -> str:
    """What to type instead of a metric that no run has: those with the same definition, else those with a similar name."""
    every = sorted({key for info in chosen for key in info.metrics})
    known = definition(name)
    near = [key for key in every if known and definition(key) == known] or get_close_matches(name, every, 6)
    return f"There are: {', '.join(near[:6])}" if near else "See which: aelab runs show RUN"
