"""What the lecture says and shows, in its order. Edit this page to change the lecture: it holds no other code.

TRAININGS are the models, each by a name; TOPICS name them. A figure is a function of `aelab.figures`, drawn from the runs of
these trainings. Equations are LaTeX. Numbers of ours are never typed here: a `Number` names the metric of a run, and what
stands beside it, which is another metric of that run or a published value with its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Training:
    """A model to train. `quick` and `full` are options that only one form of the lecture has, such as the epochs.

    `seconds` is about how long it takes, quick and full, on two idle cores. `evaluation` says how much is measured on the test
    images: the quick metrics, or all of them, with codes and samples. `levels` are values of an option at which the quick
    metrics are measured again, {"level": (0.25, 1.0)}. `seeds` is the number of runs in the full lecture, each with another seed.
    `data` is that of the lecture if it is empty.
    """

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    seconds: tuple[float, float] = (10, 600)
    evaluation: Literal["quick", "all"] = "quick"
    levels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seeds: int = 1
    data: str = ""


@dataclass(frozen=True)
class Shown:
    """A figure: the name of a function of `aelab.figures`, and the trainings whose runs it takes."""

    figure: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """A metric of a training, beside another metric of the same run or a published value."""

    of: str
    metric: str
    beside: str = ""
    published: str = ""
    source: str = ""


@dataclass(frozen=True)
class Widget:
    """Something to try in the page: move a code in the plane, walk between two images, or step through the epochs."""

    kind: Literal["plane", "walk", "epochs"]
    of: str


@dataclass(frozen=True)
class Topic:
    """One topic. `slug` is its name in addresses and for --only; `needs` a data set that it is skipped without."""

    slug: str
    title: str
    says: str
    equation: str
    figures: tuple[Shown, ...]
    notice: str
    question: str
    numbers: tuple[Number, ...] = ()
    widgets: tuple[Widget, ...] = ()
    needs: str = ""

    @property
    def trainings(self) -> tuple[str, ...]:
        """The names of the trainings that it shows, each once."""
        named = [name for figure in self.figures for name in figure.of]
        named += [each.of for each in self.numbers] + [each.of for each in self.widgets]
        return tuple(dict.fromkeys(named))


DATA = {"quick": "mnist-5k", "full": "mnist"}
COLOUR = "cifar10"  # a folder of pictures may take its place

HINTON = "Hinton & Salakhutdinov 2006, all of MNIST"
DAVIDSON = "Davidson et al. 2018, all of MNIST, binarised anew for each batch"
OORD = "van den Oord et al. 2016, PixelCNN on MNIST, binarised once"
GOODFELLOW = "at the equilibrium (Goodfellow et al. 2014)"

TRAININGS = {
    "linear-2": Training("linear", {"latent_dim": 2}, {"epochs": 20}, seconds=(3, 40)),
    **{
        f"stacked-{size}": Training(
            "stacked", {"latent_dim": size}, {"epochs": 8}, {"epochs": 10}, seconds=(9, 120), seeds=3
        )
        for size in (2, 5, 10)
    },
    "stacked-30": Training("stacked", {"latent_dim": 30}, {"epochs": 8}, seconds=(9, 360)),
    "convolutional-30": Training("convolutional", {"latent_dim": 30}, {"epochs": 6}, seconds=(15, 480)),
    "recurrent-30": Training("recurrent", {"latent_dim": 30}, {"epochs": 2}, seconds=(15, 900)),
    "denoising": Training("denoising", {"level": 0.5}, {"epochs": 6}, seconds=(10, 600), levels={"level": (0.25, 1.0)}),
    "denoising-dropout": Training(
        "denoising",
        {"noise": "dropout", "level": 0.5},
        {"epochs": 6},
        seconds=(10, 600),
        levels={"level": (0.25, 0.75)},
    ),
    "no-noise": Training("denoising", {"level": 0.0}, {"epochs": 6}, seconds=(10, 600)),
    "strong-noise": Training("denoising", {"level": 1.0}, {"epochs": 6}, seconds=(10, 600)),
    **{
        f"{'pretrained' if pretrain else 'scratch'}-{labels}": Training(
            "pretrained",
            {"labels": labels, "pretrain": pretrain},
            {"epochs": 4, "finetune": 4, "pseudo_label": 0},
            seconds=(9 if pretrain else 5, 500),
            seeds=3,
        )
        for labels in (100, 600)
        for pretrain in (True, False)
    },
    "vae-2": Training("vae", {"latent_dim": 2}, {"epochs": 25}, seconds=(35, 480)),
    "vae-20": Training("vae", {"latent_dim": 20}, {"epochs": 25}, seconds=(45, 480), evaluation="all"),
    # Dropout in D helps in many epochs of few images. The quick form has few epochs, in which a rate that falls is
    # too low too soon; the full one has many images.
    "gan": Training(
        "gan", {"dropout": 0.0}, {"epochs": 16, "schedule": "constant"}, seconds=(45, 2800), evaluation="all"
    ),
    "non-saturating": Training("gan", {"noise": 0.0}, {"max_steps": 300}, {"max_steps": 500}, seconds=(6, 12)),
    "minimax": Training(
        "gan", {"noise": 0.0, "loss": "minimax"}, {"max_steps": 300}, {"max_steps": 500}, seconds=(6, 12)
    ),
    "gan-ring": Training(
        "gan",
        {"noise": 0.02},
        {"max_steps": 1500},
        {"max_steps": 5000},
        seconds=(15, 50),
        evaluation="all",
        data="ring",
    ),
    "gan-conditional": Training(
        "gan",
        {"conditional": True, "dropout": 0.0},
        {"epochs": 10, "schedule": "constant"},
        seconds=(30, 2800),
    ),
    "vaegan": Training("vaegan", {}, {"epochs": 6}, seconds=(35, 2400), evaluation="all"),
    "rbm": Training("rbm", {}, {"epochs": 10}, seconds=(10, 900), evaluation="all"),
    "pixelcnn": Training("pixelcnn", {}, {"max_steps": 250}, seconds=(20, 900), evaluation="all"),
    "faces": Training("convolutional", {"latent_dim": 64}, {"max_steps": 300}, seconds=(60, 900), data="lfw"),
    "faces-vae": Training(
        "vae",
        {"latent_dim": 64, "likelihood": "gaussian", "hidden": (400,)},
        {"max_steps": 300},
        seconds=(60, 900),
        data="lfw",
    ),
    "cifar10": Training("convolutional", {"latent_dim": 64}, {"max_steps": 300}, seconds=(30, 900), data=COLOUR),
}

TOPICS = (
    Topic(
        slug="linear",
        title="A linear autoencoder is PCA",
        says="An autoencoder squeezes an image through a few numbers, the code, and draws it again from them. Without "
        "an activation it can learn no more than a plane through the images, and the best one is that of "
        "principal component analysis.",
        equation=r"\min_{V, W, b} \; \mathbb{E} \, \lVert x - \hat{x} \rVert^2, \qquad z = W (x - b), \qquad \hat{x} = V z "
        r"+ b",
        figures=(Shown("pca-plane", ("linear-2",)), Shown("toy-plane")),
        numbers=(Number("linear-2", "test/sse", "test/pca_sse"),),
        notice="Both clouds have the same shape: one rotation and one scale lay the first on the second. The two planes "
        "are almost the same, and so are the errors.",
        question="Gradient descent finds the plane of PCA, but not its axes. What would you add to the loss to get the "
        "axes too?",
    ),
    Topic(
        slug="stacked",
        title="Depth: codes that are not linear",
        says="With hidden layers the reconstructions lie on a curved surface instead of a plane. So few numbers say more about "
        "an image, and the error falls below that of PCA at every size of the code.",
        equation=r"z = f_K(\cdots f_1(x)), \qquad \hat{x} = g_1(\cdots g_K(z)), \qquad \mathcal{L} = \mathbb{E} \, \lVert x "
        r"- \hat{x} \rVert^2",
        figures=(
            Shown("reconstructions", ("stacked-2", "stacked-5")),
            Shown("error-by-code-size", ("stacked-2", "stacked-5", "stacked-10", "stacked-30")),
        ),
        numbers=(
            Number("stacked-2", "test/sse", "test/pca_sse"),
            Number("stacked-5", "test/sse", "test/pca_sse"),
            Number("stacked-30", "test/sse", "test/pca_sse"),
            Number("stacked-30", "test/sse", published="3.00", source=HINTON),
        ),
        notice="With two numbers, digits that look alike share a place: a 4 comes back as a 9. With five, most of them "
        "come back as themselves.",
        question="Where would you stop to add numbers to the code, if the error always falls?",
    ),
    Topic(
        slug="architectures",
        title="Stacked, convolutional, recurrent",
        says="The same size of the code can be reached by very different networks. Convolutions share their weights "
        "over the image, and a recurrent network reads and writes it row by row.",
        equation=r"\text{convolutional:} \; h = \sigma(K * x + b) \qquad \text{recurrent:} \; h_t = "
        r"\operatorname{GRU}(x_t, h_{t-1})",
        figures=(Shown("reconstructions", ("stacked-30", "convolutional-30", "recurrent-30")),),
        numbers=tuple(
            Number(name, "test/sse", "test/pca_sse") for name in ("stacked-30", "convolutional-30", "recurrent-30")
        ),
        notice="Look at the number of parameters beside each row, not only at the error. Training time does not follow "
        "the number of parameters either.",
        question="Which of the three would you take for photographs, and which for speech?",
    ),
    Topic(
        slug="denoising",
        title="Denoising",
        says="A denoising autoencoder gets a corrupted image and has to draw the clean one. The least squared error is "
        "reached by the mean of all clean images that fit, so it must know what images look like.",
        equation=r"\tilde{x} \sim q(\tilde{x} \mid x), \qquad \mathcal{L} = \mathbb{E} \, \lVert x - g(f(\tilde{x})) "
        r"\rVert^2, \qquad g(f(\tilde{x})) \to \mathbb{E}[x \mid \tilde{x}]",
        figures=(
            Shown("denoising", ("denoising",)),
            Shown("psnr-by-noise", ("denoising", "denoising-dropout")),
            Shown("first-layer-filters", ("no-noise", "denoising", "strong-noise")),
        ),
        numbers=(
            Number("denoising", "test/denoised_psnr", "test/linear_denoised_psnr"),
            Number("denoising", "test/denoised_psnr", "test/nothing_denoised_psnr"),
        ),
        notice="The line to beat is the Wiener filter, the best linear one. Where noise hides a stroke, the answer is "
        "blurred: it is a mean of what might have been there.",
        question="What should happen to the filters as the noise grows, and do these show it?",
    ),
    Topic(
        slug="pretraining",
        title="Pretraining with few labels",
        says="Images are cheap and labels are not. An encoder that was trained without labels gives a classifier a "
        "better start than random weights, above all where there are few labels.",
        equation=r"\min_{f, g} \; \mathbb{E} \, \lVert x - g(f(x)) \rVert^2 \qquad \text{then} \qquad \min_{f, h} \; "
        r"\mathbb{E} \, [ -\log p_h(y \mid f(x)) ]",
        figures=(Shown("error-by-labels", ("pretrained-100", "scratch-100", "pretrained-600", "scratch-600")),),
        numbers=(
            Number("pretrained-100", "test/error", "test/neighbour_error"),
            Number("scratch-100", "test/error", "test/neighbour_error"),
            Number("pretrained-600", "test/error", "test/neighbour_error"),
            Number(
                "pretrained-600", "test/error", published="5.72", source="Kingma et al. 2014, M1 + TSVM, 600 labels"
            ),
        ),
        notice="Compare the two lines at the same number of labels. A difference that is smaller than that between draws "
        "of the labels says nothing; with one run a point it is not known.",
        question="With all labels the gain is gone. What does pretraining give then?",
    ),
    Topic(
        slug="codes",
        title="Latent spaces",
        says="The codes of an autoencoder may lie anywhere, with gaps between them. A variational autoencoder is asked "
        "to keep them near a normal distribution, so that one can draw a code and get an image.",
        equation=r"p(z) = \mathcal{N}(0, I), \qquad q(z \mid x) = \mathcal{N}(\mu(x), \operatorname{diag} \sigma^2(x))",
        figures=(Shown("latent-space", ("stacked-2", "vae-2")),),
        numbers=(Number("stacked-2", "test/sse", "test/pca_sse"), Number("vae-2", "test/sse", "test/pca_sse")),
        notice="The scales of the axes differ. Most codes of the VAE lie around zero, within the circles of the prior, though "
        "not as evenly as the prior would have it; those of the autoencoder do not know where zero is.",
        question="Take a code from a gap between two classes. What would each of the two models draw?",
    ),
    Topic(
        slug="vae",
        title="The variational autoencoder",
        says="The evidence lower bound, ELBO, has two terms: how well images are reconstructed, and how far their "
        "codes are from the prior. Each nat of KL has to pay for itself by a better reconstruction.",
        equation=r"\log p(x) \ge \mathbb{E}_{q(z \mid x)} [\log p(x \mid z)] \qquad "
        r"- \, \mathrm{KL}(q(z \mid x) \,\Vert\, p(z)), \qquad z = \mu + \sigma \odot \varepsilon",
        figures=(Shown("elbo", ("vae-2", "vae-20")), Shown("kl-per-dimension", ("vae-20",))),
        numbers=(
            Number("vae-20", "test/elbo", "test/pixels_elbo"),
            Number("vae-20", "test/marginal_nll", published="88.90", source=DAVIDSON),
            Number("vae-2", "test/elbo", "test/pixels_elbo"),
            Number("vae-20", "test/active_units"),
        ),
        notice="KL grows while the reconstruction improves: the code is put to use. Dimensions that do not pay for "
        "themselves stay near a KL of zero, and hardly anything passes through them.",
        question="What happens to the two terms if the KL is given the weight 20?",
    ),
    Topic(
        slug="vae-manifold",
        title="Moving through the latent space",
        says="Every point of the plane stands for an image, and the images change smoothly from point to point. Along "
        "a single dimension of a larger code something changes that may have a name: slant, width, thickness.",
        equation=r"z = (\Phi^{-1}(u_1), \Phi^{-1}(u_2)), \quad u \in (0, 1)^2, \qquad \hat{x} = \mathbb{E}[x \mid z]",
        figures=(Shown("manifold", ("vae-2",)), Shown("traversals", ("vae-20",))),
        widgets=(Widget("plane", "vae-2"),),
        notice="Between two digits there is a place where the image is neither. Far from the centre, where the prior has "
        "no mass, the decoder was never asked.",
        question="The digits take unequal shares of the plane. What decides how large they are?",
    ),
    Topic(
        slug="vae-interpolation",
        title="Interpolation and arithmetic with codes",
        says="On the way from one code to another the decoder draws a film from one image to the other. Adding the "
        "difference of two class means to a code changes the class and keeps the style.",
        equation=r"z_t = (1 - t)\, z_0 + t\, z_1, \qquad z_t = \frac{\sin((1 - t)\,\theta)}{\sin\theta}\, z_0 + "
        r"\frac{\sin(t\,\theta)}{\sin\theta}\, z_1",
        figures=(Shown("interpolation", ("vae-20",)), Shown("class-arithmetic", ("vae-20",))),
        widgets=(Widget("walk", "vae-20"),),
        notice="The ends are reconstructions, not the images themselves. The classifier below each image changes its "
        "mind within a few steps, and passes through a third class at times.",
        question="In many dimensions a straight line between two samples of the prior leaves the shell on which they lie. "
        "Does it matter here?",
    ),
    Topic(
        slug="gan",
        title="The adversarial game",
        says="A generator draws, and a discriminator says whether an image is real; each learns from the other. "
        "Neither has a likelihood, and neither loss has to fall.",
        equation=r"\min_G \max_D \; \mathbb{E} \log D(x) + \mathbb{E} \log (1 - D(G(z))), \qquad D^*(x) = \frac{p(x)}{p(x) "
        r"+ q(x)}",
        figures=(
            Shown("game", ("gan",)),
            Shown("samples-over-training", ("gan",)),
            Shown("digit-histogram", ("gan",)),
        ),
        numbers=(
            Number("gan", "last/d_loss", published="1.386 = 2 log 2", source=GOODFELLOW),
            Number("gan", "test/fd_lenet", "test/real_fd_lenet"),
            Number("gan", "test/coverage_lenet", "test/real_coverage_lenet"),
        ),
        widgets=(Widget("epochs", "gan"),),
        notice="D(x) and D(G(z)) approach 1/2, and the samples go on improving while both losses stand still. The value "
        "1/2 alone proves nothing: a discriminator that sees nothing has it too.",
        question="If the losses do not tell when to stop, what does?",
    ),
    Topic(
        slug="gan-losses",
        title="Minimax and non-saturating loss",
        says="At the start the discriminator rejects every sample with confidence, and the minimax loss of the "
        "generator is flat there. The non-saturating loss has the same equilibrium and a gradient from the first "
        "step on.",
        equation=r"\text{minimax:} \; \min_G \mathbb{E} \log (1 - D(G(z))) \qquad \text{non-saturating:} \; \max_G "
        r"\mathbb{E} \log D(G(z))",
        figures=(Shown("minimax-and-non-saturating", ("minimax", "non-saturating")),),
        numbers=(Number("minimax", "last/d_fake"), Number("non-saturating", "last/d_fake")),
        notice="The axis is logarithmic. The minimax gradient is the other one times D/(1 - D), so it vanishes with "
        "D(G(z)).",
        question="Why does noise on all images that the discriminator sees help the minimax loss?",
    ),
    Topic(
        slug="gan-ring",
        title="Modes and mode collapse in the plane",
        says="On eight Gaussians around a ring one can see what the game does. The gradient of the discriminator "
        "pushes the samples, and nothing in the loss asks them to spread over all eight.",
        equation=r"x \sim \tfrac{1}{8} \sum_{k=1}^{8} \mathcal{N}(c_k, s^2 I), \qquad \dot{x} \propto \nabla_x \log "
        r"\frac{D(x)}{1 - D(x)}",
        figures=(Shown("points", ("gan-ring",)), Shown("vector-field", ("gan-ring",))),
        numbers=(
            Number("gan-ring", "test/modes", published="8", source="Gaussians on the ring"),
            Number("gan-ring", "test/near_mode", published="98.9", source="of points of the Gaussians themselves"),
        ),
        notice="Count the Gaussians that have samples: where one has none, that is mode collapse. The arrows show "
        "where the generator is told to move each of them.",
        question="A generator that draws one perfect point for every z: what would the discriminator learn next?",
    ),
    Topic(
        slug="gan-conditional",
        title="Drawing the class one asks for",
        says="With the class as part of the code the generator draws what it is asked for. The discriminator sees the "
        "class too, and rejects a good 3 that was to be a 7.",
        equation=r"\operatorname{logit} D(x, y) = b + b_y + (w + w_y)^{\!\top} f(x), \qquad x = G(z, y)",
        figures=(Shown("samples", ("gan-conditional",)),),
        numbers=(Number("gan-conditional", "last/d_loss", published="1.386 = 2 log 2", source=GOODFELLOW),),
        notice="A row has one class and one style in each column. Look for images that come again and again within a "
        "row.",
        question="How would you measure whether the samples of a class are as varied as real ones?",
    ),
    Topic(
        slug="vaegan",
        title="VAE and GAN together",
        says="A squared error of pixels punishes a stroke that is one pixel off as much as one that is missing. The "
        "VAE-GAN compares images by the features of its discriminator instead, and its reconstructions are "
        "sharper.",
        equation=r"\mathcal{L} = \mathrm{KL}(q(z \mid x) \,\Vert\, p(z)) - \mathbb{E}_q \log p(D_l(x) \mid z) + "
        r"\mathcal{L}_{\mathrm{GAN}}",
        figures=(Shown("reconstructions", ("vae-20", "vaegan")), Shown("samples", ("vaegan",))),
        numbers=(
            Number("vaegan", "test/recon_sharpness"),
            Number("vae-20", "test/recon_sharpness"),
            Number("vaegan", "test/fd_lenet", "test/real_fd_lenet"),
        ),
        notice="Sharpness and squared error do not measure the same thing: look at the strokes, then at the errors below "
        "them. The VAE-GAN also has a longer code.",
        question="Which of the two would you take to compress images, and which to make new ones?",
    ),
    Topic(
        slug="taxonomy",
        title="What has a likelihood, and what draws well",
        says="Generative models differ in what one can compute: an exact likelihood, a bound of it, an estimate, or "
        "none at all. The quality of the samples and the time to draw them do not follow from it.",
        equation=r"\text{exact:} \; p(x) = \prod_i p(x_i \mid x_{<i}) \qquad \text{bound:} \; \mathrm{ELBO} \qquad "
        r"\text{AIS:} \; p(x) = e^{-F(x)} / Z \qquad \text{none:} \; x = G(z)",
        figures=(Shown("taxonomy", ("pixelcnn", "rbm", "vae-20", "gan", "vaegan")),),
        numbers=(
            Number("pixelcnn", "test/marginal_nll", "test/pixels_marginal_nll"),
            Number("pixelcnn", "test/marginal_nll", published="81.30", source=OORD),
            Number("rbm", "test/marginal_nll", "test/pixels_marginal_nll"),
            Number("vae-20", "test/marginal_nll", "test/pixels_marginal_nll"),
        ),
        notice="The model with the best likelihood is not the one with the best samples. The GAN has no likelihood to "
        "show, and draws in an instant.",
        question="Which column would you look at to detect images that are not digits?",
    ),
    Topic(
        slug="colour",
        title="Colours: photographs",
        says="Nothing in the networks knew that images are grey. With three channels the same recipes reconstruct and "
        "draw photographs; the code must be larger.",
        equation=r"x \in [0, 1]^{3 \times 32 \times 32}, \qquad \mathcal{L} = \mathbb{E} \, \lVert x - \hat{x} \rVert^2",
        figures=(Shown("reconstructions", ("cifar10",)),),
        numbers=(Number("cifar10", "test/sse", "test/pca_sse"),),
        notice="The colours of large areas survive, and textures do not.",
        question="The error per pixel is larger than on digits. Is the model worse?",
        needs=COLOUR,
    ),
    Topic(
        slug="faces",
        title="Colours: faces",
        says="Faces are aligned, so a few numbers say much: light, pose, hair. A VAE with a Gaussian likelihood learns "
        "how much each pixel may be off.",
        equation=r"p(x \mid z) = \mathcal{N}(m(z), s^2 I), \qquad s^2 \to \text{mean squared error of a pixel}",
        figures=(Shown("reconstructions", ("faces", "faces-vae")), Shown("samples", ("faces-vae",))),
        numbers=(Number("faces", "test/sse", "test/pca_sse"),),
        notice="Samples are the faces of nobody, and blurred: each is a mean over the faces that its code might stand "
        "for.",
        question="Whose faces does the model draw best, and why?",
        needs="lfw",
    ),
)
