"""What is measured, each thing defined once: name, unit, direction, formula. `--help`, tables and docs read it here."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Definition:
    """A metric: what it is called without its split, its unit, which way is better, and what is computed."""

    name: str
    unit: str
    better: Literal["lower", "higher", ""]
    formula: str


DEFINITIONS = {
    entry.name: entry
    for entry in (
        Definition("loss", "recipe's own", "", "what the recipe minimises, mean over images; a GAN: its critic's loss"),
        Definition("mse", "per pixel", "lower", "mean over images and pixels of (x - x^)^2; x^ from the mean code"),
        Definition("sse", "per image", "lower", "mse x pixels of an image: the squared error summed over an image"),
        Definition("psnr", "dB", "higher", "-10 log10(mse), the mse pooled over all images"),
        Definition(
            "ssim",
            "",
            "higher",
            "structural similarity (Wang et al. 2004), Gaussian window of 11 pixels; the image is mirrored at its border",
        ),
        Definition(
            "recon_sharpness",
            "",
            "",
            "variance of the Laplacian of reconstructions over that of the test images: below 1 blurred, above 1 noisy",
        ),
        Definition(
            "denoised_mse",
            "per pixel",
            "lower",
            "mse between the clean image and what is made of its noisy copy; linear_ and nothing_ clipped to [0, 1]",
        ),
        Definition("denoised_sse", "per image", "lower", "denoised_mse x pixels of an image"),
        Definition("denoised_psnr", "dB", "higher", "-10 log10(denoised_mse), pooled over all images"),
        Definition("error", "%", "lower", "images whose most probable class is not their label"),
        Definition(
            "nll",
            "nats per image",
            "lower",
            "-log p(x|z), z drawn from q(z|x), summed over pixels; binarised images, or a density of grey values",
        ),
        Definition("kl", "nats per image", "", "KL(q(z|x) || p(z)), summed over dimensions"),
        Definition(
            "elbo",
            "nats per image",
            "higher",
            "-(nll + kl): a lower bound of log p(x); pca_elbo: log p(x) of probabilistic PCA, a linear decoder's best",
        ),
        Definition("iwae_nll", "nats per image", "lower", "-log 1/S sum_s p(x, z_s) / q(z_s|x), z_s drawn from q(z|x)"),
        Definition("iwae_nll_se", "nats per image", "lower", "standard error of iwae_nll over the images"),
        Definition(
            "iwae_nll_mc_se",
            "nats per image",
            "lower",
            "standard error of iwae_nll from the sampling of z alone, by the delta method: falls as 1/sqrt(S)",
        ),
        Definition("iwae_samples", "", "", "S, the importance samples an image of iwae_nll"),
        Definition("iwae_images", "", "", "the test images, evenly spread, of iwae_nll and its errors"),
        Definition(
            "feature_loss", "nats per image", "lower", "half the squared distance of x and x~ in D's last convolution"
        ),
        Definition("d_loss", "nats per image", "", "what the discriminator minimises: -log D(x) - log(1 - D(G(z)))"),
        Definition("d_real", "probability", "", "mean of D(x) over real images"),
        Definition("d_fake", "probability", "", "mean of D(G(z)) over generated images"),
        Definition("g_loss", "nats per image", "", "what the generator minimises: log(1 - D(G(z))) or -log D(G(z))"),
        Definition("g_grad_norm", "norm", "", "norm of the gradient that reaches the generator's weights"),
        Definition("d_grad_norm", "norm", "", "norm of the gradient that reaches the discriminator's weights"),
        Definition("e_grad_norm", "norm", "", "norm of the gradient that reaches the encoder's weights"),
        Definition("active_units", "", "", "dimensions d of the code with Var_x(E[z_d|x]) > 0.01, first 1,000 images"),
        Definition(
            "knn_accuracy",
            "%",
            "higher",
            "test images whose class is that of most of the 5 nearest codes of training images; with --labels N, of those N",
        ),
        Definition(
            "probe_accuracy", "%", "higher", "the same by logistic regression on the standardised codes (linear probe)"
        ),
        Definition(
            "kmeans_nmi",
            "0 to 1",
            "higher",
            "mutual information of classes and of k-means clusters of the test codes, K as many as classes, normalised",
        ),
        Definition(
            "intrinsic_dim",
            "",
            "",
            "dimensions that the test codes fill, by two nearest neighbours (Facco et al. 2017)",
        ),
        Definition(
            "fd",
            "squared feature",
            "lower",
            "|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) between an extractor's features of samples and of test images",
        ),
        Definition(
            "kid",
            "",
            "lower",
            "maximum mean discrepancy of those features, cubic kernel, mean of 100 subsets of at most 1,000",
        ),
        Definition("precision", "0 to 1", "higher", "samples within reach of a test image in those features, k = 5"),
        Definition("recall", "0 to 1", "higher", "test images within reach of a sample in those features, k = 5"),
        Definition("density", "", "higher", "test images in whose reach a sample is, over k = 5 (Naeem et al. 2020)"),
        Definition(
            "coverage", "0 to 1", "higher", "test images with a sample in their reach, k = 5 (Naeem et al. 2020)"
        ),
        Definition(
            "classes",
            "",
            "higher",
            "classes that a classifier sees in at least a tenth of an equal share of the samples",
        ),
        Definition(
            "class_distance", "", "lower", "1/2 sum_k |share of class k among the samples - 1/K|, by that classifier"
        ),
        Definition(
            "inception_score",
            "",
            "higher",
            "exp of mean KL(p(k|x) || p(k)) over samples, p by that classifier (inception score): mean of ten random parts",
        ),
        Definition("classifier_error", "%", "lower", "error of that classifier on the test images"),
        Definition(
            "parzen",
            "nats per image",
            "higher",
            "log density of test images under Gaussians around the samples, width chosen by 1,000 validation images",
        ),
        Definition(
            "nearest",
            "",
            "",
            "pixel distance of the first 1,000 samples to their nearest training image: far below real ones, copies",
        ),
        Definition(
            "sharpness", "", "", "variance of the Laplacian of samples over that of the test images: below 1 blurred"
        ),
        Definition("images_per_second", "1/s", "higher", "training images a second, validation and logging left out"),
        Definition("seconds", "s", "lower", "wall time of the epoch's training steps"),
    )
}


BASELINES = {
    "pca": "PCA",
    "linear": "linear filter",
    "real": "real images",
    "neighbour": "1-NN of pixels",
}  # what a figure is held against
CONTROLS = {
    "mean": "mean image",
    "nothing": "left as it is",
    "random": "random projection",
    "pixels": "independent pixels",
    "gaussian": "Gaussian images",
    "majority": "largest class",
}  # what it must beat
EXTRACTORS = ("lenet", "inception")  # a distance between features is named after what made them


def against(metric: str) -> tuple[str, str]:
    """Whose figure it is and of which metric: test/pca_mse is ("pca", "test/mse"), a model's own ("", metric)."""
    split, slash, name = metric.rpartition("/")
    of, _, rest = name.partition("_")
    return (of, split + slash + rest) if of in {**BASELINES, **CONTROLS} else ("", metric)


def definition(metric: str) -> Definition | None:
    """The definition of a metric by its name, with or without split, baseline and extractor: test/real_fd_lenet."""
    name = against(metric)[1].rsplit("/", 1)[-1]
    for extractor in EXTRACTORS:
        name = name.removesuffix(f"_{extractor}")
    return DEFINITIONS.get(name)


def number(value: object) -> str:
    """A number in four significant digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    if abs(value) > 1e300:
        return "inf" if value > 0 else "-inf"  # a store keeps infinity as the largest number there is
    return f"{value:.4g}" if abs(value) < 1e4 or math.isnan(value) else f"{value:,.0f}"
