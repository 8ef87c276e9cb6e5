#!/usr/bin/env python3
"""The verdicts of tools/model_parity.py: each bound is felt, and what proves nothing is no verdict."""
import pathlib
import sys
import unittest

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import model_parity  # noqa: E402


class Verdicts(unittest.TestCase):
    truth = np.array([[1.0, -2, 0.5], [-1, 0.25, 4]])

    def test_logits_are_relative_to_the_largest_of_their_image(self):
        self.assertEqual(model_parity.logits_error(self.truth, self.truth), 0)
        wrong = self.truth.copy()
        wrong[0, 2] += 2e-3
        self.assertAlmostEqual(model_parity.logits_error(wrong, self.truth), 1e-3)
        wrong[1, 1] = np.nan
        self.assertFalse(model_parity.logits_error(wrong, self.truth) <= 1)

    def test_one_answer_for_every_image_is_no_verdict(self):
        with self.assertRaises(model_parity.CannotRun):
            model_parity.logits_error(self.truth[[0, 0]], self.truth[[0, 0]])
        with self.assertRaises(model_parity.CannotRun):
            model_parity.logits_error(self.truth[:1], self.truth)

    def test_the_worst_tensor_counts(self):
        truth = {"a": np.array([1.0, 2]), "b": np.array([-4.0, 1])}
        self.assertEqual(model_parity.tensors_error(truth, truth), 0)
        self.assertAlmostEqual(model_parity.tensors_error({**truth, "b": truth["b"] + 0.04}, truth), 0.01)
        self.assertFalse(model_parity.tensors_error({**truth, "a": np.array([np.nan, 2])}, truth) <= 1)
        with self.assertRaises(model_parity.CannotRun):
            model_parity.tensors_error({"a": truth["a"]}, truth)


class Nets(unittest.TestCase):
    def test_the_oracles_have_the_papers_strides(self):
        v1 = model_parity.oracle("resnet50_v1", 10)
        self.assertEqual((v1.layer2[0].conv1.stride, v1.layer2[0].conv2.stride), ((2, 2), (1, 1)))
        cifar = model_parity.oracle("preresnet20_cifar", 10)
        self.assertEqual((cifar.stages[1].blocks[0].conv1.stride, cifar.stages[0].blocks[0].conv1.stride), ((2, 2), (1, 1)))
        with self.assertRaises(model_parity.CannotRun):
            model_parity.oracle("resnet20_cifar", 10)

    def test_a_drop_path_is_drawn_once_and_keeps_the_mean(self):
        net = model_parity.ResNet(model_parity.BasicBlock, layers=(1, 1, 1, 1), drop_path_rate=0.5)
        factors = model_parity.fix_drop_paths(net, torch.zeros(1000, 3, 1, 1), torch.Generator().manual_seed(1))
        self.assertEqual(list(factors), ["layer2.0.drop_path", "layer3.0.drop_path", "layer4.0.drop_path"])
        self.assertEqual(set(factors["layer4.0.drop_path"].tolist()), {0.0, 2.0})
        ones = torch.ones(1000, 1, 1, 1)
        self.assertTrue(torch.equal(net.layer4[0].drop_path(ones), net.layer4[0].drop_path(ones)))
        self.assertAlmostEqual(net.layer4[0].drop_path(ones).mean().item(), 1, delta=0.16)  # five standard deviations


if __name__ == "__main__":
    unittest.main()
