"""What samples are held against: training and Gaussian images, their figures computed once for a data set and an extractor."""

import hashlib
import json
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aelab.data import Dataset
from aelab.metrics import generation
from aelab.metrics.classifier import Judge, class_figures
from aelab.metrics.generation import Extractor
from aelab.metrics.reconstruction import sharpness


def pixel_figures(images: Tensor, data: Dataset, seen: bool = False) -> dict[str, float]:
    """What is seen in the pixels alone. If they are training images (`seen`), test images stand in to find their nearest."""
    real = torch.cat([sharpness(x).cpu() for x, _ in data.test.blocks(generation.BLOCK)]).mean()
    unseen = data.test.batch(slice(0, 1000))[0] if seen else images[:1000]
    figures = {
        "nearest": float(generation.nearest(unseen, data.train)[0].mean()),
        "sharpness": float(sharpness(images).mean() / real) if real > 0 else float("nan"),
    }
    if images[0].numel() <= generation.PARZEN_PIXELS:
        figures["parzen"] = generation.parzen(images, data.val, data.test)
    return figures


def real_and_gaussian(data: Dataset, n: int) -> dict[str, Tensor]:
    """n training images, spread evenly, and n Gaussian ones."""
    chosen = torch.linspace(0, len(data.train) - 1, n).long().to(data.train.images.device)
    return {
        "real": data.train.images[chosen].cpu().float() / 255,
        "gaussian": generation.gaussian_images(data.train, n),
    }


def references(
    extractor: Extractor, data: Dataset, n: int, judge: Judge | None, folder: Path | None
) -> tuple[Tensor, dict[str, dict[str, float]]]:
    """Features (n, F) of test images, and the figures of training images and Gaussian ones; from the cache or made now."""
    folder = folder or Path(platformdirs.user_cache_dir("aelab")) / "features"
    folder.mkdir(parents=True, exist_ok=True)
    facts = [data.fingerprint, extractor.sha256, n, generation.VERSION]
    path = folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]}.safetensors"
    with FileLock(f"{path}.lock"):
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("features"), json.loads(file.metadata()["rows"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            pass  # not there, or damaged
        chosen = torch.linspace(0, len(data.test) - 1, n).long().to(data.test.images.device)
        real = extractor(data.test.images[chosen].float() / 255)
        rows = {}
        for of, images in real_and_gaussian(data, n).items():
            features = extractor(images)
            rows[of] = generation.distances(features, real, extractor.name) | pixel_figures(images, data, of == "real")
            if judge and extractor.name == "lenet":
                rows[of] |= class_figures(judge.logits(features))
        part = path.with_suffix(".part")
        save_file({"features": real}, part, {"rows": json.dumps(rows)})
        part.replace(path)
    return real, rows
