#!/usr/bin/python3
"""Pillow's answers to resize requests, for tests/data/resize_test.cpp.

make_resize_golden.py                      writes tests/data/resize_golden.bin
make_resize_golden.py REQUESTS ANSWERS     answers the requests of a file

A request: six little-endian int32 (channels 1 or 3, width, height, new width, new height, the filter's place in
FILTERS), then the pixels row by row, channels interleaved. An answer: the resized pixels in the same order. The golden
file holds each request followed by its answer. The committed one was made with Pillow 9.4.0 (Debian 12's python3-pil).
"""
import pathlib
import struct
import sys

from PIL import Image

HEADER = struct.Struct("<6i")
MODES = {1: "L", 3: "RGB"}
FILTERS = [Image.Resampling[name] for name in ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")]


def answer(channels, width, height, new_width, new_height, resampling, pixels):
    image = Image.frombytes(MODES[channels], (width, height), pixels)
    return image.resize((new_width, new_height), FILTERS[resampling]).tobytes()


def answer_file(requests_path, answers_path):
    data = pathlib.Path(requests_path).read_bytes()
    answers = []
    at = 0
    while at < len(data):
        header = HEADER.unpack_from(data, at)
        at += HEADER.size
        size = header[0] * header[1] * header[2]
        answers.append(answer(*header, data[at : at + size]))
        at += size
    pathlib.Path(answers_path).write_bytes(b"".join(answers))


def write_golden():
    sizes = [(1, 28, 28, 96, 96), (1, 96, 96, 28, 28), (3, 7, 5, 13, 11), (3, 33, 20, 8, 9), (1, 1, 1, 4, 3),
             (1, 40, 3, 1, 1), (3, 6, 17, 18, 4), (1, 9, 9, 9, 9), (1, 31, 8, 31, 24), (1, 1, 23, 5, 1)]
    records = []
    state = 1
    for header in [(*size, resampling) for resampling in range(len(FILTERS)) for size in sizes]:
        pixels = bytearray()
        for _ in range(header[0] * header[1] * header[2]):
            state = (state * 1103515245 + 12345) % 2**31
            pixels.append(state >> 16 & 255)
        records.append(HEADER.pack(*header) + bytes(pixels) + answer(*header, bytes(pixels)))
    target = pathlib.Path(__file__).resolve().parent.parent / "tests/data/resize_golden.bin"
    target.write_bytes(b"".join(records))


if len(sys.argv) == 3:
    answer_file(sys.argv[1], sys.argv[2])
elif len(sys.argv) == 1:
    write_golden()
else:
    sys.exit(__doc__)
