"""Makes the figures of runs, and logs them to the first of these runs."""

import inspect
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from aelab.errors import UserError, checked
from aelab.figures import ANIMATIONS, available, figure_function, save
from aelab.progress_bar import progress_bar
from aelab.workflows.loading import load
from aelab.workflows.run import Run

log = logging.getLogger(__name__)


@checked
def show(
    run: str | Path | Run,
    figure: str | None = None,
    *,
    beside: Sequence[str | Path | Run] = (),
    out: Path | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> dict[str, list[Path]]:
    """Makes a figure of a run, or all that it can make, and logs each as a PNG and an SVG under figures/.

    `figure` is one of `aelab.figures.FIGURES`, and `beside` are further runs to show in it, if it compares runs. `out` is a
    file for the figure, or for all figures a folder. Returns the files by the name of the figure: those of the run, then those
    written to `out`. Raises UserError if the run cannot make the figure, or the figure shows one run only.
    """
    first, *others = (
        load(each, device=device, data_dir=data_dir, tracking_uri=tracking_uri) for each in (run, *beside)
    )
    names = [figure] if figure else available(first)
    if others and figure is None:
        raise UserError("name the figure that shows these runs together.", "List them: aelab show --list", code=2)
    if others and not compares(names[0]):
        raise UserError(f"'{names[0]}' shows one run, not several.", code=2)
    made: dict[str, list[Path]] = {}
    with progress_bar("figures", len(names)) as bar:
        for name in names:
            bar.update(len(made), name)
            try:
                made[name] = _make(name, [first, *others], out, alone=figure is not None)
            except UserError as error:
                if figure:
                    raise
                if error.code != 2:  # 2: this run alone has no such figure; it is left out, as `available` does
                    log.info(f"{name}: {str(error).splitlines()[0]}")
            except Exception as error:
                if figure:
                    raise
                # A mistake in one figure must cost neither the others nor an evaluation its metrics.
                typed = f"aelab show {shlex.quote(first.name)} {name}{first.store.typed}"
                log.warning(f"the figure {name} failed, {type(error).__name__}; where: {typed}")
    return made


def compares(name: str) -> bool:
    """Whether a figure takes several runs. Raises UserError if there is no such figure."""
    parameters = inspect.signature(figure_function(name)).parameters.values()
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def _make(name: str, runs: Sequence[Run], out: Path | None, alone: bool) -> list[Path]:
    """Makes one figure. If it moves, there is a GIF beside the PNG and the SVG."""
    drawn, moving = figure_function(name)(*runs), ANIMATIONS.get(name)
    writer = runs[0].store.annotate(runs[0].info)
    paths = [writer.picture(f"figures/{name}{suffix}", drawn) for suffix in (".png", ".svg")]
    if moving:
        paths.append(writer.file(f"figures/{name}.gif", lambda path: moving(runs[0], path)))
    writer.close()
    if out is None:
        return paths
    targets = [out] if alone else [out / path.name for path in paths]
    for target in targets:
        if moving and target.suffix.lower() == ".gif":
            moving(runs[0], target)
        else:
            save(target, drawn)
    return paths + targets
