"""Restricted Boltzmann machine: an energy of pixels and hidden units.

    p(v, h) = exp(-E(v, h)) / Z             v_i, h_j in {0, 1}
    E(v, h) = - a'v - b'h - v'W h
    F(v)    = - log sum_h exp(-E(v, h)) = - a'v - sum_j log(1 + exp s_j)
    s       = b + W'v                       log p(v) = - F(v) - log Z
    p(h_j = 1 | v) = sigmoid(s_j)           p(v_i = 1 | h) = sigmoid(a + Wh)_i

    L = E_data[ F(v) ] - E_model[ F(v) ]    dL = - E_data[ d log p(v) ]

Hinton 2002; Hinton & Salakhutdinov 2006; Tieleman 2008.

F has a closed form because no two hidden units are connected: given v they
are independent, and so are the pixels given h. That is what is restricted.

The negative phase: E_model asks for images v of the model itself. A step of
Gibbs sampling draws v ~ p(v|h), then h ~ p(h|v); a chain of such steps comes
to draw from the model. Contrastive divergence (--negative cd) starts a chain
at each image of the batch and takes k steps, too few to get far from it.
Persistent chains (pcd) go on where they were at the last training step. The
weights change little in between, so they stay close to the model.

Only the gradient of L means something. Its value is about 0 throughout, and
no number to select by. Z is a sum over 2^D states. Annealed importance
sampling estimates it, from a model of independent pixels to this one
(Salakhutdinov & Murray 2008).

Centring (Montavon & Mueller 2012): everywhere v - m stands for v and h - n
for h, with running means m and n over the data. (v - m)'W(h - n) is v'Wh and
terms that a and b take up, so this is the same family of distributions. But
W need not learn what the mean image is, and plain gradient descent does it.

Like a VAE it has codes, a likelihood and samples. encode gives p(h|v), decode
p(v|h). Unlike it, it has no encoder beside the model: p(h|v) is exact, while
log p(v) is known up to Z only. Pixels are drawn anew as v_i ~ Bernoulli(grey
value) whenever an image is seen.

The model teaches what an energy is, and what a normaliser costs. In its
pictures look at the samples, which are sharp, and at the filters: some are
spots and strokes, some mean something together with others only.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import SGD, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend

SAMPLE_STEPS = 200  # Gibbs steps between the chains of the training and a sample
CENTRING = 0.01  # the share of a batch in the running means
EPSILON = 1e-3  # no pixel is black or white with more certainty where annealing begins


def draw(p: Tensor) -> Tensor:
    """Zeros and ones, each a one with its probability p. torch.bernoulli takes three times as long."""
    return (torch.rand_like(p) < p).to(p.dtype)


class RBM(Recipe):
    epochs = 100
    schedule = "cosine"
    monitor = None  # the loss is no measure of the model
    overcomplete = True
    binary = True

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "Hidden units, the dimension D of the code h."] = 500,
        negative: Annotated[
            Literal["pcd", "cd"], "Chains of the negative phase: persistent (pcd), or begun at the images (cd)."
        ] = "pcd",
        steps: Annotated[int, Ge(1), "Gibbs steps k of each chain in a training step."] = 1,
        chains: Annotated[int, Ge(1), "Number of chains that are kept, for pcd and for samples."] = 128,
        lr: Annotated[float, Gt(0), "Learning rate of SGD."] = 0.2,
    ) -> None:
        super().__init__()
        self.image, self.persistent, self.steps, self.lr = image, negative == "pcd", steps, lr
        pixels = math.prod(image)
        self.weight = nn.Parameter(0.01 * torch.randn(pixels, latent_dim))  # W
        self.a = nn.Parameter(torch.zeros(pixels))
        self.b = nn.Parameter(torch.zeros(latent_dim))
        self.m: Tensor
        self.n: Tensor
        self.seen: Tensor
        self.chains: Tensor
        self.register_buffer("m", torch.full((pixels,), 0.5))
        self.register_buffer("n", torch.full((latent_dim,), 0.5))
        self.register_buffer("seen", torch.tensor(0))  # batches
        self.register_buffer("chains", torch.rand(chains, latent_dim) < 0.5)  # a hidden state each

    def hidden_input(self, v: Tensor) -> Tensor:
        """s (B, D) of pixels v (B, C, H, W) or (B, V)."""
        return self.b + (v.flatten(1) - self.m) @ self.weight

    def free_energy(self, x: Tensor) -> Tensor:
        """F(v) in nats, (B,), of observed images x (B, C, H, W)."""
        s = self.hidden_input(x)  # (B, D)
        return -(x.flatten(1) - self.m) @ self.a + s @ self.n - softplus(s).sum(1)

    def hidden(self, v: Tensor) -> Tensor:
        """p(h = 1 | v), (B, D)."""
        return torch.sigmoid(self.hidden_input(v))

    def visible(self, h: Tensor) -> Tensor:
        """p(v = 1 | h), (B, V)."""
        return torch.sigmoid(self.a + (h - self.n) @ self.weight.T)

    @torch.no_grad()
    def gibbs(self, h: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, V) and hidden states (B, D) after so many steps of Gibbs sampling from the hidden states h (B, D)."""
        for _ in range(steps):
            v = draw(self.visible(h))
            h = draw(self.hidden(v))
        return v, h

    @torch.no_grad()
    def negative_phase(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, V) of the model and their hidden states (B, D), for a batch v. The kept chains stay as they are."""
        h = self.chains.to(v.dtype) if self.persistent else draw(self.hidden(v))
        return self.gibbs(h, self.steps)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        v = self.observe(x)
        v_model, _ = self.negative_phase(v)
        loss = self.free_energy(v).mean() - self.free_energy(v_model).mean()
        return loss, {"pseudo_nll": self.pseudo_nll(v).mean()}

    def training_step(self, x: Tensor, y: Tensor, sgd: Optimizer) -> Metrics:
        v = self.observe(x)
        if not self.seen:
            self.begin(v)
        v_model, h = self.negative_phase(v)  # (B, V), (B, D)
        loss = self.free_energy(v).mean() - self.free_energy(v_model).mean()
        descend(loss, sgd)
        kept = h[: len(self.chains)]
        self.chains[: len(kept)] = kept.bool()
        self.centre(v)
        return {"loss": loss}

    @torch.no_grad()
    def begin(self, v: Tensor) -> None:
        """Makes this the model of independent pixels, from the first batch v: a = log odds of a pixel (Hinton 2012)."""
        self.m.copy_((v.flatten(1).sum(0) + 0.5) / (len(v) + 1))
        self.a.copy_(torch.logit(self.m))

    @torch.no_grad()
    def centre(self, v: Tensor) -> None:
        """Moves m and n towards the means of a batch v, and a and b with them, so that p(v, h) stays the same."""
        m = torch.lerp(self.m, v.flatten(1).mean(0), CENTRING)
        n = torch.lerp(self.n, self.hidden(v).mean(0), CENTRING)
        self.a.add_(self.weight @ (n - self.n))
        self.b.add_((m - self.m) @ self.weight)
        self.m.copy_(m)
        self.n.copy_(n)
        self.seen += 1

    def phases(self, epochs: int) -> list[Phase]:
        return [Phase("train", epochs, self.training_step, sgd=SGD(self.parameters(), self.lr))]

    def observe(self, x: Tensor) -> Tensor:
        """What has the likelihood: zeros and ones drawn from the grey values."""
        return draw(x)  # (B, C, H, W)

    def pseudo_nll(self, v: Tensor) -> Tensor:
        """- sum_i log p(v_i | the other pixels), (B,), of pixels v (B, C, H, W): V times that of one random pixel of each.

        Z cancels: with v* as v but pixel i flipped, p(v_i | others) = sigmoid(F(v*) - F(v)).
        """
        v = v.flatten(1)
        i = torch.randint(v.shape[1], (len(v), 1), device=v.device)
        flipped = v.scatter(1, i, 1 - v.gather(1, i))
        return v.shape[1] * softplus(self.free_energy(v) - self.free_energy(flipped))

    @torch.no_grad()
    def log_partition(self, steps: int, chains: int) -> Tensor:
        """log w of each chain, (chains,): annealed importance sampling, Salakhutdinov & Murray 2008.

        p_t ~ p_0^(1 - t) p^t with t from 0 to 1, and p_0 independent pixels with the means m.
        """
        a0 = torch.logit(self.m, EPSILON)  # (V,)
        v = draw(torch.sigmoid(a0).expand(chains, -1))  # (chains, V)
        log_z0 = softplus(a0).sum() + len(self.b) * math.log(2)
        log_w = v.new_zeros(chains)
        for k in range(steps):
            before, t = k / steps, (k + 1) / steps
            s = self.hidden_input(v)  # (chains, D)
            log_ratio = (v - self.m) @ self.a - s @ self.n - v @ a0
            log_w += (t - before) * log_ratio + (softplus(t * s) - softplus(before * s)).sum(1)
            h = draw(torch.sigmoid(t * s))
            v = draw(torch.sigmoid((1 - t) * a0 + t * (self.a + (h - self.n) @ self.weight.T)))
        return log_z0 + log_w

    def encode(self, x: Tensor) -> Tensor:
        return self.hidden(x)  # (B, D), p(h = 1 | v)

    def decode(self, z: Tensor) -> Tensor:
        return self.visible(z).unflatten(1, self.image)  # (B, C, H, W), p(v = 1 | h)

    def sample_prior(self, n: int) -> Tensor:
        """Hidden states (n, D): a copy of the chains, SAMPLE_STEPS steps on; as many again for each further row of them."""
        h, drawn = self.chains[:n].to(self.weight.dtype), []
        for _ in range(math.ceil(n / len(h))):
            _, h = self.gibbs(h, SAMPLE_STEPS)
            drawn.append(h)
        return torch.cat(drawn)[:n]

    def filters(self) -> Tensor:
        return self.weight.T.unflatten(1, self.image)  # (D, C, H, W)
