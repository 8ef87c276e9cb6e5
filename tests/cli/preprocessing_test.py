#!/usr/bin/python3
"""The preprocessing contract: torchvision's transforms make the goldens, `resnet verify` holds the program against them.

Pixels byte for byte before normalisation, on files of every mode; the three f32 operations of the normalisation; logits
of torchvision's resnet18; test-time augmentation against torch.
"""
import hashlib
import json
import math
import os
import pathlib
import sys
import warnings

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch is there: waiting threads would take the program's time

import numpy as np
import program
import torch
import torchvision
from PIL import Image, ImageOps
from program import ProgramTest
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, TenCrop, ToTensor
from torchvision.transforms.functional import hflip

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import safetensors_numpy

warnings.simplefilter("ignore")
PHOTOS = pathlib.Path(__file__).resolve().parents[1] / "data/photos"
MODES = {"nearest": InterpolationMode.NEAREST, "box": InterpolationMode.BOX, "bilinear": InterpolationMode.BILINEAR,
         "hamming": InterpolationMode.HAMMING, "bicubic": InterpolationMode.BICUBIC, "lanczos": InterpolationMode.LANCZOS}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def network(channels, classes, seed):
    """torchvision's resnet18 with statistics that are not 0 and 1, in evaluation mode."""
    torch.manual_seed(seed)
    net = torchvision.models.resnet18(num_classes=classes)
    if channels != 3:
        net.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(4, channels, 64, 64))
    return net.eval()


def save_model(path, net, channels, classes, side, **preprocessing):
    """Our model file of torch's weights."""
    metadata = {"format": "pt", "architecture": "resnet18", "num_classes": str(classes), "input_size": json.dumps([channels, side, side]),
                "class_names": json.dumps([f"class {k}" for k in range(classes)]), "mean": "[]", "std": "[]", "crop_pct": "1.0",
                "interpolation": "bilinear", "resize": "squash", **preprocessing}
    safetensors_numpy.save(path, {k: v.numpy() for k, v in net.state_dict().items()}, metadata)


def write_files(folder):
    """The same two photos in every mode that PNG, JPEG and WebP files have, and shapes that round and pad."""
    folder.mkdir()
    cat, rocket = Image.open(PHOTOS / "cat.png").convert("RGB"), Image.open(PHOTOS / "rocket.jpg").convert("RGB")
    alpha = Image.fromarray(np.add.outer(np.arange(cat.height), np.arange(cat.width)).astype(np.uint8))
    rgba, la = cat.copy(), cat.convert("L").convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    for name, image in (("1", cat.convert("1")), ("L", cat.convert("L")), ("LA", la), ("P", cat.quantize(200)), ("RGB", cat), ("RGBA", rgba),
                        ("I16", Image.fromarray(np.asarray(cat.convert("L")).astype(np.uint16)))):
        image.save(folder / f"png-{name}.png")
    for name, image, options in (("L", cat.convert("L"), {}), ("420", cat, {"subsampling": 2}), ("422", cat, {"subsampling": 1}),
                                 ("444", cat, {"subsampling": 0, "quality": 95}), ("progressive", cat, {"progressive": True}),
                                 ("CMYK", cat.convert("CMYK"), {}), ("low", rocket.crop((100, 20, 300, 321)), {"quality": 20})):
        image.save(folder / f"jpeg-{name}.jpg", "JPEG", **options)
    cat.save(folder / "webp-lossy.webp", quality=80)
    rgba.save(folder / "webp-alpha.webp", lossless=True)
    (folder / "photo.jpg").write_bytes((PHOTOS / "rocket.jpg").read_bytes())
    for width, height in ((32, 32), (33, 32), (32, 35), (97, 201), (201, 97), (1, 50), (50, 1), (1, 1), (31, 40), (400, 31)):
        rocket.resize((width, height)).save(folder / f"shape-{width}x{height}.png")
    return sorted(folder.iterdir())


class Goldens(ProgramTest):
    SIDE = 32

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.files = write_files(cls.folder / "photos")
        torch.set_num_threads(1)
        cls.nets = {channels: network(channels, 5, channels) for channels in (1, 3)}

    def hold_against_torchvision(self, transform, channels=3, exif=False, files=None, **preprocessing):
        """Writes torchvision's golden of all files and has the program verify it."""
        normalise = Compose([ToTensor(), Normalize(MEAN[:channels], STD[:channels])])
        images, batch = [], []
        files = files or self.files
        for path in files:
            image = Image.open(path)
            image = (ImageOps.exif_transpose(image) if exif else image).convert("RGB" if channels == 3 else "L")
            image = transform(image)
            pixels = np.asarray(image).reshape(self.SIDE, self.SIDE, channels).transpose(2, 0, 1)
            images.append({"file": f"photos/{path.name}", "sha256": program.sha256(path),
                           "pixels_sha256": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()})
            batch.append(normalise(image))
        with torch.no_grad():
            logits = self.nets[channels](torch.stack(batch)).numpy()
        for image, row in zip(images, logits):
            image["logits"] = [float(v) for v in row]
        (self.folder / "golden.json").write_text(json.dumps({"format": "resnet golden 1", "images": images}))
        save_model(self.folder / "m.safetensors", self.nets[channels], channels, 5, self.SIDE, mean=json.dumps(MEAN[:channels]),
                   std=json.dumps(STD[:channels]), **preprocessing)
        result = self.call("verify", "m.safetensors", "--against", "golden.json")
        self.assertEqual(result.code, 0, f"{preprocessing}\n{result.out}{result.err}")
        self.assertIn(f"{len(files)} images are as in", result.out)
        if preprocessing.get("interpolation") in MODES:  # not each time: it doubles the time
            return
        # Had one pixel been off by one, or one logit by two tolerances, it would have been told.
        images[0]["pixels_sha256"] = hashlib.sha256(bytes(3)).hexdigest()
        images[1]["logits"][0] += 2e-4 * max(map(abs, images[1]["logits"]))
        (self.folder / "golden.json").write_text(json.dumps({"format": "resnet golden 1", "images": images}))
        told = self.call("verify", "m.safetensors", "--against", "golden.json", "--json")
        self.assertEqual([d["file"] for d in told.json()["differences"]], [i["file"] for i in images[:2]])

    def test_squash_with_every_filter(self):
        for name, mode in MODES.items():
            with self.subTest(name=name):
                self.hold_against_torchvision(Resize((self.SIDE, self.SIDE), mode), interpolation=name)

    def test_shortest_side_and_centre_crop_as_torchvision_evaluates(self):
        for size, name in ((37, "bilinear"), (32, "bicubic"), (38, "nearest"), (46, "lanczos")):
            with self.subTest(size=size, name=name):
                self.hold_against_torchvision(Compose([Resize(size, MODES[name]), CenterCrop(self.SIDE)]), resize="shortest",
                                              resize_size=str(size), interpolation=name)

    def test_crop_pct_as_timm_means_it(self):
        for share in (0.875, 0.95):
            size = math.floor(self.SIDE / share)
            self.hold_against_torchvision(Compose([Resize(size, MODES["bicubic"]), CenterCrop(self.SIDE)]), resize="shortest",
                                          crop_pct=str(share), interpolation="bicubic")

    def test_images_smaller_than_the_crop_are_padded(self):
        for size in (31, 20):
            self.hold_against_torchvision(Compose([Resize(size, MODES["bilinear"]), CenterCrop(self.SIDE)]), resize="shortest",
                                          resize_size=str(size))
        self.hold_against_torchvision(Compose([Resize((25, 25), MODES["bilinear"]), CenterCrop(self.SIDE)]), resize_size="25")

    def test_grey_models(self):
        self.hold_against_torchvision(Compose([Resize(37, MODES["bilinear"]), CenterCrop(self.SIDE)]), channels=1, resize="shortest",
                                      resize_size="37")

    def test_every_exif_orientation(self):
        files = []
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            for ending in ("jpg", "png", "webp"):
                files.append(self.folder / f"photos/turned-{orientation}.{ending}")
                Image.open(PHOTOS / "cat.png").convert("RGB").save(files[-1], exif=exif)
        both = Compose([Resize(37, MODES["bilinear"]), CenterCrop(self.SIDE)])
        self.hold_against_torchvision(both, files=files, exif=True, resize="shortest", resize_size="37", exif_orientation="true")
        self.hold_against_torchvision(both, files=files, resize="shortest", resize_size="37")
        for file in files:
            file.unlink()

    def test_the_normalisation_is_three_f32_operations(self):
        # tests/data/preprocess_test.cpp holds the program to them; here torchvision is.
        levels = np.arange(256, dtype=np.uint8)
        image = Image.fromarray(np.stack([levels, levels[::-1], np.roll(levels, 7)], axis=1).reshape(16, 16, 3))
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
        for mean, std in ((MEAN, STD), ([0.5] * 3, [0.5] * 3), ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]), ([0, 0.1, 1], [1, 3, 0.7])):
            theirs = Compose([ToTensor(), Normalize(mean, std)])(image).numpy()
            ours = (pixels / np.float32(255) - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
            self.assertEqual(theirs.tobytes(), ours.tobytes())


class Views(ProgramTest):
    def test_flip_and_ten_crop_average_torchs_probabilities(self):
        program.write_data(self.folder / "data", test=24, side=14)
        raw = (self.folder / "data/t10k-images-idx3-ubyte").read_bytes()[16:]
        images = [Image.fromarray(p) for p in np.frombuffer(raw, np.uint8).reshape(24, 14, 14)]
        labels = torch.arange(24) % 3
        net = network(1, 3, 9)
        # An odd margin: the centre of the mirror image is not the mirror image of the centre.
        save_model(self.folder / "m.safetensors", net, 1, 3, 32, resize_size="37", mean="[0.3]", std="[0.4]")
        normalise, resize = Compose([ToTensor(), Normalize([0.3], [0.4])]), Resize((37, 37))
        views = {"none": lambda i: [CenterCrop(32)(i)], "flip": lambda i: [CenterCrop(32)(i), CenterCrop(32)(hflip(i))], "ten-crop": TenCrop(32)}
        for name, view in views.items():
            with torch.no_grad():
                inputs = torch.stack([normalise(v) for i in images for v in view(resize(i))])
                p = net(inputs).double().softmax(1).reshape(24, -1, 3).mean(1)
            for more in ((), ("--batch-size", "7"), ("--workers", "0", "--batch-size", "1")):
                e = self.ok("evaluate", "m.safetensors", "--data", "data", "--tta", name, "--json", *more).json()
                self.assertEqual((e["tta"], e["images"]), (name, 24))
                self.assertAlmostEqual(e["top1"], (p.argmax(1) == labels).double().mean().item())
                loss = -p[torch.arange(24), labels].log().mean().item()
                self.assertAlmostEqual(e["loss"], loss, delta=1e-4 * loss, msg=f"{name} {more}")


if __name__ == "__main__":
    program.main()
