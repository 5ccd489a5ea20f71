"""A step that several processes share, without processes: its draws, its batch normalisation, its gradients."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aelab import UserError
from aelab.training import torchrun
from aelab.training.shared_step import SharedStep
from aelab.workflows.together import refuse_torchrun

ROWS, SIZE = 4, 2  # of each process, and processes


class Place:
    """A process that exchanges nothing."""

    size = SIZE

    def __init__(self, rank):
        self.rank = rank


class Thread:
    """A thread as a process of a group: what it gives, all get."""

    size = SIZE
    gathered = [None] * SIZE
    barrier = threading.Barrier(SIZE)

    def __init__(self, rank):
        self.rank = rank

    def gather(self, values):
        self.gathered[self.rank] = values
        self.barrier.wait()
        found = torch.stack(self.gathered)
        self.barrier.wait()
        return found

    def mean(self, values):
        return self.gather(values).mean(0)


def own(values, rank, dim=0):
    """The rows of a rank in values for the whole batch, which may come several times."""
    batches = values.split(ROWS * SIZE, dim)
    return torch.cat([batch.narrow(dim, rank * ROWS, ROWS) for batch in batches], dim)


WHOLE = torch.rand(ROWS * SIZE, 3, 5, 5)
TWICE = torch.cat([WHOLE, WHOLE + 1])  # reconstructed and drawn, say
DRAWS = {
    "randn(n, D)": (lambda x: torch.randn(len(x), 7), WHOLE, 0),
    "randn((n, D))": (lambda x: torch.randn((len(x), 7), device=x.device), WHOLE, 0),
    "rand(size=)": (lambda x: torch.rand(size=(len(x), 7)), WHOLE, 0),
    "randn(S, n, D)": (lambda x: torch.randn(3, len(x), 7), WHOLE, 1),
    "randint(K, (n,))": (lambda x: torch.randint(9, (len(x),)), WHOLE, 0),
    "randint(a, b, (n, 1))": (lambda x: torch.randint(-2, 9, (len(x), 1)), WHOLE, 0),
    "randn_like": (torch.randn_like, WHOLE, 0),
    "randn_like twice": (torch.randn_like, TWICE, 0),
    "rand_like, channels last": (torch.rand_like, WHOLE.to(memory_format=torch.channels_last), 0),
    "bernoulli": (torch.bernoulli, WHOLE, 0),
    "normal": (lambda x: torch.normal(x, 0.5), WHOLE, 0),
    "normal_": (lambda x: torch.empty(len(x), 3).normal_(1, 2), WHOLE, 0),
    "dropout": (lambda x: F.dropout(x, 0.3, True), WHOLE, 0),
    "dropout2d": (lambda x: F.dropout2d(x, 0.3, True), WHOLE, 0),
    "Categorical": (lambda x: torch.distributions.Categorical(x[:, 0, 0]).sample((3,)), WHOLE, 1),
    "Normal": (lambda x: torch.distributions.Normal(x, 1.0).rsample(), WHOLE, 0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_the_rows_of_what_one_process_draws(name):
    draw, x, dim = DRAWS[name]
    torch.manual_seed(1)
    whole = draw(x)
    state = torch.get_rng_state()
    for rank in range(SIZE):
        torch.manual_seed(1)
        with SharedStep(Place(rank), nn.Identity(), ROWS):
            drawn = draw(own(x, rank))
        assert torch.equal(drawn, own(whole, rank, dim))
        assert torch.equal(torch.get_rng_state(), state), "they draw equally much"


def test_what_has_no_row_for_an_image_is_the_same_in_all():
    torch.manual_seed(1)
    alone = torch.randn(3, 7), torch.randperm(5)
    torch.manual_seed(1)
    with SharedStep(Place(1), nn.Identity(), ROWS):
        assert all(map(torch.equal, alone, (torch.randn(3, 7), torch.randperm(5))))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_and_gradients_are_those_of_the_whole_batch(affine):
    """Statistics, running averages, outputs and gradients; frozen parts keep no gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=affine), nn.SiLU(), nn.Flatten(), nn.Linear(36, 2))
    net = net.double()
    x = torch.rand(ROWS * SIZE, 3, 5, 5, dtype=torch.double)
    nets, outputs = [copy.deepcopy(net) for _ in range(SIZE)], [None] * SIZE

    def work(rank):
        with SharedStep(Thread(rank), nets[rank], ROWS):
            outputs[rank] = nets[rank](own(x, rank))
            outputs[rank].square().mean().backward()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = net(x)
    whole.square().mean().backward()
    assert torch.allclose(torch.cat(outputs), whole)
    for other in nets:
        for name, value in net.state_dict().items():
            assert torch.allclose(other.state_dict()[name], value), name
        for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.allclose(mine.grad, theirs.grad, atol=1e-12)


def test_a_loss_that_is_not_finite_in_one_is_a_gradient_that_is_not_finite_in_all():
    nets = [nn.Linear(2, 1) for _ in range(SIZE)]

    def work(rank):
        with SharedStep(Thread(rank), nets[rank], ROWS):
            (nets[rank](torch.ones(ROWS, 2)).mean() + (torch.inf if rank else 0.0)).backward()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for net in nets:
        assert not torch.isfinite(nn.utils.get_total_norm([p.grad for p in net.parameters()]))


def test_gradients_that_were_there_are_added_to():
    """As in one process, if a recipe calls backward twice."""
    nets = [nn.Linear(2, 1), nn.Linear(2, 1)]
    nets[1].load_state_dict(nets[0].state_dict())
    alone, x = copy.deepcopy(nets[0]), torch.rand(ROWS * SIZE, 2)

    def work(rank):
        with SharedStep(Thread(rank), nets[rank], ROWS):
            nets[rank](own(x, rank)).mean().backward()
            nets[rank](own(x, rank)).square().mean().backward()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone(x).mean().backward()
    alone(x).square().mean().backward()
    for net in nets:
        assert torch.allclose(net.weight.grad, alone.weight.grad)


def test_what_torchrun_says(monkeypatch):
    assert torchrun() is None
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    first = torchrun()
    assert (first.rank, first.size, first.restarts) == (1, 2, 0)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert torchrun().id == first.id and torchrun().restarts == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert torchrun().id != first.id
    with pytest.raises(UserError, match="2 processes of a sweep"):
        refuse_torchrun("a sweep")


def test_another_command_under_torchrun_is_refused(cli, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    answer = cli("runs")
    assert answer.code == 2 and "torchrun has started 2 processes" in answer.err
