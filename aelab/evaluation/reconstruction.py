"""How well images come back: squared errors and the PCA that every code of equal size is held against."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aelab.data import Split
from aelab.progress_bar import Advance, silent

EXACT_PIXELS = 4096
IMAGES_PER_WEIGHT = 100  # at least, for each weight of a pixel of the linear filter
WINDOW = 11  # pixels of the Gaussian window of ssim
ROUNDING = 1e-10  # of the total variance: what components leave of it by rounding alone
PCA_BYTES = 1 << 30  # of float64 pixels that a PCA is fitted on at most: 171,000 MNIST images, 43,000 of CIFAR-10


def squared_errors(x: Tensor, reconstruction: Tensor) -> Tensor:
    """The mean squared error per pixel of each image, (B,), in float64 on the CPU."""
    return (x - reconstruction).square().flatten(1).mean(1).cpu().double()


def error_metrics(mse: float, pixels: int, of: str = "") -> dict[str, float]:
    """mse, sse and psnr of one pooled squared error per pixel; their names begin with `of`."""
    return {f"{of}mse": mse, f"{of}sse": mse * pixels, f"{of}psnr": -10 * math.log10(max(mse, 1e-12))}


@dataclass(frozen=True)
class PCA:
    """Principal components: the optimum of a linear autoencoder with as long a code."""

    mean: Tensor  # (P,)
    components: Tensor  # (D, P), orthonormal rows
    variances: Tensor  # (D,), of the training images along each component
    noise: float  # the mean variance of the other P - D directions; 0 where there is none

    @property
    def whole(self) -> bool:
        """Whether there are as many components as pixels, so that every image comes back as it is."""
        return len(self.components) == len(self.mean)

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, D) of x (B, C, H, W)."""
        return (x.flatten(1).cpu().double() - self.mean) @ self.components.T

    def reconstruct(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) projected onto the components and back; not clipped to [0, 1]."""
        return x if self.whole else (self.encode(x) @ self.components + self.mean).reshape(x.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """The log density (B,) in nats of x (B, C, H, W) under probabilistic PCA (Tipping & Bishop 1999, equation 4).

        N(m, C) with the variances along the components and the noise in all other directions.
        """
        z, centred = self.encode(x), x.flatten(1).cpu().double() - self.mean
        rest = (centred.square().sum(1) - z.square().sum(1)).clamp(min=0)
        others = len(self.mean) - len(self.components)
        log_det = self.variances.log().sum() + others * math.log(self.noise)
        squared = (z.square() / self.variances).sum(1) + rest / self.noise
        return -(len(self.mean) * math.log(2 * math.pi) + log_det + squared) / 2


def fit_pca(train: Split, dimension: int) -> PCA:
    """The first `dimension` principal components of the training images (scikit-learn's, in float64).

    Exact up to EXACT_PIXELS an image; beyond, by a randomised decomposition with ten power iterations.
    Of a set larger than PCA_BYTES, every n-th image is used. n images with P pixels have at most n - 1 components, and at
    most P; where `dimension` is more, there are as many. The noise is what they leave of the total variance, over P - D.
    """
    from sklearn import decomposition

    pixels = train.images[0].numel()
    stride = math.ceil(len(train) * pixels * 8 / PCA_BYTES)
    x = train.images[::stride].cpu().flatten(1).numpy().astype(np.float64) / 255
    solver = "covariance_eigh" if pixels <= EXACT_PIXELS else "randomized"
    most = max(1, min(len(x) - 1, pixels))
    fitted = decomposition.PCA(min(dimension, most), svd_solver=solver, iterated_power=10, random_state=0).fit(x)
    total = float(x.var(0, ddof=1).sum())
    left = total - float(fitted.explained_variance_.sum())
    noise = left / (pixels - fitted.n_components_) if left > ROUNDING * max(total, ROUNDING) else 0.0
    mean, components, variances = map(
        torch.from_numpy, (fitted.mean_, fitted.components_, fitted.explained_variance_.copy())
    )
    return PCA(mean, components, variances, noise)


def reconstruction_metrics(
    split: Split, reconstruct: Callable[[Tensor], Tensor], batch_size: int, advance: Advance = silent
) -> tuple[dict[str, float], Tensor]:
    """mse, sse, psnr, ssim (of sides above 5 pixels) and sharpness of what `reconstruct` makes of the images of `split`.

    `reconstruct` takes and gives (B, C, H, W). The second value is the squared error of each image, (N,).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    errors, similar, sharp, real = [], 0.0, 0.0, 0.0
    for x, _ in split.blocks(batch_size):
        y = reconstruct(x).to(x)
        errors.append(squared_errors(x, y))
        sharp, real = sharp + float(sharpness(y).sum()), real + float(sharpness(x).sum())
        if min(x.shape[2:]) > WINDOW // 2:
            each = similarity(y, x, data_range=1.0, kernel_size=WINDOW, reduction="none")
            similar += float(torch.as_tensor(each).sum())
        advance(len(x))
    each_error = torch.cat(errors)
    metrics = error_metrics(float(each_error.mean()), split.images[0].numel())
    if min(split.images.shape[2:]) > WINDOW // 2:
        metrics["ssim"] = similar / len(split)
    return {**metrics, "recon_sharpness": sharp / real if real else math.nan}, each_error


def sharpness(x: Tensor) -> Tensor:
    """The variance of the Laplacian of each image (B, C, H, W), (B,) in float64 (Pech-Pacheco et al. 2000)."""
    inner = x[..., 1:-1, 1:-1]
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * inner).flatten(1).var(1).double()


def pca_density(pca: PCA, test: Split) -> dict[str, float]:
    """The mean log-likelihood in nats of probabilistic PCA (Tipping & Bishop 1999), as "elbo", where it has a density."""
    if pca.noise <= 0:
        return {}
    return {"elbo": sum(float(pca.log_density(x).sum()) for x, _ in test.blocks(1000)) / len(test)}


def pca_baseline(train: Split, test: Split, dimension: int) -> dict[str, float]:
    """mse, sse and psnr on `test` of the PCA with `dimension` components fitted on `train`."""
    pca = fit_pca(train, dimension)
    total = sum(float(squared_errors(x.cpu(), pca.reconstruct(x.cpu())).sum()) for x, _ in test.blocks(1000))
    return error_metrics(total / len(test), test.images[0].numel())


def noise_draws(train: Split) -> int:
    """How often each training image is corrupted anew for the linear filter: with few images one draw would be fitted itself."""
    return math.ceil(IMAGES_PER_WEIGHT * train.images[0].numel() / len(train))


def filter_errors(
    train: Split, test: Split, corrupt: Callable[[Tensor], Tensor], batch_size: int, advance: Advance = silent
) -> tuple[dict[str, float], dict[str, float]]:
    """denoised_mse, _sse and _psnr on `test` of the best linear filter for what `corrupt` does, and of no filter at all.

    The filter is the least-squares map from noisy to clean training images: a Wiener filter, estimated by `noise_draws` of the
    noise an image. What it gives, and what is left as it is, is clipped to [0, 1], as pixels are. Empty for images of more
    than EXACT_PIXELS values. `corrupt` maps (B, C, H, W).
    """
    pixels = train.images[0].numel()
    if pixels > EXACT_PIXELS:
        return {}, {}
    inner = torch.zeros(pixels + 1, pixels + 1, dtype=torch.float64)
    outer = torch.zeros(pixels + 1, pixels, dtype=torch.float64)
    for _ in range(noise_draws(train)):
        for x, _ in train.blocks(batch_size):
            seen = _with_one(corrupt(x))
            inner += seen.T @ seen
            outer += seen.T @ x.flatten(1).cpu().double()
            advance(len(x))
    ridge = 1e-6 * inner.diagonal().mean() * torch.eye(pixels + 1, dtype=torch.float64)  # pixels that are always dark
    weights = torch.linalg.solve(inner + ridge, outer)
    filtered, untouched = 0.0, 0.0
    for x, _ in test.blocks(batch_size):
        seen = _with_one(corrupt(x))
        clean = x.flatten(1).cpu().double()
        filtered += float(((seen @ weights).clamp(0, 1) - clean).square().mean(1).sum())
        untouched += float((seen[:, :-1].clamp(0, 1) - clean).square().mean(1).sum())
        advance(len(x))
    return error_metrics(filtered / len(test), pixels, "denoised_"), error_metrics(
        untouched / len(test), pixels, "denoised_"
    )


def _with_one(x: Tensor) -> Tensor:
    """Images (B, C, H, W) as rows with a one behind, (B, P + 1), for the constant term."""
    flat = x.flatten(1).cpu().double()
    return torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
