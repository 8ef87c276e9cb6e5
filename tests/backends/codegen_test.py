#!/usr/bin/python3
"""The inner loops of the AVX-512 kernels that do most of the work, as compiled: multiply-adds of 512 bits, sums that stay in
registers. No machine without AVX-512 could notice otherwise that a compiler spills them, and no test of values ever would.

codegen_test.py OBJDUMP OBJECT...
"""
import os
import re
import subprocess
import sys
import unittest

ROWS = 12  # of a register tile: WinogradGemm<16>::kRows, HalfGemm<16>::kRows, kRows of quantized_vec.h, kColumns of conv2d_max_pool.cpp
GEMM_ROWS = 14  # GemmConvolution<16>::kRows


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


class Codegen(unittest.TestCase):
    def functions_of(self, source, isa):
        objects = [path for path in OBJECTS if f"resnet_simd_{isa}.dir" in path and os.path.basename(path).startswith(source + ".cpp")]
        if isa == "avx512fp16" and not any(f"resnet_simd_{isa}.dir" in path for path in OBJECTS):
            self.skipTest("this compiler has no AVX512-FP16")
        self.assertEqual(len(objects), 1, f"{source} for {isa} among {OBJECTS}")
        listing = subprocess.run([OBJDUMP, "-dC", "--no-show-raw-insn", objects[0]], check=True, capture_output=True, text=True)
        return functions(listing.stdout)

    def loops_with(self, source, isa, name, multiply):
        """Of functions whose name holds `name`, the innermost loops that multiply."""
        found = [code for full, code in self.functions_of(source, isa).items() if name in full]
        self.assertTrue(found, f"{source}: no function {name}")
        return [body for code in found for body in innermost_loops(code) if any(re.match(multiply, text) for text in body)]

    def check_tile(self, body, multiply, sums, others):
        """A loop of `sums` multiply-adds, each to a register of its own, with `others` loads and broadcasts of its own and
        no vector to or from the stack; six more instructions count and step."""
        told = "\n".join(body)
        multiplied = [text for text in body if re.match(multiply + r" .*%zmm", text)]
        self.assertEqual(len(multiplied), sums, told)
        self.assertEqual(len({text.split(",")[-1] for text in multiplied}), sums, "a register for each sum\n" + told)
        self.assertFalse([text for text in body if re.search(r"%[xyz]mm", text) and re.search(r"\(%r[sb]p", text)], told)
        self.assertLessEqual(len(body), sums + others + 6, told)

    def test_half_products(self):
        (body,) = self.loops_with("conv2d_half", "avx512fp16", f"HalfGemm<16>::product<{ROWS}>", "vfmadd231ph")
        self.check_tile(body, r"vfmadd\w+ph", 2 * ROWS, ROWS + 2)
        self.assertEqual(sum(text.startswith("vpbroadcastd") for text in body), ROWS, "\n".join(body))
        self.assertFalse([text for text in body if "vcvt" in text], "\n".join(body))

    def test_products_of_winograd(self):
        (body,) = self.loops_with("winograd", "avx512", f"WinogradGemm<16>::product<{ROWS}, 2>", r"vfmadd\w+ps")
        self.check_tile(body, r"vfmadd\w+ps", 2 * ROWS, ROWS + 2)

    def test_products_of_winograds_weight_gradient(self):
        (body,) = self.loops_with("winograd", "avx512", "WinogradGemm<16>::outer<8, 0, 2>", r"vfmadd\w+ps")
        self.check_tile(body, r"vfmadd\w+ps", 2 * 8, 8 + 2)

    def test_products_of_direct_convolutions(self):
        (body,) = self.loops_with("conv2d_gemm", "avx512", f"GemmConvolution<16>::product<{GEMM_ROWS}, 2>", r"vfmadd\w+ps")
        self.check_tile(body, r"vfmadd\w+ps", 2 * GEMM_ROWS, GEMM_ROWS + 2)

    def test_the_stem(self):
        for stride in (1, 2):
            with self.subTest(stride=stride):
                (body,) = self.loops_with("conv2d_max_pool", "avx512", f"::tile<{ROWS}, {stride}>", r"vfmadd\w+ps")
                self.check_tile(body, r"vfmadd\w+ps", 2 * ROWS, ROWS + 2)

    def test_products_of_bytes_and_of_words(self):
        for multiply in ("vpdpbusd", "vpdpwssd"):
            loops = self.loops_with("quantized", "avx512", "", multiply)
            self.assertTrue(loops)
            for body in loops:  # all rows by one sliver, half of them by two: as many sums
                self.check_tile(body, multiply, 2 * ROWS, ROWS + 2)


if __name__ == "__main__":
    OBJDUMP, *OBJECTS = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
