#!/usr/bin/env python3
"""Writes the seeds of the fuzzers, fuzz/corpus/NAME/ for each: one small file for each thing the readers look at.

Intact files are called ok-*, the others after what is wrong with them. Files that a fuzzer found are kept beside them.
"""
import gzip
import io
import json
import pathlib
import struct
import zlib

from PIL import Image

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


# Pickles, opcode by opcode: what torch.save writes, without its memo, and what it does not.
HEAD = b"\x80\x02"
ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def tensor(key=b"0", elements=4, offset=b"K\0", shape=b"K\2K\2\x86", stride=b"K\2K\1\x86", storage=b"ctorch\nFloatStorage\n"):
    persistent = b"(" + text(b"storage") + storage + text(key) + text(b"cpu") + b"J" + struct.pack("<i", elements) + b"tQ"
    return REBUILD + b"(" + persistent + offset + shape + stride + b"\x89" + ORDERED + b"tR"


def state_dict(*items):
    return HEAD + ORDERED + b"(" + b"".join(text(name) + value for name, value in items) + b"u."


def pickle():
    write("pickle", {
        "ok-state-dict": state_dict((b"w", tensor()), (b"b", tensor(b"1", 2, shape=b"K\2\x85", stride=b"K\1\x85"))),
        "ok-memo": HEAD + b"}q\0(" + text(b"a") + b"q\1h\0h\1Nu.", "ok-scalars": HEAD + b"(NM\1\2J\xff\xff\xff\xffK\7\x88\x89G?\xf8" + bytes(6) + b"\x8a\1\xfft.",
        "ok-protocol-4": b"\x80\4\x95" + struct.pack("<Q", 30) + b"\x8c\1a\x94\x8c\1b\x94\x93\x94)R\x94.",
        "ok-cycle": HEAD + b"]q\0h\0a.", "ok-build": HEAD + b"ca\nb\n)\x81}b.", "ok-set": b"\x80\4\x8f(K\1K\2\x90.", "ok-list": HEAD + b"](K\1K\2e.",
        "empty": b"", "no-stop": HEAD + b"N", "bytes-after": HEAD + b"N.N", "nothing": HEAD + b".", "two-values": HEAD + b"NN.", "mark-left": HEAD + b"N(.",
        "os-system": HEAD + b"cposix\nsystem\n" + text(b"id") + b"\x85R.", "eval": HEAD + b"c__builtin__\neval\n" + text(b"1") + b"\x85R.",
        "stack-global-system": b"\x80\4\x8c\2os\x8c\6system\x93" + text(b"id") + b"\x85R.", "inst": b"(S'id'\nios\nsystem\n.", "obj": HEAD + b"(cos\nsystem\n" + text(b"id") + b"o.",
        "whole-model": HEAD + b"ctorchvision.models.resnet\nResNet\n)\x81}b.", "call-of-a-name": HEAD + b"ctorch\nFloatStorage\n)R.",
        "call-of-a-list": HEAD + b"])R.", "call-without-tuple": HEAD + b"ca\nb\nNR.", "build-of-a-list": HEAD + b"]Nb.", "global-cut": HEAD + b"cos", "global-of-numbers": b"\x80\4K\1K\2\x93.",
        "deep-marks": HEAD + b"(" * 4096, "deep-tuples": HEAD + b"N" + b"\x85" * 4096 + b".", "deep-lists": HEAD + b"]" * 2048 + b"a" * 2047 + b".",
        "memo-bomb": HEAD + b"]q\0" + b"".join(b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(100)) + b".",
        "memo-of-nothing": HEAD + b"h\0.", "memo-far": HEAD + b"Nr\xff\xff\xff\xff.", "append-to-a-tuple": HEAD + b")Na.", "setitems-odd": HEAD + b"}(Nu.",
        "appends-without-mark": HEAD + b"]Ne.", "under-the-mark": HEAD + b"](a.", "text-past-the-end": HEAD + b"X\xff\xff\xff\xffa.", "text-2-64": b"\x80\4\x8d" + b"\xff" * 8 + b".",
        "long-of-255": HEAD + b"\x8a\xff" + bytes(255) + b".", "protocol-0": b"(lp0\n.", "protocol-9": b"\x80\x09N.", "unknown-opcode": HEAD + b"\xff.", "ext": HEAD + b"\x82\1.",
        "persid-text": HEAD + b"P0\n.", "persid-of-nothing": HEAD + b"Q.", "ordered-with-arguments": HEAD + b"ccollections\nOrderedDict\nNN\x86R.",
    })


def local_entry(name, content, *, crc=None, size=None, method=0, flags=0):
    size = len(content) if size is None else size
    sum_ = zlib.crc32(content) if crc is None else crc
    return struct.pack("<IHHHHHIIIHH", 0x04034b50, 20, flags, method, 0, 0, sum_, size, size, len(name), 0) + name + content


def listed_entry(name, content, at, *, crc=None, size=None, method=0, flags=0, zip64=False):
    size = len(content) if size is None else size
    sum_ = zlib.crc32(content) if crc is None else crc
    extra = struct.pack("<HHQQQ", 1, 24, size, size, at) if zip64 else b""
    told = (0xffffffff,) * 3 if zip64 else (size, size, at)
    return struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 20, 20, flags, method, 0, 0, sum_, *told[:2], len(name), len(extra), 0, 0, 0, 0, told[2]) + name + extra


def closed(body, directory, number, *, zip64=False, comment=b"", directory_shift=0):
    end, at = b"", len(body) + directory_shift
    if zip64:
        end = struct.pack("<IQHHIIQQQQ", 0x06064b50, 44, 45, 45, 0, 0, number, number, len(directory), at)
        end += struct.pack("<IIQI", 0x07064b50, 0, len(body) + len(directory), 1)
        number, at = 0xffff, 0xffffffff
    return body + directory + end + struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, number, number, len(directory), at, len(comment)) + comment


def archive(entries, *, before=b"", local_name=None, count=None, zip64=False, comment=b"", directory_shift=0, **spoil):
    """Stored entries, as PyTorch lays them out; each keyword spoils one thing."""
    body, directory = before, b""
    for name, content in entries:
        directory += listed_entry(name, content, len(body), zip64=zip64, **spoil)
        body += local_entry(name if local_name is None else local_name, content, **spoil)
    return closed(body, directory, len(entries) if count is None else count, zip64=zip64, comment=comment, directory_shift=directory_shift)


def overlapping():
    """Two entries, the second of which lies in the content of the first."""
    inner = local_entry(b"m/b", bytes(8))
    outer = local_entry(b"m/a", inner)
    return closed(outer, listed_entry(b"m/a", inner, 0) + listed_entry(b"m/b", bytes(8), len(outer) - len(inner)), 2)


def zip_files():
    floats = struct.pack("<4f", 1, 2, 3, 4)

    def torch(data, storages=(floats,), **spoil):
        return archive([(b"m/data.pkl", data), *((b"m/data/%d" % k, s) for k, s in enumerate(storages)), (b"m/version", b"3\n")], **spoil)

    def old(data, keys=(b"0",), *, version=1001, little=True, length=4):
        """As torch.save wrote before 1.6."""
        writer = HEAD + b"}" + text(b"little_endian") + (b"\x88" if little else b"\x89") + b"s."
        return (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + HEAD + b"M" + struct.pack("<H", version) + b"." + writer + data +
                HEAD + b"](" + b"".join(map(text, keys)) + b"e." + b"".join(struct.pack("<q", length) + floats for _ in keys))

    one = state_dict((b"w", tensor()))
    whole = torch(one)
    fold = lambda **view: torch(state_dict((b"w", tensor(**view))))
    tuple4 = b"(K\1K\1K\1J\xff\xff\xff\x7ft"
    write("zip", {
        "ok-torch": whole, "ok-zip64": torch(one, zip64=True), "ok-empty": archive([]), "ok-wrapped": torch(HEAD + b"}" + text(b"model") + one[2:-1] + b"s."),
        "ok-module": torch(state_dict((b"module.w", tensor()), (b"n_averaged", tensor(elements=4, shape=b")", stride=b")")))),
        "ok-tied": torch(state_dict((b"a", tensor()), (b"b", tensor(shape=b"K\2K\2\x86", stride=b"K\1K\2\x86")))),
        "ok-byteorder": archive([(b"m/data.pkl", one), (b"m/data/0", floats), (b"m/byteorder", b"little")]),
        "big-endian": archive([(b"m/data.pkl", one), (b"m/data/0", floats), (b"m/byteorder", b"big")]),
        "torchscript": archive([(b"m/data.pkl", one), (b"m/data/0", floats), (b"m/constants.pkl", b"")]),
        "half": whole[:len(whole) // 2], "end-missing": whole[:-22], "byte-missing": whole[:-1], "byte-after": whole + b"\0", "comment": torch(one, comment=b"hello"),
        "only-end": whole[-22:], "short": b"PK\3\4", "bytes-before": torch(one, before=b"junk"), "wrong-crc": torch(one, crc=1), "deflated": torch(one, method=8),
        "sizes-huge": torch(one, size=0xfffffff0), "sizes-zero": torch(one, size=0), "encrypted": torch(one, flags=1), "name-differs": torch(one, local_name=b"m/data.pkX"),
        "twice": archive([(b"m/data.pkl", one)] * 2), "overlap": overlapping(), "traversal": archive([(b"../../etc/passwd", b"x")]), "absolute": archive([(b"/etc/passwd", b"x")]),
        "control-name": archive([(b"m/\x1b[31m", b"x")]), "no-name": archive([(b"", b"x")]), "count-more": torch(one, count=9), "count-fewer": torch(one, count=1), "count-huge": torch(one, count=0xfffe),
        "count-2-64": torch(one, zip64=True, count=2**64 - 1), "directory-shifted": torch(one, directory_shift=1), "directory-2-64": torch(one, zip64=True, directory_shift=2**63),
        "no-pickle": archive([(b"m/data/0", floats)]), "two-pickles": archive([(b"a/data.pkl", one), (b"b/data.pkl", one)]), "pickle-cut": torch(one[:-9]),
        "calls": torch(HEAD + b"cposix\nsystem\n" + text(b"id") + b"\x85R."), "storage-missing": torch(one, storages=()), "storage-short": torch(one, storages=(floats[:-1],)),
        "elements-differ": fold(elements=5), "view-past-the-end": fold(offset=b"K\1"), "view-huge": fold(shape=tuple4, stride=tuple4), "view-repeats": fold(shape=b"K\7K\7\x86", stride=b"K\0K\0\x86"),
        "view-ranks": fold(stride=b"K\1\x85"), "view-negative": fold(stride=b"J\xff\xff\xff\xffK\1\x86"), "shape-of-texts": fold(shape=text(b"2") + b"\x85"), "rank-65": fold(shape=b"(" + b"K\1" * 65 + b"t", stride=b"(" + b"K\1" * 65 + b"t"),
        "type-is-no-storage": fold(storage=b"ctorch\nfloat32\n"), "type-is-complex": fold(storage=b"ctorch\nComplexFloatStorage\n"),
        "twice-a-name": torch(state_dict((b"w", tensor()), (b"w", tensor()))), "name-not-utf8": torch(state_dict((b"\xff", tensor()))), "no-tensors": torch(state_dict()),
        "ok-old": old(one), "old-two-storages": old(state_dict((b"w", tensor()), (b"v", tensor(b"1"))), (b"0", b"1")), "old-storage-missing": old(one, ()),
        "old-storage-unknown": old(one, (b"0", b"9")), "old-storage-twice": old(one, (b"0", b"0")), "old-cut": old(one)[:-1], "old-byte-after": old(one) + b"x",
        "old-length-2-63": old(one, length=2**63 - 1), "old-elements-differ": old(state_dict((b"w", tensor(elements=5)))), "old-version": old(one, version=1000),
        "old-big-endian": old(one, little=False), "old-magic": old(one)[:15], "old-calls": old(HEAD + b"cposix\nsystem\n" + text(b"id") + b"\x85R."),
        "value-is-no-tensor": torch(state_dict((b"w", b"N"))), "root-is-a-list": torch(HEAD + b"]."),
    })


def quantization():
    """A record, a zero byte, and the bytes that all tensors are filled with; the net is fuzz/quantization_fuzz.cpp's."""
    layers = ["conv1", *(f"layer{i}.0.conv{k}" for i in (1, 2, 3) for k in (1, 2))]
    record = lambda **keys: json.dumps({"scheme": "int8", "layers": layers, "method": "minimum error", "images": 256, **keys}).encode()
    fill = lambda *values: b"\0" + struct.pack(f"<{len(values)}f", *values)
    whole = record()
    write("quantization", {
        "ok-all": whole + fill(0.01, 0.02, 0.5), "ok-one": record(layers=layers[:1]) + fill(0.01), "ok-last": record(layers=layers[-1:]) + fill(0.01),
        "ok-residual-alone": record(layers=["layer1.0.conv2"]) + fill(0.01), "ok-layer-twice": record(layers=layers * 2) + fill(0.01),
        "ok-no-method": json.dumps({"scheme": "int8", "layers": layers}).encode() + fill(0.01), "ok-method-number": record(method=3) + fill(0.01),
        "ok-images-huge": record(images=2**64 - 1) + fill(0.01), "ok-images-text": record(images="many") + fill(0.01), "ok-keys-more": record(x=[{}]) + fill(0.01),
        "scales-huge": whole + fill(3e38), "scales-tiny": whole + fill(1e-38), "scales-denormal": whole + fill(1e-45), "scale-zero": whole + b"\0", "scale-negative": whole + fill(-0.01),
        "scale-nan": whole + fill(float("nan")), "scale-infinite": whole + fill(float("inf")), "some-infinite": whole + fill(1, 1, 1, 1, 1, 1, 1, float("inf")),
        "empty": b"", "no-object": b"[]", "number": b"8", "no-scheme": json.dumps({"layers": layers}).encode(), "scheme-int4": record(scheme="int4"), "scheme-number": record(scheme=8),
        "no-layers": b'{"scheme":"int8"}', "layers-empty": record(layers=[]), "layers-text": record(layers="conv1"), "layer-number": record(layers=[1]), "layer-null": record(layers=[None]),
        "layer-unknown": record(layers=["conv9"]), "layer-no-convolution": record(layers=["fc"]), "layer-without-name": record(layers=[""]),
        "layer-controls": record(layers=["\x1b[31m\n"]), "layer-long": record(layers=["x" * 4096]), "cut": whole[:-9], "twice": whole + whole,
        "deep": b"[" * 4096, "deep-layers": b'{"scheme":"int8","layers":' + b"[" * 4096, "not-utf8": b'{"scheme":"int8","layers":["\xff\xfe"]}', "surrogate": b'{"scheme":"int8","layers":["\\ud800"]}'})


def cifar():
    """The fuzzer's first byte is the kind it asks for: 0 CIFAR-10, 1 CIFAR-100."""
    pixels = bytes(i * 7 & 255 for i in range(3072))
    write("cifar", {
        "ok-ten": b"\0" + b"\3" + pixels + b"\x09" + pixels, "ok-hundred": b"\1" + b"\x13\x63" + pixels, "empty": b"\0", "no-kind": b"",
        "label-ten": b"\0\x0a" + pixels, "fine-100": b"\1\0\x64" + pixels, "coarse-20": b"\1\x14\0" + pixels,
        "byte-missing": b"\0\3" + pixels[:-1], "byte-more": b"\0\3" + pixels + b"\0", "hundred-as-ten": b"\0" + b"\1\1" + pixels,
        "label-only": b"\0\1"})


def picture(mode, size=(9, 7)):
    image = Image.new("RGBA", size)
    image.putdata([(x * 23 & 255, y * 31 & 255, (x * y * 5) & 255, 255 - x * 20 & 255) for y in range(size[1]) for x in range(size[0])])
    return image if mode == "RGBA" else image.convert("LA") if mode == "LA" else image.convert("RGB").convert(mode)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_choices(files):
    """The image fuzzers' first byte: bit 0 RGB, bit 1 turned by EXIF."""
    return {name: bytes([i % 4]) + content for i, (name, content) in enumerate(sorted(files.items()))}


def exif_block(value):
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, value, 0, 0)


def jpeg():
    plain, progressive = saved(picture("RGB"), "JPEG"), saved(picture("RGB"), "JPEG", progressive=True)
    app1 = lambda body: plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    frame = plain.index(b"\xff\xc0")
    scan = progressive.rindex(b"\xff\xda")
    resized = lambda h, w: plain[:frame + 5] + struct.pack(">HH", h, w) + plain[frame + 9:]
    write("jpeg", with_choices({
        "ok-rgb": plain, "ok-grey": saved(picture("L"), "JPEG"), "ok-cmyk": saved(picture("CMYK"), "JPEG"), "ok-444": saved(picture("RGB"), "JPEG", subsampling=0),
        "ok-422": saved(picture("RGB"), "JPEG", subsampling=1), "ok-progressive": progressive, "ok-optimized": saved(picture("RGB"), "JPEG", optimize=True),
        "ok-17x33": saved(picture("RGB", (17, 33)), "JPEG"), "ok-turned": app1(b"Exif\0\0" + exif_block(6)), "exif-cut": app1(b"Exif\0\0" + exif_block(6)[:20]),
        "exif-huge-offset": app1(b"Exif\0\0II*\0" + struct.pack("<I", 2**32 - 1)), "exif-count": app1(b"Exif\0\0" + exif_block(3)[:8] + b"\xff\xff" + exif_block(3)[10:]),
        "empty": b"", "start-only": plain[:2], "start-and-marker": plain[:3], "header-only": plain[:frame + 12], "cut": plain[:-30], "no-end": plain[:-2],
        "progressive-cut": progressive[:-20], "no-scan": plain[:plain.index(b"\xff\xda")] + b"\xff\xd9", "scan-empty": plain[:plain.index(b"\xff\xda") + 14] + b"\xff\xd9",
        "huge": resized(65535, 65535), "wide": resized(1, 65500), "no-height": resized(0, 9), "twelve-bits": plain[:frame + 4] + b"\x0c" + plain[frame + 5:],
        "two-components": plain[:frame + 9] + b"\2" + plain[frame + 10:], "two-frames": plain[:frame] + plain[frame:frame + 19] + plain[frame:],
        "segment-past-the-end": plain[:2] + b"\xff\xe0\xff\xff" + plain[4:], "segment-length-0": plain[:2] + b"\xff\xe0\0\0" + plain[4:],
        "junk-between-markers": plain[:2] + b"\0\1\2\3" + plain[2:], "scans": progressive[:-2] + progressive[scan:-2] * 40 + b"\xff\xd9",
        "arithmetic": plain[:frame + 1] + b"\xc9" + plain[frame + 2:], "lossless": plain[:frame + 1] + b"\xc3" + plain[frame + 2:],
        "restart": plain[:frame] + b"\xff\xdd\0\4\0\1" + plain[frame:], "png": saved(picture("RGB"), "PNG")}))


def png():
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = lambda w, h, depth, colour, interlace=0: chunk(b"IHDR", struct.pack(">2I5B", w, h, depth, colour, 0, 0, interlace))
    start, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    rows = lambda w, h, bits: b"".join(bytes([y % 5]) + bytes((x * 11 + y) & 255 for x in range((w * bits + 7) // 8)) for y in range(h))
    data = lambda raw: chunk(b"IDAT", zlib.compress(raw))
    file = lambda w, h, depth, colour, bits, extra=b"": start + header(w, h, depth, colour) + extra + data(rows(w, h, bits)) + end
    plain = file(9, 7, 8, 2, 24)
    adam7 = b"".join(rows((9 - x + dx - 1) // dx, (7 - y + dy - 1) // dy, 24)
                     for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)))
    palette = chunk(b"PLTE", bytes(range(48)))
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20)))
    write("png", with_choices({
        **{f"ok-grey-{d}": file(9, 7, d, 0, d) for d in (1, 2, 4, 8, 16)}, **{f"ok-palette-{d}": file(9, 7, d, 3, d, palette if d > 2 else chunk(b"PLTE", bytes(range(3 << d)))) for d in (1, 2, 4, 8)},
        "ok-rgb": plain, "ok-rgb-16": file(9, 7, 16, 2, 48), "ok-la": file(9, 7, 8, 4, 16), "ok-la-16": file(9, 7, 16, 4, 32), "ok-rgba": file(9, 7, 8, 6, 32), "ok-rgba-16": file(9, 7, 16, 6, 64),
        "ok-adam7": start + header(9, 7, 8, 2, 1) + data(adam7) + end, "ok-turned": start + header(9, 7, 8, 2) + chunk(b"eXIf", exif_block(8)) + data(rows(9, 7, 24)) + end,
        "ok-transparent": file(9, 7, 8, 2, 24, chunk(b"tRNS", bytes(6))), "ok-text-bomb": file(9, 7, 8, 2, 24, bomb), "ok-many-chunks": start + header(9, 7, 8, 2) + b"".join(
            chunk(b"IDAT", zlib.compress(rows(9, 7, 24))[i:i + 3]) for i in range(0, len(zlib.compress(rows(9, 7, 24))), 3)) + end,
        "empty": b"", "signature-only": start, "header-only": start + header(9, 7, 8, 2), "cut": plain[:-40], "no-end": plain[:-12], "no-data": start + header(9, 7, 8, 2) + end,
        "header-checksum": plain[:29] + b"\0\0\0\0" + plain[33:], "data-checksum": plain[:-16] + b"\0\0\0\0" + plain[-12:], "no-palette": file(9, 7, 8, 3, 8), "palette-of-4-bytes": file(9, 7, 8, 3, 8, chunk(b"PLTE", bytes(4))),
        "huge": start + header(2**31 - 1, 2**31 - 1, 16, 6) + data(b"") + end, "no-width": start + header(0, 7, 8, 2) + end, "wide-for-its-data": start + header(60000, 4, 8, 2) + data(b"\0") + end,
        "depth-3": start + header(9, 7, 3, 0) + data(rows(9, 7, 3)) + end, "filter-9": start + header(9, 1, 8, 0) + data(b"\x09" + bytes(9)) + end, "rows-too-many": start + header(9, 7, 8, 2) + data(rows(9, 70, 24)) + end,
        "rows-missing": start + header(9, 7, 8, 2) + data(rows(9, 3, 24)) + end, "not-deflate": start + header(9, 7, 8, 2) + chunk(b"IDAT", bytes(40)) + end, "chunk-past-the-end": start + header(9, 7, 8, 2) + b"\xff\xff\xff\xffIDAT",
        "palette-late": file(9, 7, 8, 3, 8)[:-12] + palette + end, "palette-late-cut": file(9, 7, 8, 3, 8)[:-12] + palette[:8],
        "ok-palette-twice": file(9, 7, 8, 3, 8, palette)[:-12] + chunk(b"PLTE", bytes(range(48, 96))) + end, "jpeg": saved(picture("RGB"), "JPEG")}))


def webp():
    lossy, lossless = saved(picture("RGB"), "WEBP", quality=60), saved(picture("RGBA"), "WEBP", lossless=True)
    exif = Image.Exif()
    exif[0x112] = 5
    animated = saved(picture("RGB"), "WEBP", save_all=True, append_images=[picture("RGB").transpose(Image.ROTATE_180)], duration=9)
    turned = saved(picture("RGB"), "WEBP", exif=exif.tobytes())
    at = turned.index(b"VP8X") + 12
    write("webp", with_choices({
        "ok-lossy": lossy, "ok-lossless": lossless, "ok-alpha": saved(picture("RGBA"), "WEBP", quality=60), "ok-animated": animated, "ok-turned": turned,
        "empty": b"", "riff-only": lossy[:12], "cut": lossy[:-20], "lossless-cut": lossless[:-9], "animated-cut": animated[:-30], "size-too-large": lossy[:4] + b"\xff\xff\xff\x7f" + lossy[8:],
        "canvas-huge": turned[:at] + b"\xff" * 6 + turned[at + 6:], "bytes-after": lossy + bytes(30), "png": saved(picture("RGB"), "PNG")}))


if __name__ == "__main__":
    idx()
    safetensors()
    pickle()
    zip_files()
    quantization()
    cifar()
    jpeg()
    png()
    webp()
