"""Variational autoencoder: codes with a distribution, to sample from.

    log p(x) >= ELBO = E_q[ log p(x|z) ] - KL( q(z|x) || p(z) )
    L    = nll + beta kl                    beta = 1: L = -ELBO
    p(z) = N(0, I)                          q(z|x) = N(mu, diag sigma^2)
    z    = mu + sigma * eps,  eps ~ N(0, I)
    nll  = - log p(x|z),  p(x|z) = Bernoulli(m(z)), N(m(z), s^2 I)
           or Logistic(m(z), s) of 256 levels
    kl   = 1/2 sum_d ( mu_d^2 + sigma_d^2 - 1 - log sigma_d^2 )

    S samples:  L = - E log 1/S sum_s w_s,  w_s = p(x, z_s) / q(z_s|x)

Kingma & Welling 2014, equations 3 and 10, appendix B; beta: Higgins et al.
2017; S: Burda et al. 2016, equation 8. nll, kl, elbo: in nats per image.

The reparameterisation z = mu + sigma * eps: a draw from q(z|x) depends on mu
and sigma, but one cannot differentiate through "draw". Written so, the
randomness is in eps, which has no parameters, and z is an ordinary function
of mu and sigma: the gradient passes to the encoder.

The gap: log p(x) - ELBO = KL( q(z|x) || p(z|x) ). It is 0 where q is the true
posterior. q is a normal with independent dimensions, which the posterior
rarely is, so a gap remains; more samples S make it smaller.

A Bernoulli is a likelihood of zeros and ones only: whenever an image is seen,
its pixels are drawn anew as x_i ~ Bernoulli(grey value) (dynamic
binarisation). A Gaussian is a density, which has no bound on the 256 single
values of 8 bits: value k is drawn anew as (k + u) / 256, u uniform between 0
and 1 (dequantisation). E_u log p(x) - P log 256 is then at most the log
probability of the 8-bit image, of P values (Theis et al. 2016). s is learnt,
one for all pixels. At its optimum s^2 is the mean squared error of a pixel,
which sets the balance of nll and kl without a --beta (Rybkin et al. 2021).

A discretised logistic distribution is a probability of the 256 levels, so no
noise is added, and the elbo bounds that of the 8-bit image as it stands:

    p(x_i|z) = F((x_i + h - m_i) / s) - F((x_i - h - m_i) / s)
    F(a)     = 1 / (1 + e^-a),  h = 1/510, half a level

The first level and the last one take the rest of the line. s is learnt, one
for all pixels (Kingma et al. 2016, appendix).

A dimension of z that the decoder ignores costs no kl. With more --hidden
layers fewer are used: reconstructions are worse, and samples are nearer to
digits. For colour pictures one layer, --hidden 400, learns far faster.

encode gives the mean of q(z|x), decode the mean m(z) of p(x|z), not samples:
pictures show grey values where a true sample of p(x|z) would have noise.

--conditional draws images of a class y that is asked for, of K:

    p(x, y, z) = p(x|z, y) p(z) / K         q(z, y|x) = q(z|x) q(y|x)
    L    = nll + beta kl - log q(y|x),  elbo = -(nll + kl + log K)

Kingma et al. 2014, "M2", equations 6 and 9, with q(z|x) instead of q(z|x, y).
The class is appended to the code as K values, 1 for y and 0 for the others.
In training it is the label; encode takes the most probable one by q(y|x). So
z need not tell the decoder which digit to draw, only how.

The model teaches how an autoencoder becomes a generative model: kl gives the
codes a distribution that one can sample from. In its pictures compare
reconstructions with samples: both are blurred, as m(z) is a mean over all
images that z may stand for, and samples that are no digits come from codes
that no training image has.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal
from torch.nn import functional as F
from torch.nn.functional import logsigmoid
from torch.optim import Adam

from aelab.networks import mlp, pyramid
from aelab.recipe import ImageShape, Metrics, Phase, Recipe


class VAE(Recipe):
    epochs = 30
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        classes: int = 0,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 20,
        net: Annotated[
            Literal["mlp", "conv"], "Encoder and decoder: hidden layers only (mlp), or convolutions too (conv)."
        ] = "conv",
        hidden: Annotated[
            tuple[int, ...], Ge(1), "Widths of the hidden layers of the encoder; the decoder has them in reverse order."
        ] = (400, 400),
        width: Annotated[
            int, Ge(1), "With --net conv, channels after the first convolution; each further one doubles them."
        ] = 16,
        likelihood: Annotated[
            Literal["bernoulli", "gaussian", "logistic"],
            "Distribution p(x|z) of a pixel: bernoulli if it is drawn black or white; for grey values and colours gaussian, "
            "a density, or logistic, a probability of 256 levels.",
        ] = "bernoulli",
        beta: Annotated[float, Ge(0), "Weight of the KL term in the loss; 1 makes it the ELBO."] = 1.0,
        samples: Annotated[
            int, Ge(1), "Codes S drawn for each image; with more than 1 the loss is the importance-weighted bound."
        ] = 1,
        conditional: Annotated[bool, "Learn from the labels to draw images of a class that is asked for."] = False,
        lr: Annotated[float, Gt(0), "Learning rate of Adam; that of s is ten times it."] = 1e-3,
    ) -> None:
        super().__init__()
        if samples > 1 and beta != 1:
            raise ValueError("--beta cannot be combined with --samples above 1")
        if samples > 1 and conditional:
            raise ValueError("--conditional cannot be combined with --samples above 1")
        if conditional and classes < 2:
            raise ValueError("--conditional needs images of at least two classes")
        self.conditional, self.classes = conditional, classes if conditional else 0  # K
        self.latent_dim, self.binary, self.discrete = latent_dim, likelihood == "bernoulli", likelihood == "logistic"
        self.beta, self.samples, self.lr = beta, samples, lr
        if net == "conv":
            down, up, top = pyramid(
                image,
                width,
                after=lambda c: [nn.BatchNorm2d(c), nn.SiLU()],
                before=lambda c: [nn.BatchNorm2d(c), nn.SiLU()],
            )
        else:
            down, up, top = [], [], image
        widths = [math.prod(top), *hidden]
        self.encoder = nn.Sequential(
            *down,
            nn.Flatten(),
            *mlp(*widths, 2 * latent_dim + self.classes, activation=nn.SiLU),
        )
        self.decoder = nn.Sequential(
            *mlp(latent_dim + self.classes, *reversed(widths), activation=nn.SiLU),
            nn.Unflatten(1, top),
            *up,
        )
        self.log_s = nn.Parameter(torch.tensor(-1.0), requires_grad=not self.binary)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        x = self.observe(x)
        if self.samples > 1:
            bound = torch.logsumexp(self.log_weights(x, self.samples), 0).mean() - math.log(self.samples)
            return -bound, {}
        mu, log_var, logits = self.infer(x)  # (B, D), (B, D), (B, K)
        eps = torch.randn_like(mu)
        z = mu + torch.exp(log_var / 2) * eps  # mu + sigma * eps
        kl = (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)
        if not self.conditional:
            nll = -self.log_likelihood(x, z).mean()
            return nll + self.beta * kl, {"nll": nll, "kl": kl, "elbo": -(nll + kl)}
        nll = -self.log_likelihood(x, self.with_class(z, y)).mean()
        class_nll = F.cross_entropy(logits, y)  # - log q(y|x)
        elbo = -(nll + kl + math.log(self.classes))
        return nll + self.beta * kl + class_nll, {"nll": nll, "kl": kl, "class_nll": class_nll, "elbo": elbo}

    def observe(self, x: Tensor) -> Tensor:
        """What p(x|z) is a distribution of, (B, C, H, W): binary or dequantised values drawn from grey ones, or the levels."""
        if self.binary:
            return torch.bernoulli(x)
        return (255 * x).round() / 255 if self.discrete else (255 * x + torch.rand_like(x)) / 256

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean and the log variance of q(z|x), and log q(y|x) up to a constant: (B, D), (B, D), (B, K)."""
        mu, log_var, logits = self.encoder(x).split([self.latent_dim, self.latent_dim, self.classes], dim=1)
        return mu, log_var, logits

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        return self.infer(x)[:2]  # (B, D), (B, D)

    def with_class(self, z: Tensor, y: Tensor) -> Tensor:
        """Codes z (B, D) with their classes y (B,) behind them, (B, D + K)."""
        return torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (B,), of observed images x."""
        m = self.decoder(z)  # (B, C, H, W), before the sigmoid
        if self.discrete:
            return log_logistic(x, m.sigmoid(), self.log_s.exp()).flatten(1).sum(1)
        p = Bernoulli(logits=m, validate_args=False) if self.binary else Normal(m.sigmoid(), self.log_s.exp())
        return p.log_prob(x).flatten(1).sum(1)

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """log w_s = log p(x, z_s) - log q(z_s|x), (S, B), of observed images x."""
        mu, log_var, logits = self.infer(x)  # (B, D), (B, D), (B, K)
        eps = torch.randn(samples, *mu.shape, device=x.device)  # (S, B, D)
        z = mu + torch.exp(log_var / 2) * eps
        log_ratio = (eps**2 + log_var - z**2).sum(2) / 2  # log p(z) - log q(z|x): the constants cancel
        z = z.flatten(0, 1)
        if self.conditional:
            q = Categorical(logits=logits)
            y = q.sample((samples,))  # (S, B)
            log_ratio = log_ratio - math.log(self.classes) - q.log_prob(y)
            z = self.with_class(z, y.flatten())
        return self.log_likelihood(x.repeat(samples, 1, 1, 1), z).view(samples, -1) + log_ratio

    def phases(self, epochs: int) -> list[Phase]:
        if self.binary:
            return super().phases(epochs)
        # Adam moves a weight by about its learning rate: with that of the nets, log s would need thousands of steps.
        nets = Adam([*self.encoder.parameters(), *self.decoder.parameters()], self.lr, fused=True)
        return [
            Phase("train", epochs, self.training_step, adam=nets, adam_s=Adam([self.log_s], 10 * self.lr, fused=True))
        ]

    def encode(self, x: Tensor) -> Tensor:
        mu, _, logits = self.infer(x)
        return self.with_class(mu, logits.argmax(1)) if self.conditional else mu  # (B, D) or (B, D + K)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))  # (B, C, H, W), m(z)

    def sample_prior(self, n: int) -> Tensor:
        if self.conditional:
            return self.sample_class(torch.randint(self.classes, (n,), device=self.log_s.device))  # (n, D + K)
        return torch.randn(n, self.latent_dim, device=self.log_s.device)  # (n, D)

    def sample_class(self, y: Tensor) -> Tensor:
        return self.with_class(torch.randn(len(y), self.latent_dim, device=y.device), y)  # (n, D + K)


def log_logistic(x: Tensor, m: Tensor, s: Tensor) -> Tensor:
    """log of the probability of levels x = k/255 under logistic distributions with means m and scale s.

    log( F(a) - F(b) ) = log F(a) + log F(-b) + log( 1 - e^(b-a) ), where no difference of nearly equal numbers is taken.
    """
    h = 1 / 510
    first, last = x < h, x > 1 - h  # whose intervals have no lower and no upper end
    below = torch.where(last, 0.0, logsigmoid((x + h - m) / s))
    above = torch.where(first, 0.0, logsigmoid((m + h - x) / s))
    return below + above + torch.where(first | last, 0.0, torch.log(-torch.expm1(-2 * h / s)))
