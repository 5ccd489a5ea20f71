"""Readers of image files: IDX, the archives of CIFAR-10 and LFW, pictures. All return uint8 tensors (N, C, H, W)."""

import gzip
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from aelab.data.memory import require
from aelab.errors import UserError
from aelab.progress_bar import progress_bar

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # of those that PIL reads; for EPS it runs Ghostscript
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}
FACE = (78, 70, 172, 195)  # left, top, right, bottom in a picture of LFW: the part that scikit-learn cuts out
FACES = 13_233  # pictures in LFW
MAX_IDX_BYTES = 1 << 29  # in one IDX file: ten times MNIST
BYTES_PER_PIXEL = 12  # while a picture is read: PIL holds up to three copies of four bytes each
MAX_PIXELS = 64_000_000  # in one picture, by its header: a PNG of a few kilobytes can expand to gigabytes


class Unreadable(UserError):
    """A picture that cannot be read; --skip-bad leaves it out."""


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of bytes (LeCun's format), gzipped or not. Raises UserError if its length differs from its header."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            if zero or kind != 8 or dimensions > 3 or size > MAX_IDX_BYTES:
                raise UserError(f"{path} is not an IDX file of bytes.")
            if path.suffix != ".gz" and path.stat().st_size != file.tell() + size:  # before memory is allocated
                raise UserError(
                    f"{path} is truncated or altered: it promises {size} bytes and has {path.stat().st_size - file.tell()}."
                )
            require(3 * size, f"the {size:,} bytes of {path}")  # the file, the array, and its splits
            content = file.read(size + 1)
    except (struct.error, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is truncated or unreadable: {error}") from error
    if len(content) != size:
        raise UserError(f"{path} is truncated or altered: it promises {size} bytes and has {len(content)}.")
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def read_cifar10(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Reads CIFAR-10's binary archive: (images, labels) of its 50,000 training and its 10,000 test records."""
    require(4 * 60_000 * 3073, f"the images in {path}")
    with tarfile.open(path) as archive:  # nothing is extracted to the disk

        def records(name: str) -> Tensor:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}")
            assert member is not None
            return torch.from_numpy(np.frombuffer(member.read(), np.uint8).reshape(-1, 3073).copy())

        train = torch.cat([records(f"data_batch_{k}.bin") for k in range(1, 6)])
        test = records("test_batch.bin")
    (a, b) = ((r[:, 1:].reshape(-1, 3, 32, 32), r[:, 0].long()) for r in (train, test))
    return a, b


def read_lfw(path: Path, image_size: int) -> tuple[Tensor, Tensor]:
    """Reads the archive of LFW: the faces (N, 3, image_size, image_size) and the person of each (N,).

    From each picture of 250 x 250 pixels the face is cut out as scikit-learn does; of that the middle square is scaled.
    Persons are numbered in the order of their names. Raises UserError if a picture cannot be read.
    """
    require(
        3 * FACES * 3 * image_size**2, f"{FACES:,} faces of {image_size} x {image_size}", "Use a smaller --image-size"
    )
    faces: dict[str, NDArray[np.uint8]] = {}
    with _reading(path), tarfile.open(path) as archive, progress_bar("reading lfw", FACES) as bar:
        for member in archive:  # nothing is extracted to the disk
            if member.isfile() and member.name.endswith(".jpg"):
                file = archive.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read()), formats=["JPEG"]) as picture:
                    square = ImageOps.fit(picture.crop(FACE), (image_size, image_size), Image.Resampling.LANCZOS)
                    faces[member.name] = np.asarray(square.convert("RGB")).transpose(2, 0, 1)
                bar.update(len(faces))
    names = sorted(faces)
    persons = np.unique([name.split("/")[-2] for name in names], return_inverse=True)[1]
    return torch.from_numpy(np.stack([faces[name] for name in names])), torch.from_numpy(persons)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted by path, without hidden ones."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


@dataclass(frozen=True)
class Pictures:
    """Images (N, C, H, W), the index of each in the list of paths, and why each of the others was left out."""

    images: Tensor
    numbers: list[int]
    bad: list[str]


def read_pictures(
    paths: list[Path], image_size: int | None, advance: Callable[[int], None], skip_bad: bool = False
) -> Pictures:
    """Reads pictures of one size as (N, C, H, W); C is 1 if all are grey, else 3.

    With `image_size` the shorter side is scaled to that many pixels, and the centre is cropped. `advance` is called with the
    number of pictures read so far. Raises UserError, naming the picture, if it cannot be read (unless `skip_bad`), is too
    large, or differs in size from the first one and no `image_size` is given.
    """
    headers: dict[int, tuple[str, tuple[int, int]]] = {}
    bad: list[str] = []

    def leave_out(problem: Unreadable) -> None:
        if not skip_bad:
            raise Unreadable(str(problem), "Repair or remove it, or leave such pictures out: --skip-bad") from problem
        bad.append(str(problem))

    for number, path in enumerate(paths):
        try:
            headers[number] = _header(path)
        except Unreadable as problem:
            leave_out(problem)
    if not headers:
        raise UserError(f"none of the {len(paths)} pictures can be read.", *bad[:1])
    grey = all(mode in GREY for mode, _ in headers.values())
    first = next(iter(headers))
    (width, height) = (image_size, image_size) if image_size else headers[first][1]
    channels = 1 if grey else 3
    needed = 2 * len(headers) * channels * height * width  # twice, as the split copies them
    needed += BYTES_PER_PIXEL * max(w * h for _, (w, h) in headers.values())
    what = f"{len(headers):,} pictures of {width} x {height}"
    require(needed, what, "Scale them down, for instance --image-size 64")
    images = np.empty((len(headers), channels, height, width), np.uint8)
    kept: list[int] = []
    for number, (_, size) in headers.items():
        if not image_size and size != (width, height):
            raise UserError(
                f"the pictures differ in size: {paths[first].name} is {width} x {height}, "
                f"{paths[number].name} is {size[0]} x {size[1]}.",
                "Scale and crop them to one size, for instance --image-size 64",
                code=2,
            )
        try:
            pixels = _decode(paths[number], (width, height), grey)
            images[len(kept)] = pixels if grey else pixels.transpose(2, 0, 1)
            kept.append(number)
        except Unreadable as problem:
            leave_out(problem)
        advance(number + 1)
    return Pictures(torch.from_numpy(images[: len(kept)]), kept, bad)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns any exception into Unreadable: a crafted file can make PIL's readers raise anything."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise Unreadable(
            f"{path} cannot be read as a picture: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """The mode and the upright (width, height) of a picture, from its header."""
    with _reading(path), Image.open(path, formats=FORMATS) as picture:
        mode, (width, height) = picture.mode, picture.size
        if not width * height:
            raise Unreadable(f"{path} is empty: {width} x {height} pixels.")
        if width * height > MAX_PIXELS:  # before its EXIF data is read: PIL decodes a whole PNG for that
            raise Unreadable(f"{path} has {width * height:,} pixels; more than {MAX_PIXELS:,} are refused.")
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) > 4
    return mode, (height, width) if turned else (width, height)


def _decode(path: Path, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    with _reading(path), Image.open(path, formats=FORMATS) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):  # 16 bits: PIL would clip them at 255
            upright = Image.fromarray((np.asarray(upright).clip(0, 65535) >> 8).astype(np.uint8))
        if upright.mode == "F":
            raise ValueError("pixels that are floating-point numbers have no fixed white; save it with 8 or 16 bits")
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")  # the same colours; PIL warns of the direct way
        plain = upright.convert("L" if grey else "RGB")
    return np.asarray(plain if plain.size == size else ImageOps.fit(plain, size, Image.Resampling.LANCZOS))
