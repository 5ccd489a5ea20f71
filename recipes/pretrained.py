"""Pretrained classifier: what images teach without labels, then a few labels.

    1. pretrain, no labels:   z = f(x + noise eps)    L = mean (x - g(z))^2
    2. fine-tune, N labels:   p(y|x) = softmax(W f(x + noise eps) + b)
                              L = - mean log p(y|x)
    3. pseudo-label, both:    the same L with y = argmax p(y|x), of the
                              clean x, where there is no label

f, trained as the encoder of a denoising autoencoder, is the start of the
classifier (Hinton & Salakhutdinov 2006; Vincent et al. 2010). Labels are dear
and images are cheap: the fewer labels, the more it should help. With --labels
the other images come back in a third phase, half of each batch, with labels
that the classifier gives them itself (Lee 2013).
--no-pretrain is the classifier from scratch, all else equal, to compare with;
--freeze K keeps the lower K layers of f as they were pretrained. Layers are
normalised over the batch and end in a ReLU; evaluation is without noise.
"""

from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


def layers(*widths: int) -> list[nn.Module]:
    """One block a layer: linear, normalised, ReLU."""
    return [nn.Sequential(nn.Linear(m, n), nn.BatchNorm1d(n), nn.ReLU()) for m, n in pairwise(widths)]


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
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 250,
        hidden: Annotated[tuple[int, ...], Ge(1), "widths of the encoder's hidden layers"] = (1000, 500),
        pretrain: Annotated[bool, "the first phase, of --epochs; without it: from scratch"] = True,
        finetune: Annotated[int, Ge(0), "epochs of the second phase; each has as many steps as one of the first"] = 10,
        pseudo_label: Annotated[
            int, Ge(0), "epochs of the third phase, with --labels; each has as many steps too"
        ] = 10,
        labels: Annotated[int, Ge(0), "labelled images, balanced, drawn by --seed; 0: all, and no third phase"] = 0,
        freeze: Annotated[int, Ge(0), "lower layers that stay as they were pretrained"] = 0,
        noise: Annotated[float, Ge(0), "standard deviation of the noise on the images"] = 0.3,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        if freeze > len(hidden) + 1:
            raise ValueError(f"--freeze {freeze}: the encoder has {len(hidden) + 1} layers")
        channels, height, width = image
        pixels = channels * height * width
        self.pretrain, self.finetune, self.pseudo_label = pretrain, finetune, pseudo_label
        self.labels, self.freeze, self.noise, self.lr = labels, freeze, noise, lr
        self.encoder = nn.Sequential(nn.Flatten(), *layers(pixels, *hidden, latent_dim))
        self.decoder = nn.Sequential(
            *layers(latent_dim, *reversed(hidden)), nn.Linear((*hidden, latent_dim)[0], pixels), nn.Sigmoid(),
            nn.Unflatten(1, image),
        )  # fmt: skip
        self.head = nn.Linear(latent_dim, classes)

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encode(x))  # (B, K)
        return logits

    def corrupt(self, x: Tensor) -> Tensor:
        return x + self.noise * torch.randn_like(x) if self.training else x

    def learn_images(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step without labels. The decoder is of no use afterwards: the second phase moves the codes."""
        loss = F.mse_loss(self.decoder(self.encode(self.corrupt(x))), x)
        descend(loss, adam)
        return {"loss": loss}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.cross_entropy(self.classify(self.corrupt(x)), y), {}

    def learn_labels(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step with labels."""
        self.encoder[: self.freeze + 1].eval()  # their running averages stay too
        return self.training_step(x, y, adam=adam)

    def learn_both(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step with labels, and with the classifier's own where there is none."""
        self.eval()
        with torch.no_grad():
            guess = self.classify(x).argmax(1)
        self.train()
        return self.learn_labels(x, torch.where(y < 0, guess, y), adam)

    def phases(self, epochs: int) -> list[Phase]:
        images = [*self.encoder.parameters(), *self.decoder.parameters()]
        labels = [*self.encoder[self.freeze + 1 :].parameters(), *self.head.parameters()]
        first, second, third = (Adam(moved, self.lr, fused=True) for moved in (images, labels, labels))
        pseudo, some = self.pseudo_label if self.labels else 0, self.labels
        return [
            Phase("pretrain", epochs if self.pretrain else 0, self.learn_images, adam=first),
            Phase("fine-tune", self.finetune, self.learn_labels, labels=some, adam=second),
            Phase("pseudo-label", pseudo, self.learn_both, labels=some, unlabelled=True, adam=third),
        ]
