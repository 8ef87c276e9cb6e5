#!/usr/bin/python3
"""An ImageNet-shaped file, a new head, a folder of photos: fine-tuning learns from PNGs what it learns from idx files."""
import pathlib
import sys

import program
import torch
import torchvision
from program import ProgramTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import fashion_mnist

TRAIN, TEST = 1536, 512


class FineTune(ProgramTest):
    def prepared(self):
        """What both tests start from, made once."""
        if (self.folder / "png").exists():
            return
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet18().state_dict(), self.folder / "imagenet.pth")
        self.ok("convert", "imagenet.pth", "imagenet.safetensors", "--architecture", "resnet18")
        for kind in ("idx", "png"):
            (self.folder / kind).mkdir()
        fashion_mnist.small_copy(self.folder / "idx", TRAIN, TEST, by_class=True)
        fashion_mnist.png_folder(self.folder / "png", TRAIN, TEST)

    def train(self, data):
        return self.ok("train", "--weights", "imagenet.safetensors", "--reset-head", "--data", data, "--image-size", 32, "--batch-size", 64,
                       "--epochs", 2, "--lr", 0.02, "--momentum", 0.9, "--lr-scheduler", "cosineannealinglr", "--seed", 3,
                       "--output", f"run-{data}", "--json").json()

    def test_png_files_reach_what_idx_files_reach(self):
        self.prepared()
        idx, png = self.train("idx"), self.train("png")
        # The same pixels in the same order, so the same steps: every number is the same, not only near.
        for number in ("train_loss", "train_top1", "eval_loss", "eval_top1", "best_top1", "steps"):
            self.assertEqual(idx[number], png[number], number)
        self.assertGreater(png["eval_top1"], 0.6)  # 0.74 to 0.77 with three seeds
        model = self.folder / "run-png" / "best.safetensors"
        first = sorted((self.folder / "png" / "test" / "9").iterdir())[0]
        answer = self.ok("predict", model, first, "--json").json()
        self.assertEqual(len(answer["predictions"]), 5)
        evaluated = self.ok("evaluate", model, "--data", "png", "--json").json()
        self.assertEqual(evaluated["images"], TEST)
        # Another batch size, perhaps other kernels: of two classes as likely, rounding may choose another.
        self.assertLessEqual(abs(evaluated["top1"] - png["best_top1"]), 1 / TEST)

    def test_weights_that_say_nothing_of_their_photos_are_warned_of(self):
        self.prepared()
        plain = ("train", "--model", "resnet18", "--reset-head", "--data", "png", "--image-size", 32, "--batch-size", 16, "--max-steps", 1)
        raw = self.ok(*plain, "--weights", "imagenet.pth", "--output", "raw")
        self.assertIn("does not say how its photos were prepared", raw.err)
        told = self.ok(*plain, "--weights", "imagenet.safetensors", "--output", "told")
        self.assertNotIn("does not say", told.err)
        self.assertIn("resize = 'shortest'", (self.folder / "told" / "config.toml").read_text())

    def test_without_a_new_head_the_class_count_is_refused(self):
        self.prepared()
        done = self.call("train", "--weights", "imagenet.safetensors", "--data", "png", "--image-size", 32, "--output", "run")
        self.assertEqual(done.code, 3, done.err)
        self.assertIn("fc.weight", done.err)
        self.assertIn("--reset-head", done.err)
        self.assertFalse((self.folder / "run").exists())


if __name__ == "__main__":
    program.main()
