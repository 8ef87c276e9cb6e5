#!/usr/bin/python3
"""bench/peers.py with contestants of known speed: what it divides by what, and that no two ever compute at once."""
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import cold_start  # noqa: F401 it imports names of peers, which must be there
import peers


class Contestant:
    version = "1"

    def __init__(self, name, rates, calls):
        self.name, self.rates, self.calls = name, iter(rates), calls

    def measure(self, runs):
        self.calls.append(self.name)
        return [10 / next(self.rates)], 10, 100 * (1 + int(self.name))


class Peers(unittest.TestCase):
    def race(self, *series):
        self.calls = []
        contestants = [Contestant(str(i), rates, self.calls) for i, rates in enumerate(series)]
        with contextlib.redirect_stderr(io.StringIO()):
            return contestants, peers.race(contestants, rounds=len(series[0]), runs=1)

    def test_each_round_asks_each_once_in_a_rotating_order(self):
        self.race([1, 1, 1], [1, 1, 1], [1, 1, 1])
        self.assertEqual(self.calls, list("012120201"))

    def test_a_ratio_pairs_the_rates_of_one_round(self):
        # The machine is four times faster in the second round: the ratio of medians would be right by luck only.
        contestants, measured = self.race([20, 80, 20], [10, 40, 5])
        mine, peer = peers.summarise(contestants, measured, image_share=0.025)
        self.assertEqual((peer["ratio"], peer["ratio_min"], peer["ratio_max"]), (2, 2, 4))
        self.assertEqual((mine["median"], mine["mad"], mine["ratio"]), (20, 0, 1))
        self.assertEqual(peer["memory_ratio"], 0.5)
        self.assertAlmostEqual(peer["peak_share"], 0.25)

    def test_the_table_names_peers_that_could_not_be_had(self):
        contestants, measured = self.race([2, 2], [1, 1])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            peers.print_table(peers.summarise(contestants, measured, 0.1), {"onnxruntime": "no network"})
        self.assertIn("onnxruntime: not measured: no network", out.getvalue())
        self.assertIn("2.00", out.getvalue())

    def test_a_peer_that_dies_is_unavailable_with_its_code(self):
        with self.assertRaisesRegex(peers.Unavailable, "code 1"):
            peers.Peer("onnxruntime", "/bin/false", [], 1)

    def test_a_peer_whose_library_prints_is_still_understood(self):
        with tempfile.TemporaryDirectory() as folder:
            talker = pathlib.Path(folder) / "talker"
            talker.write_text('#!/bin/sh\necho loading\necho \'{"name": "t", "version": "2", "images": 3}\'\n')
            talker.chmod(0o755)
            self.assertEqual(peers.Peer("x", talker, [], 1).images, 3)

    def test_the_best_peer_is_the_fastest_and_not_us(self):
        contestants, measured = self.race([9, 9], [4, 4], [6, 6])
        self.assertEqual(peers.best_peer(peers.summarise(contestants, measured, 1))["name"], "2")
        self.assertIsNone(peers.best_peer(peers.summarise(contestants[:1], measured[:1], 1)))

    def test_a_percentile_is_one_of_the_times(self):
        times = [i / 100 for i in range(1, 101)]
        self.assertEqual([peers.percentile(times, p) for p in (0.5, 0.99, 1)], [0.5, 0.99, 1])
        self.assertEqual(peers.percentile([3.0], 0.99), 3.0)


if __name__ == "__main__":
    unittest.main()
