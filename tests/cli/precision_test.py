#!/usr/bin/python3
"""--precision f16 from outside: refused where the processor lacks it, and close to f32 where it is emulated."""
import json
import pathlib
import sys

import program
from program import ProgramTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import fashion_mnist

EMULATED = {"RESNET_F16": "emulate"}


class Precision(ProgramTest):
    def model(self):
        """A net that has learnt for a few steps, and 200 images to ask it about in `data`."""
        (self.folder / "data").mkdir()
        fashion_mnist.small_copy(self.folder / "data", train=1024, test=200)
        self.ok("train", "--model", "resnet20_cifar_a", "--data", "data", "--image-size", 28, "--batch-size", 32, "--lr", 0.02,
                "--epochs", 1, "--output", "run", "--seed", 3)
        return self.folder / "run" / "best.safetensors"

    def test_a_processor_without_it_is_named_with_what_is_missing(self):
        result = self.call("benchmark", "resnet20_cifar_a", "--precision", "f16", "--runs", 1, env={"RESNET_MAX_ISA": "avx2"})
        self.assertEqual(result.code, 2)
        for part in ("--precision", "f16", "avx2", "AVX512-FP16", "RESNET_F16=emulate"):
            self.assertIn(part, result.err)

    def test_training_the_reference_backend_and_unknown_names_refuse_it(self):
        for arguments in (["--mode", "training"], ["--backend", "reference"]):
            result = self.call("benchmark", "resnet20_cifar_a", "--precision", "f16", "--runs", 1, *arguments, env=EMULATED)
            self.assertEqual(result.code, 2, result.err)
            self.assertIn("--precision", result.err)
        result = self.call("benchmark", "resnet20_cifar_a", "--precision", "bf16", "--runs", 1)
        self.assertEqual(result.code, 2)
        self.assertIn("expected f32, f16 or int8", result.err)
        result = self.call("benchmark", "resnet20_cifar_a", "--precision", "f16", "--runs", 1, env={"RESNET_F16": "yes"})
        self.assertEqual(result.code, 2)
        self.assertIn("RESNET_F16", result.err)

    def test_every_convolution_but_the_stem_is_in_half_precision_and_the_logits_are_close(self):
        model = self.model()
        for algorithm in ("direct", "winograd"):
            env = EMULATED | {"RESNET_CONV_ALGORITHM": algorithm, "RESNET_CONV_WITHOUT": ""}
            plan = self.ok("benchmark", model, "--precision", "f16", "--runs", 1, "--batch-size", 2, "--dump-plan", env=env).err
            convolutions = [line for line in plan.splitlines() if "conv2d" in line and "f16" in line]
            self.assertGreaterEqual(len(convolutions), 18, plan)
            self.assertEqual(any("winograd" in line for line in convolutions), algorithm == "winograd", plan)
            result = json.loads(self.ok("evaluate", model, "--data", "data", "--precision", "f16", "--json", env=env).out)
            self.assertEqual(result["precision"], "f16")
            agreement = result["agreement"]
            self.assertEqual(agreement["images"], 200)
            self.assertGreaterEqual(agreement["same_best"], 195, agreement)
            self.assertLess(agreement["error"], 0.02, agreement)
            self.assertGreater(agreement["error"], 1e-6, "no half precision at all")


if __name__ == "__main__":
    program.main()
