"""What samples are held against: training and Gaussian images, their metrics computed once for a data set and an extractor."""

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

from aelab.data import Dataset
from aelab.evaluation import generation
from aelab.evaluation.classifier import Classifier, class_metrics
from aelab.evaluation.generation import Extractor
from aelab.evaluation.reconstruction import sharpness
from aelab.progress_bar import Advance, silent


def pixel_metrics(images: Tensor, data: Dataset, seen: bool = False, advance: Advance = silent) -> dict[str, float]:
    """What is seen in the pixels alone. If they are training images (`seen`), test images stand in to find their nearest.

    `advance` is told of `pixel_work` images in all.
    """
    real = torch.cat([sharpness(x).cpu() for x, _ in data.test.blocks(generation.BLOCK)]).mean()
    some = min(generation.NEAREST_IMAGES, len(images))
    unseen = data.test.batch(slice(0, some))[0] if seen else images[:some]
    metrics = {
        "nearest": float(generation.nearest(unseen, data.train, advance)[0].mean()),
        "sharpness": float(sharpness(images).mean() / real) if real > 0 else float("nan"),
    }
    if images[0].numel() <= generation.PARZEN_PIXELS:
        metrics["parzen"] = generation.parzen(images, data.val, data.test, advance)
    return metrics


def pixel_work(data: Dataset) -> int:
    """How many images of a data set one call of `pixel_metrics` goes through."""
    windows = min(generation.PARZEN_VALIDATION, len(data.val)) + len(data.test)
    return len(data.train) + (windows if data.train.images[0].numel() <= generation.PARZEN_PIXELS else 0)


def real_and_gaussian(data: Dataset, n: int) -> dict[str, Tensor]:
    """n training images, spread evenly, and n Gaussian ones."""
    chosen = torch.linspace(0, len(data.train) - 1, n).long().to(data.train.images.device)
    return {
        "real": data.train.images[chosen].cpu().float() / 255,
        "gaussian": generation.gaussian_images(data.train, n),
    }


Rows = dict[str, dict[str, float]]  # metrics of "real" and "gaussian" images; under "" the classifier's own


def pixel_rows(data: Dataset, n: int, folder: Path | None, begin: Callable[[], Advance]) -> Rows:
    """The metrics in the pixels of n training images and of n Gaussian ones; from the cache, or made now after `begin`."""

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
    """Features (n, F) of n test images, and the metrics of n training images and of n Gaussian ones in those features.

    From the cache, or made now after `begin`, whose answer is told of 3 n images.
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
        return real, rows

    return _cached([data.fingerprint, extractor.sha256, n], folder, make)


def _cached(facts: list[object], folder: Path | None, make: Callable[[], tuple[Tensor, Rows]]) -> tuple[Tensor, Rows]:
    """What `make` gives: from the cache, where it is known by `facts`, or made now."""
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
