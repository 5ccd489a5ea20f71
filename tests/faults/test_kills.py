"""Killed: at random moments, and inside a save. The last good checkpoint is there, and the resume is exact."""

import signal
import time

import pytest
from machinery import DIGITS, pictures_of, run_folder, same_run

from aelab.tracking import Store
from aelab.training import checkpoint

OFTEN = "aelab.training.saving.SAVE_SECONDS = 0.02"  # between two checkpoints
RECIPES = {
    "vae": ("vae", "--net", "mlp", "--hidden", 40, "--epochs", 12),  # random numbers in every step
    "gan": ("gan", "--epochs", 4, "--ema", 0.9),  # two optimizers, an average
    "pretrained": ("pretrained", "--hidden", 20, "--latent-dim", 10, "--epochs", 6, "--labels", 50),  # three phases
}


@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_random_moments_it_ends_where_a_whole_run_ends(aelab, chance, request, tally, name):
    words = ("train", *RECIPES[name], *DIGITS, "--seed", 3)
    begun = time.monotonic()
    aelab.run(*words, "--name", "whole", patch=OFTEN)
    whole = time.monotonic() - begun
    kills, wanted, runs, cut = 0, -(-request.config.getoption("--kills") // len(RECIPES)), 0, ""
    while kills < wanted or cut:
        if not cut:
            cut, runs = f"cut{runs}", runs + 1
            process = aelab.start(*words, "--name", cut, patch=OFTEN)
        else:
            process = aelab.start("resume", cut, "-q", patch=OFTEN)
        if kills < wanted:
            time.sleep(chance.uniform(0, whole))
            process.kill()
        ended = process.wait()
        assert ended in (0, -signal.SIGKILL), process.err
        kills += ended != 0
        mine = [info for info in Store().runs() if info.name == cut]
        if not mine or not (run_folder(cut) / "config.json").exists():
            assert not mine or not (run_folder(cut) / "checkpoints").exists()
            cut = ""  # killed before it was a run: nothing is lost
            continue
        folder = run_folder(cut) / "checkpoints"
        assert not checkpoint.present(folder, "last") or checkpoint.newest(folder, "last", pytest.fail), (
            "always a whole one"
        )
        if ended == 0 or mine[0].status == "FINISHED":  # killed between its end and that of its process
            same_run(cut, "whole")
            assert pictures_of(cut) == pictures_of("whole")
            cut = ""
    tally("SIGKILL at a random moment", kills)


@pytest.mark.parametrize(("call", "number"), [("fsync", n) for n in range(8, 15)] + [("rename", n) for n in (2, 3, 4)]
                         + [("rmtree", n) for n in (8, 9, 10, 11, 12)])  # fmt: skip
def test_killed_inside_a_save(aelab, tally, call, number):
    """At the N-th call of a kind: while a file, its folder or its parent is synced, renamed, or an old one is removed."""
    words = ("train", "linear", *DIGITS, "--epochs", 4, "--schedule", "constant")
    place = {"fsync": "os", "rename": "aelab.training.checkpoint.Path", "rmtree": "aelab.training.checkpoint.shutil"}[
        call
    ]
    patch = f"""
{OFTEN}
real, calls = {place}.{call}, []
def fatal(*arguments, **options):
    calls.append(1)
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
{place}.{call} = fatal
"""
    process = aelab.start(*words, "--name", "cut", patch=patch)
    assert process.wait() == -signal.SIGKILL, process.err
    found = checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail)
    assert found, "the one before is whole"
    aelab.run("resume", "cut", "-q")
    aelab.run(*words, "--name", "whole")
    same_run("cut", "whole")
    assert not list((run_folder("cut") / "checkpoints").glob(".*")), "nothing half done is left"
    tally(f"SIGKILL inside a save ({call})")
