"""How good samples are: distances between features of samples and of test images, copies, likelihood by a Parzen window.

Everything about images here is (N, C, H, W) in [0, 1] on the CPU; features are (N, F).
"""

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.data import Split
from aelab.errors import UserError
from aelab.progress_bar import Advance, silent

VERSION = 2  # of what is kept in the cache; another way to compute it is another version
MAX_IMAGES = 10_000  # images on either side of a distance
NEIGHBOURS = 5
SUBSETS = 100  # of the kernel distance
SUBSET_SIZE = 1000
NEAREST_IMAGES = 1000  # images whose nearest training image is looked for
SIGMAS = torch.logspace(-1, 0, 10)  # Goodfellow et al. 2014, the authors' code
PARZEN_PIXELS = 4096
PARZEN_VALIDATION = 1000  # images that choose its width
BLOCK = 500


@dataclass(frozen=True)
class Extractor:
    """What features are made by: a frozen network (B, C, H, W) -> (B, F), with its name and the SHA-256 of its weights."""

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
    """torchvision's Inception v3 up to its pooled features (B, 2048), of images (B, C, H, W) in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.expand(-1, 3, -1, -1), (299, 299), mode="bilinear", antialias=True)
        features: Tensor = self.net(2 * x - 1)
        return features


def inception(weights: Path, device: torch.device) -> Extractor:
    """Inception v3 with the weights of a file: torchvision's own format, as `torch.save(model.state_dict())` writes it.

    Raises UserError where the file does not hold them.
    """
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, init_weights=False, transform_input=False)
    try:
        content = weights.read_bytes()
        net.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except OSError as error:
        raise UserError(f"cannot read {weights}: {error.strerror}", code=2) from error
    except Exception as error:  # what a file that is something else raises has no common base
        raise UserError(f"{weights} holds no weights of torchvision's inception_v3.", code=2) from error
    net.fc = nn.Identity()
    module = _Pooled(net).to(device).eval().requires_grad_(False)
    return Extractor("inception", hashlib.sha256(content).hexdigest(), module, device)


def distances(features: Tensor, real: Tensor, extractor: str) -> dict[str, float]:
    """Fréchet and kernel distance, precision, recall, density, coverage of features against real ones, NAME_EXTRACTOR.

    The first two are torchmetrics' (Heusel et al. 2017; Binkowski et al. 2018).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    given = nn.Identity()
    given.num_features = real.shape[1]  # type: ignore[assignment]  # how torchmetrics is told
    frechet = FrechetInceptionDistance(given)
    size = min(SUBSET_SIZE, len(real), len(features))
    subsets = 1 if len(real) == len(features) == size else SUBSETS  # all of them are the whole
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

    The reach of a point is the distance to its k-th neighbour among its own. Block by block: of 10,000 points all distances
    at once are 800 MB.
    """
    features, real = features.double(), real.double()
    reach, theirs = _reach(real, k), _reach(features, k)
    around = torch.zeros(len(features))  # real points in whose reach a sample is
    recalled = covered = 0
    for part, radius in zip(torch.split(real, BLOCK), torch.split(reach, BLOCK), strict=True):
        distance = torch.cdist(part, features)  # (B, N)
        near = distance < radius[:, None]
        around += near.sum(0)
        covered += int(near.any(1).sum())
        recalled += int((distance < theirs).any(1).sum())
    return {
        "precision": float((around > 0).double().mean()),
        "recall": recalled / len(real),
        "density": float(around.double().mean()) / k,
        "coverage": covered / len(real),
    }


def _reach(points: Tensor, k: int) -> Tensor:
    """The distance (N,) of each of the points (N, F) to its k-th neighbour among the others."""
    blocks = (torch.cdist(part, points) for part in torch.split(points, BLOCK))
    return torch.cat([distance.topk(k + 1, largest=False)[0][:, -1] for distance in blocks])


def gaussian_images(train: Split, n: int) -> Tensor:
    """n draws from the normal distribution with the mean and the covariance of the training images, cut to [0, 1].

    A sum of centred images with normal weights has just that covariance. Of at most 10,000 images.
    """
    generator = torch.Generator().manual_seed(0)
    x = train.images[:: math.ceil(len(train) / MAX_IMAGES)].cpu()
    x = x.flatten(1).float() / 255
    mean = x.mean(0)
    weights = torch.randn(n, len(x), generator=generator) / math.sqrt(max(1, len(x) - 1))
    return (mean + weights @ (x - mean)).clamp(0, 1).reshape(n, *train.images.shape[1:])


def nearest(images: Tensor, train: Split, advance: Advance = silent) -> tuple[Tensor, Tensor]:
    """The Euclidean distance in pixels of each image to the nearest training image, (N,), and which one that is, (N,)."""
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
    """The mean log density in nats of test images under an equal mixture of Gaussians N(sample, sigma^2 I).

    sigma is the one of ten from 0.1 to 1 under which the first 1,000 validation images are likeliest (Goodfellow et al. 2014).
    It ranks models badly (Theis et al. 2016): a Gaussian of 20 principal components beats deep ones.
    """
    centres = samples.flatten(1).to(test.device)

    def density(split: Split, sigmas: Tensor, most: int) -> Tensor:
        """The mean over at most so many images, for each sigma."""
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
