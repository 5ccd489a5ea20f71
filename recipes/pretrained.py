"""Pretrained classifier: learn from images without labels, then a few labels.

    1. pretrain, no labels:   z = f(x + noise eps)    L = mean (x - g(z))^2
    2. fine-tune, N labels:   p(y|x) = softmax(W f(x + noise eps) + b)
                              L = - mean log p(y|x)
    3. pseudo-label, both:    the same L with y = argmax p(y|x), of the
                              clean x, where there is no label

f is first the encoder of a denoising autoencoder, then the lower part of the
classifier (Hinton & Salakhutdinov 2006; Vincent et al. 2010). Images are
cheap and labels expensive: the fewer labels, the more it should help.

With --labels N there is a third phase. Half of each batch then comes from all
images, labelled with the classes that the classifier itself predicts (Lee
2013). Lee weights that half by alpha(t), which is 0 at first and then rises
slowly, as early predictions are often wrong. That ramp is left out: the
second phase stands for weight 0, and the third has weight 1 from its first
step.

--variational replaces both nets: f is the encoder of a convolutional VAE,

    1. pretrain, no labels:   mu, log sigma^2 = f(x), q(z|x) = N(mu, sigma^2)
                              L = - ELBO   (see `vae`)
    2. and 3.:                the classifier sees z ~ q(z|x), not f(x + noise)

With --freeze 2 f stays as it was pretrained, and only a small net learns
from the labels: model M1 of Kingma et al. 2014, but for their classifier, a
support vector machine.

--no-pretrain is the classifier from scratch, all else equal, to compare with;
--freeze L keeps the lower L layers of f as they were pretrained. Hidden
layers have batch normalisation and a ReLU; evaluation is without noise.

The model teaches how much images without labels are worth, and by which of
the two ways: pretraining or pseudo-labels. Look at test/error against the
number of labels, with and without pretraining, over several draws of the
labels: `aelab compare --recipe pretrained --table labels`.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from aelab.networks import mlp, mlp_blocks, pyramid
from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


class Pretrained(Recipe):
    epochs = 20
    schedule = "cosine"
    overcomplete = True
    monitor = None  # to choose by validation would be to use its labels

    def __init__(
        self,
        image: ImageShape,
        classes: int,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 250,
        hidden: Annotated[
            tuple[int, ...], Ge(1), "Widths of the hidden layers of f; the decoder g has them in reverse order."
        ] = (1000, 500),
        pretrain: Annotated[
            bool, "Start with the first phase; --no-pretrain trains the classifier from scratch."
        ] = True,
        finetune: Annotated[
            int, Ge(0), "Epochs of the second phase; --epochs are those of the first, with as many steps each."
        ] = 10,
        pseudo_label: Annotated[int, Ge(0), "Epochs of the third phase, which only a training with --labels has."] = 10,
        labels: Annotated[
            int, Ge(0), "Labelled images that may be used, as many of each class, drawn by --seed; 0 means all."
        ] = 0,
        freeze: Annotated[int, Ge(0), "Number of lower layers of f that stay as they were pretrained."] = 0,
        noise: Annotated[float, Ge(0), "Standard deviation of the Gaussian noise on the images while it trains."] = 0.3,
        variational: Annotated[
            bool, "Pretrain a convolutional VAE instead, and classify codes that are drawn from q(z|x)."
        ] = False,
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 1e-3,
    ) -> None:
        super().__init__()
        self.pretrain, self.finetune, self.pseudo_label = pretrain, finetune, pseudo_label
        self.labels, self.freeze, self.noise, self.variational, self.lr = labels, freeze, noise, variational, lr
        if variational:
            layers, decoder = self.convolutions(image, latent_dim)
            head: nn.Module = nn.Sequential(*mlp(latent_dim, 200, classes, activation=nn.ReLU))
        else:
            layers, decoder = self.perceptrons(image, [math.prod(image), *hidden, latent_dim])
            head = nn.Linear(latent_dim, classes)
        if freeze > len(layers):
            raise ValueError(f"--freeze {freeze}: the encoder has {len(layers)} layers")
        self.encoder = nn.Sequential(nn.Identity() if variational else nn.Flatten(), *layers)  # [k] is layer k
        self.decoder, self.head = decoder, head

    def perceptrons(self, image: ImageShape, widths: list[int]) -> tuple[list[nn.Module], nn.Module]:
        """The layers of f, (B, C H W) -> (B, D), and g."""
        encoder = mlp_blocks(*widths, activation=nn.ReLU)
        decoder = nn.Sequential(
            *mlp_blocks(*reversed(widths[1:]), activation=nn.ReLU),
            nn.Linear(widths[1], widths[0]),
            nn.Sigmoid(),
            nn.Unflatten(1, image),
        )
        return encoder, decoder

    def convolutions(self, image: ImageShape, latent_dim: int) -> tuple[list[nn.Module], nn.Module]:
        """f, (B, C, H, W) -> (B, 2 D), as its convolutions and its dense layers, and g, before its sigmoid: those of `vae`."""
        down, up, top = pyramid(image, 16, after=lambda c: [nn.SiLU()], before=lambda c: [nn.SiLU()])
        dense = mlp(math.prod(top), 400, 400, 2 * latent_dim, activation=nn.SiLU)
        encoder: list[nn.Module] = [nn.Sequential(*down), nn.Sequential(nn.Flatten(), *dense)]
        decoder = mlp(latent_dim, 400, 400, math.prod(top), activation=nn.SiLU)
        return encoder, nn.Sequential(*decoder, nn.Unflatten(1, top), *up)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.cross_entropy(self.head(self.code(x)), y), {}

    def pretraining_step(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step of the first phase. The decoder is of no use afterwards: the second phase changes the codes."""
        if self.variational:
            mu, log_var = self.encoder(x).chunk(2, 1)  # (B, D), (B, D)
            z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)
            nll = F.binary_cross_entropy_with_logits(self.decoder(z), torch.bernoulli(x), reduction="sum") / len(x)
            loss = nll + (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)
        else:
            loss = F.mse_loss(self.decoder(self.code(x)), x)
        descend(loss, adam)
        return {"loss": loss}

    def finetuning_step(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step of the second phase, with labels."""
        self.encoder[: self.freeze + 1].eval()  # the running averages of frozen layers stay too
        return self.training_step(x, y, adam=adam)

    def pseudo_label_step(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step of the third phase: x (2 B, C, H, W), y (2 B,), where -1 is replaced by the predicted class."""
        self.eval()
        with torch.no_grad():
            predicted = self.classify(x).argmax(1)  # (2 B,)
        self.train()
        return self.finetuning_step(x, torch.where(y < 0, predicted, y), adam)

    def phases(self, epochs: int) -> list[Phase]:
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        classifier = [*self.encoder[self.freeze + 1 :].parameters(), *self.head.parameters()]
        first, second, third = (Adam(moved, self.lr, fused=True) for moved in (autoencoder, classifier, classifier))
        pseudo, some = self.pseudo_label if self.labels else 0, self.labels
        return [
            Phase("pretrain", epochs if self.pretrain else 0, self.pretraining_step, adam=first),
            Phase("fine-tune", self.finetune, self.finetuning_step, labels=some, adam=second),
            Phase("pseudo-label", pseudo, self.pseudo_label_step, labels=some, unlabelled=True, adam=third),
        ]

    def code(self, x: Tensor) -> Tensor:
        """What the decoder and the classifier see, (B, D): while it trains, f(x + noise) or z ~ q(z|x)."""
        if not self.training:
            return self.encode(x)
        if not self.variational:
            return self.encoder(x + self.noise * torch.randn_like(x))
        mu, log_var = self.encoder(x).chunk(2, 1)  # (B, D), (B, D)
        return mu + torch.exp(log_var / 2) * torch.randn_like(mu)

    def encode(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return code.chunk(2, 1)[0] if self.variational else code  # (B, D), mu of a VAE

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))  # (B, K), logits
