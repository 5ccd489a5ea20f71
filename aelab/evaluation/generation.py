"""How good samples are: distances between features of samples and of test images, copies, Parzen window likelihood.

Images are (N, C, H, W) in [0, 1] on the CPU; features are (N, F).
"""

import hashlib
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.data import Split
from aelab.errors import UserError
from aelab.progress_bar import Advance, silent

VERSION = 4  # of the cached values; change it with the way they are computed
MAX_IMAGES = 10_000  # on either side of a distance
NEIGHBOURS = 5
SUBSETS = 100  # for the kernel distance
SUBSET_SIZE = 1000
NEAREST_IMAGES = 1000  # whose nearest training image is searched
SIGMAS = torch.logspace(-1, 0, 10)  # Goodfellow et al. 2014, the authors' code
PARZEN_PIXELS = 4096  # at most
PARZEN_VALIDATION = 1000  # validation images that the width is chosen by
BLOCK = 500


@dataclass(frozen=True)
class Extractor:
    """A frozen network that computes features, (B, C, H, W) -> (B, F), with its name and the SHA-256 of its weights."""

    name: str
    sha256: str
    net: nn.Module
    device: torch.device

    def __call__(self, images: Tensor, advance: Advance = silent) -> Tensor:
        features = []
        for part in torch.split(images, BLOCK):
            with torch.no_grad():
                features.append(self.net(part.to(self.device)).float().cpu())
            advance(len(part))
        return torch.cat(features)


class _Pooled(nn.Module):
    """torchvision's Inception v3 up to its pooled features: images (B, C, H, W) in [0, 1] -> (B, 2048)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.expand(-1, 3, -1, -1), (299, 299), mode="bilinear", antialias=True)
        features: Tensor = self.net(2 * x - 1)
        return features


def inception(weights: Path, device: torch.device) -> Extractor:
    """Inception v3 with weights from a file in torchvision's format, as `torch.save(model.state_dict())` writes it.

    Raises UserError if the file does not hold such weights.
    """
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, init_weights=False, transform_input=False)
    try:
        content = weights.read_bytes()
        net.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except OSError as error:
        raise UserError(f"cannot read {weights}: {error.strerror}", code=2) from error
    except Exception as error:  # other files raise exceptions without a common base
        raise UserError(f"{weights} holds no weights of torchvision's inception_v3.", code=2) from error
    net.fc = nn.Identity()
    module = _Pooled(net).to(device).eval().requires_grad_(False)
    return Extractor("inception", hashlib.sha256(content).hexdigest(), module, device)


def distances(features: Tensor, real: Tensor, extractor: str) -> dict[str, float]:
    """fd, kid, precision, recall, density and coverage of features (N, F) against real ones (M, F), as NAME_EXTRACTOR.

    The Fréchet distance (Heusel et al. 2017) and the kernel distance (Bińkowski et al. 2018) are torchmetrics'.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    given = nn.Identity()
    given.num_features = real.shape[1]  # type: ignore[assignment]  # torchmetrics reads it
    size = min(SUBSET_SIZE, len(real), len(features))
    subsets = 1 if len(real) == len(features) == size else SUBSETS  # then a subset is the whole set
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they keep all features in memory
        frechet = FrechetInceptionDistance(given)
        kernel = KernelInceptionDistance(given, subsets=subsets, subset_size=size)
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(features, real=False)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        metrics = {
            "fd": float(frechet.compute()),
            "kid": float(kernel.compute()[0]),
            **neighbourhoods(features, real, min(NEIGHBOURS, len(real) - 2, len(features) - 2)),
        }
    return {f"{name}_{extractor}": value for name, value in metrics.items()}


def neighbourhoods(features: Tensor, real: Tensor, k: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), by k nearest neighbours.

    The radius of a point is the distance to its k-th neighbour in its own set. Distances are computed in blocks: those of
    10,000 points take 800 MB.
    """
    features, real = features.double(), real.double()
    real_radii, sample_radii = _radii(real, k), _radii(features, k)
    around = torch.zeros(len(features))  # for each sample, the real points whose radius reaches it
    recalled = covered = 0
    for part, radius in zip(torch.split(real, BLOCK), torch.split(real_radii, BLOCK), strict=True):
        distance = torch.cdist(part, features)  # (B, N)
        near = distance < radius[:, None]
        around += near.sum(0)
        covered += int(near.any(1).sum())
        recalled += int((distance < sample_radii).any(1).sum())
    return {
        "precision": float((around > 0).double().mean()),
        "recall": recalled / len(real),
        "density": float(around.double().mean()) / k,
        "coverage": covered / len(real),
    }


def _radii(points: Tensor, k: int) -> Tensor:
    """The distance (N,) of each of the points (N, F) to its k-th nearest neighbour among the others."""
    blocks = (torch.cdist(part, points) for part in torch.split(points, BLOCK))
    return torch.cat([distance.topk(k + 1, largest=False)[0][:, -1] for distance in blocks])


def gaussian_images(train: Split, n: int) -> Tensor:
    """n draws (n, C, H, W) from a normal distribution with mean and covariance of the training images, clipped to [0, 1].

    At most 10,000 images are used. A sum of centred images with normal weights has exactly their covariance.
    """
    generator = torch.Generator().manual_seed(0)
    x = train.images[:: math.ceil(len(train) / MAX_IMAGES)].cpu()
    x = x.flatten(1).float() / 255
    mean = x.mean(0)
    weights = torch.randn(n, len(x), generator=generator) / math.sqrt(max(1, len(x) - 1))
    return (mean + weights @ (x - mean)).clamp(0, 1).reshape(n, *train.images.shape[1:])


def nearest(images: Tensor, train: Split, advance: Advance = silent) -> tuple[Tensor, Tensor]:
    """The Euclidean distance of each image to its nearest training image, (N,), and the index of that image, (N,)."""
    flat = images.flatten(1).to(train.device)
    best = torch.full((len(flat),), math.inf, device=train.device)
    which = torch.zeros(len(flat), dtype=torch.long, device=train.device)
    for number, (x, _) in enumerate(train.blocks(4 * BLOCK)):
        distance, index = torch.cdist(flat, x.flatten(1)).min(1)
        which = torch.where(distance < best, index + number * 4 * BLOCK, which)
        best = torch.minimum(best, distance)
        advance(len(x))
    return best.cpu(), which.cpu()


def parzen(samples: Tensor, validation: Split, test: Split, advance: Advance = silent) -> float:
    """The mean log density of the test images, in nats, under an equal mixture of Gaussians N(sample, sigma^2 I).

    sigma is one of ten values from 0.1 to 1: the one that maximises the density of the first 1,000 validation images
    (Goodfellow et al. 2014). This metric ranks models badly (Theis et al. 2016): a Gaussian with 20 principal components beats
    deep models.
    """
    centres = samples.flatten(1).to(test.device)

    def density(split: Split, sigmas: Tensor, most: int) -> Tensor:
        """The mean over at most `most` images, for each sigma."""
        total, count = torch.zeros(len(sigmas), dtype=torch.float64), min(most, len(split))
        for start in range(0, count, BLOCK):
            x = split.batch(slice(start, min(start + BLOCK, count)))[0].flatten(1)
            squared = torch.cdist(x, centres).square()  # (B, N)
            for k, sigma in enumerate(sigmas.tolist()):
                total[k] += float(torch.logsumexp(squared / (-2 * sigma**2), 1).sum())
            advance(len(x))
        norm = math.log(len(centres)) + centres.shape[1] * (sigmas.double() * math.sqrt(2 * math.pi)).log()
        return total / count - norm

    best = density(validation, SIGMAS, PARZEN_VALIDATION).argmax()
    return float(density(test, SIGMAS[best : best + 1], len(test)))
