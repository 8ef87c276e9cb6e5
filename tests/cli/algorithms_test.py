#!/usr/bin/python3
"""Winograd rounds a little more than direct convolution, and must learn the same from it: one seed, both, curve beside curve."""
import pathlib
import sys

import numpy as np
import program
from program import ProgramTest, events

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import fashion_mnist
import parity

IMAGES, BATCH = 2048, 64


class Algorithms(ProgramTest):
    def losses(self, algorithm):
        """Of every step of one epoch; the plan proves the algorithm."""
        result = self.ok("train", "--model", "lecture_resnet18", "--data", "data", "--image-size", 32, "--batch-size", BATCH, "--lr", 0.01,
                         "--epochs", 1, "--seed", 11, "--log-every", 1, "--dump-plan", "--output", algorithm,
                         env={"RESNET_CONV_ALGORITHM": algorithm})
        parity.check_plan(result.err, algorithm)
        return np.array([e["loss"] for e in events(self.folder / algorithm) if e["split"] == "train"])

    def test_winograd_learns_what_direct_learns(self):
        # Fashion-MNIST's first images, beside a small test set: the evaluation at the end is not what is compared.
        (self.folder / "data").mkdir()
        fashion_mnist.small_copy(self.folder / "data", train=IMAGES, test=BATCH)
        direct, winograd = self.losses("direct"), self.losses("winograd")
        self.assertEqual((len(direct), len(winograd)), (IMAGES // BATCH, IMAGES // BATCH))
        self.assertTrue(np.isfinite(direct).all() and np.isfinite(winograd).all())
        # Rounding grows from step to step: the curves part, and must come down alike.
        apart = np.abs(winograd - direct) / direct
        told = f"direct {direct.round(4).tolist()}\nwinograd {winograd.round(4).tolist()}"
        self.assertLessEqual(apart[0], 1e-5, told)
        self.assertLessEqual(apart[:3].max(), 0.02, told)
        self.assertLessEqual(abs(winograd[-8:].mean() - direct[-8:].mean()) / direct[-8:].mean(), 0.1, told)
        self.assertLess(direct[-8:].mean(), 0.8 * direct[0], told)
        self.assertTrue((winograd != direct).any(), "the same losses to the bit: one algorithm was used for both")


if __name__ == "__main__":
    program.main()
