#!/usr/bin/python3
"""bench/peers.py with contestants of known speed: what it divides by what, and that no two ever compute at once."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import cold_start  # noqa: F401 it imports names of peers, which must be there
import peer_process
import peers
import plot


class Contestant:
    version, at_once, ours = "1", False, False

    def __init__(self, name, rates, calls):
        self.name, self.rates, self.calls = name, iter(rates), calls

    def measure(self, runs):
        self.calls.append(self.name)
        rate = next(self.rates, None)
        if rate is None:
            raise peers.Unavailable("no more")
        return [10 / rate], 10, 100 * (1 + int(self.name))


class Peers(unittest.TestCase):
    def race(self, *series):
        self.calls = []
        contestants = [Contestant(str(i), rates, self.calls) for i, rates in enumerate(series)]
        with contextlib.redirect_stderr(io.StringIO()):
            self.skipped = {}
            return contestants, peers.race(contestants, rounds=len(series[0]), runs=1, skipped=self.skipped)

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
            peers.Peer("onnxruntime", "/bin/false", [], 1).greet()

    def test_a_peer_that_dies_in_the_race_leaves_the_others_in_it(self):
        _, measured = self.race([2, 2, 2], [1], [1, 1, 1])
        self.assertEqual([len(series.get("rates", [])) for series in measured], [3, 0, 3])
        self.assertEqual(self.skipped, {"1": "in round 2: no more"})
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(peers.Unavailable, msg="without us there is no race"):
            peers.race([Contestant("0", [2], []), Contestant("1", [1, 1], [])], rounds=2, runs=1, skipped={})

    def test_a_peer_that_does_not_answer_is_given_up(self):
        with tempfile.TemporaryDirectory() as folder:
            sleeper = pathlib.Path(folder) / "sleeper"
            sleeper.write_text("#!/bin/sh\nexec sleep 1000\n")
            sleeper.chmod(0o755)
            with unittest.mock.patch.object(peers, "PATIENCE", 0.1), self.assertRaisesRegex(peers.Unavailable, "code -9"):
                peers.Peer("x", sleeper, [], 1).greet()

    def test_a_peer_without_a_first_answer_keeps_what_it_raced(self):
        class Starter:
            def __init__(self, name, answers):
                self.name, self.answers = name, iter(answers)

            def first_answer(self):
                answer = next(self.answers)
                if isinstance(answer, Exception):
                    raise answer
                return answer, 7

        failed = peers.Unavailable("no first answer: exit code 1")
        with contextlib.redirect_stderr(io.StringIO()):
            ours, none = peers.first_answers([Starter("0", [0.1] * 5), Starter("1", [0.2, failed])])
        self.assertEqual(ours, {"first_answer_ms": [100.0] * 5, "program_bytes": 7})
        self.assertEqual(none, {})

    def test_a_peer_whose_library_prints_is_still_understood(self):
        with tempfile.TemporaryDirectory() as folder:
            talker = pathlib.Path(folder) / "talker"
            talker.write_text('#!/bin/sh\necho loading\necho \'{"name": "t", "version": "2", "images": 3}\'\n')
            talker.chmod(0o755)
            self.assertEqual(peers.Peer("x", talker, [], 1).greet().images, 3)

    def test_the_best_peer_is_the_fastest_and_not_us(self):
        contestants, measured = self.race([9, 9], [4, 4], [6, 6])
        self.assertEqual(peers.best_peer(peers.summarise(contestants, measured, 1))["name"], "2")
        self.assertIsNone(peers.best_peer(peers.summarise(contestants[:1], measured[:1], 1)))

    def test_the_report_holds_each_promise_against_the_newest_record_of_its_setup(self):
        def record(batch, ours, *theirs, **more):
            rows = [{"name": name, "median": rate, "rounds": [rate, rate], "ratio": ours / rate, "resident_bytes": size,
                     "p50_ms": 1e3 * batch / rate, "images_per_run": batch, "first_answer_ms": [ms, 9 * ms, ms]}
                    for name, rate, size, ms in (("resnet.cpp", ours, 40, 100), *theirs)]
            return {"model": "resnet18", "precision": "f32", "batch_size": batch, "results": rows, "commit": "c0ffee", "cpu": "Z", **more}

        torch, other = ("PyTorch, eager", 20.0, 100, 2000), ("ONNX Runtime", 50.0, 50, 500)
        single = record(1, 55.0, torch, other)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "inference.jsonl"
            self.assertEqual(peers.newest_records(path), {})
            another = [record(8, 1.0, other, commit="0dd"), record(8, 1.0, other, cpu="Y")]  # race, of which nothing may be told
            old = [*another, record(32, 1000.0, other), {**record(32, 1000.0, torch), "model": "resnet50"}]
            path.write_text("".join(json.dumps(r) + "\n" for r in (*old, record(32, 100.0, torch, other), single)))
            lines = peers.report(peers.newest_records(path))
            self.assertEqual({batch for _, _, batch in peers.newest_records(path)}, {1, 32})
            self.assertEqual({batch for _, _, batch in peers.newest_records(path, ["dead", "c0"])}, {1, 8, 32})
            self.assertEqual(peers.newest_records(path, ["dead"]), {})
        self.assertEqual(len(lines), 1 + len(peers.GOALS))
        told = {line[:52].strip(): line[52:].split() for line in lines}
        self.assertEqual(told["ResNet-18 f32 batch 32, by the best peer"][:4], ["1.80", "2.30", "2.000", "floor"])
        self.assertEqual(told["ResNet-18 f32 batch 32, by the best peer"][4:6], ["ONNX", "Runtime,"])
        self.assertEqual(told["ResNet-18 f32 batch 1, by the best peer"][2:4], ["1.100", "missed"])
        self.assertEqual(told["ResNet-18 f32 batch 1, latency, by the soonest peer"][2:4], ["1.100", "missed"])
        self.assertEqual(told["ResNet-18 f32, an image a thread, by the best peer"], ["-", "not", "measured"])
        self.assertEqual(told["ResNet-50 f32 batch 32, by the best peer"][2:4], ["50.000", "aim"])
        self.assertEqual(told["memory, ResNet-50 f32 batch 32, by the leanest peer"][2:4], ["0.400", "aim"])
        self.assertEqual(told["start to first answer, ResNet-18 f32, by PyTorch"][2:4], ["0.050", "floor"])
        self.assertEqual(told["ResNet-18 f16 batch 32, by our own f32"][2:], ["-", "not", "measured"])

    def test_with_one_image_latency_is_held_against_latency_and_throughput_against_throughput(self):
        def row(name, rounds, images, **more):
            median = sorted(rounds)[1]
            return {"name": name, "rounds": rounds, "median": median, "images_per_run": images, "p50_ms": 1e3 * images / median,
                    "resident_bytes": 10, "ratio": 50 / median, **more}

        # In the second round the machine is half as fast.
        rows = [row("resnet.cpp", [50, 25, 60], 1),
                row("resnet.cpp, 2 images at once", [84, 44, 90], 2, ours=True, at_once=True, resident_bytes=1),
                row("latency", [40, 20, 48], 1), row("throughput", [60, 40, 64], 2),
                row("latency, 2 images at once", [42, 22, 48], 2, ours=False, at_once=True, resident_bytes=1)]
        self.assertEqual(peers.best_peer(rows)["name"], "throughput")
        self.assertEqual(peers.speed(rows), (50 / 60, "throughput"))
        self.assertEqual(peers.latency(rows), (1.25, "latency"))
        self.assertEqual(peers.throughput(rows), (1.4, "throughput"))
        self.assertEqual(peers.throughput([*rows[:3], rows[4]]), (2, "latency, 2 images at once"))
        self.assertIsNone(peers.throughput([rows[0], *rows[2:4]]), "ours has to take part that way, too")
        self.assertEqual(peers.latency([rows[0], rows[3]]), (5 / 3, "throughput"))
        self.assertEqual(peers.memory(rows)[0], 1)
        for measure in (peers.speed, peers.latency, peers.throughput, peers.memory, peers.start):
            self.assertIsNone(measure(rows[:2]), measure.__name__)
        record = {"results": rows}
        picture = plot.svg(plot.panels_of({("resnet18", "f32", 1): record}))
        self.assertEqual(len({line.split('fill="')[1] for line in picture.splitlines() if "<title>" in line and "rect" in line}), len(rows))

    def test_a_setup_of_single_images_races_them_in_both_ways(self):
        class Program(Contestant):
            ours, last = True, {"peak_bytes": 7, "micro_batch": 2, "streams": 2}
            gflop_per_image, fma_peak_gflops = 1.0, 100.0

            def __init__(self, program, mode, model, flags, threads, name="resnet.cpp", at_once=False):
                super().__init__(name, [20.0] if at_once else [10.0], [])
                self.at_once = at_once

            def measure(self, runs):
                return [1 / next(self.rates)], 1, 100

            def first_answer(self):
                return 0.25, 7

            def close(self):
                pass

        class Other(Program):
            ours = False

        def start(wanted, arguments, threads, at_once):
            self.assertEqual((wanted, at_once), ("wanted", ["twice"]))
            return [Other(*[None] * 5, name="twice"), Other(*[None] * 5, name="twice, 2 images at once", at_once=True)], {}

        setup = {"model": "resnet18", "precision": "f32", "batch_size": 1, "image_size": 224, "runs": 1, "resnet": ("file", []), "starts": True,
                 "ours_in_f32": None, "ours_at_once": ("file", ["--batch-size", 2]), "unavailable": None, "peers": ("wanted", []),
                 "at_once": ["twice"], "skipped": {}}
        args = unittest.mock.Mock(mode="inference", threads=2, rounds=1, resnet="resnet")
        with unittest.mock.patch.multiple(peers, Resnet=Program, start_peers=start, STARTS=2, require_right_logits_when_measured=lambda *_: None), \
                contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            rows = peers.measure(setup, args, {"cpu": "Z", "commit": "c0ffee"})["results"]
        self.assertEqual([row["name"] for row in rows], ["resnet.cpp", "resnet.cpp, 2 images at once", "twice", "twice, 2 images at once"])
        self.assertEqual([(row.get("at_once", False), row.get("ours")) for row in rows], [(False, None), (True, True), (False, None), (True, False)])
        self.assertEqual(["first_answer_ms" in row for row in rows], [True, False, True, False])
        self.assertEqual(["streams" in row for row in rows], [True, True, False, False])
        self.assertIn("best peer: twice; ratio 1.00", out.getvalue())
        self.assertIn("images a second, an image a thread: ratio 1.00 (twice, 2 images at once)", out.getvalue())

    def test_a_peer_with_requests_on_their_way_is_timed_among_them(self):
        calls = []

        def run():
            calls.append("run")

        self.assertEqual(len(peer_process.timed(run, 3)), 3)
        self.assertEqual(calls, ["run"] * 3)
        calls.clear()
        run.go_on, run.finish = lambda: calls.append("go on"), lambda: calls.append("finish")
        self.assertEqual(len(peer_process.timed(run, 3)), 3)
        self.assertEqual(calls, ["go on"] * 4 + ["finish"])

    def test_a_slow_starter_is_started_once(self):
        class Starter:
            def __init__(self, name, seconds):
                self.name, self.seconds = name, seconds

            def first_answer(self):
                return self.seconds, 7

        with contextlib.redirect_stderr(io.StringIO()):
            quick, slow = peers.first_answers([Starter("a", 0.5), Starter("b", 2 * peers.SLOW_START)])
        self.assertEqual((quick["first_answer_ms"], quick["program_bytes"]), ([500.0] * peers.STARTS, 7))
        self.assertEqual(slow["first_answer_ms"], [2e3 * peers.SLOW_START])

    def test_logits_in_int8_must_go_with_f32s_and_f32s_must_be_equal(self):
        wanted = np.random.default_rng(0).normal(size=(1, 1000))
        near, far = wanted + 1e-6, wanted[:, ::-1]
        rough = np.concatenate([wanted, wanted + 0.1 * far])
        self.assertIsNone(peers.disagreement(near, wanted, "f32"))
        self.assertIn("differ", peers.disagreement(rough, wanted, "f32"))
        self.assertIsNone(peers.disagreement(rough, wanted, "int8"))
        self.assertIsNone(peers.disagreement(wanted * 1.01, wanted, "f16"))
        self.assertIn("differ", peers.disagreement(wanted * 1.03, wanted, "f16"))
        self.assertIn("correlate", peers.disagreement(np.concatenate([wanted, far]), wanted, "int8"))
        self.assertIn("correlate", peers.disagreement(wanted * np.nan, wanted, "int8"))

    def test_a_programs_size_is_of_the_files_it_holds_code_of_each_once(self):
        with tempfile.TemporaryDirectory() as folder:
            code, data = pathlib.Path(folder) / "lib one.so", pathlib.Path(folder) / "weights"
            code.write_bytes(b"x" * 100)
            data.write_bytes(b"x" * 1000)
            maps = (f"1-2 r--p 0 fe:00 11 {code}\n2-3 r-xp 0 fe:00 11 {code}\n3-4 r-xp 0 fe:00 11 {code}\n4-5 r--p 0 fe:00 12 {data}\n"
                    "5-6 r-xp 0 00:00 0 \n6-7 r-xp 0 00:00 0 [vdso]\n7-8 r-xp 0 00:00 9 /memfd:jit (deleted)\n")
            self.assertEqual(peers.program_bytes(maps), 100)
        self.assertGreater(peers.resnet_bytes("/usr/bin/python3"), 10**6)

    def test_a_percentile_is_one_of_the_times(self):
        times = [i / 100 for i in range(1, 101)]
        self.assertEqual([peers.percentile(times, p) for p in (0.5, 0.99, 1)], [0.5, 0.99, 1])
        self.assertEqual(peers.percentile([3.0], 0.99), 3.0)


if __name__ == "__main__":
    unittest.main()
