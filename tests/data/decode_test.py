#!/usr/bin/python3
"""Images as Pillow reads them, byte for byte: every mode of JPEG, PNG and WebP, real photos, damaged files.

Usage: decode_test.py PATH/OF/decode_helper PATH/OF/jpeg_helper [unittest's arguments]
"""
import io
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

warnings.simplefilter("ignore")
PHOTOS = pathlib.Path(__file__).resolve().parent / "photos"
HELPER = JPEG_HELPER = ""


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(mode="RGB", size=None):
    image = Image.open(PHOTOS / "cat.png").convert("RGB")
    if size:
        image = image.resize(size) if min(size) < 8 else image.crop((20, 10, 20 + size[0], 10 + size[1]))
    if mode == "RGBA":
        alpha = np.add.outer(np.arange(image.height) * 3, np.arange(image.width) * 2).astype(np.uint8)
        image.putalpha(Image.fromarray(alpha))
        return image
    if mode == "LA":
        return photo("RGBA", size).convert("LA")
    return image.convert(mode)


def chunk(kind, body, crc=None):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, depth, colour, interlaced=False, palette=None, extra=b"", filters=True):
    """A PNG of any type from samples [height, width, channels]: Pillow itself writes but some of them."""
    height, width, channels = samples.shape

    def rows(part):
        body = b""
        for y, row in enumerate(part):
            flat = row.reshape(-1)
            if depth == 16:
                raw = flat.astype(">u2").tobytes()
            elif depth == 8:
                raw = flat.astype(np.uint8).tobytes()
            else:
                bits = np.unpackbits(flat.astype(np.uint8)[:, None], axis=1)[:, 8 - depth:]
                raw = np.packbits(bits.reshape(-1)).tobytes()
            step = max(1, depth * channels // 8)
            if filters and y % 2:  # Sub, which needs no row above
                raw = b"\1" + bytes((raw[i] - (raw[i - step] if i >= step else 0)) & 255 for i in range(len(raw)))
            else:
                raw = b"\0" + raw
            body += raw
        return body

    if interlaced:
        parts = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES]
        data = b"".join(rows(p) for p in parts if p.size)
    else:
        data = rows(samples)
    packed = zlib.compress(data)
    middle = len(packed) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, int(interlaced)))
            + (chunk(b"PLTE", palette) if palette is not None else b"") + extra
            + chunk(b"IDAT", packed[:middle]) + chunk(b"IDAT", packed[middle:]) + chunk(b"IEND", b""))


def every_png():
    rng = np.random.default_rng(3)
    files = {}
    base = np.asarray(photo("RGBA", (37, 29)), np.int64)
    channels_of = {0: [0], 2: [0, 1, 2], 3: [0], 4: [0, 3], 6: [0, 1, 2, 3]}
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            for interlaced in (False, True):
                for height, width in ((29, 37), (1, 1), (3, 5), (8, 8), (2, 9)):
                    samples = base[:height, :width, channels_of[colour]] >> max(0, 8 - depth)
                    if depth == 16:
                        samples = samples * 256 + rng.integers(0, 256, samples.shape)
                        samples[::2] >>= 8  # so that not everything is clipped
                    palette = rng.integers(0, 256, 3 << depth).astype(np.uint8).tobytes() if colour == 3 else None
                    name = f"type{colour}-{depth}bit-{'adam7-' if interlaced else ''}{width}x{height}"
                    files[name] = png(samples, depth, colour, interlaced, palette)
    grey = base[:, :, :1]
    files["grey-trns"] = png(grey, 8, 0, extra=chunk(b"tRNS", struct.pack(">H", int(grey[3, 3, 0]))))
    files["grey-1bit-trns"] = png(grey >> 7, 1, 0, extra=chunk(b"tRNS", struct.pack(">H", 1)))
    files["rgb-trns"] = png(base[:, :, :3], 8, 2, extra=chunk(b"tRNS", struct.pack(">3H", *map(int, base[5, 5, :3]))))
    palette = rng.integers(0, 256, 60).astype(np.uint8).tobytes()
    files["palette-trns"] = png(grey % 20, 8, 3, palette=palette, extra=chunk(b"tRNS", bytes(range(20))))
    files["palette-one-transparent"] = png(grey % 20, 8, 3, palette=palette, extra=chunk(b"tRNS", b"\xff" * 5 + b"\0"))
    files["palette-index-outside"] = png(grey % 40, 8, 3, palette=palette)
    files["palette-in-rgb"] = png(base[:, :, :3], 8, 2, palette=palette)
    files["gamma-and-profile"] = png(base[:, :, :3], 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0"))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"):
        files[f"pillow-{mode}"] = saved(photo(mode) if ";" not in mode else photo("I").convert(mode), "PNG")
    files["pillow-optimized"] = saved(photo(), "PNG", optimize=True)
    return files


def every_jpeg():
    files = {"rocket": (PHOTOS / "rocket.jpg").read_bytes()}
    for mode in ("L", "RGB", "CMYK"):
        for quality in (30, 75, 95, 100):
            for progressive in (False, True):
                files[f"{mode}-q{quality}-{'progressive' if progressive else 'baseline'}"] = saved(
                    photo(mode), "JPEG", quality=quality, progressive=progressive)
    for subsampling in (0, 1, 2):
        for size in ((187, 141), (1, 1), (2, 3), (7, 9), (16, 16), (17, 33), (31, 8)):
            for progressive in (False, True):
                files[f"rgb-s{subsampling}-{size[0]}x{size[1]}-{progressive}"] = saved(
                    photo("RGB", size), "JPEG", quality=85, subsampling=subsampling, progressive=progressive)
    files["optimized"] = saved(photo(), "JPEG", optimize=True)
    files["rgb-not-ycc"] = jpeg_without_jfif(saved(photo(), "JPEG", quality=90))
    return {**files, **made_jpegs()}


def jpeg_without_jfif(content):
    """With component ids R, G, B and no JFIF marker libjpeg takes the components for RGB."""
    body = bytearray(content[:2] + content[20:])  # APP0 has 18 bytes
    for marker, first in ((b"\xff\xc0", 10), (b"\xff\xda", 5)):
        at = body.index(marker)
        step = 3 if marker == b"\xff\xc0" else 2
        for i, letter in enumerate(b"RGB"):
            body[at + first + step * i] = letter
    return bytes(body)


def made(space="ycc", sampling="221111", restart=0, progressive=0, arithmetic=0, size=(97, 61)):
    """A JPEG of a kind that Pillow does not write."""
    source = {"grey": "L", "cmyk": "CMYK", "ycck": "CMYK"}.get(space, "RGB")
    arguments = [JPEG_HELPER, *map(str, size), space, sampling, str(restart), str(progressive), str(arithmetic)]
    return subprocess.run(arguments, input=photo(source, size).tobytes(), stdout=subprocess.PIPE, check=True).stdout


def made_jpegs():
    files = {}
    for sampling in ("111111", "211111", "221111", "411111", "121111", "421111", "141111", "212111", "211211", "222111", "112211"):
        for progressive in (0, 1):
            files[f"made-{sampling}-{progressive}"] = made(sampling=sampling, progressive=progressive)
    for space, sampling in (("grey", "11"), ("grey", "22"), ("rgb", "111111"), ("cmyk", "11111111"), ("ycck", "11111111"), ("ycck", "22111122")):
        for progressive in (0, 1):
            files[f"made-{space}-{sampling}-{progressive}"] = made(space, sampling, 3, progressive)
    for restart in (1, 2, 7, 100):
        files[f"made-restart-{restart}"] = made(restart=restart)
        files[f"made-restart-{restart}-progressive"] = made(restart=restart, progressive=1)
    files["made-arithmetic"] = made(arithmetic=1)
    files["made-arithmetic-progressive"] = made(arithmetic=1, progressive=1)
    return files


def with_orientation(content, value, order="<"):
    """A JPEG with an EXIF block that says how to turn it."""
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IHHHIHHI", 8, 1, 0x112, 3, 1, value, 0, 0)
    body = b"Exif\0\0" + tiff
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def every_webp():
    files = {}
    for mode in ("RGB", "RGBA", "L"):
        for size in ((187, 141), (1, 1), (7, 9), (16, 16), (33, 31)):
            files[f"{mode}-{size[0]}-lossy"] = saved(photo(mode, size), "WEBP", quality=70)
            files[f"{mode}-{size[0]}-lossless"] = saved(photo(mode, size), "WEBP", lossless=True)
    files["lossless-exact"] = saved(photo("RGBA"), "WEBP", lossless=True, exact=True)
    frames = [photo("RGB"), ImageOps.mirror(photo("RGB"))]
    files["animated"] = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)
    small = Image.new("RGBA", (64, 48))
    small.paste(photo("RGBA", (20, 16)), (31, 17))
    files["animated-part-of-canvas"] = saved(small, "WEBP", save_all=True, append_images=[photo("RGBA", (64, 48))], lossless=True)
    return files


class DecodeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="resnet-decode-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)

    def ours(self, files, channels=3, exif=False):
        """name -> ("ok", pixels [h, w(, 3)], mode, orientation, damages) or ("error", code, message)"""
        paths = {}
        for index, (name, content) in enumerate(files.items()):
            paths[name] = self.folder / f"{index}.bin"
            paths[name].write_bytes(content)
        run = subprocess.run([HELPER, str(channels), str(int(exif))], input="".join(f"{p}\n" for p in paths.values()).encode(),
                             capture_output=True)
        self.assertEqual(run.returncode, 0, run.stderr[-2000:])
        stream = io.BytesIO(run.stdout)
        results = {}
        for name in files:
            line = stream.readline().decode()
            if line.startswith("error "):
                _, code, message = line.split(" ", 2)
                results[name] = ("error", int(code), message.strip())
                continue
            _, c, h, w, mode, orientation, damages = line.split()
            pixels = np.frombuffer(stream.read(int(c) * int(h) * int(w)), np.uint8).reshape(int(c), int(h), int(w))
            results[name] = ("ok", pixels, mode, int(orientation), int(damages))
        return results

    @staticmethod
    def pillows(content, channels=3, exif=False):
        """Pixels [channels, h, w], or None where Pillow raises."""
        try:
            image = Image.open(io.BytesIO(content))
            if exif:
                image = ImageOps.exif_transpose(image)
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
        except Exception:
            return None
        return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))

    def assert_same(self, files, exif=False, least=1):
        self.assertGreaterEqual(len(files), least)
        for channels in (1, 3):
            for name, result in self.ours(files, channels, exif).items():
                expected = self.pillows(files[name], channels, exif)
                self.assertIsNotNone(expected, f"{name}: Pillow does not read it")
                self.assertEqual(result[0], "ok", f"{name}: {result}")
                self.assertEqual(result[1].shape, expected.shape, name)
                different = int((result[1] != expected).sum())
                self.assertEqual(different, 0, f"{name} ({channels} channels): {different} of {expected.size} bytes differ")

    def test_every_kind_of_jpeg_has_pillows_pixels(self):
        self.assert_same(every_jpeg(), least=100)

    def test_every_kind_of_png_has_pillows_pixels(self):
        self.assert_same(every_png(), least=150)

    def test_every_kind_of_webp_has_pillows_pixels(self):
        self.assert_same(every_webp(), least=30)

    def test_modes_are_named_as_in_pillow(self):
        files = {**every_png(), **every_webp(), **every_jpeg()}
        for name, result in self.ours(files).items():
            mode = Image.open(io.BytesIO(files[name])).mode
            if mode == "I":
                mode = "I;16"
            if name.startswith("type4-16bit"):
                mode = "LA"  # Pillow widens it to RGBA
            self.assertEqual(result[2], mode, name)
            self.assertEqual(result[4], 0, f"{name}: damage found where there is none")

    def test_all_orientations_are_turned_as_by_pillow(self):
        files = {}
        for mode in ("L", "RGB"):
            jpeg = saved(photo(mode, (37, 29)), "JPEG")
            for value in range(0, 10):
                for order in "<>":
                    files[f"{mode}-{value}{order}"] = with_orientation(jpeg, value, order)
        exif = Image.Exif()
        for value in range(1, 9):
            exif[0x112] = value
            files[f"png-{value}"] = saved(photo("RGB", (37, 29)), "PNG", exif=exif)
            files[f"webp-{value}"] = saved(photo("RGB", (37, 29)), "WEBP", exif=exif.tobytes())
        self.assert_same(files, exif=True, least=56)
        self.assert_same(files, exif=False, least=56)
        self.assertEqual({r[3] for r in self.ours(files).values()}, set(range(1, 9)))

    def test_truncated_files_are_errors_where_pillow_raises(self):
        files = {"jpeg": saved(photo("RGB", (64, 48)), "JPEG"), "progressive": saved(photo("RGB", (64, 48)), "JPEG", progressive=True),
                 "png": png(np.asarray(photo("RGB", (64, 48))), 8, 2), "adam7": png(np.asarray(photo("RGB", (33, 31))), 8, 2, True),
                 "webp": saved(photo("RGB", (64, 48)), "WEBP"), "lossless": saved(photo("RGBA", (64, 48)), "WEBP", lossless=True)}
        for kind, content in files.items():
            cuts = {f"{kind}-{at}": content[:at] for at in sorted({*range(0, len(content), 7), *range(len(content) - 40, len(content))})}
            # A PNG is read when it is cut after its last row: nobody misses its end.
            self.compare_damaged(cuts, 1 if kind in ("png", "adam7") else 0)

    def test_damaged_files_never_give_other_pixels_than_pillow(self):
        rng = random.Random(5)
        sources = {"jpeg": saved(photo("RGB", (64, 48)), "JPEG"), "grey": saved(photo("L", (64, 48)), "JPEG"),
                   "progressive": saved(photo("RGB", (64, 48)), "JPEG", progressive=True),
                   "png": png(np.asarray(photo("RGB", (64, 48))), 8, 2), "webp": saved(photo("RGB", (64, 48)), "WEBP")}
        for kind, content in sources.items():
            files = {}
            for i in range(150):
                damaged = bytearray(content)
                for _ in range(rng.choice((1, 1, 2, 8))):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                files[f"{kind}-{i}"] = bytes(damaged)
            if kind == "png":  # a chance of one in a thousand
                at = content.rindex(b"IDAT") - 8
                files["checksum-of-pixels"] = content[:at] + bytes(4) + content[at + 4:]
            self.compare_damaged(files, 1 if kind == "png" else 50)

    def compare_damaged(self, files, least_read):
        """Ours reads what Pillow reads, and then the same pixels. The one exception: what claims far more pixels than its
        bytes can hold is refused at once, where Pillow makes a grey image."""
        read = 0
        for name, result in self.ours(files).items():
            expected = self.pillows(files[name])
            if result[0] == "error":
                self.assertIn(result[1], (3, 5), f"{name}: {result}")
                self.assertTrue(expected is None or "or more" in result[2], f"{name}: Pillow reads it; {result}")
                continue
            self.assertIsNotNone(expected, f"{name}: Pillow does not read it; {result[2:]}")
            self.assertEqual(result[1].shape, expected.shape, name)
            self.assertFalse((result[1] != expected).any(), f"{name}: other pixels than Pillow's")
            read += 1
        self.assertGreaterEqual(read, least_read)
        self.assertLess(read, len(files))


def main():
    global HELPER, JPEG_HELPER
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PATH/OF/decode_helper PATH/OF/jpeg_helper [unittest's arguments]")
    HELPER, JPEG_HELPER = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main()


if __name__ == "__main__":
    main()
