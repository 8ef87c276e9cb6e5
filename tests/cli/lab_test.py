#!/usr/bin/python3
"""The lab from outside: its list, its reports, what it refuses before hours of measuring, and what Ctrl-C leaves."""
import json
import shlex
import signal
import time

import program
from program import ProgramTest

EXPERIMENTS = ["gradient-flow", "identity", "nesting", "degradation", "depth", "mlp"]
# Every experiment in a second or two.
SMALL = ("--quick", "--data", "data", "--image-size", 12, "--depths", "8,14", "--limit", 32, "--batch-size", 16, "--threads", 2)
ALL = (*SMALL, "--steps", 2, "--layers", 8)


class Lab(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program.write_data(cls.folder / "data")

    def assert_refused(self, code, parts, *arguments, **options):
        result = self.call("lab", *arguments, **options)
        self.assertEqual(result.code, code, result.err)
        self.assertEqual((result.out, len(result.err.splitlines())), ("", 1), result.err)
        self.assertTrue(result.err.startswith("resnet: error: "), result.err)
        for part in parts:
            self.assertIn(part, result.err)

    def test_alone_it_lists_the_experiments_a_line_each(self):
        lines = self.ok("lab").out.splitlines()
        self.assertEqual([line.split()[0] for line in lines], [*EXPERIMENTS, "all"])
        self.assertEqual([e["experiment"] for e in self.ok("lab", "--json").json()], EXPERIMENTS)

    def test_all_writes_every_report_and_their_index(self):
        start = time.monotonic()
        result = self.ok("lab", "all", *ALL, "--epochs", 1, "--output", "reports")
        if time.monotonic() - start > 4:  # a line after two seconds
            self.assertRegex(result.err, rf"(?m)^({'|'.join(EXPERIMENTS)}) \(\d/6\)  \d+ %")
        for name in EXPERIMENTS:
            with self.subTest(name=name):
                page = (self.folder / f"reports/{name}.html").read_text()
                self.assertIn(f"resnet lab {name} --quick --data data", page)
                self.assertNotIn("src=\"http", page)
                for kind in ("csv", "svg", "png"):
                    self.assertTrue(list((self.folder / "reports").glob(f"{name}*.{kind}")), kind)
                self.assertIn(f"report: reports/{name}.html", result.out)
                self.assertIn(f'href="{name}.html"', (self.folder / "reports/index.html").read_text())
        self.assertIn("all reports: reports/index.html", result.out)
        self.assertNotIn("\x1b", result.err)

    def test_json_holds_what_was_measured(self):
        result = self.ok("lab", "identity", *SMALL, "--steps", 2, "--output", "json", "--json")
        (report,) = result.json()
        self.assertEqual(report["experiment"], "identity")
        blocks = report["tables"]["Blocks"]
        self.assertEqual(len(blocks["rows"]), 2 * (3 + 6), "before and after, three blocks of 8 layers, six of 14")
        gap = blocks["header"].index("largest gap / largest value")
        self.assertLess(max(float(row[gap]) for row in blocks["rows"]), 1e-5)

    def test_the_command_of_a_report_gives_the_report_again(self):
        reports = self.ok("lab", "all", *ALL, "--epochs", 1, "--output", "one", "--json").json()
        self.assertEqual([r["experiment"] for r in reports], EXPERIMENTS)
        for report in reports:
            with self.subTest(report["experiment"]):
                command = shlex.split(report["command"])
                self.assertEqual(command[:3], ["resnet", "lab", report["experiment"]])
                again = self.ok(*command[1:], "--output", "two", "--json").json()[0]
                self.assertEqual(again["command"], report["command"])
                self.assertEqual(set(again["tables"]), set(report["tables"]))

    def test_flags_may_come_before_the_experiment(self):
        self.ok("lab", "--quick", "--data", "data", "--image-size", 12, "--limit", 32, "--batch-size", 16, "--steps", 1, "--output",
                "order", "--depths", "8", "identity")

    def test_what_an_experiment_does_not_look_at_is_refused(self):
        self.assert_refused(2, ("--epochs", "identity does not take it", "--depths, --steps"), "identity", "--epochs", 3)
        self.assert_refused(2, ("--layers", "mlp"), "mlp", "--layers", 8)
        self.assert_refused(2, ("'gradient-flo'", "gradient-flow"), "gradient-flo")
        self.assert_refused(2, ("--depths: 3", "4 to 5000"), "gradient-flow", "--depths", "3")
        self.assert_refused(2, ("two depths", "20,32"), "nesting", "--depths", "20,32,44")
        self.assert_refused(2, ("two depths", "20,32"), "all", "--depths", "8,14,20", "--output", "none")
        self.assert_refused(2, ("--depths: 20,20", "ascending"), "identity", "--depths", "20,20")
        self.assert_refused(2, ("21", "6n + 2"), "gradient-flow", "--depths", "21", "--output", "none")
        self.assert_refused(2, ("backend 'gpu'",), "identity", "--backend", "gpu", "--output", "none")
        self.assert_refused(2, ("--batch-norm: 'maybe'", "on, off or both"), "mlp", "--batch-norm", "maybe")

    def test_a_folder_that_takes_no_reports_is_refused_before_anything_is_measured(self):
        (self.folder / "file").write_text("not a folder")
        self.assert_refused(4, ("file/reports",), "depth", "--output", "file/reports")
        self.assert_refused(4, ("/proc/reports",), "depth", "--output", "/proc/reports")

    def test_data_that_is_not_there_is_refused_and_leaves_no_folder(self):
        self.assert_refused(2, ("nowhere",), "identity", "--data", "nowhere", "--output", "none")
        self.assertFalse((self.folder / "none").exists())

    def test_ctrl_c_leaves_the_finished_reports_and_a_run_that_goes_on(self):
        running = self.start("lab", "all", *ALL, "--epochs", 1000, "--output", "stopped")
        reports = self.folder / "stopped"
        self.assertTrue(running.wait_until(lambda: list(reports.glob("runs/plain8_cifar-*/last"))))
        running.send(signal.SIGINT)
        result = running.wait()
        self.assertEqual(result.code, 130, result.err)
        self.assertIn("3 of 6 reports are written", result.err)
        self.assertEqual(sorted(p.stem for p in reports.glob("*.html")), ["gradient-flow", "identity", "index", "nesting"])
        (run,) = reports.glob("runs/*")
        first = json.loads((run / "events.jsonl").read_text().splitlines()[0])
        again = self.start("lab", "degradation", *SMALL, "--epochs", 1000, "--output", "stopped")
        self.assertTrue(again.wait_until(lambda: program.last_step(run) > 100))
        again.send(signal.SIGTERM)
        self.assertEqual(again.wait().code, 143)
        self.assertEqual(json.loads((run / "events.jsonl").read_text().splitlines()[0]), first, "the run was continued")


if __name__ == "__main__":
    program.main()
