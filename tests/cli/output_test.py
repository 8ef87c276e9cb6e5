#!/usr/bin/python3
"""What the program says: the JSON and the files scripts read, and what must not change them."""
import json
import os
import pty
import shutil
import subprocess
import sys
import unittest

import numpy as np
import program
from program import SMALL, ProgramTest, events, metrics

PARAMETERS = {"lecture_resnet18": 11_178_378, "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
              "resnet101": 44_549_160, "resnet152": 60_192_808, "resnet50_v1": 25_557_032, "resnext50_32x4d": 25_028_904,
              "resnext101_64x4d": 83_455_272, "wide_resnet50_2": 68_883_240, "resnet20_cifar_a": 269_722, "resnet20_cifar_b": 272_474,
              "plain56_cifar": 853_018, "resnet1202_cifar_a": 19_421_274, "resnet20_mlp": 401_418}


class Summary(ProgramTest):
    def test_the_lecture_net_has_its_parameters_macs_and_stage_shapes(self):
        summary = self.ok("summary", "lecture_resnet18", "--input-size", "1x96x96", "--json").json()
        self.assertEqual((summary["model"], summary["parameters"], summary["macs"]), ("lecture_resnet18", 11_178_378, 318_657_536))
        for layer in summary["layers"]:
            self.assertLessEqual({"name", "op", "output_shape", "parameters", "macs"}, set(layer))
        for total in ("parameters", "macs"):
            self.assertEqual(sum(layer[total] for layer in summary["layers"]), summary[total])
        # The stem ends at its pool, a stage at its last addition's activation: where the shape changes next.
        shapes = [layer["output_shape"] for layer in summary["layers"] if layer["op"] in ("max_pool", "add")]
        self.assertEqual(shapes, ["64x24x24"] * 3 + ["128x12x12"] * 2 + ["256x6x6"] * 2 + ["512x3x3"] * 2)
        self.assertEqual(summary["layers"][-1]["output_shape"], "10")

    def test_all_architectures_have_the_published_counts(self):
        listed = {m["model"]: m["parameters"] for m in self.ok("summary", "--list", "--json").json()}
        for name, parameters in PARAMETERS.items():
            with self.subTest(name=name):
                self.assertEqual(self.ok("summary", name, "--json").json()["parameters"], parameters)
                self.assertEqual(listed[name], parameters)

    def test_the_list_for_people_stays_short_and_tells_of_the_other_depths(self):
        lines = self.ok("summary", "--list").out.splitlines()
        self.assertLess(len(lines), 70)
        self.assertLess(max(map(len, lines)), 121)
        self.assertTrue(any(line.startswith("resnet20_cifar_b") and "272,474" in line for line in lines))
        for family in ("6n + 2", "preresnetN_cifar for N = 9n + 2", "wrnN_K_cifar"):
            self.assertIn(family, "\n".join(lines[-3:]))
        alias = self.ok("summary", "resnet26_cifar", "--input-size", "1x28x28", "--json").json()
        self.assertEqual(alias["model"], "resnet26_cifar_a")
        self.assertEqual(sum(layer["op"] in ("conv2d", "linear") for layer in alias["layers"]), 26)

    def test_a_stage_layout_of_ones_own_is_summed_up(self):
        def summary(*words):
            whole = self.ok("summary", *words, "--json").json()
            return whole["parameters"], whole["macs"]
        self.assertEqual(summary("resnet50", "--set", "model.blocks=[3,4,23,3]"), summary("resnet101"))
        # Squeeze-and-excitation has two matrices and their biases a block, and works on single pixels.
        matrices = sum(blocks * 2 * width * (width // 16) for blocks, width in ((3, 256), (4, 512), (6, 1024), (3, 2048)))
        plain, gated = summary("resnet50"), summary("seresnet50")
        self.assertEqual(gated[1] - plain[1], matrices)
        self.assertEqual(gated[0] - plain[0], matrices + sum(b * (w + w // 16) for b, w in ((3, 256), (4, 512), (6, 1024), (3, 2048))))
        for setting in ("blocks=[1]", "model.blocks", "model.blocks=[0]"):
            refused = self.call("summary", "resnet50", "--set", setting)
            self.assertEqual(refused.code, 2, refused.err)

    def test_the_table_for_people_ends_with_the_totals(self):
        lines = self.ok("summary", "lecture_resnet18").out.splitlines()
        self.assertIn("1x96x96", lines[0])
        self.assertEqual(lines[-1].split(), ["total", "11,178,378", "318,657,536"])

    def test_help_of_each_verb_shows_an_example_and_the_defaults(self):
        whole = self.ok("--help").out
        for verb, default in [("train", "256"), ("evaluate", "256"), ("predict", "32"), ("verify", "0.0001"), ("summary", "own"), ("benchmark", "inference")]:
            with self.subTest(verb=verb):
                result = self.ok(verb, "--help")
                self.assertIn(f"Example: resnet {verb}", result.out)
                self.assertIn(default, result.out)
                self.assertIn(verb, whole)
                self.assertEqual(result.err, "")
        self.assertRegex(self.ok("--version").out, r"^resnet \d+\.\d+\.\d+\n$")


class Training(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program.write_data(cls.folder / "data")
        cls.run_directory = cls.folder / "run"
        running = program.Running([program.PROGRAM, *cls.train("run", "--log-every", "1", "--json")], cls.folder, cls.env)
        cls.result = running.wait()
        assert cls.result.code == 0, cls.result.err
        cls.weights = cls.run_directory / "last/model.safetensors"

    @staticmethod
    def train(output, *more, data="data"):
        return ("train", *SMALL, "--data", data, "--epochs", "2", "--seed", "5", "--output", output, *map(str, more))

    def test_the_last_line_of_train_is_its_result(self):
        self.assertEqual(len(self.result.out.splitlines()), 1)
        result = self.result.json()
        self.assertLessEqual({"train_loss", "train_top1", "eval_loss", "eval_top1", "best_top1", "steps", "images_per_second",
                              "peak_bytes", "output"}, set(result))
        self.assertEqual((result["steps"], result["output"]), (12, "run"))
        rows = metrics(self.run_directory)
        for field in ("train_loss", "train_top1", "eval_loss", "eval_top1"):
            self.assertAlmostEqual(result[field], float(rows[-1][field]), delta=1e-5 * abs(result[field]))
        self.assertAlmostEqual(result["best_top1"], max(float(r["eval_top1"]) for r in rows), places=5)
        self.assertGreater(result["images_per_second"], 0)
        self.assertGreater(result["peak_bytes"], 4 * PARAMETERS["lecture_resnet18"] // 2)

    def test_the_run_directory_holds_what_the_contract_lists(self):
        run = self.run_directory
        self.assertEqual((run / "metrics.csv").read_text().splitlines()[0],
                         "epoch,train_loss,train_top1,eval_loss,eval_top1,eval_top5,lr,images_per_second,seconds")
        self.assertEqual([row["epoch"] for row in metrics(run)], ["1", "2"])
        self.assertEqual([(e["step"], e["epoch"]) for e in events(run) if e["split"] == "train"],
                         [(s, 1 + (s - 1) // 6) for s in range(1, 13)])
        self.assertEqual([(e["step"], e["epoch"]) for e in events(run) if e["split"] == "test"], [(6, 1), (12, 2)])
        self.assertIn("<svg", (run / "plots/learning_curve.svg").read_text()[:500])
        header, data = program.read_model(run / "best.safetensors")
        metadata = header["__metadata__"]
        self.assertEqual((metadata["format"], metadata["architecture"], metadata["num_classes"]), ("pt", "lecture_resnet18", "3"))
        self.assertEqual(json.loads(metadata["class_names"]), ["0", "1", "2"])
        self.assertEqual(json.loads(metadata["input_size"]), [1, 32, 32])
        self.assertLessEqual({"mean", "std", "interpolation", "crop_pct", "resize"}, set(metadata))
        self.assertTrue(np.isfinite(np.frombuffer(data, np.float32)).all())

    def test_the_mean_of_an_epochs_losses_is_its_row(self):
        for epoch, row in enumerate(metrics(self.run_directory), 1):
            losses = [e["loss"] for e in events(self.run_directory) if e["split"] == "train" and e["epoch"] == epoch]
            self.assertAlmostEqual(float(row["train_loss"]), np.mean(losses), delta=1e-5 * np.mean(losses))

    def test_without_a_terminal_there_are_plain_lines_and_no_escape_codes(self):
        # The result is on stdout alone, lines for people on stderr alone.
        self.assertEqual(json.loads(self.result.out)["steps"], 12)
        self.assertIn("epoch   2", self.result.err)
        self.assertNotRegex(self.result.err, "[\x00-\x09\x0b-\x1f\x7f]")
        self.assertLess(len(self.result.err.splitlines()), 12 * program.PATIENCE, "a line every ten seconds at most, no line a step")

    def test_on_a_terminal_progress_is_one_line_rewritten(self):
        ours, theirs = pty.openpty()
        # stderr is the terminal; what the test collects as stderr stays empty.
        running = self.start(*self.train("terminal", "--json"), preexec=lambda: os.dup2(theirs, 2))
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            shown += part
            if not part:
                break
        os.close(ours)
        result = running.wait()
        self.assertEqual((result.code, result.json()["steps"]), (0, 12), shown)
        self.assertIn(b"\r\x1b[K", shown)
        self.assertRegex(shown, rb"step \d+/12")
        self.assertNotIn("\x1b", result.out)
        shutil.rmtree(self.folder / "terminal")

    def test_evaluate_agrees_with_the_run_and_with_itself(self):
        result = self.ok("evaluate", self.weights, "--data", "data", "--batch-size", "16", "--json")
        self.assertEqual(len(result.out.splitlines()), 1)
        e = result.json()
        confusion = np.array(e["confusion"])
        self.assertEqual((e["images"], confusion.shape, confusion.sum()), (48, (3, 3), 48))
        self.assertAlmostEqual(e["top1"], np.trace(confusion) / 48)
        self.assertEqual(e["top5"], 1.0)  # there are three classes
        for k, scores in enumerate(e["per_class"]):
            self.assertEqual((scores["name"], scores["support"]), (str(k), confusion[k].sum()))
            precision = confusion[k, k] / max(confusion[:, k].sum(), 1)
            recall = confusion[k, k] / confusion[k].sum()
            self.assertAlmostEqual(scores["precision"], precision)
            self.assertAlmostEqual(scores["recall"], recall)
            self.assertAlmostEqual(scores["f1"], 2 * precision * recall / max(precision + recall, 1e-300))
        row = metrics(self.run_directory)[-1]
        self.assertAlmostEqual(e["loss"], float(row["eval_loss"]), delta=1e-5 * e["loss"])
        self.assertAlmostEqual(e["top1"], float(row["eval_top1"]), places=5)

    def test_evaluate_counts_do_not_depend_on_the_batch_or_the_workers(self):
        whole = self.ok("evaluate", self.weights, "--data", "data", "--json").json()
        for more in (("--batch-size", "7"), ("--workers", "0"), ("--workers", "3", "--threads", "1")):
            other = self.ok("evaluate", self.weights, "--data", "data", "--json", *more).json()
            self.assertEqual(other["images"], 48)
            self.assertAlmostEqual(other["loss"], whole["loss"], delta=1e-4 * whole["loss"], msg=str(more))
        limited = self.ok("evaluate", self.weights, "--data", "data", "--limit", "5", "--json").json()
        self.assertEqual((limited["images"], int(np.sum(limited["confusion"]))), (5, 5))
        train = self.ok("evaluate", self.weights, "--data", "data", "--split", "train", "--json").json()
        self.assertEqual((train["images"], train["split"]), (96, "train"))
        # These files have no third part: the test images stand in for validation, and the answer says so.
        for split in ("test", "validation"):
            asked = ("evaluate", self.weights, "--data", "data", "--split", split)
            self.assertEqual(self.ok(*asked, "--json").json()["split"], "test")
            self.assertIn("48 test images: ", self.ok(*asked).out)

    def test_summary_reads_a_model_file(self):
        summary = self.ok("summary", self.weights, "--json").json()
        self.assertEqual((summary["model"], summary["input_size"]), ("lecture_resnet18", "1x32x32"))
        self.assertEqual(summary["parameters"], PARAMETERS["lecture_resnet18"] - 7 * 513)  # three classes for ten

    def test_a_model_keeps_its_options_and_its_image_size(self):
        self.ok(*self.train("mlp", "--model", "resnet4_mlp", "--set", "model.batch_norm=false", "--max-steps", "2"))
        weights = self.folder / "mlp/last/model.safetensors"
        header, _ = program.read_model(weights)
        self.assertEqual(header["__metadata__"]["model.batch_norm"], "false")
        self.assertFalse([name for name in header if "bn" in name and name != "__metadata__"])
        self.assertIn('"model.batch_norm" = false', (self.folder / "mlp/config.toml").read_text())
        self.assertEqual(self.ok("evaluate", weights, "--data", "data", "--json").json()["images"], 48)
        self.assertEqual(self.ok("summary", weights, "--json").json()["parameters"],
                         (32 * 32 + 1) * 128 + 2 * 129 * 128 + 129 * 3)
        # The net of linear layers has a weight for each pixel, so it cannot run at another size.
        self.ok("benchmark", weights, "--batch-size", "2", "--runs", "3")
        refused = self.call("benchmark", weights, "--batch-size", "2", "--runs", "3", "--image-size", "16")
        self.assertEqual(refused.code, 2, refused.err)
        self.assertIn("--image-size: 16", refused.err)

    def test_equal_commands_give_equal_bytes_and_another_seed_does_not(self):
        self.ok(*self.train("again"))
        self.assert_same_weights(self.weights, self.folder / "again/last/model.safetensors")
        self.ok(*self.train("seed", "--seed", "6", "--max-steps", "1"))
        self.ok(*self.train("one", "--max-steps", "1"))
        first = [program.sha256(self.folder / name / "last/model.safetensors") for name in ("seed", "one")]
        self.assertNotEqual(*first)

    def test_the_config_file_trains_the_same_again(self):
        # A name that TOML must quote.
        odd = self.folder / "it's \"odd\"\\\n\u00e9"
        shutil.copytree(self.folder / "data", odd)
        self.ok(*self.train("odd", "--momentum", "0.9", "--max-steps", "3", data=odd.name))
        self.ok("train", "--config", "odd/config.toml", "--output", "reloaded")
        self.assert_same_weights(self.folder / "odd/last/model.safetensors", self.folder / "reloaded/last/model.safetensors")
        self.assertEqual((self.folder / "odd/config.toml").read_bytes(), (self.folder / "reloaded/config.toml").read_bytes())
        # A flag wins over the file.
        self.assertEqual(self.ok("train", "--config", "odd/config.toml", "--output", "fewer", "--max-steps", "2", "--json").json()["steps"], 2)

    def test_both_spellings_and_set_mean_the_same(self):
        self.ok(*self.train("long", "--weight-decay", "0.01", "--workers", "2", "--max-steps", "2"))
        self.ok(*self.train("short", "--wd=0.01", "-j", "2", "--max-steps=2"))
        self.ok(*self.train("set", "--set", "weight_decay=0.01", "--set", "workers=2", "--set", "max_steps=2"))
        for name in ("short", "set"):
            self.assertEqual((self.folder / name / "config.toml").read_bytes(), (self.folder / "long/config.toml").read_bytes())
        self.assert_same_weights(*(self.folder / name / "last/model.safetensors" for name in ("long", "short", "set")))

    def test_the_locale_changes_nothing(self):
        # A locale of our own making, with a decimal comma: where one is not installed the C library falls back to C.
        locales = self.folder / "locales"
        locales.mkdir()
        subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", "--no-archive", locales / "de_DE.UTF-8"], check=True, capture_output=True)
        environment = {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LOCPATH": str(locales)}
        script = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.format_string('%.1f', 0.5))"
        self.assertEqual(subprocess.check_output([sys.executable, "-c", script], env={**self.env, **environment}, text=True), "0,5\n")
        for number, more in enumerate((environment, {"LC_ALL": "C", "LANG": "C"})):
            run = f"locale{number}"
            self.ok(*self.train(run), env=more)
            self.assert_same_weights(self.weights, self.folder / run / "last/model.safetensors")
            self.assertEqual([row["train_loss"] for row in metrics(self.folder / run)],
                             [row["train_loss"] for row in metrics(self.run_directory)])

    def test_shuffling_is_by_seed_and_no_shuffle_is_the_order_of_the_file(self):
        # Unshuffled, with batches of whole rounds of the classes, the first half of the images is the first half of the steps.
        limited = self.ok(*self.train("limited", "--no-shuffle", "--limit", "48", "--log-every", "1", "--max-steps", "3", "--json"))
        self.ok(*self.train("unlimited", "--no-shuffle", "--log-every", "1", "--max-steps", "3"))
        self.assertEqual(limited.json()["steps"], 3)
        losses = {name: [e["loss"] for e in events(self.folder / name) if e["split"] == "train"][:3] for name in ("limited", "unlimited", "run")}
        self.assertEqual(losses["limited"], losses["unlimited"])
        self.assertNotEqual(losses["unlimited"], losses["run"])

    def test_a_partial_last_batch_is_a_step_of_its_own(self):
        self.ok(*self.train("partial", "--limit", "40", "--log-every", "1"))
        run = self.folder / "partial"
        rows = [e for e in events(run) if e["split"] == "train"]
        self.assertEqual([(e["step"], e["epoch"]) for e in rows], [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)])
        # An image counts as one, whichever batch it is in.
        for epoch, row in enumerate(metrics(run), 1):
            losses = [e["loss"] for e in rows if e["epoch"] == epoch]
            self.assertAlmostEqual(float(row["train_loss"]), np.average(losses, weights=[16, 16, 8]), delta=1e-5 * max(losses))

    def test_max_steps_ends_between_epochs_with_a_checkpoint_and_says_what_was_not_measured(self):
        result = self.ok(*self.train("steps", "--max-steps", "2", "--json"))
        self.assertEqual((result.json()["steps"], result.json()["eval_top1"]), (2, None))
        self.assertEqual(program.last_step(self.folder / "steps"), 2)
        self.assertEqual(metrics(self.folder / "steps"), [])

    def test_weights_begin_where_a_run_ended(self):
        self.ok(*self.train("from", "--weights", self.weights, "--lr", "0", "--max-steps", "1"))
        (old, old_data), (new, new_data) = (program.read_model(f) for f in (self.weights, self.folder / "from/last/model.safetensors"))
        for name, tensor in old.items():
            if name == "__metadata__" or "running" in name:
                continue
            a, b = (d[slice(*h[name]["data_offsets"])] for h, d in ((old, old_data), (new, new_data)))
            self.assertEqual(a, b, f"{name}: a learning rate of 0 changed it")

    def test_the_last_of_repeated_flags_wins(self):
        self.assertEqual(self.ok(*self.train("last", "--max-steps", "5", "--max-steps", "1", "--json")).json()["steps"], 1)

    def test_names_that_are_no_utf8_are_written_as_json_all_the_same(self):
        result = self.ok(*self.train(b"byte-\xff".decode(errors="surrogateescape"), "--max-steps", "1", "--json"))
        self.assertEqual(result.json()["output"], "byte-\ufffd")


class Benchmark(ProgramTest):
    def test_both_modes_say_what_was_measured_and_how_it_spread(self):
        for mode in ("inference", "training"):
            with self.subTest(mode=mode):
                result = self.ok("benchmark", "lecture_resnet18", "--mode", mode, "--batch-size", "2", "--image-size", "32",
                                 "--runs", "3", "--json")
                self.assertEqual(len(result.out.splitlines()), 1)
                b = result.json()
                self.assertEqual((b["model"], b["mode"], b["batch_size"], b["precision"]), ("lecture_resnet18", mode, 2, "f32"))
                speed = b["images_per_second"]
                self.assertTrue(0 < speed["min"] <= speed["median"] <= speed["max"], speed)
                self.assertGreaterEqual(b["threads"], 1)
                self.assertGreater(b["peak_share"], 0)
                self.assertGreater(b["peak_bytes"], 0)
                self.assertNotRegex(result.err, "[\x00-\x09\x0b-\x1f\x7f]")

    def test_choices_that_cannot_be_kept_are_told(self):
        result = self.ok("benchmark", "resnet20_cifar_a", "--batch-size", "1", "--runs", "1", env={"XDG_CACHE_HOME": "/dev/null"})
        self.assertRegex(result.err, r"resnet: warning: /dev/null/.*cannot write")

    def test_the_plan_has_algorithm_bytes_and_both_times_of_each_step(self):
        flags = ("benchmark", "lecture_resnet18", "--batch-size", "4", "--micro-batch", "2", "--image-size", "32", "--runs", "3", "--dump-plan")
        b = self.ok(*flags, "--json").json()
        plan = b["plan"]
        self.assertEqual(sum(step["op"].startswith("conv2d") for step in plan), 20)
        for step in plan:
            self.assertGreater(step["bytes"], 0, step)
            self.assertEqual(step["offset"] % 64, 0, step)
            self.assertTrue(step["algorithm"] and step["layout"], step)
            # The longer of its FLOPs at the measured peak and of its bytes at the memory's pace.
            self.assertGreaterEqual(step["predicted_ms"] * b["fma_peak_gflops"] * 1e6, 0.999 * step["flops"], step)
            self.assertGreater(step["predicted_ms"], 0, step)
            self.assertGreater(step["measured_ms"], 0, step)
        # A batch is two runs of the program, and steps are timed within a run.
        self.assertLessEqual(2 * sum(step["measured_ms"] for step in plan), 1.001 * 1e3 * sum(b["seconds"]) / 3)
        lines = self.ok(*flags).err.splitlines()
        heads = ("op", "name", "algorithm", "result", "MFLOP", "KiB moved", "offset", "predicted ms", "measured ms")
        table = next(i for i, line in enumerate(lines) if all(head in line for head in heads))
        names = [line.split()[0] for line in lines[table + 1:table + 1 + len(plan)]]
        self.assertEqual(names, [step["op"] for step in plan])
        self.assertRegex(lines[table + 1 + len(plan)], rf"^{len(plan)} steps for 2 images, predicted [0-9.]+ ms, measured [0-9.]+ ms")

    @unittest.skipIf(program.THREAD_LIMIT is not None and program.THREAD_LIMIT < 2, "OMP_THREAD_LIMIT leaves no two threads")
    def test_the_plan_of_one_of_two_streams(self):
        flags = ("benchmark", "lecture_resnet18", "--batch-size", "5", "--micro-batch", "4", "--streams", "2", "--threads", "2",
                 "--image-size", "32", "--runs", "1", "--dump-plan", "--profile")
        result = self.ok(*flags, "--json")
        b = result.json()
        self.assertEqual((b["micro_batch"], b["streams"]), (4, 2))
        for step in b["plan"]:
            self.assertGreater(step["measured_ms"], 0, step)
            # One thread's share of the peak.
            self.assertGreaterEqual(step["predicted_ms"] * b["fma_peak_gflops"] / 2 * 1e6, 0.999 * step["flops"], step)
        result = self.ok(*flags)
        self.assertIn("4 images at a time, in 2 streams of one thread each", result.out)
        self.assertIn(" steps for 2 images in one of 2 streams, predicted ", result.err)
        self.assertNotIn("nan", result.err + result.out)
        refused = self.call("benchmark", "lecture_resnet18", "--threads", "2", "--streams", "2", "--micro-batch", "1")
        self.assertEqual((refused.code, refused.err), (2, "resnet: error: --micro-batch: 1; expected 0, or an image for each of 2 streams\n"))


if __name__ == "__main__":
    program.main()
