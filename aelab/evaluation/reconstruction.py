"""How well images are reconstructed: squared errors, and the baselines PCA and linear filter."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aelab.data import Split
from aelab.progress_bar import Advance, silent

EXACT_PIXELS = 4096  # at most, for an exact PCA and for the linear filter
IMAGES_PER_WEIGHT = 100  # noisy images, at least, for each weight of a pixel of the linear filter
LAPLACIAN = 3  # pixels: the least side of an image that has a Laplacian
WINDOW = 11  # side of the Gaussian window of ssim, in pixels
ROUNDING = 1e-10  # of the total variance: less than that remains by rounding alone
LEVELS = 256  # of an 8-bit value x; it is dequantised as SCALE x + u / LEVELS, u uniform between 0 and 1
SCALE, VARIANCE = (LEVELS - 1) / LEVELS, 1 / (12 * LEVELS**2)  # the variance is that of u / LEVELS
PCA_BYTES = 1 << 30  # of float64 pixels at most in the fit of a PCA: 171,000 MNIST images, 43,000 of CIFAR-10


def squared_errors(x: Tensor, reconstruction: Tensor) -> Tensor:
    """The mean squared error per pixel of each image, (B,), in float64 on the CPU."""
    return (x - reconstruction).square().flatten(1).mean(1).cpu().double()


def error_metrics(mse: float, pixels: int, of: str = "") -> dict[str, float]:
    """mse, sse and psnr from one mean squared error per pixel; their names begin with `of`."""
    return {f"{of}mse": mse, f"{of}sse": mse * pixels, f"{of}psnr": -10 * math.log10(max(mse, 1e-12))}


@dataclass(frozen=True)
class PCA:
    """Principal components: the best linear autoencoder of a code size."""

    mean: Tensor  # (P,)
    components: Tensor  # (D, P), orthonormal rows
    variances: Tensor  # (D,), of the training images along each component
    noise: float  # mean variance of the other P - D directions; 0 where there is none

    @property
    def whole(self) -> bool:
        """Whether there are as many components as pixels, so that every image is reconstructed exactly."""
        return len(self.components) == len(self.mean)

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, D) of x (B, C, H, W)."""
        return (x.flatten(1).cpu().double() - self.mean) @ self.components.T

    def reconstruct(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) projected onto the components and back; not clipped to [0, 1]."""
        return x if self.whole else (self.encode(x) @ self.components + self.mean).reshape(x.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """The log density (B,) in nats of x (B, C, H, W), dequantised, under probabilistic PCA of dequantised images.

        It is N(m, C), with a variance for each component and the noise in all other directions (Tipping & Bishop 1999,
        equation 4). The value is the expectation over all dequantisations, those of the training images too: to the
        square of each coordinate and to each variance they add VARIANCE.
        """
        z, centred = SCALE * self.encode(x), SCALE * (x.flatten(1).cpu().double() - self.mean)
        rest = (centred.square().sum(1) - z.square().sum(1)).clamp(min=0)
        others = len(self.mean) - len(self.components)
        variances, noise = SCALE**2 * self.variances + VARIANCE, SCALE**2 * self.noise + VARIANCE
        log_det = variances.log().sum() + others * math.log(noise)
        squared = ((z.square() + VARIANCE) / variances).sum(1) + (rest + others * VARIANCE) / noise
        return -(len(self.mean) * math.log(2 * math.pi) + log_det + squared) / 2


def fit_pca(train: Split, dimension: int) -> PCA:
    """The first `dimension` principal components of the training images, by scikit-learn in float64.

    They are exact up to EXACT_PIXELS pixels; beyond that, a randomised decomposition with ten power iterations is used. Of a
    set larger than PCA_BYTES, every n-th image is used. N images of P pixels have at most min(N - 1, P) components; if
    `dimension` is larger, there are that many. The noise is the remaining variance, divided by P - D.
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
    """mse, sse, psnr, and if the sides are long enough ssim (6 pixels) and recon_sharpness (3), of reconstructions of a split.

    `reconstruct` maps images (B, C, H, W) to images of the same shape. The second value is the mse of each image, (N,).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    errors, similar, sharp, real = [], 0.0, 0.0, 0.0
    for x, _ in split.blocks(batch_size):
        y = reconstruct(x).to(x)
        errors.append(squared_errors(x, y))
        if min(x.shape[2:]) >= LAPLACIAN:
            sharp, real = sharp + float(sharpness(y).sum()), real + float(sharpness(x).sum())
        if min(x.shape[2:]) > WINDOW // 2:
            each = similarity(y, x, data_range=1.0, kernel_size=WINDOW, reduction="none")
            similar += float(torch.as_tensor(each).sum())
        advance(len(x))
    each_error = torch.cat(errors)
    metrics = error_metrics(float(each_error.mean()), split.images[0].numel())
    if min(split.images.shape[2:]) > WINDOW // 2:
        metrics["ssim"] = similar / len(split)
    if min(split.images.shape[2:]) >= LAPLACIAN:
        metrics["recon_sharpness"] = sharp / real if real else math.nan
    return metrics, each_error


def sharpness(x: Tensor) -> Tensor:
    """The variance of the Laplacian of images (B, C, H, W): (B,), in float64 (Pech-Pacheco et al. 2000)."""
    inner = x[..., 1:-1, 1:-1]
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * inner).flatten(1).var(1).double()


def pca_density(pca: PCA, test: Split) -> dict[str, float]:
    """The mean log density in nats of dequantised images under probabilistic PCA, as "elbo"; empty if no noise is left."""
    if pca.noise <= 0:
        return {}
    return {"elbo": sum(float(pca.log_density(x).sum()) for x, _ in test.blocks(1000)) / len(test)}


def pca_baseline(train: Split, test: Split, dimension: int) -> dict[str, float]:
    """mse, sse and psnr on `test` of a PCA with `dimension` components, fitted on `train`."""
    pca = fit_pca(train, dimension)
    total = sum(float(squared_errors(x.cpu(), pca.reconstruct(x.cpu())).sum()) for x, _ in test.blocks(1000))
    return error_metrics(total / len(test), test.images[0].numel())


def noise_draws(train: Split) -> int:
    """How often each training image is corrupted for the fit of the linear filter, so that few images do not overfit it."""
    return math.ceil(IMAGES_PER_WEIGHT * train.images[0].numel() / len(train))


def filter_errors(
    train: Split, test: Split, corrupt: Callable[[Tensor], Tensor], batch_size: int, advance: Advance = silent
) -> tuple[dict[str, float], dict[str, float]]:
    """denoised_mse, _sse and _psnr on `test` of the best linear filter against `corrupt`, and of no filter.

    `corrupt` maps images (B, C, H, W) to images of the same shape. The filter is the least-squares map from noisy to clean
    training images, a Wiener filter, estimated from `noise_draws` of the noise per image. Filtered and unfiltered images are
    clipped to [0, 1]. Both results are empty for images of more than EXACT_PIXELS values.
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
    of = "denoised_"
    return error_metrics(filtered / len(test), pixels, of), error_metrics(untouched / len(test), pixels, of)


def _with_one(x: Tensor) -> Tensor:
    """Images (B, C, H, W) as rows with a one appended, (B, P + 1), for the constant term."""
    flat = x.flatten(1).cpu().double()
    return torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
