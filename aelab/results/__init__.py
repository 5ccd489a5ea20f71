"""Tracked runs as tables, and how a table is written."""

from aelab.results.compare import (
    comparable,
    comparison,
    grouped,
    labels,
    markable,
    mixed,
    overview,
    pivot,
    row,
)
from aelab.results.formats import cells, csv, latex, markdown, number_columns, records
from aelab.results.lecture import EMPTY as NOTHING_TO_SHOW
from aelab.results.lecture import TABLES

__all__ = [
    "NOTHING_TO_SHOW",
    "TABLES",
    "cells",
    "comparable",
    "comparison",
    "csv",
    "grouped",
    "labels",
    "latex",
    "markable",
    "markdown",
    "mixed",
    "number_columns",
    "overview",
    "pivot",
    "records",
    "row",
]
