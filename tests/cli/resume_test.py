#!/usr/bin/python3
"""A run that is killed or stopped anywhere and resumed ends with the bytes of one that never stopped."""
import json
import os
import random
import shutil
import signal
import time

import numpy as np
import program
from program import SMALL, ProgramTest, events, last_step, metrics

EPOCHS, STEPS_AN_EPOCH = 2, 4
# A run for signals that must meet a certain moment: epochs and evaluations that last, and checkpoints at epochs' ends only.
LONG, LONG_STEPS = ("--data", "long", "--checkpoint-every", "0"), 16
# Columns and fields that do not depend on the clock.
METRICS = ("epoch", "train_loss", "train_top1", "eval_loss", "eval_top1", "eval_top5", "lr")
EVENTS = ("step", "epoch", "split", "loss", "top1", "lr")


def is_planned(running):
    return lambda: "one step:" in running.stderr_so_far()


class Resume(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.seed = int(os.environ.get("RESNET_TEST_SEED") or time.time_ns() % 1_000_000)
        print(f"RESNET_TEST_SEED={cls.seed}", flush=True)
        program.write_data(cls.folder / "data", train=64, test=112)
        program.write_data(cls.folder / "long", train=LONG_STEPS * 16, test=800)
        cls.whole = {}

    def setUp(self):
        self.random = random.Random(f"{self.seed} {self.id()}")

    def train(self, output, *more):
        return ("train", *SMALL, "--data", "data", "--epochs", EPOCHS, "--checkpoint-every", "1", "--log-every", "1",
                "--seed", "3", "--output", output, *more)

    def uninterrupted(self, *more):
        """The run that never stops, made once for each set of flags."""
        if more not in self.whole:
            run = self.folder / f"whole{len(self.whole)}"
            self.ok(*self.train(run, *more))
            self.whole[more] = run
        return self.whole[more]

    def assert_as_if_never_stopped(self, run, whole, steps_an_epoch=STEPS_AN_EPOCH):
        told = f"RESNET_TEST_SEED={self.seed}"
        self.assertEqual(last_step(run), EPOCHS * steps_an_epoch, told)
        for file in ("last/model.safetensors", "best.safetensors", "config.toml"):
            self.assertEqual(program.sha256(run / file), program.sha256(whole / file), f"{file}; {told}")
        for kind, read, fields in (("metrics.csv", metrics, METRICS), ("events.jsonl", events, EVENTS)):
            rows, expected = ([{f: row.get(f) for f in fields} for row in read(r)] for r in (run, whole))
            self.assertEqual(rows, expected, f"{kind}; {told}")
        self.assertEqual([e["step"] for e in events(run) if e["split"] == "train"],
                         list(range(1, EPOCHS * steps_an_epoch + 1)), told)
        self.assertEqual([e["step"] for e in events(run) if e["split"] == "test"],
                         [epoch * steps_an_epoch for epoch in range(1, EPOCHS + 1)], told)
        self.assertEqual([p.name for p in run.glob(".tmp-*")], [], told)

    def continued(self, run, *more):
        """Starts the run, or goes on with it."""
        return self.start("train", "--resume", run) if (run / "config.toml").exists() else self.start(*self.train(run, *more))

    def interrupt(self, run, number, *more):
        """One process, sent a signal at a random moment of its start or of its steps; and whether it came in time."""
        running = self.continued(run, *more)
        if self.random.random() < 0.8:
            running.wait_until(is_planned(running))
            time.sleep(self.random.uniform(0, 0.5))
        else:
            time.sleep(self.random.uniform(0.02, 0.3))
        running.send(number)
        result = running.wait()
        return result, result.code != 0  # it may have ended by itself until the signal was sent

    def survive_ten(self, number, *more):
        """Ten interruptions, over as many runs as that takes; each run is finished and compared."""
        whole = self.uninterrupted(*more)
        codes, run_number = [], 0
        while len(codes) < 10:
            run_number += 1
            run = self.folder / f"run-{self._testMethodName}-{run_number}"
            while len(codes) < 10 and last_step(run) < EPOCHS * STEPS_AN_EPOCH:
                result, sent = self.interrupt(run, number, *more)
                if not sent:
                    self.assertEqual(result.code, 0, result.err)
                    break
                codes.append(result.code)
            finished = self.continued(run, *more).wait()
            self.assertEqual(finished.code, 0, finished.err)
            self.assert_as_if_never_stopped(run, whole)
            shutil.rmtree(run)
        return codes

    def test_ten_kills_change_no_byte(self):
        self.assertEqual(set(self.survive_ten(signal.SIGKILL)), {-signal.SIGKILL})

    def test_ten_kills_change_no_byte_with_momentum(self):
        flags = ("--momentum", "0.9", "--weight-decay", "1e-4", "--lr-scheduler", "cosineannealinglr")
        self.assertEqual(set(self.survive_ten(signal.SIGKILL, *flags)), {-signal.SIGKILL})

    def test_a_cifar_recipe_stopped_in_its_warm_up_and_after_a_decay_changes_no_byte(self):
        flags = ("--momentum", "0.9", "--lr-scheduler", "multisteplr", "--lr-milestones", "1", "--lr-warmup-epochs", "0.5",
                 "--lr-warmup-method", "linear", "--lr-warmup-decay", "0.1", "--random-crop-padding", "4", "--hflip-prob", "0.5",
                 "--workers", "3")
        whole, run = self.uninterrupted(*flags), self.folder / "recipe"
        self.ok(*self.train(run, *flags, "--max-steps", "1"))
        running = self.start("train", "--resume", run, "--max-steps", "7")
        running.wait_until(lambda: last_step(run) >= 3)
        running.send(signal.SIGKILL)
        running.wait()
        self.ok("train", "--resume", run, "--max-steps", "7")
        self.ok("train", "--resume", run, "--max-steps", "0")
        self.assert_as_if_never_stopped(run, whole)
        # Half an epoch of warm-up is two steps; the milestone is an epoch after it.
        rates = [e["lr"] for e in events(run) if e["split"] == "train"]
        np.testing.assert_allclose(rates, [0.001, 0.0055, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001], rtol=1e-12)
        # The first step's weights are the same without augmentation; its images are not.
        plain = self.folder / "recipe-plain"
        self.ok(*self.train(plain, *flags, "--random-crop-padding", "0", "--hflip-prob", "0", "--max-steps", "1"))
        self.assertNotEqual(events(plain)[0]["loss"], events(run)[0]["loss"])

    def stop_long_run(self, run, number, after):
        """A long run, sent the signal as soon as it has logged `after` steps. On a busy machine it may be further by then."""
        running = self.start(*self.train(run, *LONG))
        running.wait_until(lambda: (run / "events.jsonl").exists() and len(events_so_far(run)) >= after)
        running.send(number)
        return running.wait()

    def stop_and_finish(self, number, code):
        whole = self.uninterrupted(*LONG)
        for attempt in range(10):
            run = self.folder / f"stopped-by-{number}-{attempt}"
            result = self.stop_long_run(run, number, after=1)
            # Within the first epoch: what is resumed is what the signal made it save.
            if 0 < last_step(run) < LONG_STEPS:
                break
        else:
            self.fail("no signal met a step of the first epoch")
        self.assertEqual(result.code, code, result.err)
        self.assertEqual([p.name for p in run.glob("step-*")], [f"step-{last_step(run)}"])
        self.ok("train", "--resume", run)
        self.assert_as_if_never_stopped(run, whole, LONG_STEPS)

    def test_sigterm_saves_and_exits_with_143(self):
        self.stop_and_finish(signal.SIGTERM, 143)

    def test_sigint_saves_and_exits_with_130(self):
        self.stop_and_finish(signal.SIGINT, 130)

    def test_a_signal_during_evaluation_leaves_the_epoch_to_be_evaluated_again(self):
        whole = self.uninterrupted(*LONG)
        for attempt in range(10):
            run = self.folder / f"evaluating-{attempt}"
            result = self.stop_long_run(run, signal.SIGTERM, after=LONG_STEPS)
            if last_step(run) == LONG_STEPS and json.loads((run / "last/state.json").read_text())["evaluation_pending"]:
                break
        else:
            self.fail("no signal met the first evaluation")
        self.assertEqual((result.code, metrics(run)), (143, []), result.err)
        # As a kill leaves it between the epoch's event and its checkpoint.
        with open(run / "events.jsonl", "a", encoding="utf-8") as file:
            file.write(f'{{"step":{LONG_STEPS},"epoch":1,"split":"test","loss":1,"top1":0,"top5":1}}\n{{"step":{LONG_STEPS + 1},"epo')
        self.ok("train", "--resume", run)
        self.assert_as_if_never_stopped(run, whole, LONG_STEPS)

    def test_a_second_signal_stops_at_once_and_loses_nothing_saved(self):
        run = self.folder / "second"
        running = self.start(*self.train(run, "--epochs", "50"))
        running.wait_until(lambda: last_step(run) >= 2)
        # Stopped, so that both arrive before it can act on the first.
        running.stop()
        before = last_step(run)
        running.send(signal.SIGINT)
        running.send(signal.SIGTERM)
        running.send(signal.SIGCONT)
        result = running.wait()
        self.assertIn(result.code, (130, 143), result.err)
        # A clean stop ends the step and saves it.
        self.assertLessEqual(last_step(run), before + 1)
        self.ok("evaluate", run / "last/model.safetensors", "--data", "data", "--limit", "16")
        self.ok("train", "--resume", run, "--epochs", EPOCHS)
        self.assertEqual(program.sha256(run / "last/model.safetensors"),
                         program.sha256(self.uninterrupted() / "last/model.safetensors"))

    def test_a_run_killed_before_its_first_checkpoint_begins_again(self):
        for attempt in range(10):
            run = self.folder / f"early-{attempt}"
            running = self.start(*self.train(run))
            running.wait_until((run / "config.toml").exists)
            running.send(signal.SIGKILL)
            code = running.wait().code
            if last_step(run) == 0:  # on a busy machine the kill may come later
                break
        else:
            self.fail("no signal came before the first checkpoint")
        self.assertEqual(code, -signal.SIGKILL)
        self.assertIn("no checkpoint yet", self.ok("train", "--resume", run).err)
        self.assert_as_if_never_stopped(run, self.uninterrupted())

    def test_a_named_checkpoint_is_where_it_goes_on(self):
        whole, run = self.uninterrupted(), self.folder / "named"
        self.ok(*self.train(run, "--max-steps", "6"))
        self.assertEqual(last_step(run), 6)
        result = self.ok("train", "--resume", run / "step-5", "--max-steps", "0")
        self.assertIn("steps 5 to 8", result.err)
        for slash in ("", "/"):
            self.assertIn("steps 8 to 8", self.ok("train", "--resume", f"{run}/last{slash}").err)
        self.assertEqual(sorted(p.name for p in (run / "last/").iterdir()),
                         ["config.toml", "manifest.json", "model.safetensors", "state.json"])
        self.ok("train", "--resume", run, "--max-steps", "0")
        self.assert_as_if_never_stopped(run, whole)

    def test_a_longer_run_is_the_short_one_continued(self):
        run = self.folder / "longer"
        self.ok(*self.train(run, "--epochs", "1"))
        result = self.ok("train", "--resume", run, "--epochs", EPOCHS, "--json")
        self.assertEqual(result.json()["steps"], EPOCHS * STEPS_AN_EPOCH)
        self.assert_as_if_never_stopped(run, self.uninterrupted())

    def test_the_newest_run_is_the_one_resumed_when_none_is_named(self):
        folder = self.folder / "newest"
        folder.mkdir()
        for name in ("first", "second"):
            self.ok("train", *SMALL, "--data", "../data", "--max-steps", "1", "--output", f"runs/{name}", cwd=folder)
        result = self.ok("train", "--resume", "--max-steps", "2", "--json", cwd=folder)
        self.assertEqual((result.json()["steps"], result.json()["output"]), (2, "runs/second"))


def events_so_far(run):
    """Whole lines of events.jsonl while it is written."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text().split("\n")[:-1]]


if __name__ == "__main__":
    program.main()
