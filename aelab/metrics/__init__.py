"""What is measured, each thing defined once: name, unit, direction, formula. `--help`, tables and docs read it here."""

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
        Definition(
            "loss", "recipe's own", "lower", "what the recipe minimises, mean over images; a GAN: its critic's loss"
        ),
        Definition("mse", "per pixel", "lower", "mean over images and pixels of (x - x^)^2; x^ from the mean code"),
        Definition("sse", "per image", "lower", "mse x pixels of an image: the squared error summed over an image"),
        Definition("psnr", "dB", "higher", "-10 log10(mse), the mse pooled over all images"),
        Definition(
            "denoised_mse", "per pixel", "lower", "mse between the clean image and what is made of its spoilt copy"
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
        Definition("like", "nats per image", "lower", "half the squared distance of x and x~ in D's last convolution"),
        Definition("critic", "nats per image", "", "what the discriminator minimises: -log D(x) - log(1 - D(G(z)))"),
        Definition("d_real", "probability", "", "mean of D(x) over real images"),
        Definition("d_fake", "probability", "", "mean of D(G(z)) over generated images"),
        Definition("forger", "nats per image", "", "what the generator minimises: log(1 - D(G(z))) or -log D(G(z))"),
        Definition("grad_g", "norm", "", "norm of the gradient that reaches the generator's weights"),
        Definition("grad_d", "norm", "", "norm of the gradient that reaches the discriminator's weights"),
        Definition("active_units", "", "", "dimensions d of the code with Var_x(E[z_d|x]) > 0.01, first 1,000 images"),
        Definition(
            "classes",
            "",
            "higher",
            "classes that a classifier sees in at least a tenth of an equal share of 5,000 samples",
        ),
        Definition(
            "class_distance", "", "lower", "1/2 sum_k |share of class k among 5,000 samples - 1/K|, by that classifier"
        ),
        Definition("judge_error", "%", "lower", "error of that classifier on the test images"),
        Definition("images_per_second", "1/s", "higher", "training images a second, validation and logging left out"),
        Definition("seconds", "s", "lower", "wall time of the epoch's training steps"),
    )
}


def definition(metric: str) -> Definition | None:
    """The definition of a metric by its name with or without a split, such as test/mse; test/pca_mse is the mse of the PCA."""
    return DEFINITIONS.get(metric.rsplit("/", 1)[-1].removeprefix("pca_"))
