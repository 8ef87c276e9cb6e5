#!/usr/bin/python3
"""libresnet.so shows the symbols of exported_symbols.txt and no other: what is visible is a promise, and what is not
cannot clash with a user's own.   symbols_test.py PATH/OF/libresnet.so"""
import pathlib
import re
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parent.parent / "include" / "resnet" / "resnet.h"
LIBRARY = None


class Symbols(unittest.TestCase):
    def listed(self):
        return (HERE / "exported_symbols.txt").read_text().split()

    def test_exported_symbols_are_those_of_the_list(self):
        text = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], check=True, capture_output=True, text=True).stdout
        exported = [line.split()[-1] for line in text.splitlines()]
        self.assertEqual(sorted(exported), self.listed(),
                         "a symbol appeared or vanished; when that is meant, change tests/api/exported_symbols.txt")

    def test_the_header_declares_each_of_them(self):
        declared = re.findall(r"(?m)^RESNET_API [^;(]*?(\w+)\(", HEADER.read_text())
        self.assertEqual(sorted(declared), self.listed())


if __name__ == "__main__":
    LIBRARY = sys.argv.pop(1)
    unittest.main()
