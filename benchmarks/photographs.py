"""Cuts 2,200 colour pictures of 64 x 64 out of scikit-learn's two photographs, of one in turn with the other.

    python benchmarks/photographs.py FOLDER

Squares of 64 to 199 pixels a side, anywhere, scaled down: flowers and roofs as data for docs/results.md.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

PICTURES = 2200

folder = Path(sys.argv[1])
folder.mkdir()
photographs = load_sample_images().images
draw = np.random.default_rng(0)
for number in range(PICTURES):
    photograph = photographs[number % 2]
    side = int(draw.integers(64, 200))
    top, left = (int(draw.integers(0, length - side)) for length in photograph.shape[:2])
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    square.resize((64, 64), Image.Resampling.BILINEAR).save(folder / f"{number:04d}.png")
