"""Data sets, opened by name or from a folder of pictures, split, and served as pixels in [0, 1]."""

from aelab.data.catalog import DOWNLOADABLE
from aelab.data.dataset import Dataset, Split
from aelab.data.download import Offline
from aelab.data.memory import require
from aelab.data.opening import NAMES, directories, listing, obtain, open_data
from aelab.data.points import Modes, modes_of

__all__ = [
    "DOWNLOADABLE",
    "NAMES",
    "Dataset",
    "Modes",
    "Offline",
    "Split",
    "directories",
    "listing",
    "modes_of",
    "obtain",
    "open_data",
    "require",
]
