"""Safetensors files in plain numpy, written from the format's description: Debian has no package of the reference reader.

A file is: u64 little-endian length of the header, the header as JSON, the tensors' bytes back to back, little-endian.
Independent of resnet.cpp's own reader on purpose, so that the parity tests also check that others can read its files.
"""
import json
import struct

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


def save(path, tensors, metadata=None):
    """tensors: name -> array; metadata: str -> str."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    for name, array in arrays.items():
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for array in arrays.values():
            file.write(array.tobytes())


def load(path):
    """-> (name -> array, metadata). Raises ValueError when offsets leave holes, overlap or do not fit the shapes."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    body, tensors, end = data[8 + length:], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        if first != end or last - first != dtype.itemsize * int(np.prod(entry["shape"], dtype=np.int64)):
            raise ValueError(f"{path}: tensor '{name}': offsets {first}..{last} do not fit shape {entry['shape']}")
        tensors[name] = np.frombuffer(body[first:last], dtype).reshape(entry["shape"])
        end = last
    if end != len(body):
        raise ValueError(f"{path}: {len(body) - end} bytes after the last tensor")
    return tensors, metadata
