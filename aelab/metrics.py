"""Every metric, defined once: name, unit, direction, formula, usual name, source. Tables and docs read the definitions here."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Definition:
    """A metric: its name without the split, its unit, which direction is better, its formula, and its usual name."""

    name: str
    unit: str
    better: Literal["lower", "higher", ""]
    formula: str
    known_as: str  # in the literature
    source: str = ""  # the paper, where there is one to name


DEFINITIONS = {
    entry.name: entry
    for entry in (
        Definition(
            "loss", "recipe's own", "", "what the recipe minimises, mean over images; gan: d_loss", known_as="loss"
        ),
        Definition(
            "mse",
            "per pixel",
            "lower",
            "mean over images and pixels of (x - x^)^2; x^ from the mean code",
            known_as="mean squared error of reconstructions",
        ),
        Definition(
            "sse",
            "per image",
            "lower",
            "mse x pixels of an image: the squared error summed over an image",
            known_as="squared error per image",
            source="Hinton & Salakhutdinov 2006",
        ),
        Definition(
            "psnr",
            "dB",
            "higher",
            "-10 log10(mse), the mse pooled over all images",
            known_as="peak signal-to-noise ratio",
        ),
        Definition(
            "ssim",
            "",
            "higher",
            "windows of 11 pixels with Gaussian weights, mean over windows and images; the image is mirrored at its border",
            known_as="structural similarity index",
            source="Wang et al. 2004",
        ),
        Definition(
            "recon_sharpness",
            "",
            "",
            "variance of the Laplacian of reconstructions over that of the test images: below 1 blurred, above 1 noisy",
            known_as="variance of the Laplacian, a focus measure",
            source="Pech-Pacheco et al. 2000",
        ),
        Definition(
            "denoised_mse",
            "per pixel",
            "lower",
            "mse between the clean image and the one restored from its corrupted copy; linear_ and nothing_ clipped to [0, 1]",
            known_as="mean squared error of denoising",
        ),
        Definition(
            "denoised_sse",
            "per image",
            "lower",
            "denoised_mse x pixels of an image",
            known_as="squared error of denoising per image",
        ),
        Definition(
            "denoised_psnr",
            "dB",
            "higher",
            "-10 log10(denoised_mse), pooled over all images",
            known_as="peak signal-to-noise ratio of denoising",
        ),
        Definition(
            "error",
            "%",
            "lower",
            "images whose most probable class is not their label",
            known_as="classification error",
        ),
        Definition(
            "nll",
            "nats per image",
            "lower",
            "-log p(x|z), z drawn from q(z|x), summed over pixels; of binarised images, of 256 levels, or a density of "
            "dequantised grey values",
            known_as="reconstruction term of the ELBO; distortion",
            source="Kingma & Welling 2014",
        ),
        Definition(
            "kl",
            "nats per image",
            "",
            "KL(q(z|x) || p(z)), summed over dimensions",
            known_as="KL term of the ELBO; rate",
            source="Kingma & Welling 2014",
        ),
        Definition(
            "class_nll",
            "nats per image",
            "lower",
            "-log q(y|x) of the label y, by the encoder of a conditional model",
            known_as="cross-entropy of the labels",
            source="Kingma et al. 2014",
        ),
        Definition(
            "elbo",
            "nats per image",
            "higher",
            "-(nll + kl), with -log K if conditional: a lower bound of log p(x); "
            "pca_elbo: log p(x) of probabilistic PCA, a linear decoder's best, dequantised images too",
            known_as="evidence lower bound",
            source="Kingma & Welling 2014; Tipping & Bishop 1999",
        ),
        Definition(
            "marginal_nll",
            "nats per image",
            "lower",
            "-log p(x), exact; or -log 1/S sum_s p(x, z_s) / q(z_s|x), z_s from q(z|x): not below it; "
            "or F(x) + log Z, Z by annealed importance sampling: tends to be too low",
            known_as="negative log-likelihood (NLL); with z the IWAE bound",
            source="Burda et al. 2016; Salakhutdinov & Murray 2008",
        ),
        Definition(
            "marginal_nll_se",
            "nats per image",
            "lower",
            "standard error of marginal_nll over the images",
            known_as="standard error of the mean",
        ),
        Definition(
            "marginal_nll_mc_se",
            "nats per image",
            "lower",
            "standard error of marginal_nll from the sampling of z, or of the estimate of Z, alone, by the delta method",
            known_as="Monte Carlo standard error",
        ),
        Definition(
            "iwae_samples",
            "",
            "",
            "S, the importance samples per image of marginal_nll",
            known_as="number of importance samples per image",
            source="Burda et al. 2016",
        ),
        Definition(
            "ais_effective",
            "chains",
            "higher",
            "(sum w)^2 / sum w^2 of the weights of annealed importance sampling, of 100 chains; below 20 log Z is not known",
            known_as="effective sample size",
            source="Neal 2001",
        ),
        Definition(
            "marginal_nll_images",
            "",
            "",
            "the number of test images, evenly spread, of marginal_nll and its errors",
            known_as="number of images",
        ),
        Definition(
            "bits_per_dim",
            "bits per value",
            "lower",
            "(-log2 p(x) + P log2 256) / P of a density p of P dequantised values, by marginal_nll or else -elbo; "
            "-log2 p(x) / P of a probability p of 8-bit values; none of binarised images",
            known_as="bits per dimension (bpd)",
            source="Theis et al. 2016",
        ),
        Definition(
            "pseudo_nll",
            "nats per image",
            "lower",
            "-sum_i log p(v_i | all other pixels), estimated as pixels of an image x that of a random one",
            known_as="negative log pseudo-likelihood",
            source="Besag 1975",
        ),
        Definition(
            "feature_loss",
            "nats per image",
            "lower",
            "half the squared distance of x and x~ in D's last convolution",
            known_as="learned similarity",
            source="Larsen et al. 2016",
        ),
        Definition(
            "d_loss",
            "nats per image",
            "",
            "what the discriminator minimises: -log D(x) - log(1 - D(G(z))); 2 log 2 = 1.386 where D is 1/2",
            known_as="discriminator loss",
            source="Goodfellow et al. 2014",
        ),
        Definition(
            "d_real",
            "probability",
            "",
            "mean of D(x) over real images",
            known_as="mean discriminator output on real images",
            source="Goodfellow et al. 2014",
        ),
        Definition(
            "d_fake",
            "probability",
            "",
            "mean of D(G(z)) over generated images",
            known_as="mean discriminator output on generated images",
            source="Goodfellow et al. 2014",
        ),
        Definition(
            "g_loss",
            "nats per image",
            "",
            "what the generator minimises: log(1 - D(G(z))) or -log D(G(z))",
            known_as="generator loss, minimax or non-saturating",
            source="Goodfellow et al. 2014",
        ),
        Definition(
            "g_grad_norm",
            "norm",
            "",
            "norm of the gradient that reaches the generator's weights",
            known_as="gradient norm of the generator",
        ),
        Definition(
            "d_grad_norm",
            "norm",
            "",
            "norm of the gradient that reaches the discriminator's weights",
            known_as="gradient norm of the discriminator",
        ),
        Definition(
            "e_grad_norm",
            "norm",
            "",
            "norm of the gradient that reaches the encoder's weights",
            known_as="gradient norm of the encoder",
        ),
        Definition(
            "active_units",
            "",
            "",
            "dimensions d of the code with Var_x(E[z_d|x]) > 0.01, first 1,000 images",
            known_as="active units",
            source="Burda et al. 2016",
        ),
        Definition(
            "knn_accuracy",
            "%",
            "higher",
            "test images whose class is that of most of the 5 nearest codes of training images; with --labels N, of those N",
            known_as="k-nearest-neighbour accuracy, k = 5",
            source="Cover & Hart 1967",
        ),
        Definition(
            "probe_accuracy",
            "%",
            "higher",
            "the same by logistic regression on the standardised codes",
            known_as="linear probe",
            source="Alain & Bengio 2016",
        ),
        Definition(
            "kmeans_nmi",
            "0 to 1",
            "higher",
            "mutual information of classes and k-means clusters of test codes, K of each, over the mean of their entropies",
            known_as="normalised mutual information of clusters",
            source="Strehl & Ghosh 2002, with the geometric mean",
        ),
        Definition(
            "intrinsic_dim",
            "",
            "",
            "dimensions that the test codes fill, by the ratio of the distances of each to its two nearest neighbours",
            known_as="intrinsic dimension, TwoNN estimator",
            source="Facco et al. 2017",
        ),
        Definition(
            "fd",
            "squared feature",
            "lower",
            "|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) between an extractor's features of samples and of test images",
            known_as="Fréchet distance; not the FID, whose features are those of one published Inception net",
            source="Heusel et al. 2017",
        ),
        Definition(
            "kid",
            "",
            "lower",
            "squared maximum mean discrepancy of those features, cubic kernel, mean of 100 subsets of at most 1,000",
            known_as="kernel distance; kernel inception distance in Inception features",
            source="Bińkowski et al. 2018",
        ),
        Definition(
            "precision",
            "0 to 1",
            "higher",
            "samples within reach of a test image in those features, k = 5",
            known_as="improved precision",
            source="Kynkäänniemi et al. 2019",
        ),
        Definition(
            "recall",
            "0 to 1",
            "higher",
            "test images within reach of a sample in those features, k = 5",
            known_as="improved recall",
            source="Kynkäänniemi et al. 2019",
        ),
        Definition(
            "density",
            "",
            "higher",
            "test images in whose reach a sample is, over k = 5",
            known_as="density",
            source="Naeem et al. 2020",
        ),
        Definition(
            "coverage",
            "0 to 1",
            "higher",
            "test images with a sample in their reach, k = 5",
            known_as="coverage",
            source="Naeem et al. 2020",
        ),
        Definition(
            "classes",
            "",
            "higher",
            "classes that a classifier sees in at least a tenth of an equal share of the samples",
            known_as="modes covered",
            source="Metz et al. 2017",
        ),
        Definition(
            "class_distance",
            "",
            "lower",
            "1/2 sum_k |share of class k among the samples - 1/K|, by that classifier",
            known_as="total variation distance of the class shares",
        ),
        Definition(
            "unsure",
            "%",
            "lower",
            "samples whose most probable class has a probability below 0.9, by that classifier",
            known_as="share of ambiguous samples",
        ),
        Definition(
            "class_accuracy",
            "%",
            "higher",
            "samples of a class that is asked for which that classifier takes for it",
            known_as="accuracy of conditional samples",
        ),
        Definition(
            "cas",
            "%",
            "higher",
            "test images that a classifier gets right after training on samples of each class alone, as many as training images",
            known_as="classification accuracy score",
            source="Ravuri & Vinyals 2019",
        ),
        Definition(
            "sample_seconds",
            "s",
            "lower",
            "wall time of drawing 64 samples, the least of three times",
            known_as="sampling time",
        ),
        Definition(
            "inception_score",
            "",
            "higher",
            "exp of mean KL(p(k|x) || p(k)) over samples, p by that classifier: mean of ten random parts",
            known_as="inception score, here of the data's own classifier",
            source="Salimans et al. 2016",
        ),
        Definition(
            "classifier_error",
            "%",
            "lower",
            "error of that classifier on the test images",
            known_as="classification error",
        ),
        Definition(
            "parzen",
            "nats per image",
            "higher",
            "log density of test images under Gaussians around the samples, width chosen by 1,000 validation images",
            known_as="Parzen window log-likelihood",
            source="Breuleux et al. 2011; Goodfellow et al. 2014",
        ),
        Definition(
            "nearest",
            "",
            "",
            "pixel distance of the first 1,000 samples to their nearest training image; far below that of real images: copies",
            known_as="distance to the nearest training image",
        ),
        Definition(
            "modes",
            "",
            "higher",
            "of points in the plane: modes with at least 1 % of the samples within 3 standard deviations of their centre",
            known_as="modes covered",
            source="Srivastava et al. 2017",
        ),
        Definition(
            "near_mode",
            "%",
            "higher",
            "samples within 3 standard deviations of the centre of a mode; of a Gaussian's own points 98.9 %",
            known_as="high-quality samples",
            source="Srivastava et al. 2017",
        ),
        Definition(
            "sharpness",
            "",
            "",
            "variance of the Laplacian of samples over that of the test images: below 1 blurred",
            known_as="variance of the Laplacian, a focus measure",
            source="Pech-Pacheco et al. 2000",
        ),
        Definition(
            "images_per_second",
            "1/s",
            "higher",
            "training images a second, validation and logging left out",
            known_as="throughput",
        ),
        Definition("seconds", "s", "lower", "wall time of the epoch's training steps", known_as="time of an epoch"),
    )
}

GROUPS = {  # the sections of a table of metrics, in their order
    "losses": ("loss", "pseudo_nll", "feature_loss", "d_loss", "g_loss", "d_real", "d_fake"),
    "classification": ("error",),
    "reconstruction": ("mse", "sse", "psnr", "ssim", "recon_sharpness"),
    "denoising": ("denoised_mse", "denoised_sse", "denoised_psnr"),
    "likelihood": (
        *("nll", "kl", "class_nll", "elbo"),
        *(
            "marginal_nll",
            "marginal_nll_se",
            "marginal_nll_mc_se",
            "iwae_samples",
            "ais_effective",
            "marginal_nll_images",
            "bits_per_dim",
        ),
    ),
    "codes": ("active_units", "knn_accuracy", "probe_accuracy", "kmeans_nmi", "intrinsic_dim"),
    "samples": (
        *("nearest", "sharpness", "parzen", "fd", "kid", "precision", "recall", "density", "coverage"),
        *("classes", "class_distance", "unsure", "inception_score", "classifier_error", "modes", "near_mode"),
        *("class_accuracy", "cas"),
    ),
    "gradients": ("g_grad_norm", "d_grad_norm", "e_grad_norm"),
    "speed": ("images_per_second", "seconds", "sample_seconds"),
}
OTHER = "other metrics"  # the section of those that a recipe defines itself
DERIVED = {  # a metric that only changes the sign or the unit of others, and those others
    "sse": ("mse",),
    "psnr": ("mse",),
    "denoised_sse": ("denoised_mse",),
    "denoised_psnr": ("denoised_mse",),
    "elbo": ("nll", "kl"),
}

BASELINES = {
    "pca": "PCA",
    "linear": "linear filter",
    "real": "real images",
    "neighbour": "1-NN of pixels",
}  # what a model is compared with; it may do better or worse
CONTROLS = {
    "mean": "mean image",
    "nothing": "left as it is",
    "random": "random projection",
    "pixels": "independent pixels",
    "gaussian": "Gaussian images",
    "majority": "largest class",
}  # what any model must beat
EXTRACTORS = ("lenet", "inception")  # a distance between features is named after the network that extracts them


def against(metric: str) -> tuple[str, str]:
    """The baseline or control that a value belongs to, and the metric: test/pca_mse -> ("pca", "test/mse").

    A value of the model itself gives ("", metric).
    """
    split, slash, name = metric.rpartition("/")
    of, _, rest = name.partition("_")
    return (of, split + slash + rest) if of in {**BASELINES, **CONTROLS} else ("", metric)


def definition(metric: str) -> Definition | None:
    """The definition of a metric by its name, with or without split, baseline and extractor: test/real_fd_lenet."""
    name = against(metric)[1].rsplit("/", 1)[-1]
    for extractor in EXTRACTORS:
        name = name.removesuffix(f"_{extractor}")
    return DEFINITIONS.get(name)


def group(metric: str) -> str:
    """The section of a table that a metric belongs to."""
    known = definition(metric)
    return next((name for name, members in GROUPS.items() if known and known.name in members), OTHER)


def beside(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    """One row per metric of the model, by sections: its value beside those of its baseline and its control.

    `better` is "lower", "higher" or empty. `section` names the group, the baseline and the control. Those of the model alone
    have a row: a baseline without a metric of the model has none.
    """
    rows: list[dict[str, object]] = []
    for metric in in_sections(name for name in metrics if not against(name)[0]):
        known = definition(metric)
        row: dict[str, object] = {"metric": metric, "better": known.better if known else "", "value": metrics[metric]}
        split, slash, name = metric.rpartition("/")
        kinds = []
        for column, labels in (("baseline", BASELINES), ("control", CONTROLS)):
            of = next((of for of in labels if f"{split}{slash}{of}_{name}" in metrics), None)
            row[column] = metrics[f"{split}{slash}{of}_{name}"] if of else None
            kinds += [f"{column}: {labels[of]}"] if of else []
        row["unit"] = known.unit if known else ""
        row["section"] = ", ".join(kinds)
        rows.append(row)
    for name in (*GROUPS, OTHER):
        _head([row for row in rows if group(str(row["metric"])) == name], name)
    return rows


def in_sections(metrics: Iterable[str]) -> list[str]:
    """Metrics in the order of GROUPS, those of one group in the order in which they come."""
    sections = [*GROUPS, OTHER]
    return sorted(metrics, key=lambda name: sections.index(group(name)))


def _head(rows: list[dict[str, object]], name: str) -> None:
    """Heads the rows of one group; a row without a baseline or control belongs to those before it."""
    kinds = next((row["section"] for row in rows if row["section"]), "")
    for row in rows:
        kinds = row["section"] or kinds
        row["section"] = f"{name} ({kinds})" if kinds else name


def loss_terms(metrics: Mapping[str, float], of_the_recipe: Collection[str] = ()) -> dict[str, float]:
    """The metrics that an epoch's line shows: the loss first, then its terms, and a classification error; none twice.

    Left out are metrics of DERIVED, gradient norms and throughput; errors of reconstructions, which aelab computes for every
    autoencoder, unless they are `of_the_recipe`; and the loss where a term is the loss itself, as d_loss of a GAN is.
    """
    shown = {
        name: value
        for name, value in metrics.items()
        if group(name) not in ("gradients", "speed")
        and not (name in DERIVED and all(source in metrics for source in DERIVED[name]))
        and (group(name) not in ("reconstruction", "denoising") or name in of_the_recipe)
    }
    terms = {name: value for name, value in shown.items() if name != "loss"}
    same = [name for name, value in terms.items() if value == shown.get("loss")]
    first = same[:1] or [name for name in shown if name == "loss"]
    return {**{name: shown[name] for name in first}, **{name: terms[name] for name in terms if name not in first}}


def in_a_line(metrics: Mapping[str, float], split: str, of_the_recipe: Collection[str] = ()) -> str:
    """The loss of a split and, in brackets, its terms: val/loss 26.8 (nll 26.7, kl 0.08). Empty without metrics."""
    first, *others = [f"{name} {number(value)}" for name, value in loss_terms(metrics, of_the_recipe).items()] or [""]
    return first and f"{split}/{first}" + f" ({', '.join(others)})" * bool(others)


def number(value: object) -> str:
    """A float with four significant digits; anything else as it is; an empty string for None."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    if abs(value) > 1e300:
        return "inf" if value > 0 else "-inf"  # a store keeps infinity as the largest number there is
    return f"{value:.4g}" if abs(value) < 1e4 or math.isnan(value) else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A duration as text: 0.84 s, 31 s, 1 min 31 s, 2 h 5 min; empty for None."""
    if seconds is None:
        return ""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds >= 0.05 else "0.0 s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
