#!/usr/bin/python3
"""The oracles themselves: the lesson's net has the lesson's shapes, and parity.py's verdicts can be negative."""
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import fashion_mnist
import parity
import safetensors_numpy
from lecture_net import Residual, bias_before_batch_norm, init_xavier, lecture_resnet18


class LectureNet(unittest.TestCase):
    def test_residual_keeps_or_halves_the_map(self):
        x = torch.rand(4, 3, 6, 6)
        self.assertEqual(Residual(3, 3)(x).shape, (4, 3, 6, 6))
        self.assertEqual(Residual(3, 6, use_1x1conv=True, strides=2)(x).shape, (4, 6, 3, 3))

    def test_stages_have_the_lessons_shapes(self):
        for padding, sides in ((3, (24, 24, 12, 6, 3)), (0, (23, 23, 12, 6, 3))):
            x, shapes = torch.rand(1, 1, 96, 96), []
            for stage in lecture_resnet18(stem_padding=padding).eval()[:5]:
                x = stage(x)
                shapes.append(tuple(x.shape[1:]))
            self.assertEqual(shapes, [(c, s, s) for c, s in zip((64, 64, 128, 256, 512), sides)])

    def test_it_has_the_lessons_parameters_and_names(self):
        net = lecture_resnet18()
        self.assertEqual(sum(p.numel() for p in net.parameters()), 11_178_378)
        names = [name for name, _ in net.named_parameters()]
        for name in ("0.0.weight", "0.1.bias", "1.0.conv1.weight", "2.0.conv3.weight", "4.1.bn2.bias", "7.bias"):
            self.assertIn(name, names)
        self.assertEqual(sum(map(bias_before_batch_norm, names)), 17)

    def test_initialisation_depends_on_the_seed_alone(self):
        first, again, other = (init_xavier(lecture_resnet18(), seed).state_dict() for seed in (1, 1, 2))
        self.assertTrue(all(torch.equal(first[name], again[name]) for name in first))
        self.assertFalse(torch.equal(first["0.0.weight"], other["0.0.weight"]))
        self.assertFalse(torch.equal(first["0.0.bias"], other["0.0.bias"]))


class Files(unittest.TestCase):
    def test_safetensors_come_back_as_they_went(self):
        tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64(1) / np.arange(1, 4),
                   "count": np.array(7, dtype=np.int64)}
        with tempfile.TemporaryDirectory() as folder:
            safetensors_numpy.save(f"{folder}/x", tensors, {"format": "pt"})
            loaded, metadata = safetensors_numpy.load(f"{folder}/x")
        self.assertEqual(metadata, {"format": "pt"})
        for name, array in tensors.items():
            self.assertEqual((loaded[name].dtype, loaded[name].shape), (array.dtype, array.shape))
            self.assertEqual(loaded[name].tobytes(), array.tobytes())

    def test_a_small_copy_holds_debians_first_images(self):
        with tempfile.TemporaryDirectory() as folder:
            fashion_mnist.small_copy(pathlib.Path(folder), train=5, test=2)
            images, labels = fashion_mnist.batch(1, 4, 28, pathlib.Path(folder))
            self.assertEqual(len(fashion_mnist.read_idx(f"{folder}/t10k-labels-idx1-ubyte.gz")), 2)
        debian_images, debian_labels = fashion_mnist.batch(1, 4, 28)
        np.testing.assert_array_equal(images, debian_images)
        np.testing.assert_array_equal(labels, debian_labels)
        self.assertEqual(fashion_mnist.batch(0, 1, 28)[1][0], 9)  # the data set begins with an ankle boot


def quietly(function, *args):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*args)


class Verdicts(unittest.TestCase):
    truth = {"0.0.weight": np.ones(100), "0.0.bias": np.zeros(3), "7.bias": np.ones(100)}

    def verdict(self, loss=1.0, **changed):
        gradients = {**self.truth, **{name.replace("_", "."): value for name, value in changed.items()}}
        return quietly(parity.compare_gradients, loss, gradients, 1.0, self.truth)

    def test_equal_gradients_pass(self):
        self.assertTrue(self.verdict())

    def test_each_bound_is_felt(self):
        self.assertFalse(self.verdict(loss=1.0 + 2e-5))
        self.assertFalse(self.verdict(**{"7_bias": self.truth["7.bias"] * 1.04}))
        self.assertFalse(self.verdict(**{"0_0_weight": self.truth["0.0.weight"] * 1.02,
                                         "7_bias": self.truth["7.bias"] * 1.02}))

    def test_a_bias_before_batch_norm_is_left_out(self):
        self.assertTrue(self.verdict(**{"0_0_bias": np.full(3, 1e-3)}))

    def test_nan_fails(self):
        self.assertFalse(self.verdict(loss=float("nan")))
        self.assertFalse(self.verdict(**{"7_bias": np.full(100, np.nan)}))
        self.assertFalse(quietly(parity.compare_losses, [1.0, float("nan"), 1.0], [1.0, 1.0, 1.0], 1e-6))

    def test_a_missing_gradient_is_no_verdict(self):
        with self.assertRaises(parity.CannotRun):
            quietly(parity.compare_gradients, 1.0, {"7.bias": np.ones(100)}, 1.0, self.truth)

    def test_a_plan_must_use_the_algorithm_asked_for(self):
        step = "{:>4}  {:<26} {:<28} {:<26} {:>12.2f} {:>14} {:>10}  nChw8c\n"
        plan = lambda winograd, op="conv2d": "step  op  name  algorithm\n" + "".join(
            step.format(i, op, "1.0.conv1", "winograd f4" if i < winograd else "onednn jit:avx2", 1, 0, 1) for i in range(60))
        self.assertEqual(parity.check_plan(plan(39), "winograd"), 39)
        self.assertEqual(parity.check_plan(plan(39).replace("winograd f4", "onednn jit_wino_4x3:avx512_core"), "winograd"), 39)
        self.assertEqual(parity.check_plan(plan(0), "direct"), 0)
        remarked = plan(39).replace("winograd f4", "onednn jit:avx2 (no winograd: stride 2)")
        self.assertEqual(parity.winograd_steps(remarked), 0)
        for text, algorithm in ((plan(29), "winograd"), (remarked, "winograd"), (plan(39, "max_pool"), "winograd"), ("", "winograd"), (plan(1), "direct")):
            with self.assertRaises(parity.CannotRun):
                parity.check_plan(text, algorithm)

    def test_logits_are_held_to_the_bound(self):
        truth = np.array([[1.0, -2, 0.5], [-1, 0.25, 2]])
        verdict = lambda mine: quietly(parity.compare_logits, mine, truth, 1e-4)
        self.assertTrue(verdict(truth + np.array([[1e-4, -1e-4, 0], [0, 1e-4, 0]])))
        for at, error in (((0, 2), 3e-4), ((1, 0), -3e-4), ((1, 2), np.nan)):
            wrong = truth.copy()
            wrong[at] += error
            self.assertFalse(verdict(wrong), (at, error))
        self.assertFalse(verdict(truth[::-1]))
        with self.assertRaises(parity.CannotRun):
            verdict(truth[:, :2])
        with self.assertRaises(parity.CannotRun):  # the same answer for every image
            quietly(parity.compare_logits, truth[[0, 0]], truth[[0, 0]], 1e-4)

    def test_losses_are_held_to_the_bound(self):
        self.assertTrue(quietly(parity.compare_losses, [1.0 + 5e-7], [1.0], 1e-6))
        self.assertFalse(quietly(parity.compare_losses, [1.0 + 2e-6], [1.0], 1e-6))


if __name__ == "__main__":
    unittest.main()
