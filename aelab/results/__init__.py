"""Tables of tracked runs, and their formats. pandas is imported only when a table is made."""

from aelab.results.compare import (
    EITHER,
    comparable,
    comparison,
    default_metrics,
    grouped,
    labels,
    markable,
    mixed,
    pivot,
)
from aelab.results.formats import cells, csv, latex, markdown, number_columns, records
from aelab.results.lecture import NOTHING_TO_SHOW, TABLES
from aelab.results.listing import (
    LEAST_IMPORTANT,
    LISTING_COLUMNS,
    listing_order,
    listing_row,
    short_diagnosis,
    shown_row,
    training_rows,
)

__all__ = [
    "EITHER",
    "LEAST_IMPORTANT",
    "LISTING_COLUMNS",
    "NOTHING_TO_SHOW",
    "TABLES",
    "cells",
    "comparable",
    "comparison",
    "csv",
    "default_metrics",
    "grouped",
    "labels",
    "latex",
    "listing_order",
    "listing_row",
    "markable",
    "markdown",
    "mixed",
    "number_columns",
    "pivot",
    "records",
    "short_diagnosis",
    "shown_row",
    "training_rows",
]
