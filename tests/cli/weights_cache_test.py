#!/usr/bin/python3
"""Weights that one start leaves on disk for the next: what users see of it is a sooner answer, and nothing else."""
import json
import pathlib
import sys
import tempfile

import program
from program import ProgramTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import fashion_mnist
from PIL import Image


class WeightsCache(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.folder / "data").mkdir()
        fashion_mnist.small_copy(cls.folder / "data", train=32, test=32)
        Image.new("L", (28, 28), 90).save(cls.folder / "image.png")

    def setUp(self):
        if not (self.folder / "run").exists():  # 45 MB of weights
            self.ok("train", "--model", "lecture_resnet18", "--data", "data", "--image-size", 28, "--batch-size", 16, "--max-steps", 1,
                    "--output", "run")
        self.model = self.folder / "run" / "best.safetensors"
        if not self.model.exists():
            self.model = self.folder / "run" / "last" / "model.safetensors"
        cache = tempfile.TemporaryDirectory(dir=self.folder)
        self.addCleanup(cache.cleanup)
        self.cache = pathlib.Path(cache.name)
        self.files = self.cache / "resnet" / "weights"

    def predict(self, **env):
        result = self.ok("predict", self.model, "image.png", "--json", "--logits", "--threads", 1,
                         env={"XDG_CACHE_HOME": str(self.cache)} | env)
        self.assertEqual(result.err, "")
        return result.out

    def test_the_second_start_answers_the_same_from_one_file(self):
        first = self.predict()
        files = list(self.files.iterdir())
        self.assertEqual(len(files), 1)
        self.assertEqual(files[0].stat().st_mode & 0o777, 0o600)
        self.assertGreater(files[0].stat().st_size, 40 << 20)
        written = files[0].stat().st_ino
        self.assertEqual(self.predict(), first)
        self.assertEqual([f.stat().st_ino for f in self.files.iterdir()], [written])
        with open(files[0], "r+b") as file:  # somebody damages it
            file.seek(20 << 20)
            file.write(b"damage")
        self.assertEqual(self.predict(), first)
        self.assertNotEqual([f.stat().st_ino for f in self.files.iterdir()], [written])
        self.assertEqual(self.predict(RESNET_WEIGHTS_CACHE_MIB="0"), first)

    def test_it_can_be_switched_off_and_bounded(self):
        self.predict(RESNET_WEIGHTS_CACHE_MIB="0")
        self.predict(RESNET_WEIGHTS_CACHE_MIB="10")
        self.assertFalse(self.files.exists() and list(self.files.iterdir()))
        result = self.call("predict", self.model, "image.png", env={"RESNET_WEIGHTS_CACHE_MIB": "lots"})
        self.assertEqual(result.code, 2)
        for part in ("RESNET_WEIGHTS_CACHE_MIB", "lots", "expected 0"):
            self.assertIn(part, result.err)

    def test_where_it_cannot_be_written_the_answer_is_the_same(self):
        expected = self.predict(RESNET_WEIGHTS_CACHE_MIB="0")
        self.files.parent.mkdir()
        self.files.write_text("a file in the folder's place")
        self.assertEqual(self.predict(), expected)
        self.assertEqual(self.files.read_text(), "a file in the folder's place")

    def test_benchmark_says_where_the_weights_came_from_and_packs_nothing_the_second_time(self):
        env = {"XDG_CACHE_HOME": str(self.cache), "RESNET_CONV_ALGORITHM": "winograd", "RESNET_CONV_WITHOUT": ""}
        command = ("benchmark", self.model, "--batch-size", 1, "--runs", 1, "--threads", 1)
        first = self.ok(*command, "--json", env=env).json()["weights"]
        self.assertEqual((first["from"], first["adopted_bytes"]), ("file (kept for the next start)", 0))
        self.assertGreater(first["packed_states"], 7)  # of the 16: large ones may be transformed on the fly
        second = self.ok(*command, "--json", env=env).json()["weights"]
        self.assertEqual((second["from"], second["packed_states"]), ("cache", 0))
        self.assertGreater(second["adopted_bytes"], 40 << 20)
        self.assertIn("weights: from cache", self.ok(*command, "--dump-plan", env=env).err)
        off = self.ok(*command, "--json", env=env | {"RESNET_WEIGHTS_CACHE_MIB": "0"}).json()["weights"]
        self.assertEqual(off["from"], "file (the cache is off)")
        self.assertEqual(self.ok("benchmark", "resnet20_cifar_a", "--runs", 1, "--json", env=env).json()["weights"]["from"], "memory")

    def test_many_first_starts_at_once_leave_one_whole_file(self):
        env = {"XDG_CACHE_HOME": str(self.cache)}
        arguments = ("predict", self.model, "image.png", "--json", "--threads", 1)
        results = [running.wait(program.HANG_SECONDS) for running in [self.start(*arguments, env=env) for _ in range(3)]]
        self.assertEqual([(r.code, r.err) for r in results], [(0, "")] * 3)
        self.assertEqual(len({r.out for r in results}), 1)
        self.assertEqual(len(list(self.files.iterdir())), 1)


if __name__ == "__main__":
    program.main()
