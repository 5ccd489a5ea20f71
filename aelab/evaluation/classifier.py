"""The classifier that samples are evaluated with: a small convolutional network, trained once per data set.

It is trained on the training images, frozen, and stored in the user's cache folder under the fingerprint of the data. Its
SHA-256 is logged with the metrics, as values from different classifiers cannot be compared.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.data import Dataset, Split
from aelab.recipe import ImageShape

VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # of the network and of its training
STEPS = 2150  # at most: 5 epochs of MNIST
EPOCHS = 30  # at most
BATCH = 128
MIN_SIDE = 4  # pixels of an image, for the network
SURE = 0.9  # probability of the most probable class, from which on the classifier counts as sure
MIN_CLASS_SHARE = 0.1  # of an equal share: a class that is rarer among the samples counts as missing


@dataclass(frozen=True)
class Classifier:
    """The classifier with its SHA-256."""

    net: nn.Sequential  # features (B, 128), dropout, logits (B, K)
    sha256: str

    def logits(self, features: Tensor) -> Tensor:
        """The logits (N, K) of features (N, F), on the CPU."""
        with torch.no_grad():
            logits: Tensor = self.net[1:](features.to(next(self.net.parameters()).device)).cpu()
        return logits

    def error(self, split: Split) -> float:
        """The percentage of the labelled images of a split that are misclassified."""
        with torch.no_grad():
            wrong = sum(int(((self.net(x).argmax(1) != y) & (y >= 0)).sum()) for x, y in split.blocks(500))
        return 100 * wrong / max(1, int((split.labels >= 0).sum()))


def network(image: ImageShape, classes: int) -> nn.Sequential:
    """Images (B, C, H, W) -> logits (B, K): two convolutions and a layer of 128 units, after LeCun et al. 1998."""
    channels, height, width = image
    first = [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    third = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * (height // 4) * (width // 4), 128), nn.ReLU()]
    features = nn.Sequential(*first, *second, *third)
    return nn.Sequential(features, nn.Dropout(0.3), nn.Linear(128, classes))


def classifier_of(data: Dataset, advance: Callable[[int], None], folder: Path | None = None) -> Classifier:
    """The classifier of a data set with classes, from the cache or trained now.

    `advance` is called with the progress of the training, from 0 to STEPS.
    """
    folder = folder or Path(platformdirs.user_cache_dir("aelab")) / "classifiers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{data.fingerprint[:32]}-{VERSION}.safetensors"
    device = data.train.device
    with FileLock(f"{path}.lock"):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            net = network(data.image, len(data.classes)).to(device)
            if not _loads(net, path):
                _train(net, data.train, advance)
                part = path.with_suffix(".part")
                part.write_bytes(save(net.state_dict()))
                part.replace(path)
        content = path.read_bytes()
    net.load_state_dict(load(content))
    net.eval().requires_grad_(False)
    return Classifier(net, hashlib.sha256(content).hexdigest())


def trained_on(train: Split, classes: int, advance: Callable[[int], None]) -> Classifier:
    """The same network trained in the same way on other images, with their labels (N,); it is not stored.

    `advance` is called with the progress of the training, from 0 to STEPS.
    """
    channels, height, width = train.images.shape[1:]
    with torch.random.fork_rng([train.device] if train.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(0)
        net = network((channels, height, width), classes).to(train.device)
        _train(net, train, advance)
    net.eval().requires_grad_(False)
    return Classifier(net, "")


def _loads(net: nn.Module, path: Path) -> bool:
    """Whether the file holds weights of this network; if so, they are loaded."""
    try:
        net.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _train(net: nn.Module, train: Split, advance: Callable[[int], None]) -> None:
    labelled = train.labelled(int((train.labels >= 0).sum()), 0)
    steps = min(STEPS, EPOCHS * len(labelled) // BATCH + 1)
    adam = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, steps)
    order = labelled.shuffled(0, length=steps * BATCH)
    for step in range(steps):
        x, y = labelled.batch(order[step * BATCH : (step + 1) * BATCH])
        loss = F.cross_entropy(net(x), y)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        adam.step()
        decay.step()
        advance((step + 1) * STEPS // steps)


def shares(logits: Tensor) -> Tensor:
    """The share of each class (K,) among images, from their logits (N, K)."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double() / len(logits)


def class_metrics(logits: Tensor) -> dict[str, float]:
    """Metrics of the classes of samples, from their logits (N, K).

    `classes` counts the classes with at least MIN_CLASS_SHARE of an equal share. `class_distance` is the total variation
    distance of the shares from equal ones, from 0 to 1 - 1/K. `unsure` is the percentage of samples whose most probable class
    has a probability below SURE; a person calls most of these malformed. The inception score (Salimans et al. 2016) is
    torchmetrics', the mean over ten parts; fewer than ten samples have none.
    """
    from torchmetrics.image.inception import InceptionScore

    share = shares(logits)
    equal = 1 / len(share)
    metrics = {
        "classes": float((share >= MIN_CLASS_SHARE * equal).sum()),
        "class_distance": float((share - equal).abs().sum() / 2),
        "unsure": 100 * float((logits.softmax(1).amax(1) < SURE).double().mean()),
    }
    if len(logits) >= 10:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it keeps all features in memory
            score = InceptionScore(nn.Identity())
        score.update(logits)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # it shuffles
            metrics["inception_score_lenet"] = float(score.compute()[0])
    return metrics
