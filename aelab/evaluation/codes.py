"""What codes say about classes, by nearest neighbours, a linear probe and clusters; and their intrinsic dimension."""

import warnings

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.float64]
Labels = NDArray[np.int64]
NEIGHBOURS = 5
MIN_CODES = 10  # for an estimate of the intrinsic dimension


def code_metrics(train: Codes, train_labels: Labels, test: Codes, test_labels: Labels) -> dict[str, float]:
    """knn_accuracy and probe_accuracy in percent, kmeans_nmi and intrinsic_dim of codes (N, D).

    Labels are (N,), -1 where there is none. Without two classes among them, the result is the intrinsic dimension alone.
    """
    filled = intrinsic_dimension(test)
    metrics = {} if filled is None else {"intrinsic_dim": filled}
    known, asked = train_labels >= 0, test_labels >= 0
    if len(np.unique(train_labels[known])) < 2 or not asked.any():
        return metrics
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, ask, truth = train[known], train_labels[known], test[asked], test_labels[asked]
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(x))).fit(x, y)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    clusters = KMeans(min(len(np.unique(y)), len(ask)), n_init=10, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 300 iterations were not enough, or that codes coincide
        probe.fit(x, y)
        found = clusters.fit_predict(ask)
    return {
        "knn_accuracy": 100 * float((neighbours.predict(ask) == truth).mean()),
        "probe_accuracy": 100 * float((probe.predict(ask) == truth).mean()),
        "kmeans_nmi": float(normalized_mutual_info_score(truth, found)),
        **metrics,
    }


def intrinsic_dimension(codes: Codes) -> float | None:
    """The dimension of the manifold of codes (N, D), by their two nearest neighbours: N / sum log(r2 / r1) (Facco et al. 2017).

    None for fewer than MIN_CODES different codes.
    """
    from sklearn.neighbors import NearestNeighbors

    codes = np.unique(codes, axis=0)  # between equal codes r1 is zero
    if len(codes) < MIN_CODES:
        return None
    r = NearestNeighbors(n_neighbors=3).fit(codes).kneighbors()[0]  # (N, 3), without the code itself
    ratio = np.log(r[:, 1] / r[:, 0])
    return float(len(codes) / ratio.sum()) if ratio.sum() > 0 else None


def random_projection(pixels: int, dimension: int) -> Codes:
    """A random matrix (P, D). Images times this matrix are codes without any learning: the control of learned codes."""
    matrix: Codes = np.random.default_rng(0).normal(size=(pixels, dimension)) / pixels**0.5
    return matrix
