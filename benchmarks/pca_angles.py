"""How near a trained `linear` is to PCA: python benchmarks/pca_angles.py RUN...

Prints the largest principal angle between the decoder's columns and the principal subspace, and the squared error over
that of PCA, on the test and on the training images (there it cannot be below 1: PCA is the optimum).
"""

import sys

import torch
from aelab.console import Screen

from aelab.evaluation.loss import evaluate
from aelab.evaluation.reconstruction import fit_pca, pca_baseline
from aelab.tracking import Store
from aelab.workflows import train as runs


def main(names: list[str]) -> None:
    store, screen = Store(), Screen(quiet=True)
    rows: list[dict[str, object]] = []
    for name in names:
        opened = runs.open_run(store.find(name), store, screen, "cpu")
        data = runs.run_data(opened, None, screen)
        columns = opened.recipe.get_parameter("v.weight").detach().double()  # (P, D)
        dimension = columns.shape[1]
        cosines = torch.linalg.svdvals(torch.linalg.qr(columns).Q.T @ fit_pca(data.train, dimension).components.T)
        row: dict[str, object] = {"run": name, "latent_dim": dimension}
        row["angle in degrees"] = float(cosines.min().clamp(max=1).arccos().rad2deg())
        for split in ("test", "train"):
            part = getattr(data, split)
            row[f"{split} error / PCA's"] = (
                f"{evaluate(opened.recipe, part)['mse'] / pca_baseline(data.train, part, dimension)['mse']:.6f}"
            )
        rows.append(row)
    screen.table(rows)


main(sys.argv[1:])
