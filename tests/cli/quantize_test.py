"""A network quickly trained on Fashion-MNIST, quantised: accuracy, size, refusals, and every verb that takes the file."""
import json
import os
import struct

import numpy as np
import PIL.Image
import program
import quantized_net  # its class by way of the module: in this one it would be run as a test of its own
from quantized_net import FASHION, MOST_DROP

CPU_SECONDS = float(os.environ.get("RESNET_TEST_CPU_SECONDS", "1.5"))


class Quantize(quantized_net.QuantizedNetTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pixels = np.random.default_rng(3).integers(0, 256, (28, 28), np.uint8)
        PIL.Image.fromarray(pixels).save(cls.folder / "image.png")

    def test_accuracy_stays_and_the_file_is_a_quarter(self):
        r = self.result
        self.assertGreater(r["top1"]["before"], 0.5, "the net has learnt nothing")
        self.assertLessEqual(r["drop_points"], MOST_DROP)
        self.assertAlmostEqual(r["drop_points"], 100 * (r["top1"]["before"] - r["top1"]["after"]), places=9)
        self.assertEqual(r["images"], 2000)
        self.assertEqual(r["calibration_images"], 128)
        for name, path in (("before", self.model), ("after", "int8.safetensors")):
            self.assertEqual(r["bytes"][name], (self.folder / path).stat().st_size)
        self.assertGreater(r["bytes"]["before"], 3.8 * r["bytes"]["after"])
        self.assertGreater(min(r["images_per_second"].values()), 0)
        self.assertEqual(len(r["layers"]), 20)
        self.assertTrue(all(layer["quantized"] and layer["sqnr_db"] > 20 for layer in r["layers"]), r["layers"])

    def test_the_file_says_what_it_is(self):
        header, _ = program.read_model(self.folder / "int8.safetensors")
        self.assertEqual(header["0.0.weight"]["dtype"], "I8")
        self.assertEqual(header["7.weight"]["dtype"], "F32")
        record = json.loads(header["__metadata__"]["quantization"])
        self.assertEqual(record["scheme"], "int8")
        self.assertEqual(len(record["layers"]), 20)
        summary = self.ok("summary", "int8.safetensors", "--json").json()
        self.assertEqual(summary["model"], "lecture_resnet18")
        self.assertIn("I8", {t["dtype"] for t in summary["tensors"]})

    def test_evaluate_gives_what_was_printed(self):
        e = self.ok("evaluate", "int8.safetensors", "--data", FASHION, "--limit", "2000", "--batch-size", "32", "--json").json()
        self.assertEqual((e["top1"], e["precision"]), (self.result["top1"]["after"], "int8"))

    def test_predict_and_verify_take_it(self):
        (ours,) = self.ok("predict", "int8.safetensors", "image.png", "--json", "--logits").out.splitlines()
        (theirs,) = self.ok("predict", self.model, "image.png", "--json", "--logits").out.splitlines()
        a, b = np.array(json.loads(ours)["logits"]), np.array(json.loads(theirs)["logits"])
        self.assertLess(np.abs(a - b).max(), 0.15 * np.abs(b).max())
        self.assertTrue((a != b).any())
        self.ok("verify", "int8.safetensors", "image.png", "--write", "golden.json")
        self.ok("verify", "int8.safetensors", "--against", "golden.json")

    def test_benchmark_calls_it_int8(self):
        b = self.ok("benchmark", "int8.safetensors", "--batch-size", "4", "--runs", "2", "--json").json()
        self.assertEqual((b["precision"], b["batch_size"]), ("int8", 4))
        self.assertEqual(self.call("benchmark", "int8.safetensors", "--mode", "training").code, 8)
        self.refused(2, "training computes in", "benchmark", self.model, "--mode", "training", "--precision", "int8")
        self.refused(2, "--mode inference", "benchmark", self.model, "--mode", "training", "--micro-batch", "2")
        self.refused(2, "f32, f16 or int8", "benchmark", self.model, "--precision", "f64")

    def test_the_same_input_gives_the_same_bytes(self):
        self.ok("quantize", self.model, "--data", FASHION, "--output", "again.safetensors", "--limit", "50", "--calibration-images", "128",
                "--force", "--workers", "0")
        self.assert_same_weights(self.folder / "int8.safetensors", self.folder / "again.safetensors")

    def refused(self, code, parts, *arguments):
        before = sorted(p.name for p in self.folder.iterdir())
        result = self.call(*arguments)
        self.assertEqual(result.code, code, f"{arguments}\n{result.err}")
        for part in (parts,) if isinstance(parts, str) else parts:
            self.assertIn(part, result.err.splitlines()[-1])
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), before)

    def test_refusals_leave_nothing(self):
        quantize = ("quantize", self.model, "--data", FASHION, "--limit", "50", "--calibration-images", "8")
        self.refused(8, ("points", "--max-drop -100", "--force"), *quantize, "--output", "new.safetensors", "--max-drop", "-100")
        self.refused(8, "--force", *quantize, "--output", "int8.safetensors")
        self.refused(8, "the model itself", *quantize, "--output", self.model, "--force")
        (self.folder / "link.safetensors").symlink_to(self.model)
        self.refused(8, "the model itself", *quantize, "--output", "link.safetensors", "--force")
        (self.folder / "a folder.safetensors").mkdir()
        for output, part in (("nowhere/new.safetensors", "No such file"), ("a folder.safetensors", "is a folder")):
            result = self.call(*quantize, "--output", output, "--force")
            self.assertEqual(result.code, 4, result.err)
            self.assertIn(part, result.err)
            self.assertNotIn("calibrating", result.err, "before the work")
        self.refused(8, ("every layer", "--min-sqnr"), *quantize, "--output", "new.safetensors", "--min-sqnr", "500")
        self.refused(8, "quantised already", "quantize", "int8.safetensors", "--data", FASHION, "--output", "new.safetensors")
        for flags, part in ((("--method", "best"), "minimum-error or percentile"), (("--percentile", "20"), "above 50"),
                            (("--calibration-images", "0"), "1 or more"), (("--split", "all"), "test, validation or train"),
                            (("--output", "new.pth"), ".safetensors"), (("--limit", "1000000"), "0 (all) to"), (("--max-drop", "nan"), "percentage points")):
            self.refused(2, part, *quantize, "--output", "new.safetensors", *flags)
        self.refused(2, "--method percentile", *quantize, "--output", "new.safetensors", "--percentile", "99")
        self.refused(4, "missing", "quantize", "missing.safetensors", "--data", FASHION, "--output", "new.safetensors")

    def test_what_needs_f32_says_so(self):
        self.refused(8, ("8-bit weights", "f32"), "convert", "int8.safetensors", "out.safetensors")
        self.refused(8, ("8-bit weights", "f32"), "convert", "int8.safetensors", "out.pth")
        result = self.call("train", "--data", FASHION, "--weights", "int8.safetensors", "--image-size", "28", "--max-steps", "1", "--output", "no")
        self.assertEqual(result.code, 8, result.err)
        self.assertIn("8-bit weights", result.err)

        self.refused(8, "8-bit weights", "export", "int8.safetensors", "x.onnx", "--no-fold-batch-norm")
        for verb in (("predict", "int8.safetensors", "image.png"), ("evaluate", "int8.safetensors", "--data", FASHION), ("benchmark", "int8.safetensors")):
            for precision in ("f16", "f32"):
                self.refused(2, (f"--precision: {precision}", "computes in 8 bits", "expected int8"), *verb, "--precision", precision)

    def test_int8_may_be_asked_for_by_name_of_a_model_in_8_bits_alone(self):
        for verb, *rest in (("predict", "image.png"), ("evaluate", "--data", FASHION, "--limit", "3"), ("benchmark", "--batch-size", "1", "--runs", "1")):
            self.refused(2, ("--precision: int8", "resnet quantize"), verb, self.model, *rest, "--precision", "int8")
            asked = self.ok(verb, "int8.safetensors", *rest, "--json", "--precision", "int8")
            if verb == "benchmark":
                self.assertEqual(asked.json()["precision"], "int8")
            else:
                self.assertEqual(asked.out, self.ok(verb, "int8.safetensors", *rest, "--json").out)

    def test_a_forced_drop_and_a_kept_layer(self):
        worst = min(layer["sqnr_db"] for layer in self.result["layers"])
        r = self.ok("quantize", self.model, "--data", FASHION, "--output", "kept.safetensors", "--limit", "50", "--calibration-images", "128",
                    "--min-sqnr", str(worst + 0.01), "--max-drop", "-100", "--force", "--method", "percentile")
        self.assertIn("kept in f32", r.out)
        self.ok("evaluate", "kept.safetensors", "--data", FASHION, "--limit", "50")

    def test_calibration_images_that_cannot_be_read_are_told_and_others_taken(self):
        rng = np.random.default_rng(5)
        metadata = program.read_model(self.folder / self.model)[0]["__metadata__"]
        names = [name for name in json.loads(metadata["class_names"]) if "/" not in name][:2]
        for split, count in (("train", 6), ("test", 2)):
            for name in names:
                folder = self.folder / "photos" / split / name
                folder.mkdir(parents=True)
                for i in range(count):
                    PIL.Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / f"{i}.png")
        whole = sorted((self.folder / "photos/train").glob("*/*.png"))
        for path in whole[:6]:
            path.write_bytes(path.read_bytes()[:100])
        flags = ("quantize", self.model, "--data", "photos", "--output", "photos.safetensors", "--force", "--max-drop", "100", "--json")
        for wanted, got in (("12", 6), ("3", 3)):
            result = self.ok(*flags, "--calibration-images", wanted)
            self.assertEqual(result.json()["calibration_images"], got)
        self.assertIn("resnet: warning: 6 calibration images cannot be read, others were taken: photos/train/", self.ok(*flags).err)
        for path in whole[6:]:
            path.write_bytes(b"")
        refused = self.call(*flags)
        self.assertEqual(refused.code, 3, refused.err)
        self.assertIn("none of the 12 images can be read", refused.err)

    def test_a_weight_that_is_no_number_is_refused(self):
        header, data = program.read_model(self.folder / self.model)
        at = header["1.0.conv1.weight"]["data_offsets"][0]
        program.write_model(self.folder / "nan.safetensors", header, data[:at] + struct.pack("<f", float("nan")) + data[at + 4:])
        self.refused(3, ("tensor '1.0.conv1.weight': holds nan",), "quantize", "nan.safetensors", "--data", FASHION, "--output", "new.safetensors")

    def test_a_hostile_file_is_refused_at_once(self):
        header, data = program.read_model(self.folder / "int8.safetensors")
        scale = header["0.0.output_scale"]["data_offsets"][0]
        bad = data[:scale] + struct.pack("<f", 0.0) + data[scale + 4:]
        program.write_model(self.folder / "bad.safetensors", header, bad)
        for verb in (("evaluate", "bad.safetensors", "--data", FASHION), ("benchmark", "bad.safetensors"), ("export", "bad.safetensors", "x.onnx")):
            result = self.call(*verb)
            self.assertEqual(result.code, 3, result.err)
            self.assertIn("0.0.output_scale", result.err)
            self.assertLess(result.cpu_seconds, CPU_SECONDS)


if __name__ == "__main__":
    program.main()
