"""The pictures that a run logged epoch by epoch for MLflow's step slider, read back from its files."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aelab.errors import UserError

if TYPE_CHECKING:
    from aelab.figures import Picture

NAME = re.compile(
    r"(?P<key>.+)[%+]step[%+](?P<step>\d+)[%+]timestamp[%+](?P<time>\d+)[%+].*\.png"
)  # `log_image` gives it
MAX_PIXELS = 16_000_000  # in one picture, by its header: a run's files may come from anyone


def read_pictures(folder: Path, key: str) -> dict[int, "Picture"]:
    """The pictures of a key in a folder of MLflow's, by step; of two of one step the newer. Empty if there are none.

    Raises UserError for one that cannot be read, or has more than MAX_PIXELS pixels.
    """
    newest: dict[int, tuple[int, Path]] = {}
    for path in folder.glob("*.png"):
        match = NAME.fullmatch(path.name)
        if match and match["key"].replace("~", "/") == key:
            step, time = int(match["step"]), int(match["time"])
            newest[step] = max(newest.get(step, (-1, path)), (time, path))
    return {step: _read(newest[step][1]) for step in sorted(newest)}


def _read(path: Path) -> "Picture":
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path} has more than {MAX_PIXELS:,} pixels; aelab logs no such picture.")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
