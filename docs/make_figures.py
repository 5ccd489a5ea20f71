"""Shrinks the figures of a lecture for docs/figures.md: python docs/make_figures.py lecture/figures."""

import sys
from pathlib import Path

import PIL.Image

WIDTH = 900  # pixels; the figures themselves have 2,000
COLOURS = 64  # a palette, which keeps a picture below 100 kB


def shrink(source: Path, target: Path) -> None:
    """Writes a smaller copy of a PNG."""
    with PIL.Image.open(source) as figure:
        small = figure.convert("RGB").resize(
            (WIDTH, round(figure.height * WIDTH / figure.width)), PIL.Image.Resampling.LANCZOS
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(COLOURS, dither=PIL.Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.png")):
        shrink(path, Path(__file__).parent / "images" / "figures" / path.name)
