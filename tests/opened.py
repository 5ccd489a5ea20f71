"""Pictures that were written, read whole, so that no file stays open."""

from pathlib import Path

import PIL.Image


def opened(path: Path | str) -> PIL.Image.Image:
    with PIL.Image.open(path) as image:
        image.load()
        return image
