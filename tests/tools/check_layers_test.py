#!/usr/bin/python3
"""tools/check_layers.py on small made-up trees: it must see each kind of offence, and only those."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check_layers.py"
TABLE = """
[layers]
base = []
graph = ["base"]
ops = ["graph"]
"backends/cpu" = ["ops"]
runtime = ["ops"]
[files]
"runtime/backends.cpp" = ["backends/cpu"]
[vendors]
"dnnl" = ["backends/cpu"]
"""


class CheckLayers(unittest.TestCase):
    def run_on(self, files, table=TABLE):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {"tools/layers.toml": table, "src/base/shape.h": "", "src/ops/relu.h": "",
                               "src/backends/cpu/cpu.h": "", **files}.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            return subprocess.run([sys.executable, SCRIPT, "--root", root], text=True, capture_output=True)

    def accepts(self, files):
        done = self.run_on(files)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def refuses(self, files, message, table=TABLE):
        done = self.run_on(files, table)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn(message, done.stdout + done.stderr)

    def test_a_folder_may_include_itself_and_all_below_it(self):
        self.accepts({"src/ops/relu.cpp": '#include "ops/relu.h"\n#include "base/shape.h"\n#include <vector>\n'})

    def test_including_upwards_is_an_offence_with_its_line(self):
        self.refuses({"src/base/shape.cpp": '#include "base/shape.h"\n#include "ops/relu.h"\n'}, "src/base/shape.cpp:2:")

    def test_spaces_around_the_hash_hide_nothing(self):
        self.refuses({"src/base/shape.cpp": '  #  include "ops/relu.h"\n'}, "base may not include")

    def test_a_vendor_header_outside_its_folder_is_an_offence(self):
        self.refuses({"src/ops/relu.cpp": "#include <dnnl.hpp>\n"}, "<dnnl.hpp> may appear in backends/cpu only")

    def test_a_vendor_header_in_a_sub_folder_of_its_folder_is_fine(self):
        self.accepts({"src/backends/cpu/simd/relu.cpp": '#include <dnnl.hpp>\n#include "backends/cpu/cpu.h"\n'})

    def test_only_the_named_file_may_include_a_backend(self):
        text = '#include "backends/cpu/cpu.h"\n'
        self.accepts({"src/runtime/backends.cpp": text})
        self.refuses({"src/runtime/session.cpp": text}, "src/runtime/session.cpp:1: runtime may not include")

    def test_includes_that_bypass_the_table_are_offences(self):
        self.refuses({"src/ops/relu.cpp": '#include "../base/shape.h"\n'}, "relative to src/")
        self.refuses({"src/ops/relu.cpp": '#include "relu.h"\n'}, "relative to src/")

    def test_a_folder_without_an_entry_is_an_offence(self):
        self.refuses({"src/misc/helper.cpp": ""}, "lies in no folder")

    def test_a_table_with_a_cycle_is_refused(self):
        self.refuses({}, "cycle", table='[layers]\na = ["b"]\nb = ["a"]\n[files]\n[vendors]\n')


if __name__ == "__main__":
    unittest.main()
