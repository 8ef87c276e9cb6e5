"""Fashion-MNIST as the lesson feeds it: Debian's idx.gz files, Pillow's bilinear resize, divided by 255."""
import gzip
import pathlib
import struct

import numpy as np
from PIL import Image

FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")


def read_idx(path, limit=None):
    """The first `limit` records of an idx.gz file of bytes, [records, ...] u8."""
    with gzip.open(path) as file:
        _, kind, rank = struct.unpack(">HBB", file.read(4))
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
        if kind != 8:
            raise ValueError(f"{path}: element type {kind:#x}, expected 0x8 (unsigned byte)")
        count = shape[0] if limit is None else min(limit, shape[0])
        return np.frombuffer(file.read(count * int(np.prod(shape[1:]))), np.uint8).reshape(count, *shape[1:])


def write_idx(path, array):
    """array u8 as an idx.gz file, the same bytes for the same array."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def batch(first, count, image_size, folder=FOLDER, split="train"):
    """-> images [count, 1, image_size, image_size] f64 in 0..1, labels [count] i64, in the order of the file."""
    pixels = read_idx(folder / f"{split}-images-idx3-ubyte.gz", first + count)[first:]
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz", first + count)[first:]
    if pixels.shape[1:] != (image_size, image_size):
        pixels = np.stack([np.asarray(Image.fromarray(p).resize((image_size, image_size), Image.BILINEAR)) for p in pixels])
    return pixels[:, None].astype(np.float64) / 255, labels.astype(np.int64)


def small_copy(folder, train, test, by_class=False):
    """A data folder holding the first `train` and `test` images of Debian's: an evaluation then costs nothing.

    `by_class`: in the order in which the files of png_folder() are read, one class after the other.
    """
    for split, count in (("train", train), ("t10k", test)):
        labels = read_idx(FOLDER / f"{split}-labels-idx1-ubyte.gz", count)
        order = np.argsort(labels, kind="stable") if by_class else slice(None)
        for name in (f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"):
            write_idx(folder / name, read_idx(FOLDER / name, count)[order])


def png_folder(folder, train, test):
    """The first `train` and `test` images as an ImageFolder of PNGs: folder/train/CLASS/00000.png, folder/test/...

    Classes are named by their digit, so that byte order is the labels' order; files by their place in the idx file.
    """
    for split, name, count in (("train", "train", train), ("t10k", "test", test)):
        images = read_idx(FOLDER / f"{split}-images-idx3-ubyte.gz", count)
        labels = read_idx(FOLDER / f"{split}-labels-idx1-ubyte.gz", count)
        for label in range(10):
            (folder / name / str(label)).mkdir(parents=True, exist_ok=True)
        for i, (pixels, label) in enumerate(zip(images, labels)):
            Image.fromarray(pixels).save(folder / name / str(label) / f"{i:05}.png")
