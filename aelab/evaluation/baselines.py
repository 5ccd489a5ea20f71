"""The baseline and the control of samples: training images and Gaussian images.

Their metrics are computed once per data set and extractor, and cached in the user's cache folder.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aelab.data import Dataset, modes_of
from aelab.evaluation import generation
from aelab.evaluation.classifier import Classifier, class_metrics
from aelab.evaluation.generation import Extractor
from aelab.evaluation.reconstruction import LAPLACIAN, sharpness
from aelab.progress_bar import Advance, silent


def pixel_metrics(images: Tensor, data: Dataset, seen: bool = False, advance: Advance = silent) -> dict[str, float]:
    """Metrics of images (N, C, H, W) that need no features: nearest, sharpness, of points their modes, of small images parzen.

    If the images are training images (`seen`), `nearest` is computed on test images instead, as a training image is its own
    nearest one. `advance` counts `pixel_work` images in all.
    """
    some = min(generation.NEAREST_IMAGES, len(images))
    unseen = data.test.batch(slice(0, some))[0] if seen else images[:some]
    metrics = {"nearest": float(generation.nearest(unseen, data.train, advance)[0].mean())}
    if min(images.shape[2:]) >= LAPLACIAN:
        real = torch.cat([sharpness(x).cpu() for x, _ in data.test.blocks(generation.BLOCK)]).mean()
        metrics["sharpness"] = float(sharpness(images).mean() / real) if real > 0 else float("nan")
    if data.of_points and data.classes:
        metrics |= modes_of(data.train).metrics(images.flatten(1))
    if images[0].numel() <= generation.PARZEN_PIXELS:
        metrics["parzen"] = generation.parzen(images, data.val, data.test, advance)
    return metrics


def pixel_work(data: Dataset) -> int:
    """The number of images that one call of `pixel_metrics` processes."""
    windows = min(generation.PARZEN_VALIDATION, len(data.val)) + len(data.test)
    return len(data.train) + (windows if data.train.images[0].numel() <= generation.PARZEN_PIXELS else 0)


def real_and_gaussian(data: Dataset, n: int) -> dict[str, Tensor]:
    """n evenly spaced training images ("real") and n Gaussian ones ("gaussian"), each (n, C, H, W), on the CPU."""
    chosen = torch.linspace(0, len(data.train) - 1, n).long().to(data.train.images.device)
    return {
        "real": data.train.images[chosen].cpu().float() / 255,
        "gaussian": generation.gaussian_images(data.train, n),
    }


Rows = dict[str, dict[str, float]]  # metrics of the "real" and "gaussian" images, and under "" those of the classifier


def pixel_rows(data: Dataset, n: int, folder: Path | None, begin: Callable[[], Advance]) -> Rows:
    """The pixel metrics of n training images and of n Gaussian ones, from the cache or computed now.

    `begin` is called before they are computed, and returns the `Advance` to call.
    """

    def make() -> tuple[Tensor, Rows]:
        advance = begin()
        images = real_and_gaussian(data, n)
        return torch.zeros(0), {of: pixel_metrics(images[of], data, of == "real", advance) for of in images}

    return _cached([data.fingerprint, "pixels", n], folder, make)[1]


def references(
    extractor: Extractor,
    data: Dataset,
    n: int,
    classifier: Classifier | None,
    folder: Path | None,
    begin: Callable[[], Advance],
) -> tuple[Tensor, Rows]:
    """Features (n, F) of n test images, and metrics in these features of n training images and of n Gaussian ones.

    They come from the cache or are computed now. `begin` is called before that, and returns the `Advance` to call: it counts
    3 n images. With a `classifier`, the metrics of its predictions are among them, `unsure` of real images for the test images.
    """

    def make() -> tuple[Tensor, Rows]:
        advance = begin()
        chosen = torch.linspace(0, len(data.test) - 1, n).long().to(data.test.images.device)
        real = extractor(data.test.images[chosen].float() / 255, advance)
        rows: Rows = {"": {"classifier_error": classifier.error(data.test)}} if classifier else {}
        for of, images in real_and_gaussian(data, n).items():
            features = extractor(images, advance)
            rows[of] = generation.distances(features, real, extractor.name)
            if classifier:
                rows[of] |= class_metrics(classifier.logits(features))
        if classifier:  # which has learned from the training images, and is sure of them
            rows["real"]["unsure"] = class_metrics(classifier.logits(real))["unsure"]
        return real, rows

    return _cached([data.fingerprint, extractor.sha256, n], folder, make)


def _cached(facts: list[object], folder: Path | None, make: Callable[[], tuple[Tensor, Rows]]) -> tuple[Tensor, Rows]:
    """What `make` returns, from the cache if it was computed before for these `facts`."""
    folder = folder or Path(platformdirs.user_cache_dir("aelab")) / "features"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(json.dumps([*facts, generation.VERSION]).encode()).hexdigest()[:40]
    path = folder / f"{name}.safetensors"
    with FileLock(f"{path}.lock"):
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("features"), json.loads(file.metadata()["rows"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            pass  # not there, or damaged
        features, rows = make()
        part = path.with_suffix(".part")
        save_file({"features": features}, part, {"rows": json.dumps(rows)})
        part.replace(path)
    return features, rows
