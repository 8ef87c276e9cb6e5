#!/usr/bin/python3
"""bench/accuracy.py with logits of known error: what it counts, which bounds it holds them to, and the page it writes."""
import argparse
import pathlib
import sys
import tempfile
import types
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import accuracy


def oracle(images=1000):
    """PyTorch answers with class i % 10, logit 8, and is right about all but the first 100."""
    classes = np.arange(images) % 10
    logits = np.zeros((images, 10), np.float32)
    logits[np.arange(images), classes] = 8
    labels = classes.copy()
    labels[:100] = (labels[:100] + 1) % 10
    return types.SimpleNamespace(logits=logits, labels=labels)


class Accuracy(unittest.TestCase):
    def row(self, precision, change, **more):
        truth = oracle()
        logits = truth.logits.astype(np.float64)
        change(logits, truth.labels)
        return accuracy.row_of("a row", precision, logits, truth, 1.0, **more)

    def test_the_same_logits_miss_nothing(self):
        for precision in ("f32", "int8", "f16"):
            row = self.row(precision, lambda logits, labels: None)
            self.assertEqual((row["same"], row["lost"], row["gained"], row["drop"], row["worst_error"]), (1000, 0, 0, 0, 0))
            self.assertAlmostEqual(row["top1"], 0.9)
            self.assertEqual(accuracy.misses(row), [])

    def test_an_image_lost_and_one_gained_are_no_drop_but_two_other_classes(self):
        def change(logits, labels):
            for image, answer in ((0, labels[0]), (500, (labels[500] + 1) % 10)):
                logits[image, answer] = 9
        row = self.row("f32", change)
        self.assertEqual((row["same"], row["lost"], row["gained"], row["drop"]), (998, 1, 1, 0))
        self.assertEqual(accuracy.misses(row), ["agreement", "logits"])
        self.assertEqual(accuracy.misses({**row, "precision": "int8"}), [])

    def test_an_error_is_relative_to_the_largest_logit_of_its_image(self):
        def change(logits, labels):
            logits[7, 2] += 8 * 0.9e-4
        row = self.row("f32", change)
        self.assertAlmostEqual(row["worst_error"], 0.9e-4)
        self.assertAlmostEqual(row["rms_error"], 0.9e-6)  # one of 10,000
        self.assertEqual(accuracy.misses(row), [])
        def more(logits, labels):
            logits[7, 2] += 8 * 1.1e-4
        self.assertEqual(accuracy.misses(self.row("f32", more)), ["logits"])

    def test_one_of_a_thousand_may_have_another_class_and_two_may_not(self):
        for images, missed in ((1, ["logits"]), (2, ["agreement", "logits"])):
            def change(logits, labels):
                logits[:images] = np.roll(logits[:images], 1, axis=1)
            self.assertEqual(accuracy.misses(self.row("f32", change)), missed)

    def test_int8_may_lose_half_a_point(self):
        for images, missed in ((5, []), (6, ["drop"])):
            def change(logits, labels):
                logits[500:500 + images] = np.roll(logits[500:500 + images], 1, axis=1)
            row = self.row("int8", change)
            self.assertAlmostEqual(row["drop"], images / 10)
            self.assertEqual(accuracy.misses(row), missed)

    def test_a_nan_is_never_within_a_bound(self):
        def change(logits, labels):
            logits[3, 3] = np.nan
        self.assertIn("logits", accuracy.misses(self.row("f32", change)))

    def test_logits_of_too_few_classes_are_no_figure(self):
        with self.assertRaisesRegex(accuracy.CannotRun, r"\(1000, 9\)"):
            accuracy.row_of("a row", "f32", np.zeros((1000, 9)), oracle(), 1.0)

    def test_the_page_names_the_worst_of_each_precision(self):
        good, bad = (self.row("int8", lambda logits, labels: logits[500:500 + n].fill(0), layers=19, all_layers=20) for n in (1, 4))
        record = {"date": "2026-01-02T03:04:05+00:00", "threads": 2, "commit": "abc", "cpu": "a CPU", "isa": ["avx2"], "torch": "1.13",
                  "model_sha256": "0" * 64, "image_size": 32, "oracle_rows": [], "rows": [good, bad]}
        page = accuracy.page({"int8": record, "f32": {**record, "rows": [self.row("f32", lambda logits, labels: None)]}})
        self.assertIn(f"worst {bad['drop']:.2f}", page)
        self.assertIn("least 100.00 % (a row)", page)
        self.assertIn("19 of 20 convolutions", page)
        self.assertIn("commit abc, 2026-01-02", page)
        self.assertIn("| f16 | not measured |", page)

    def test_no_record_and_no_model_say_what_to_run(self):
        with tempfile.TemporaryDirectory() as folder:
            missing = pathlib.Path(folder) / "none"
            with self.assertRaisesRegex(accuracy.CannotRun, "make bench-accuracy"):
                accuracy.newest_records(missing)
            with self.assertRaisesRegex(accuracy.CannotRun, "make train"):
                next(accuracy.measure(argparse.Namespace(model=missing)))


if __name__ == "__main__":
    unittest.main()
