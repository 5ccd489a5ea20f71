"""Generative adversarial network: a generator G against a discriminator D.

    D:                    max  E log D(x) + E log(1 - D(G(z)))
    G, minimax:           min  E log(1 - D(G(z)))          z ~ N(0, I)
    G, non-saturating:    max  E log D(G(z))

Goodfellow et al. 2014, equation 1 and algorithm 1 with k = 1. D(x) is the
probability that x is real. d_loss and g_loss are what D and G minimise:
what they maximise, with a minus.

The equilibrium. Let p be the density of images, q that of G(z). For a fixed
G the best D, and its loss, are

    D = p / (p + q)        d_loss = 2 log 2 - 2 JS(p, q)

where JS is the Jensen-Shannon divergence: 0 if p = q, at most log 2. So with
minimax G minimises JS against the best D, and at the equilibrium q = p, D is
1/2 everywhere and d_loss 2 log 2 = 1.386: the line to look for on the curve.
At a d_loss near 0 D tells all images apart. --noise is added to whatever D
sees; then p and q are the densities of noisy images, which overlap, and the
equilibrium stays. --smooth s moves it: the best D is (1 - s) p / (p + q).

The two losses of G have the same equilibrium. The gradient of the minimax one
is D/(1-D) times that of the other: next to nothing as long as D rejects all
of G's images with confidence. --noise keeps D from that confidence (Arjovsky
& Bottou 2017; Sonderby et al. 2017); --noise 0 is the paper's.

Mode collapse: G is rewarded for each image by itself, and never for variety.
It may draw one image that D accepts for every z, until D rejects it, and then
turn to the next.

G and D circle around the equilibrium. Smaller steps keep them nearer to it,
so in the second half of --epochs the learning rates fall linearly to 0 (Zhu
et al. 2017); the average of their weights, which is kept, is nearer still.

--smooth s asks D for 1 - s of real images (one-sided, Salimans et al. 2016).

G ends in a convolution that draws 4 x 4 pixels at each of its places (pixel
shuffle, Shi et al. 2016), so neighbouring pixels come from one place. D has
two parts, and its logit is their sum: a perceptron, which knows shapes but
not what neighbours are, and three convolutions, whose logit is the mean of
one for each patch of the image (Isola et al. 2017): they see strokes and
speckle wherever these are. --net conv has convolutions throughout, in the
manner of DCGAN (Radford et al. 2016) but with dropout in D instead of batch
normalisation: it is for colour and larger images, and slower.

The code is (z, c), c one of --modes M values, drawn uniformly and written as
M numbers: 1 for c and 0 for the others. Digits are far from each other, and a
normal z alone is connected: on the way from a 3 to a 7 there must be a z that
draws neither. With c the way from one to the other can be left out
(Khayatkhoei et al. 2018). What each c stands for is G's choice.

--conditional: c is the class y of K, so G(z, y) draws what one asks for, and
the logit of D is one of x and y together:

    logit D(x, y) = b + b_y + (w + w_y) . f(x)

with the features f of D's last hidden layer (projection discriminator, Miyato
& Koyama 2018); the logit of patches is added to it.

The model teaches that one can learn to sample without any likelihood, from
two losses that work against each other, of which neither has to fall. In its
pictures of samples look for images that come again and again, and on the
curves for d_loss against 1.386, d_real and d_fake against 1/2.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend

C_WEIGHT = 4.0  # of c against z in the input of G: c decides what is drawn, z how


def log_d(logit: Tensor) -> Tensor:
    """log D, where D = sigmoid(logit)."""
    return -softplus(-logit)


def log_1_minus_d(logit: Tensor) -> Tensor:
    """log(1 - D), where D = sigmoid(logit)."""
    return -softplus(logit)


def patch_logits(channels: int) -> nn.Module:
    """Images (B, C, H, W) -> a logit for each patch, (B, 1, H/4, W/4); a patch has 17 x 17 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 3, padding=1),
    )


class GAN(Recipe):
    epochs = 50
    batch_size = 32
    schedule = "linear"
    ema = 0.9998
    monitor = None  # neither loss tells which generator is best

    def __init__(
        self,
        image: ImageShape,
        classes: int = 0,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the normal part z of the code."] = 64,
        modes: Annotated[
            int, Ge(0), "Values M of the part c of the code; with --conditional they are the classes of the images."
        ] = 20,
        net: Annotated[
            Literal["mlp", "conv"], "Dense layers, and a convolution at the end of G (mlp), or convolutions (conv)."
        ] = "mlp",
        hidden: Annotated[int, Ge(1), "With --net mlp, width of the hidden layers."] = 800,
        width: Annotated[
            int, Ge(1), "With --net conv, channels after the first convolution of D; each further one doubles them."
        ] = 32,
        loss: Annotated[Literal["non-saturating", "minimax"], "Loss of the generator G."] = "non-saturating",
        noise: Annotated[
            float, Ge(0), "Standard deviation of the noise that is added to all images that D sees."
        ] = 0.2,
        smooth: Annotated[
            float, Interval(ge=0, lt=0.5), "Label smoothing s: the target of D for real images is 1 - s."
        ] = 0.0,
        dropout: Annotated[float, Interval(ge=0, lt=1), "Probability of dropout in D."] = 0.2,
        conditional: Annotated[bool, "Learn from the labels to draw images of a class that is asked for."] = False,
        lr: Annotated[float, Gt(0), "Learning rate of Adam for D; that for G is twice it."] = 1e-3,
    ) -> None:
        super().__init__()
        if conditional and classes < 2:
            raise ValueError("--conditional needs images of at least two classes")
        self.conditional, self.image, self.minimax = conditional, image, loss == "minimax"
        self.latent_dim, self.modes = latent_dim, classes if conditional else modes  # D, M or K
        self.noise, self.smooth, self.lr = noise, smooth, lr
        made = self.convolutions(width, dropout) if net == "conv" else self.perceptrons(hidden, dropout)
        self.generator, self.features, size = made
        self.patches = patch_logits(image[0]) if net == "mlp" else None
        self.head = nn.Linear(size, 1 + classes * conditional)  # w and b, then w_y and b_y of each class

    def perceptrons(self, hidden: int, dropout: float) -> tuple[nn.Module, nn.Module, int]:
        """G, the features of D, and their number F."""
        channels, height, wide = self.image
        top = (32, -(-height // 4), -(-wide // 4))  # rounded up
        generator = nn.Sequential(
            nn.Linear(self.latent_dim + self.modes, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(top)),
            nn.BatchNorm1d(math.prod(top)),
            nn.ReLU(),
            nn.Unflatten(1, top),
            nn.Conv2d(top[0], 16 * channels, 3, padding=1),
            nn.PixelShuffle(4),
            nn.Sigmoid(),
        )
        features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(self.image), hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
        )
        return generator, features, hidden

    def convolutions(self, width: int, dropout: float) -> tuple[nn.Module, nn.Module, int]:
        """G, the features of D, and their number F. D halves an image until a side is 8 or less, and G doubles as often."""
        channels, height, wide = self.image
        halvings = max(1, math.ceil(math.log2(min(height, wide) / 8)))
        widths = [width * 2**k for k in range(halvings)]  # 32, 64, ...
        down: list[nn.Module] = []
        for before, after in pairwise([channels, *widths]):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        top = (widths[-1], -(-height // 2**halvings), -(-wide // 2**halvings))  # rounded up
        up: list[nn.Module] = []
        for after, before in reversed(list(pairwise(widths))):
            up += [nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2), nn.BatchNorm2d(after), nn.ReLU()]
        generator = nn.Sequential(
            nn.Linear(self.latent_dim + self.modes, math.prod(top)),
            nn.BatchNorm1d(math.prod(top)),
            nn.ReLU(),
            nn.Unflatten(1, top),
            *up,
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )
        return generator, nn.Sequential(*down, nn.Flatten()), widths[-1] * (height >> halvings) * (wide >> halvings)

    def discriminate(self, x: Tensor, y: Tensor) -> Tensor:
        """The logit of D(x), or of D(x, y) if conditional, of images x (B, C, H, W) with classes y (B,)."""
        x = x + self.noise * torch.randn_like(x)
        logits = self.head(self.features(x))  # (B, 1 + K)
        logit = logits[:, :1]  # (B, 1)
        if self.conditional:
            logit = logit + logits.gather(1, 1 + y[:, None])
        if self.patches:
            logit = logit + self.patches(x).mean((2, 3))
        return logit

    def codes(self, y: Tensor) -> Tensor:
        """Codes for as many images as there are classes y (B,), of these classes if conditional."""
        return self.sample_class(y) if self.conditional else self.sample_prior(len(y))  # (B, D + M)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What D minimises, given its logits (B, 1) of real and of generated images."""
        # For the target 1 - s, log D(x) becomes (1 - s) log D + s log(1 - D) = log D - s logit.
        return -(log_d(real).mean() - self.smooth * real.mean() + log_1_minus_d(fake).mean())

    def generator_loss(self, fake: Tensor) -> Tensor:
        """What G minimises, given D's logits (B, 1) of its images."""
        return log_1_minus_d(fake).mean() if self.minimax else -log_d(fake).mean()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        fake = self.discriminate(self.decode(self.codes(y)), y)  # (B, 1)
        real = self.discriminate(x, y)  # (B, 1)
        d_loss = self.discriminator_loss(real, fake)
        return d_loss, {
            "d_loss": d_loss,
            "g_loss": self.generator_loss(fake),
            "d_real": real.sigmoid().mean(),
            "d_fake": fake.sigmoid().mean(),
        }

    def training_step(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_g: Optimizer) -> Metrics:
        """D takes a step, then G takes one against the new D."""
        x_fake = self.decode(self.codes(y))  # (B, C, H, W), G(z)
        real, fake = self.discriminate(x, y), self.discriminate(x_fake.detach(), y)  # (B, 1), (B, 1)
        d_loss = self.discriminator_loss(real, fake)
        d_grad_norm = descend(d_loss, adam_d)
        g_loss = self.generator_loss(self.discriminate(x_fake, y))
        g_grad_norm = descend(g_loss, adam_g)
        return {
            "loss": d_loss,
            "d_loss": d_loss,
            "g_loss": g_loss,
            "d_real": real.sigmoid().mean(),
            "d_fake": fake.sigmoid().mean(),
            "d_grad_norm": d_grad_norm,
            "g_grad_norm": g_grad_norm,
        }

    def phases(self, epochs: int) -> list[Phase]:
        d = [*self.features.parameters(), *self.head.parameters(), *(self.patches.parameters() if self.patches else [])]
        adam_d = Adam(d, self.lr, betas=(0.5, 0.999), fused=True)
        adam_g = Adam(self.generator.parameters(), 2 * self.lr, betas=(0.5, 0.999), fused=True)
        return [Phase("train", epochs, self.training_step, adam_d=adam_d, adam_g=adam_g)]

    def decode(self, z: Tensor) -> Tensor:
        _, height, wide = self.image
        z, c = z.split([self.latent_dim, self.modes], 1)  # (B, D), (B, M)
        return self.generator(torch.cat([z, C_WEIGHT * c], 1))[:, :, :height, :wide]  # (B, C, H, W), G(z, c)

    def sample_prior(self, n: int) -> Tensor:
        return self.sample_class(torch.randint(max(1, self.modes), (n,), device=self.head.weight.device))  # (n, D + M)

    def sample_class(self, y: Tensor) -> Tensor:
        z = torch.randn(len(y), self.latent_dim, device=y.device)
        return torch.cat([z, y[:, None].eq(torch.arange(self.modes, device=y.device)).to(z.dtype)], 1)  # (n, D + M)
