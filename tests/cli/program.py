"""What the end-to-end tests share: the program and how it is run, and data sets small enough to train on in a second.

Every test file takes the program's path as its first argument, or from the environment variable RESNET.
"""
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

# How many times as long as usual a run may take: under ThreadSanitizer, with one OpenMP thread, some take ten.
PATIENCE = float(os.environ.get("RESNET_TEST_PATIENCE", "1"))
HANG_SECONDS = 120 * PATIENCE  # longer than any run takes, even under another sanitizer
# Threads that OpenMP gives; None: as many as are asked for.
THREAD_LIMIT = int(os.environ["OMP_THREAD_LIMIT"]) if "OMP_THREAD_LIMIT" in os.environ else None


@dataclasses.dataclass
class Result:
    code: int  # negative: death by signal
    out: str
    err: str
    cpu_seconds: float
    peak_bytes: int

    def json(self):
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


class Running:
    """A started program; its output is collected in files, so that it never waits for a reader."""

    def __init__(self, arguments, cwd, env, stdout=None, preexec=None):
        self.arguments = arguments
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = subprocess.Popen([os.fsencode(a) for a in arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                                        stdout=self.out if stdout is None else stdout, stderr=self.err, preexec_fn=preexec)

    @staticmethod
    def _text(file):
        return os.pread(file.fileno(), 1 << 24, 0).decode(errors="surrogateescape")

    def stderr_so_far(self):
        return self._text(self.err)

    def done(self):
        """Whether it has ended; collects its exit status and usage then."""
        if self.process.returncode is None:
            pid, status, self.usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode is not None

    def send(self, number):
        """A signal, if the program still runs."""
        if not self.done():
            os.kill(self.process.pid, number)

    def stop(self):
        """SIGSTOP; it has stopped, or ended, when this returns."""
        self.send(signal.SIGSTOP)
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        self.wait_until(lambda: self.done() or "State:\tT" in status.read_text())

    def wait_until(self, condition, seconds=HANG_SECONDS):
        """Polls until `condition()` holds or the program has ended; says whether it held."""
        end = time.monotonic() + seconds
        while not condition():
            if self.done():
                return condition()
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise AssertionError(f"still running after {seconds} s: {self.arguments}\n{self.stderr_so_far()}")
            time.sleep(0.002)
        return True

    def wait(self, seconds=HANG_SECONDS):
        self.wait_until(self.done, seconds)
        result = Result(self.process.returncode, self._text(self.out), self._text(self.err),
                        self.usage.ru_utime + self.usage.ru_stime, self.usage.ru_maxrss * 1024)
        self.out.close()
        self.err.close()
        return result


class ProgramTest(unittest.TestCase):
    """Tests in one scratch folder a class, `self.folder`, which is the program's working directory too."""

    @classmethod
    def setUpClass(cls):
        # In memory where there is room: checkpoints are synced to the disk otherwise, hundreds of them.
        shared = pathlib.Path("/dev/shm")
        roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 8 << 30
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="resnet-cli-", dir=shared if roomy else None))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.env = {**os.environ, "XDG_CACHE_HOME": str(_cache()), "OMP_WAIT_POLICY": "passive", "LC_ALL": "C.UTF-8"}
        # RESNET_CONV_ALGORITHM, RESNET_CONV_WITHOUT and RESNET_MAX_ISA stay: the suite must pass with each family of kernels switched off.
        for name in ("RESNET_F16", "RESNET_WEIGHTS_CACHE_MIB"):
            cls.env.pop(name, None)

    def start(self, *arguments, env=None, cwd=None, **options):
        running = Running([PROGRAM, *map(str, arguments)], cwd or self.folder, {**self.env, **(env or {})}, **options)
        self.addCleanup(running.send, signal.SIGKILL)
        return running

    def call(self, *arguments, seconds=HANG_SECONDS, **options):
        return self.start(*arguments, **options).wait(seconds)

    def ok(self, *arguments, **options):
        result = self.call(*arguments, **options)
        self.assertEqual(result.code, 0, f"{arguments}\n{result.err}")
        return result

    def assert_same_weights(self, *files):
        """Files of the same bytes."""
        self.assertEqual(1, len({sha256(f) for f in files}), f"not the same bytes: {[str(f) for f in files]}")


def _cache():
    """One cache for the whole process, so that algorithms are measured once."""
    global _cache_folder
    if _cache_folder is None:
        _cache_folder = tempfile.TemporaryDirectory(prefix="resnet-cli-cache-")
    return _cache_folder.name


_cache_folder = None
PROGRAM = os.environ.get("RESNET", "")

# A run of about a second: 96 images of three kinds, six steps an epoch.
SMALL = ("--model", "lecture_resnet18", "--image-size", "32", "--batch-size", "16", "--lr", "0.01")


def main():
    global PROGRAM
    if len(sys.argv) > 1 and os.access(sys.argv[1], os.X_OK) and os.path.isfile(sys.argv[1]):
        PROGRAM = sys.argv.pop(1)
    if not PROGRAM:
        sys.exit(f"usage: {sys.argv[0]} PATH/OF/resnet [unittest's arguments], or with RESNET in the environment")
    sys.modules["program"].PROGRAM = PROGRAM = os.path.abspath(PROGRAM)
    unittest.main(module="__main__")


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def idx_images(pixels):
    return struct.pack(">4I", 0x803, *pixels.shape) + pixels.astype(np.uint8).tobytes()


def idx_labels(labels):
    return struct.pack(">2I", 0x801, len(labels)) + np.asarray(labels, np.uint8).tobytes()


def write_data(folder, train=96, test=48, classes=3, side=12, seed=7):
    """An idx folder in which a class is a brightness: images a network can learn."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for stem, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % classes
        pixels = rng.integers(0, 90, (count, side, side)) + labels[:, None, None] * (160 // classes)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_images(pixels))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_labels(labels))
    return folder


def events(run):
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def metrics(run):
    """Rows of metrics.csv as dicts of text."""
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]


def read_model(path):
    """(header as JSON, data) of a safetensors file."""
    content = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:8 + size]), content[8 + size:]


def write_model(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def last_step(run):
    """N of the checkpoint behind `last`, step-N or, while another of its number is replaced, .tmp-PID-N; 0 when there is none yet."""
    if not (run / "last").is_symlink():
        return 0
    return int(re.fullmatch(r"(?:step|\.tmp-\d+)-(\d+)(?:-\d+)?", os.readlink(run / "last"))[1])
