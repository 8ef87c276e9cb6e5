#!/usr/bin/env python3
"""Writes the seeds of the fuzzers, fuzz/corpus/{idx,safetensors}/: one small file for each thing the readers look at.

Intact files are called ok-*, the others after what is wrong with them. Files that a fuzzer found are kept beside them.
"""
import gzip
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(reader, files):
    folder = CORPUS / reader
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def idx():
    """The fuzzer's first byte is the kind it asks for: 0 images, 1 labels."""
    header = lambda *dims: struct.pack(f">{len(dims) + 1}I", 0x800 + len(dims), *dims)
    images = header(2, 3, 4) + bytes(range(24))
    labels = header(5) + bytes([3, 0, 9, 9, 1])
    packed = lambda content: gzip.compress(content, 9, mtime=0)
    damaged = bytearray(packed(images))
    damaged[len(damaged) // 2] ^= 0xff
    sum_wrong = bytearray(packed(images))
    sum_wrong[-8] ^= 1
    files = {
        "ok-plain": images, "ok-gzip": packed(images), "ok-one-pixel": header(1, 1, 1) + b"\x7f",
        "ok-two-members": packed(images[:20]) + packed(images[20:]), "ok-empty-member": packed(b"") + packed(images),
        "empty": b"", "half-a-magic": images[:3], "half-a-header": images[:10], "header-only": images[:16],
        "last-byte-missing": images[:-1], "one-byte-more": images + b"\0", "labels-for-images": labels,
        "floats": struct.pack(">4I", 0xd03, 2, 3, 4) + bytes(96), "rank-4": header(1, 1, 1, 1) + b"\0",
        "little-endian": struct.pack("<4I", 0x803, 2, 3, 4) + bytes(24), "png": b"\x89PNG\r\n\x1a\n" + bytes(16),
        "no-images": header(0, 3, 4), "no-rows": header(2, 0, 4), "claims-everything": header(*[2**32 - 1] * 3),
        "product-overflows": header(2**31, 2**31, 4) + bytes(32), "claims-too-many": header(2**32 - 1, 3, 4) + bytes(24),
        "past-the-limit": packed(header(1 << 12, 1 << 6, 1 << 6) + bytes(1 << 12)),
        "gzip-magic-only": b"\x1f\x8b", "gzip-cut": packed(images)[:-9], "gzip-damaged": bytes(damaged),
        "gzip-wrong-sum": bytes(sum_wrong), "gzip-then-junk": packed(images) + b"junk", "gzip-of-gzip": packed(packed(images)),
        "gzip-of-nothing": packed(b""), "bomb": packed(images + bytes(1 << 20)), "bomb-of-members": packed(images) + packed(b"") * 64,
    }
    write("idx", {name: b"\0" + content for name, content in files.items()} | {
        "kind-only": b"\0", "no-kind": b"", "ok-labels": b"\1" + labels, "ok-labels-gzip": b"\1" + packed(labels),
        "no-labels": b"\1" + header(0), "images-for-labels": b"\1" + images, "label-missing": b"\1" + labels[:-1]})


def safetensors():
    def file(header, data=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    tensor = lambda begin, end, shape, dtype="F32": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    two = {"a": tensor(0, 8, [2]), "b": tensor(8, 24, [2, 2])}
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8,
             "I64": 8, "U64": 8}
    ends = [sum(list(sizes.values())[:k + 1]) for k in range(len(sizes))]
    every = {name: tensor(end - sizes[name], end, [1], name) for name, end in zip(sizes, ends)}
    write("safetensors", {
        "ok-two": file(two, bytes(range(24))),
        "ok-metadata": file({"__metadata__": {"format": "pt", "class_names": '["\u00e4", "b"]'}, **two}, bytes(24)),
        "ok-no-tensors": file({}), "ok-padded": file(json.dumps(two).encode() + b"  ", bytes(24)),
        "ok-every-dtype": file(every, bytes(ends[-1])), "ok-scalar": file({"s": tensor(0, 4, [])}, bytes(4)),
        "ok-no-elements": file({"e": tensor(0, 0, [3, 0])}), "ok-any-order": file(dict(reversed(two.items())), bytes(24)),
        "empty": b"", "half-a-length": bytes(5), "length-only": struct.pack("<Q", 8), "length-zero": struct.pack("<Q", 0),
        "length-past-the-file": file(b"{}", length=1 << 20), "length-huge": file(b"{}", length=2**63),
        "length-all-ones": file(b"{}", length=2**64 - 1), "zip": b"PK\x03\x04" + bytes(60),
        "no-json": file(b"notjson!"), "json-cut": file(b'{"a":{"dtype":"F32"'), "array": file([1, 2, 3]), "number": file(b"17"),
        "not-utf8": file(b'{"\xff\xfe":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"),
        "control-characters": file({"\x1b[31m\n": tensor(0, 9, [2])}, bytes(8)),
        "deep": file(b"[" * 4096), "deep-in-a-tensor": file(b'{"a":' + b"[" * 4096), "deep-in-metadata": file(b'{"__metadata__":{"a":' + b"[" * 64),
        "twice": file(b'{"a":' + json.dumps(two["a"]).encode() + b',"a":' + json.dumps(two["a"]).encode() + b"}", bytes(8)),
        "metadata-twice": file(b'{"__metadata__":{},"__metadata__":{}}'), "metadata-number": file({"__metadata__": {"n": 1}}),
        "metadata-text": file({"__metadata__": "x"}),
        "unknown-dtype": file({"a": tensor(0, 8, [2], "F7")}, bytes(8)), "unknown-field": file({"a": {**two["a"], "x": 1}}, bytes(8)),
        "no-dtype": file({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "no-shape": file({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
        "no-offsets": file({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "shape-negative": file({"a": tensor(0, 8, [-2])}, bytes(8)), "shape-float": file({"a": tensor(0, 8, [2.0])}, bytes(8)),
        "shape-overflows": file({"a": tensor(0, 8, [2**62, 2**62])}, bytes(8)), "shape-overflows-to-fit": file({"a": tensor(0, 0, [2**63, 2])}),
        "shape-zero-hides-overflow": file({"a": tensor(0, 0, [0, 2**62, 2**62])}), "rank-65": file({"a": tensor(0, 4, [1] * 65)}, bytes(4)),
        "shape-does-not-fit": file({"a": tensor(0, 8, [3])}, bytes(8)),
        "offsets-reversed": file({"a": tensor(8, 0, [2])}, bytes(8)), "offsets-past-the-end": file({"a": tensor(0, 8, [2])}, bytes(4)),
        "offsets-huge": file({"a": tensor(2**63, 2**64 - 1, [2])}, bytes(8)), "offsets-three": file({"a": {**two["a"], "data_offsets": [0, 4, 8]}}, bytes(8)),
        "overlap": file({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)), "hole": file({"a": tensor(0, 8, [2]), "b": tensor(12, 20, [2])}, bytes(20)),
        "bytes-after": file(two, bytes(25)), "bytes-missing": file(two, bytes(23)),
        "i64-does-not-fit": file({"a": tensor(0, 8, [1], "I64")}, struct.pack("<q", 2**40)),
        "bool-two": file({"a": tensor(0, 1, [1], "BOOL")}, b"\2"), "f16-specials": file({"a": tensor(0, 8, [4], "F16")}, struct.pack("<4H", 0x7c00, 0xfe01, 1, 0x8000)),
    })


if __name__ == "__main__":
    idx()
    safetensors()
