"""Shrinks the figures of a lecture for docs/figures.md: python docs/make_figures.py lecture/figures [COLOURS]."""

import sys
from pathlib import Path

import PIL.Image

WIDTH = 900  # pixels; the figures themselves have 2,000
COLOURS = 64  # a palette, which keeps a picture below 100 kB; photographs need 256


def shrink(source: Path, target: Path, colours: int) -> None:
    """Writes a smaller copy of a PNG, of so many colours."""
    with PIL.Image.open(source) as figure:
        small = figure.convert("RGB").resize(
            (WIDTH, round(figure.height * WIDTH / figure.width)), PIL.Image.Resampling.LANCZOS
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(colours, dither=PIL.Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    colours = int(sys.argv[2]) if len(sys.argv) > 2 else COLOURS
    for path in sorted(Path(sys.argv[1]).glob("*.png")):
        shrink(path, Path(__file__).parent / "images" / "figures" / path.name, colours)
