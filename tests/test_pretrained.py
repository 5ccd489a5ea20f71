"""`pretrained --variational`: the loss of its first phase in closed form, and a frozen encoder stays as it is."""

import math

import pytest
import torch

from aelab.errors import UserError
from aelab.recipe_files import build, find

IMAGE, SIZE = (1, 8, 8), 5


def recipe(**options):
    torch.manual_seed(0)
    return build(find("pretrained"), IMAGE, {"variational": True, "latent_dim": SIZE, **options}, 3)


def step_of(model, phase, *batch):
    (chosen,) = [each for each in model.phases(1) if each.name == phase]
    return chosen.step(*batch, **chosen.optimizers)


@pytest.mark.parametrize(("mu", "log_var"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_the_first_phase_descends_the_elbo(mu, log_var):
    """With zero weights the decoder gives every pixel 1/2, and the posterior is what the last biases of the encoder say."""
    model = recipe()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.encoder[-1][-1].bias[:SIZE] = mu
        model.encoder[-1][-1].bias[SIZE:] = log_var
    loss = step_of(model, "pretrain", torch.rand(4, *IMAGE), torch.zeros(4).long())["loss"]
    kl = SIZE * (mu**2 + math.exp(log_var) - 1 - log_var) / 2
    assert loss.item() == pytest.approx(64 * math.log(2) + kl, rel=1e-5)


def test_a_frozen_encoder_stays_and_the_classifier_learns():
    model = recipe(freeze=2, pretrain=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_of(model, "fine-tune", torch.rand(6, *IMAGE), torch.arange(6) % 3)
    after = model.state_dict()
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}


def test_the_classifier_sees_draws_while_it_trains_and_the_mean_afterwards():
    model, x = recipe(), torch.rand(2, *IMAGE)
    model.train()
    assert not torch.equal(model.code(x), model.code(x))
    model.eval()
    assert torch.equal(model.code(x), model.encode(x))
    assert model.encode(x).shape == (2, SIZE)


def test_there_are_two_layers_to_freeze():
    with pytest.raises(UserError, match="--freeze 3: the encoder has 2 layers"):
        recipe(freeze=3)
