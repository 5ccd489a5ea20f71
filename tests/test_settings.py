"""Settings and progress as config.json and checkpoints hold them: every field of its type and within its bounds."""

import math
import re

import pytest

from aelab.training.settings import Progress, Settings, from_values


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Settings, {"epochs": True}, "epochs: True should be a valid integer"),
        (Settings, {"epochs": 2.0}, "epochs: 2.0 should be a valid integer"),
        (Settings, {"epochs": 0}, "epochs: 0 should be greater than or equal to 1"),
        (Settings, {"max_steps": 2**63}, "max_steps: 9223372036854775808 should be less than 9223372036854775808"),
        (Settings, {"seed": 2**32}, "seed: 4294967296 should be less than or equal to 4294967295"),
        (Settings, {"ema": math.nan}, "ema: nan should be less than 1"),
        (Settings, {"ema": 10**400}, "ema: 1"),
        (Settings, {"schedule": [["x" * 100] * 9] * 9}, "schedule: [['xxx"),
        (Settings, {"device": 3}, "device: 3 should be a valid string"),
        (Settings, {"more": 3}, "more is unknown"),
        (Progress, {"phase": 2**63}, "phase: 9223372036854775808 should be less than 9223372036854775808"),
        (Progress, {"names": ("loss",)}, "names: ('loss',) should be a valid list"),
        (Progress, {"names": ["loss", 1]}, "names: 1 should be a valid string"),
        (Progress, {"best": "1"}, "best: '1' should be a valid number"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_named(kind, values, says):
    usual = {"epochs": 1, "batch_size": 2} if kind is Settings else {}
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        from_values(kind, {**usual, **values})
    assert len(str(caught.value)) < 150


def test_a_whole_number_is_a_number_and_a_field_may_not_be_missing():
    assert from_values(Settings, {"epochs": 1, "batch_size": 2, "ema": 0}).ema == 0
    assert from_values(Progress, {"best": math.inf, "latest": 3}).latest == 3
    with pytest.raises(ValueError, match="batch_size is missing"):
        from_values(Settings, {"epochs": 1})
    with pytest.raises(ValueError, match="epochs: 0"):
        Settings(0, 2)
