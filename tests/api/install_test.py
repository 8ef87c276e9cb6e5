#!/usr/bin/python3
"""The installed package, used as a stranger's project would: installs into a folder, builds examples/ against it, and
classifies a PNG with a model that the program just trained.

    install_test.py PATH/OF/resnet BUILD_FOLDER CMAKE [CXX C]
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import PIL.Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "cli"), str(ROOT / "tools")]
import program  # noqa: E402
import safetensors_numpy  # noqa: E402

PROGRAM, BUILD, CMAKE, COMPILERS = "", "", "cmake", []


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="resnet-install-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.env = {**os.environ, "XDG_CACHE_HOME": str(cls.folder / "cache"), "OMP_WAIT_POLICY": "passive"}
        cls.run_ok(CMAKE, "--install", BUILD, "--prefix", cls.folder / "first")
        # The package says where it lies by itself: it still works in another place.
        cls.prefix = cls.folder / "moved"
        shutil.move(cls.folder / "first", cls.prefix)
        cls.build = cls.folder / "build"
        cls.run_ok(CMAKE, "-S", ROOT / "examples", "-B", cls.build, f"-DCMAKE_PREFIX_PATH={cls.prefix}", *COMPILERS,
                   "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror",
                   "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror")
        cls.run_ok(CMAKE, "--build", cls.build)
        data = program.write_data(cls.folder / "data", side=20)
        cls.run_ok(PROGRAM, "train", "--data", data, "--model", "resnet20_cifar", "--image-size", "24", "--batch-size", "16",
                   "--epochs", "1", "--limit", "64", "--lr", "0.05", "--output", cls.folder / "run")
        cls.model = cls.folder / "run" / "best.safetensors"
        cls.run_ok(PROGRAM, "evaluate", cls.model, "--data", data, "--dump-logits", cls.folder / "logits.safetensors")
        cls.logits = safetensors_numpy.load(cls.folder / "logits.safetensors")[0]["logits"]
        pixels = (cls.folder / "data" / "t10k-images-idx3-ubyte").read_bytes()[16:]
        cls.images = np.frombuffer(pixels, np.uint8).reshape(-1, 20, 20)

    @classmethod
    def run_ok(cls, *command):
        result = subprocess.run([str(word) for word in command], env=cls.env, capture_output=True, text=True)
        if result.returncode != 0:
            raise AssertionError(f"{command} ended with {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def photo(self, index):
        path = self.folder / f"image-{index}.png"
        PIL.Image.fromarray(self.images[index]).convert("RGB").save(path)
        return path

    def test_c_gives_the_logits_that_the_program_gives(self):
        scale = np.abs(self.logits).max()
        self.assertGreater(scale, 0.1)
        for index in (0, 7):
            lines = self.run_ok(self.build / "classify_c", self.model, self.photo(index)).splitlines()
            values = np.array([float(line.split()[0]) for line in lines])
            np.testing.assert_allclose(values, self.logits[index], rtol=0, atol=1e-4 * scale)

    def test_five_lines_of_cpp_name_the_classes_in_order(self):
        lines = self.run_ok(self.build / "classify", self.model, self.photo(3)).splitlines()
        exponentials = np.exp(np.float64(self.logits[3]) - self.logits[3].max())
        probabilities = exponentials / exponentials.sum()
        names = json.loads(program.read_model(self.model)[0]["__metadata__"]["class_names"])
        expected = sorted(range(len(names)), key=lambda k: -probabilities[k])
        self.assertEqual([line.split(maxsplit=1)[1] for line in lines], [names[k] for k in expected])
        np.testing.assert_allclose([float(line.split()[0]) for line in lines], probabilities[expected], atol=1e-3)

    def test_an_error_is_a_line_and_a_code(self):
        for name, model, image, code in (("classify", self.model, "none.png", 4), ("classify", "none.safetensors", "x", 4),
                                         ("classify_c", self.model, self.model, 3), ("classify_c", self.photo(0), "x", 3)):
            result = subprocess.run([self.build / name, model, image], env=self.env, capture_output=True, text=True)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertRegex(result.stderr, rf"\A{name}: error: [^\n]+\n\Z")

    def test_pkg_config_knows_the_package(self):
        folder = next(self.prefix.glob("lib*/**/pkgconfig"))
        env = {**self.env, "PKG_CONFIG_PATH": str(folder)}
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "resnet"], env=env, capture_output=True, text=True, check=True)
        compiler = next((c.split("=")[1] for c in COMPILERS if "CXX" in c), "c++")
        self.run_ok(compiler, "-std=c++17", ROOT / "examples" / "classify.cpp", *flags.stdout.split(), "-o", self.folder / "by_hand")
        self.assertTrue((self.folder / "by_hand").exists())

    def test_only_the_interface_is_installed(self):
        headers = sorted(p.relative_to(self.prefix / "include").as_posix() for p in (self.prefix / "include").rglob("*.h*"))
        self.assertEqual(headers, ["resnet/resnet.h", "resnet/resnet.hpp"])
        self.assertTrue((self.prefix / "bin" / "resnet").exists())
        self.assertFalse(list(self.prefix.rglob("*.a")))


if __name__ == "__main__":
    PROGRAM, BUILD, CMAKE, *compilers = sys.argv[1:]
    COMPILERS = [f"-DCMAKE_{language}_COMPILER={path}" for language, path in zip(("CXX", "C"), compilers)]
    unittest.main(argv=sys.argv[:1])
