"""Weights in and out, held against PyTorch, safetensors for Python, onnx's checker and ONNX Runtime."""
import argparse
import collections
import json
import os
import pathlib
import pickle
import signal
import struct
import warnings
import zipfile

import numpy as np
import onnx
import onnxruntime
import program
import safetensors.torch
import timm
import torch
import torchvision
from program import ProgramTest

# Where the versions of the oracles differ is in what they warn of.
warnings.filterwarnings("ignore")


def random_net(name="resnet18", classes=1000, seed=3):
    torch.manual_seed(seed)
    return getattr(torchvision.models, name)(num_classes=classes)


def same(ours, theirs):
    """Names, types, shapes and every byte."""
    return (sorted(ours) == sorted(theirs) and all(
        ours[k].dtype == theirs[k].dtype and ours[k].shape == theirs[k].shape and
        ours[k].contiguous().view(-1).view(torch.uint8).equal(theirs[k].contiguous().view(-1).view(torch.uint8)) for k in theirs if theirs[k].numel()))


class RunsAtUnpickling:
    """Whoever unpickles it runs a program."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self.touched}",)


class Convert(ProgramTest):
    def save(self, content, name="in.pth", **options):
        torch.save(content, self.folder / name, **options)
        return name

    def convert(self, *arguments):
        return self.ok("convert", *arguments, "--force")

    def refused(self, code, parts, *arguments):
        before = sorted(p.name for p in self.folder.iterdir())
        result = self.call(*arguments)
        self.assertEqual(result.code, code, f"{arguments}\n{result.err}")
        self.assertEqual(len(result.err.splitlines()), 1, result.err)
        for part in (parts,) if isinstance(parts, str) else parts:
            self.assertIn(part, result.err)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), before)
        self.assertLess(result.cpu_seconds, 1, result.err)

    def read(self, name="out.safetensors"):
        return safetensors.torch.load_file(self.folder / name)

    def test_torchvision_nets_there_and_back_keep_every_byte(self):
        for name in ("resnet18", "resnext50_32x4d"):
            with self.subTest(name=name):
                state = random_net(name).state_dict()
                self.convert(self.save(state), "out.safetensors", "--architecture", name)
                self.assertTrue(same(self.read(), state))
                safetensors.torch.save_file(state, self.folder / "theirs.safetensors")
                self.convert("theirs.safetensors", "back.pth")
                for options in ({}, {"weights_only": True}):
                    self.assertTrue(same(torch.load(self.folder / "back.pth", **options), state))
                random_net(name, seed=4).load_state_dict(torch.load(self.folder / "back.pth"))
                header, _ = program.read_model(self.folder / "out.safetensors")
                metadata = header["__metadata__"]
                self.assertEqual(metadata["architecture"], name)
                names = json.loads(metadata["class_names"])
                self.assertEqual(names, torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])
                self.assertEqual((metadata["resize"], metadata["crop_pct"], metadata["input_size"], metadata["interpolation"]),
                                 ("shortest", "0.875", "[3,224,224]", "bilinear"))
                np.testing.assert_allclose(json.loads(metadata["mean"]), [0.485, 0.456, 0.406], rtol=1e-7)

    def test_views_types_and_ties_keep_every_byte(self):
        big = torch.randn(6, 5, 4)
        tied = torch.randn(3, 3)
        state = collections.OrderedDict(
            transposed=big.permute(2, 0, 1), sliced=big[1:5:2, ::3, 2], offset=big.view(-1)[7:29], scalar=torch.tensor(2.5), no_elements=torch.zeros(0, 3),
            tied=tied, tied_too=tied, tied_transposed=tied.t(), parameter=torch.nn.Parameter(torch.randn(2)),
            **{str(dtype)[6:]: torch.arange(-3, 5).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
                                                                           torch.int16, torch.int8, torch.uint8, torch.bool)})
        state["channels_last"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        plain = {k: v.detach().contiguous() for k, v in state.items()}
        for protocol in (2, 4, 5):
            self.convert(self.save(state, pickle_protocol=protocol), "out.safetensors")
            self.assertTrue(same(self.read(), plain), protocol)
        self.convert("out.safetensors", "back.pth")
        self.assertTrue(same(torch.load(self.folder / "back.pth"), plain))

    def test_what_training_scripts_wrap_around_a_state_dict(self):
        net, other = random_net(classes=5), random_net(classes=5, seed=8)
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        net(torch.zeros(2, 3, 32, 32)).sum().backward()
        optimizer.step()
        state, rest = net.state_dict(), {"epoch": 3, "best": np.float64(71.5), "args": argparse.Namespace(lr=0.1, names=["a"]),
                                         "optimizer": optimizer.state_dict(), "shape": torch.Size([2, 3])}
        averaged = torch.optim.swa_utils.AveragedModel(net).state_dict()
        self.assertIn("n_averaged", averaged)
        for content, wrapper in [({"state_dict": state, **rest}, "state_dict"), ({"model": state, **rest}, "model"), ({"model_state_dict": state}, "model_state_dict"),
                                 ({"state_dict": other.state_dict(), "state_dict_ema": state, **rest}, "state_dict_ema"),
                                 ({"model": other.state_dict(), "model_ema": averaged, **rest}, "model_ema"),
                                 (torch.nn.DataParallel(net).state_dict(), None)]:
            with self.subTest(wrapper=wrapper):
                result = self.convert(self.save(content), "out.safetensors", "--architecture", "resnet18")
                self.assertEqual(wrapper is not None, "took the state dict" in result.err, result.err)
                self.assertIn(f"'{wrapper}'" if wrapper else "", result.err)
                self.assertTrue(same(self.read(), state))

    def test_what_is_no_state_dict_is_refused_and_never_run(self):
        touched = self.folder / "touched"
        whole = self.save(random_net(classes=2), "whole.pth")
        self.refused(3, ("whole.pth: byte ", "a whole model was pickled", "torch.save(model.state_dict(), FILE)"), "convert", whole, "no.safetensors")
        calls = self.save({"state_dict": random_net(classes=2).state_dict(), "x": RunsAtUnpickling(touched)}, "calls.pth")
        self.refused(3, ("calls.pth: byte ", "system", "nothing of a pickle is ever run"), "convert", calls, "no.safetensors")
        self.refused(3, ("calls.pth: byte ", "system"), "summary", calls)
        old = self.save({"state_dict": {"w": torch.zeros(2)}, "x": RunsAtUnpickling(touched)}, "old.pth", _use_new_zipfile_serialization=False)
        self.refused(3, ("old.pth: byte ", "system", "nothing of a pickle is ever run"), "convert", old, "no.safetensors")
        whole = self.save(random_net(classes=2), "old-whole.pth", _use_new_zipfile_serialization=False)
        self.refused(3, ("old-whole.pth: byte ", "a whole model was pickled"), "convert", whole, "no.safetensors")
        (self.folder / "bare.pth").write_bytes(pickle.dumps({"w": 1}, 2))
        self.refused(3, ("bare.pth: byte 0", "bare pickle"), "summary", "bare.pth")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(self.folder / "script.pth"))
        self.refused(3, ("script.pth: byte ", "TorchScript"), "summary", "script.pth")
        self.refused(3, ("complex.pth: byte ", "ComplexFloatStorage"), "summary", self.save({"w": torch.zeros(2, dtype=torch.complex64)}, "complex.pth"))
        self.refused(3, ("list.pth: byte ", "a list"), "summary", self.save([torch.zeros(2)], "list.pth"))
        self.refused(3, ("expanded.pth: byte ", ".contiguous()"), "summary", self.save({"w": torch.zeros(1).expand(1 << 40)}, "expanded.pth"))
        self.assertFalse(touched.exists())

    def test_files_of_torch_before_1_6_are_read_as_new_ones_are(self):
        shared = torch.arange(24, dtype=torch.float32)
        states = {"net": random_net(classes=2).state_dict(),
                  "views": {"a": shared[3:9].reshape(2, 3), "b": shared.reshape(4, 6).t(), "tied": shared, "scalar": torch.tensor(2.5)},
                  "types": {str(t): torch.arange(6).to(t) for t in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16,
                                                                   torch.int8, torch.uint8, torch.bool)},
                  "empty": {"none": torch.zeros(0, 3), "one": torch.ones(1)}}
        for name, state in states.items():
            with self.subTest(name):
                new, old = (self.read_of(self.save(state, f"{name}-{kind}.pth", _use_new_zipfile_serialization=kind == "new")) for kind in ("new", "old"))
                self.assertTrue(same(old, new))
                self.assertTrue(same(old, {k: v.contiguous() for k, v in state.items()}))
        wrapped = self.save({"epoch": 3, "state_dict": states["net"], "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}}, "wrapped.pth",
                            _use_new_zipfile_serialization=False)
        self.assertTrue(same(self.read_of(wrapped), states["net"]))

    def read_of(self, file):
        self.convert(file, "out.safetensors")
        return self.read()

    def test_damaged_files_of_torch_before_1_6_are_refused(self):
        name = self.save({"w": torch.arange(6.0), "b": torch.ones(3)}, "old.pth", _use_new_zipfile_serialization=False)
        good = (self.folder / name).read_bytes()
        keys = good.rindex(b"\x80\x02]")  # the pickle of the list of keys
        length = good.index(struct.pack("<q", 3), keys)
        bad = {"a byte more": (good + b"\0", "follow the last storage"), "a huge storage": (good[:length] + b"\xff" * 7 + b"\x7f" + good[length + 8:], "declares"),
               "a version": (good[:15] + b"\x80\x02M\xea\x03." + good[21:], "version"), "big-endian": (good.replace(b"little_endian", b"small_endian_"), "little_endian"),
               "no list": (good[:keys] + b"\x80\x02}." + good[keys:], "keys")}
        for size in (*range(0, len(good), 7), *range(len(good) - 48, len(good))):
            bad[f"{size} bytes"] = good[:size], f"{name}: byte "
        for what, (content, part) in bad.items():
            with self.subTest(what):
                (self.folder / name).write_bytes(content)
                self.refused(3, (f"{name}: byte ", part), "convert", name, "no.safetensors")
        (self.folder / name).write_bytes(good)
        self.assertEqual(sorted(self.read_of(name)), ["b", "w"])

    def test_a_compressed_copy_and_a_bomb_are_refused(self):
        self.save({"w": torch.zeros(1 << 22)}, "small.pth")
        with zipfile.ZipFile(self.folder / "small.pth") as source, zipfile.ZipFile(self.folder / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
            for name in source.namelist():
                packed.writestr(name, source.read(name))
        self.assertLess((self.folder / "packed.pth").stat().st_size, 1 << 16)
        self.refused(3, ("packed.pth: byte ", "compressed"), "summary", "packed.pth")

    def test_what_is_there_is_not_overwritten(self):
        state = random_net(classes=4).state_dict()
        self.convert(self.save(state), "taken.safetensors")
        before = program.sha256(self.folder / "taken.safetensors")
        self.refused(8, ("taken.safetensors", "--force"), "convert", "in.pth", "taken.safetensors")
        self.refused(2, ("out.bin", ".safetensors, .pth or .pt"), "convert", "in.pth", "out.bin")
        self.refused(3, ("in.pth", "165 missing: ", "24 misshaped: ", "and 14 more"), "convert", "in.pth", "taken.safetensors", "--force", "--architecture", "resnet50")
        self.refused(2, ("resnet19", "nearest"), "convert", "in.pth", "new.safetensors", "--architecture", "resnet19")
        self.assertEqual(program.sha256(self.folder / "taken.safetensors"), before)

    def test_weights_of_timm_get_the_preprocessing_they_were_trained_with(self):
        for name in ("resnet18d", "resnetv2_50", "seresnet50"):
            net = timm.create_model(name)
            self.convert(self.save(net.state_dict()), "out.safetensors", "--architecture", name)
            with safetensors.safe_open(self.folder / "out.safetensors", "pt") as file:
                said, wanted = file.metadata(), net.default_cfg
            self.assertEqual((said["interpolation"], float(said["crop_pct"]), said["resize"]),
                             (wanted["interpolation"], wanted["crop_pct"], "shortest"))
            self.assertEqual(json.loads(said["input_size"]), list(wanted["input_size"]))
            for key in ("mean", "std"):
                np.testing.assert_allclose(json.loads(said[key]), wanted[key], rtol=1e-6)

    def test_what_preprocessing_was_assumed_is_told(self):
        self.save(random_net(classes=3).state_dict())
        told = self.convert("in.pth", "out.safetensors", "--architecture", "resnet18").err
        for part in ("shorter side 256, centre 224, bilinear", "IMAGENET1K_V1", "resize_size=232"):
            self.assertIn(part, told)
        self.assertNotIn("assumed", self.convert("in.pth", "out.safetensors", "--architecture", "resnet18", "--metadata", "resize_size=232").err)
        self.assertNotIn("assumed", self.convert("out.safetensors", "again.safetensors").err)
        net = torchvision.models.resnext101_64x4d(num_classes=2)
        preset = torchvision.models.ResNeXt101_64X4D_Weights.DEFAULT.transforms()
        self.convert(self.save(net.state_dict()), "out.safetensors", "--architecture", "resnext101_64x4d")
        metadata = program.read_model(self.folder / "out.safetensors")[0]["__metadata__"]
        self.assertEqual((metadata["resize_size"], metadata["input_size"]), (str(preset.resize_size[0]), json.dumps([3, *preset.crop_size * 2], separators=(",", ":"))))

    def test_wrong_metadata_blame_whoever_said_them(self):
        self.save(random_net(classes=3).state_dict())
        named = ("convert", "in.pth", "new.safetensors", "--architecture", "resnet18")
        for wrong, parts in (("crop_pct=2", "--metadata"), ("crop_pct=x", ("--metadata", "crop_pct")), ("model.blocks=[0]", ("--metadata", "model.blocks")),
                             ("crop_pc=0.9", ("unknown key 'crop_pc'", "nearest: crop_pct", "x.")), ("architecture=resnet34", ("--architecture resnet18", "resnet34")),
                             ("num_classes=4", "--metadata"), ('class_names=["a"]', "--metadata")):
            self.refused(2, parts, *named, "--metadata", wrong)
        self.convert("in.pth", "good.safetensors", "--metadata", "architecture=resnet18", "--metadata", "x.source=mine")
        header, data = program.read_model(self.folder / "good.safetensors")
        self.assertEqual((header["__metadata__"]["architecture"], header["__metadata__"]["x.source"]), ("resnet18", "mine"))
        for key, value in (("architecture", "resnet19"), ("model.blocks", "[0]"), ("crop_pct", "2")):
            program.write_model(self.folder / "bad.safetensors", {**header, "__metadata__": {**header["__metadata__"], key: value}}, data)
            for more in ((), ("--metadata", "mean=[0,0,0]")):
                self.refused(3, "bad.safetensors: byte 8", "convert", "bad.safetensors", "new.safetensors", *more)
            self.refused(3, "bad.safetensors: byte 8", "export", "bad.safetensors", "new.onnx")
        (self.folder / "names.txt").write_bytes(b"cat\nd\xf6g\nbird\n")
        self.refused(3, ("names.txt: byte 5", "line 2 is not UTF-8"), *named, "--class-names", "names.txt")

    def test_plain_data_beside_the_state_dict(self):
        state = {"w": torch.randn(2, 3)}
        rest = {"set": {1, 2}, "frozen": frozenset("ab"), "lists": collections.defaultdict(list, {"a": [1]}), "dicts": collections.defaultdict(dict),
                "dtypes": [torch.uint8, torch.bool, torch.int32, torch.int16, torch.int8], "path": pathlib.Path("a/b"), "version": torch.__version__,
                "array": np.arange(6.0).reshape(2, 3), "scalar": np.int64(3), "complex": 1 + 2j, "bytes": b"\0a", "none": b"", "bytearray": bytearray(b"ab"),
                "long": 1 << 100, "longer": 1 << 3000, "rng": torch.zeros(5, dtype=torch.uint8)}
        for protocol in (2, 4, 5):
            self.convert(self.save({"state_dict": state, **rest}, pickle_protocol=protocol), "out.safetensors")
            self.assertTrue(same(self.read(), state), protocol)
        for key in ("ema", "ema_model", "model_ema_state_dict"):
            self.convert(self.save({"state_dict": {"w": torch.zeros(2, 3)}, key: state}), "out.safetensors")
            self.assertTrue(same(self.read(), state), key)
        self.convert(self.save({"state_dict": state, "ema": {"decay": 0.9}}), "out.safetensors")
        self.assertTrue(same(self.read(), state))

    def test_a_prefix_of_others_is_named_and_taken_off(self):
        state = random_net(classes=3).state_dict()
        lightning = {f"model.{k}": v for k, v in state.items()}
        self.save({"state_dict": {**lightning, "loss.weight": torch.zeros(3)}})
        named = ("in.pth", "new.safetensors", "--architecture", "resnet18")
        self.refused(3, "--strip-prefix model.;", "convert", *named)
        self.refused(2, ("--strip-prefix: 'net.'", "in.pth"), "convert", *named, "--strip-prefix", "net.")
        told = self.convert("in.pth", "out.safetensors", "--architecture", "resnet18", "--strip-prefix", "model.").err
        self.assertIn("1 tensors without it", told)
        self.assertTrue(same(self.read(), state))

    def test_views_of_one_storage_cost_what_they_span(self):
        floats = torch.arange(1 << 22, dtype=torch.float32)  # 16 MiB, in 8,192 pieces
        pieces = {f"{k:04}": piece for k, piece in enumerate(floats.split(512))}
        result = self.convert(self.save(pieces), "out.safetensors")
        self.assertLess(result.cpu_seconds, 1.5)
        self.assertTrue(same(self.read(), {k: v.clone() for k, v in pieces.items()}))
        columns = torch.zeros(1 << 20, 16)
        self.save({f"c{k}": columns[:, k] for k in range(16)})
        self.refused(5, ("in.pth: byte ", "more than 8 times", "clone()"), "convert", "in.pth", "new.safetensors")
        self.refused(3, ("9 dimensions", "8 at most"), "summary", self.save({"w": torch.zeros([1] * 9)}))

    def test_a_signal_leaves_no_temporary_file(self):
        with open(self.folder / "large.safetensors", "wb") as file:  # a hole of 1 GiB
            header = json.dumps({f"t{k:02}": {"dtype": "F32", "shape": [1 << 22], "data_offsets": [k << 24, (k + 1) << 24]} for k in range(64)}).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + (64 << 24))
        for number in (signal.SIGINT, signal.SIGTERM):
            running = self.start("convert", "large.safetensors", "stopped.safetensors")
            begun = running.wait_until(lambda: any(p.stat().st_size > 1 << 24 for p in self.folder.glob(".tmp-*")))
            self.assertTrue(begun)
            running.send(number)
            result = running.wait()
            self.assertEqual(result.code, 128 + number, result.err)
            self.assertEqual([p.name for p in self.folder.glob(".tmp-*")], [])
            self.assertFalse((self.folder / "stopped.safetensors").exists())
        (self.folder / "large.safetensors").unlink()

    def test_class_names_and_single_keys(self):
        self.save(random_net(classes=3).state_dict())
        (self.folder / "names.txt").write_text("cat\ndög\nbird\n", encoding="utf-8")
        self.convert("in.pth", "named.safetensors", "--architecture", "resnet18", "--class-names", "names.txt", "--metadata", "input_size=[3,96,96]")
        metadata = program.read_model(self.folder / "named.safetensors")[0]["__metadata__"]
        self.assertEqual(json.loads(metadata["class_names"]), ["cat", "dög", "bird"])
        self.assertEqual((metadata["num_classes"], metadata["input_size"]), ("3", "[3,96,96]"))
        (self.folder / "names.txt").write_text("cat\n", encoding="utf-8")
        self.refused(8, ("1 class names", "3 classes"), "convert", "in.pth", "new.safetensors", "--architecture", "resnet18", "--class-names", "names.txt")

    def test_summary_of_any_weights(self):
        state = random_net(classes=4).state_dict()
        summary = self.ok("summary", self.save(state), "--json").json()
        self.assertEqual((summary["model"], summary["format"], summary["parameters"]), (None, "torch", sum(p.numel() for p in random_net(classes=4).parameters())))
        self.assertEqual({t["name"]: (t["shape"], t["bytes"]) for t in summary["tensors"]},
                         {k: (list(v.shape), v.numel() * v.element_size()) for k, v in state.items()})
        self.convert("in.pth", "out.safetensors", "--architecture", "resnet18")
        summary = self.ok("summary", "out.safetensors", "--json").json()
        self.assertEqual((summary["model"], summary["metadata"]["num_classes"], len(summary["tensors"])), ("resnet18", "4", len(state)))
        self.assertEqual(self.ok("summary", "in.pth", "--architecture", "resnet18", "--json").json()["model"], "resnet18")
        self.refused(2, "--architecture NAME", "summary", "in.pth", "--input-size", "3x64x64")
        self.refused(2, "--list", "summary", "--list", "--set", "model.blocks=[1]")
        self.refused(2, "--architecture", "summary", "resnet18", "--architecture", "resnet18")
        text = self.ok("summary", "out.safetensors").out
        for part in ("layer4.1.conv2.weight", "num_batches_tracked", "class_names"):
            self.assertIn(part, text)


class FineTuning(ProgramTest):
    """From weights of other classes: all but the classifier."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program.write_data(cls.folder / "data")
        torch.manual_seed(1)
        net = torchvision.models.resnet18(num_classes=7)
        net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        cls.state = net.state_dict()
        torch.save(cls.state, cls.folder / "seven.pth")

    def train(self, *more, output="run"):
        return ("train", "--data", "data", "--image-size", "32", "--batch-size", "16", "--max-steps", "1", "--lr", "0.000001", "--output", output, *more)

    def test_the_head_alone_starts_anew(self):
        refused = self.call(*self.train("--model", "resnet18", "--weights", "seven.pth"))
        self.assertEqual(refused.code, 3, refused.err)
        for part in ("seven.pth", "2 misshaped: fc.bias (7, expected 3), fc.weight (7x512, expected 3x512)", "--reset-head"):
            self.assertIn(part, refused.err)
        self.assertFalse((self.folder / "run").exists())
        self.ok(*self.train("--model", "resnet18", "--weights", "seven.pth", "--reset-head"))
        trained = safetensors.torch.load_file(self.folder / "run/last/model.safetensors")
        self.assertEqual(trained["fc.weight"].shape, (3, 512))
        self.assertLess((trained["layer4.1.conv2.weight"] - self.state["layer4.1.conv2.weight"]).abs().max(), 1e-4)
        # With as many classes too, and from a model file, which gives the architecture.
        self.ok(*self.train("--weights", "run/last/model.safetensors", "--reset-head", "--seed", "5", output="again"))
        again = safetensors.torch.load_file(self.folder / "again/last/model.safetensors")
        self.assertGreater((again["fc.weight"] - trained["fc.weight"]).abs().max(), 1e-3)
        self.assertLess((again["layer4.1.conv2.weight"] - trained["layer4.1.conv2.weight"]).abs().max(), 1e-4)
        self.assertIn('model = "resnet18"', (self.folder / "again/config.toml").read_text().replace("'", '"'))
        alone = self.call(*self.train("--reset-head", output="no"))
        self.assertEqual(alone.code, 2, alone.err)
        self.assertIn("--weights FILE", alone.err)


class Export(ProgramTest):
    """Random weights after one step, so that batch norm's statistics are not the initial ones."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program.write_data(cls.folder / "data", train=16, test=12, side=32)

    def logits(self, model):
        self.ok("evaluate", model, "--data", "data", "--batch-size", "12", "--dump-logits", f"{model}.logits")
        return safetensors.torch.load_file(self.folder / f"{model}.logits")["logits"].numpy()

    def test_the_same_logits_under_onnx_runtime(self):
        pixels = np.frombuffer((self.folder / "data/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(12, 1, 32, 32)
        images = pixels.astype(np.float32) / 255
        for name in ("resnet18", "resnet50", "resnext50_32x4d", "resnet20_cifar_a", "resnet20_cifar_b", "lecture_resnet18", "resnet8_mlp", "resnet18d",
                     "seresnet50", "ecaresnet50d", "resnetblur50", "resnetv2_50", "preresnet11_cifar", "wrn10_1_cifar"):
            self.ok("train", "--model", name, "--data", "data", "--image-size", "32", "--batch-size", "16", "--max-steps", "1", "--lr", "0.001",
                    "--output", name)
            model = f"{name}/last/model.safetensors"
            ours = self.logits(model)
            self.assertGreater(np.abs(ours - ours.mean(axis=0)).max(), 1e-3 * np.abs(ours).max(), "the images' answers are all the same")
            small = "50" not in name
            for more in ((), ("--no-fold-batch-norm", "--opset", "17"), ("--opset", "15", "--no-dynamic-batch", "--batch-size", "12"))[:3 if small else 1]:
                with self.subTest(name=name, more=more):
                    self.ok("export", model, "out.onnx", "--force", *more)
                    written = onnx.load(self.folder / "out.onnx")
                    onnx.checker.check_model(written, full_check=True)
                    self.assertEqual(written.opset_import[0].version, int(more[more.index("--opset") + 1]) if more else 13)
                    metadata = {p.key: p.value for p in written.metadata_props}
                    self.assertEqual((metadata["architecture"], json.loads(metadata["class_names"])), (name, ["0", "1", "2"]))
                    self.assertIn("interpolation", metadata)
                    norms = [n for n in written.graph.node if n.op_type == "BatchNormalization"]
                    made_by = {out: n.op_type for n in written.graph.node for out in n.output}
                    uses = collections.Counter(i for n in written.graph.node for i in n.input)
                    # Of a convolution whose result nothing else needs: pre-activation nets have norms of other things.
                    foldable = [n for n in norms if made_by.get(n.input[0]) == "Conv" and uses[n.input[0]] == 1]
                    self.assertEqual(bool(foldable), "--no-fold-batch-norm" in more and not name.endswith("_mlp"))
                    kept = name.endswith("_mlp") or name.startswith(("resnetv2", "preresnet", "wrn"))
                    self.assertEqual(bool(norms), "--no-fold-batch-norm" in more or kept)
                    session = onnxruntime.InferenceSession(self.folder / "out.onnx", providers=["CPUExecutionProvider"])
                    theirs = session.run(["logits"], {"images": images})[0]
                    self.assertLess(np.abs(theirs - ours).max(), 1e-4 * np.abs(ours).max())
                    if "--no-dynamic-batch" not in more:
                        one = session.run(["logits"], {"images": images[:1]})[0]
                        self.assertLess(np.abs(one - ours[:1]).max(), 1e-4 * np.abs(ours).max())

    def test_average_pooling_that_counts_odd_edges(self):
        net = timm.create_model("resnet18d", num_classes=4).eval()
        torch.save(net.state_dict(), self.folder / "d.pth")
        images = torch.randn(2, 3, 72, 72)  # maps of 18, 9, 5 and 3
        theirs = net(images).detach().numpy()
        self.ok("export", "d.pth", "d.onnx", "--architecture", "resnet18d", "--metadata", "input_size=[3,72,72]")
        pools = [n for n in onnx.load(self.folder / "d.onnx").graph.node if n.op_type == "AveragePool"]
        self.assertTrue(any(a.name == "ceil_mode" and a.i == 1 for n in pools for a in n.attribute))
        ours = onnxruntime.InferenceSession(self.folder / "d.onnx", providers=["CPUExecutionProvider"]).run(["logits"], {"images": images.numpy()})[0]
        self.assertLess(np.abs(ours - theirs).max(), 1e-4 * np.abs(theirs).max())

    def test_weights_of_torchvision_with_their_architecture(self):
        net = random_net(classes=4).eval()
        torch.save(net.state_dict(), self.folder / "four.pth")
        self.ok("export", "four.pth", "four.onnx", "--architecture", "resnet18", "--metadata", "input_size=[3,64,64]")
        images = torch.randn(2, 3, 64, 64)
        session = onnxruntime.InferenceSession(self.folder / "four.onnx", providers=["CPUExecutionProvider"])
        theirs = net(images).detach().numpy()
        ours = session.run(["logits"], {"images": images.numpy()})[0]
        self.assertLess(np.abs(ours - theirs).max(), 1e-4 * np.abs(theirs).max())
        for arguments, code, parts in [(("four.pth", "four.onnx", "--architecture", "resnet18"), 8, "--force"),
                                       (("four.pth", "x.pb", "--architecture", "resnet18"), 2, ".onnx"),
                                       (("four.pth", "x.onnx"), 2, "--architecture NAME"),
                                       (("four.pth", "x.onnx", "--opset", "18"), 2, "13 to 17"),
                                       (("four.pth", "x.onnx", "--batch-size", "3"), 2, "--no-dynamic-batch")]:
            result = self.call("export", *arguments)
            self.assertEqual(result.code, code, result.err)
            self.assertIn(parts, result.err)


if __name__ == "__main__":
    program.main()
