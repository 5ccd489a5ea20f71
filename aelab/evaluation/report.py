"""A report on a model: its metrics, each beside a baseline and a control, and pictures.

A metric of the model is named test/NAME, that of a baseline or control test/KIND_NAME, as in test/pca_mse (see `BASELINES`
and `CONTROLS` of aelab.metrics).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aelab.figures import Picture
from aelab.metrics import beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Report:
    """Metrics, lists of values and pictures by name; tags that say what they were computed with; notes for the reader."""

    metrics: dict[str, float] = field(default_factory=dict)
    lists: dict[str, list[float]] = field(default_factory=dict)
    pictures: "dict[str, Picture | Figure]" = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, metrics: Mapping[str, float], of: str = "") -> None:
        """Adds metrics of the model or, with `of`, of that baseline or control."""
        self.metrics |= {f"test/{of}_{name}" if of else f"test/{name}": value for name, value in metrics.items()}

    def under(self, changed: Mapping[str, object]) -> "Report":
        """This report under names that hold the changed options: test/NAME-VALUE/mse. Without changes, as it is."""
        parts = [f"{name}-{_in_a_name(value)}" for name, value in changed.items()]
        metrics = {
            name.replace("test/", "/".join(["test", *parts, ""]), 1): value for name, value in self.metrics.items()
        }
        return Report(
            metrics,
            {"-".join([name, *parts]): values for name, values in self.lists.items()},
            {"-".join([name, *parts]): picture for name, picture in self.pictures.items()},
            self.tags,
            self.notes,
        )

    def table(self) -> list[dict[str, object]]:
        """One row per metric of the model, as `beside` of aelab.metrics makes them."""
        return beside(self.metrics)


def _in_a_name(value: object) -> str:
    """A value as part of a metric's name: 1e+16 is 1e16, (400, 200) is 400-200."""
    return re.sub(r"[^\w.-]+", "-", str(value).replace("e+", "e")).strip("-" if isinstance(value, tuple) else "")
