"""How near a trained `linear` is to PCA: python benchmarks/pca_angles.py RUN...

Prints the largest principal angle between the decoder's columns and the principal subspace, and the squared error over
that of PCA, on the test and on the training images (there it cannot be below 1: PCA is the optimum).
"""

import sys

import pandas as pd
import torch

import aelab
from aelab.evaluation import evaluate_loss
from aelab.evaluation.reconstruction import fit_pca, pca_baseline


def row(name: str) -> dict[str, object]:
    """The angle and the two ratios of one run."""
    run = aelab.load(name, device="cpu")
    data = run.data()
    columns = run.recipe.get_parameter("v.weight").detach().double()  # (P, D)
    dimension = columns.shape[1]
    cosines = torch.linalg.svdvals(torch.linalg.qr(columns).Q.T @ fit_pca(data.train, dimension).components.T)
    angle = float(cosines.min().clamp(max=1).arccos().rad2deg())
    errors = {
        f"{name} error / PCA's": evaluate_loss(run.recipe, part)["mse"]
        / pca_baseline(data.train, part, dimension)["mse"]
        for name, part in (("test", data.test), ("train", data.train))
    }
    return {"run": run.name, "latent_dim": dimension, "angle in degrees": angle, **errors}


if __name__ == "__main__":
    print(pd.DataFrame(map(row, sys.argv[1:])).to_string(index=False))
