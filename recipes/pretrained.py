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

from aelab.networks import mlp_blocks
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
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 1e-3,
    ) -> None:
        super().__init__()
        if freeze > len(hidden) + 1:
            raise ValueError(f"--freeze {freeze}: the encoder has {len(hidden) + 1} layers")
        self.pretrain, self.finetune, self.pseudo_label = pretrain, finetune, pseudo_label
        self.labels, self.freeze, self.noise, self.lr = labels, freeze, noise, lr
        widths = [math.prod(image), *hidden, latent_dim]
        self.encoder = nn.Sequential(
            nn.Flatten(),
            *mlp_blocks(*widths, activation=nn.ReLU),
        )
        self.decoder = nn.Sequential(
            *mlp_blocks(*reversed(widths[1:]), activation=nn.ReLU),
            nn.Linear(widths[1], widths[0]),
            nn.Sigmoid(),
            nn.Unflatten(1, image),
        )
        self.head = nn.Linear(latent_dim, classes)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.cross_entropy(self.classify(self.corrupt(x)), y), {}

    def pretraining_step(self, x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
        """One step of the first phase. The decoder is of no use afterwards: the second phase changes the codes."""
        loss = F.mse_loss(self.decoder(self.encode(self.corrupt(x))), x)
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

    def corrupt(self, x: Tensor) -> Tensor:
        return x + self.noise * torch.randn_like(x) if self.training else x  # (B, C, H, W)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)  # (B, D)

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))  # (B, K), logits
