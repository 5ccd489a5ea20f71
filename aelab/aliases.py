"""Names of earlier versions and what they are called now: their stores, recipe files and commands stay readable.

Nothing else in aelab knows an old name.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar("T")

METRICS = {  # without split, baseline or control
    "judge_error": "classifier_error",
    "class_score": "inception_score_lenet",
    "frechet_lenet": "fd_lenet",
    "frechet_inception": "fd_inception",
    "kernel_lenet": "kid_lenet",
    "kernel_inception": "kid_inception",
    "iwae_nll": "marginal_nll",
    "iwae_nll_se": "marginal_nll_se",
    "iwae_nll_mc_se": "marginal_nll_mc_se",
    "iwae_images": "marginal_nll_images",
}
GAME_METRICS = {  # of the built-in recipes gan and vaegan alone: another recipe's metrics are called as it says
    "forger": "g_loss",
    "critic": "d_loss",
    "like": "feature_loss",
    "grad_d": "d_grad_norm",
    "grad_g": "g_grad_norm",
    "grad_e": "e_grad_norm",
}
GAMES = ("gan", "vaegan")
SPLITS = {"kept": "best"}  # the validation of the weights that are kept
TAGS = {"aelab.health": "aelab.diagnostics"}
REASONS = {"its process ended without a word": "its process ended unexpectedly"}  # how aelab.reason begins
RECIPE = {  # attributes and methods of a recipe
    "objective": "monitor",
    "prior": "sample_prior",
    "spoil": "corrupt",
    "step": "training_step",
}
RECIPE_MODULE = {"Image": "ImageShape"}  # what a recipe file imports from aelab.recipe
WEIGHTS = {"verdict.": "head."}  # how the name of a weight begins
STATE = {"position": "progress"}  # keys of a checkpoint's training state


def metric(name: str, recipe: str) -> str:
    """The present name of a metric of a recipe's run, such as kept/forger of gan or test/real_frechet_lenet of any."""
    split, slash, rest = name.rpartition("/")
    first, further, others = split.partition("/")
    for old, new in _metrics_of(recipe).items():
        if rest == old or rest.endswith(f"_{old}"):
            rest = rest.removesuffix(old) + new
            break
    return SPLITS.get(first, first) + further + others + slash + rest


def old_metrics(name: str, recipe: str) -> list[str]:
    """The names under which version 0.1.0 may have logged a metric that is called `name` now."""
    split, slash, rest = name.rpartition("/")
    first, further, others = split.partition("/")
    firsts = [first, *(old for old, new in SPLITS.items() if new == first)]
    ends = {new: old for old, new in _metrics_of(recipe).items() if rest == new or rest.endswith(f"_{new}")}
    rests = [rest, *(rest.removesuffix(new) + old for new, old in ends.items())]
    return [old for f in firsts for r in rests if (old := f + further + others + slash + r) != name]


def _metrics_of(recipe: str) -> dict[str, str]:
    return {**METRICS, **GAME_METRICS} if recipe in GAMES else METRICS


def renamed(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """A mapping with its old keys renamed; where old and new key are both there, the new one counts."""
    return {
        names.get(key, key): value
        for key, value in values.items()
        if names.get(key, key) == key or names[key] not in values
    }


def reason(text: str) -> str:
    """The present wording of the tag aelab.reason."""
    for old, new in REASONS.items():
        if text.startswith(old):
            return new + text.removeprefix(old)
    return text


def weights(values: Mapping[str, T], wanted: Collection[str]) -> dict[str, T]:
    """Weights by name, where a recipe wants them by `wanted` names: an old name that it does not have is renamed."""

    def present(name: str) -> str:
        new = next((new + name.removeprefix(old) for old, new in WEIGHTS.items() if name.startswith(old)), name)
        return new if name not in wanted and new in wanted else name

    return {present(name): value for name, value in values.items()}
