#!/usr/bin/python3
"""The inner loop of the half-precision products, as compiled for AVX512-FP16: multiply-adds of 512 bits, sums that stay in registers,
no conversions. No machine without AVX512-FP16 could notice otherwise that a compiler spills them.

half_codegen_test.py OBJDUMP OBJECT
"""
import re
import subprocess
import sys
import unittest

ROWS = 12  # HalfGemm<16>::kRows


def functions(text):
    """Name -> [(address, instruction)] of objdump's output."""
    result, code = {}, None
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            code = result.setdefault(match[1], [])
        elif match := re.match(r"\s+([0-9a-f]+):\s+(\S.*)$", line):
            code.append((int(match[1], 16), match[2]))
    return result


def innermost_loops(code):
    """The bodies of loops that hold no other."""
    index = {address: i for i, (address, _) in enumerate(code)}
    spans = []
    for i, (_, text) in enumerate(code):
        match = re.match(r"j\w+\s+([0-9a-f]+)", text)
        if match and index.get(int(match[1], 16), i + 1) <= i:
            spans.append((index[int(match[1], 16)], i))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [[text for _, text in code[first : last + 1]] for first, last in inner]


class HalfCodegen(unittest.TestCase):
    def test_the_inner_loop_is_multiply_adds_on_registers(self):
        listing = subprocess.run([OBJDUMP, "-dC", "--no-show-raw-insn", OBJECT], check=True, capture_output=True, text=True).stdout
        kernels = {name: code for name, code in functions(listing).items() if f"HalfGemm<16>::product<{ROWS}>" in name}
        self.assertEqual(len(kernels), 1, "the micro kernel for whole runs")
        (code,) = kernels.values()
        loops = [body for body in innermost_loops(code) if any(text.startswith("vfmadd231ph") for text in body)]
        self.assertEqual(len(loops), 1, loops)
        (body,) = loops
        told = "\n".join(body)
        fmas = [text for text in body if re.match(r"vfmadd\w+ph .*%zmm", text)]
        self.assertEqual(len(fmas), 2 * ROWS, told)
        self.assertEqual(len({text.split(",")[-1] for text in fmas}), 2 * ROWS, "a register for each sum\n" + told)
        self.assertEqual(sum(text.startswith("vpbroadcastd") for text in body), ROWS, told)
        self.assertFalse([text for text in body if "%rsp" in text or "%rbp)" in text or "vcvt" in text], told)
        self.assertLessEqual(len(body), 2 * ROWS + ROWS + 2 + 4, told)  # and two loads of weights, and the loop's own


if __name__ == "__main__":
    OBJECT = sys.argv.pop()
    OBJDUMP = sys.argv.pop()
    unittest.main()
