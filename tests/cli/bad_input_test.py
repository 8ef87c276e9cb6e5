#!/usr/bin/python3
"""Bad input: the right exit code, one clear line, at once, and nothing left behind or changed."""
import ctypes
import fcntl
import gzip
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import zipfile
import zlib

import numpy as np
import program
from program import SMALL, ProgramTest, last_step

# Of the program's own work, for waiting does not count. A second is promised; an instrumented build sets another figure.
CPU_SECONDS = float(os.environ.get("RESNET_TEST_CPU_SECONDS", "1"))
PEAK_BYTES = 1 << 30

USAGE, BAD_DATA, IO, LIMIT, DIVERGED, REFUSED = 2, 3, 4, 5, 6, 8
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def obey_permissions():
    """In the child, before it becomes the program: root without its right to pass over permissions, which a user never had."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) if os.geteuid() == 0 else ():
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot drop a capability of root's")


LIBC = ctypes.CDLL(None, use_errno=True)


def snapshot(folder):
    """Everything below `folder`: names, kinds, sizes and times of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


class BadInput(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good = program.write_data(cls.folder / "data")
        run = program.Running([program.PROGRAM, "train", *SMALL, "--data", "data", "--max-steps", "2", "--checkpoint-every", "1",
                               "--momentum", "0.9", "--output", "run"], cls.folder, cls.env).wait()
        assert run.code == 0, run.err
        # A model file whose 45 MB of weights are shared: tests write headers of their own before them.
        cls.header, cls.weights = program.read_model(cls.folder / "run/last/model.safetensors")

    def assert_refused(self, code, parts, *arguments, where=None, cpu_seconds=CPU_SECONDS, **options):
        """`arguments` end with `code` and one line that holds all of `parts`; nothing below the scratch folder changes."""
        before = snapshot(self.folder)
        result = self.call(*arguments, **options)
        told = f"{arguments} {where or ''}\nexit code {result.code}\n{result.err}"
        self.assertEqual(result.code, code, told)
        lines = [line for line in result.err.split("\n") if line and not line.startswith("reading ")]
        self.assertEqual(len(lines), 1, told)
        self.assertTrue(lines[0].startswith("resnet: error: "), told)
        for part in [parts] if isinstance(parts, str) else parts:
            self.assertIn(part, lines[0], told)
        self.assertFalse([c for c in result.err if (ord(c) < 32 and c != "\n") or ord(c) == 127], told)
        self.assertEqual(result.out, "", told)
        self.assertEqual(snapshot(self.folder), before, told)
        self.assertLess(result.cpu_seconds, cpu_seconds, told)
        self.assertLess(result.peak_bytes, PEAK_BYTES, told)
        return result

    def train(self, *more, data="data", output="new"):
        return ("train", *SMALL, "--data", data, "--output", output, *more)


class CommandLine(BadInput):
    def test_wrong_values_of_train_flags_name_the_flag_and_what_is_accepted(self):
        for more, parts in [
                (("--batch-size", "0"), ("--batch-size: 0", "1 to")),
                (("--batch-size", "-4"), "--batch-size: -4"),
                (("--batch-size", "1.5"), ("batch-size", "1.5")),
                (("--batch-size", "99999999999999999999"), ("batch-size", "99999999999999999999")),
                (("--batch-size", ""), "batch-size"),
                (("--lr", "nan"), ("--lr: nan", "finite")),
                (("--lr", "inf"), "--lr: inf"),
                (("--lr", "-1"), "--lr: -1"),
                (("--lr", "0,05"), ("lr", "0,05")),
                (("--lr", "fast"), ("lr", "fast")),
                (("--lr",), "lr"),
                (("--momentum", "1"), ("--momentum: 1", "[0, 1)")),
                (("--weight-decay", "nan"), "--weight-decay: nan"),
                (("--wd", "-1"), "--weight-decay: -1"),
                (("--label-smoothing", "1"), "--label-smoothing: 1"),
                (("--nesterov",), ("--nesterov", "--momentum")),
                (("--lr-scheduler", "cosine"), ("--lr-scheduler: 'cosine'", "cosineannealinglr", "multisteplr")),
                (("--lr-scheduler", "multisteplr"), ("--lr-scheduler: multisteplr alone", "--lr-milestones")),
                (("--lr-step-size", "0"), ("--lr-step-size: 0", "epochs")),
                (("--lr-step-size", "2.5"), ("--lr-step-size", "2.5")),
                (("--lr-gamma", "1.1"), ("--lr-gamma: 1.1", "[0, 1]")),
                (("--lr-gamma", "nan"), "--lr-gamma: nan"),
                (("--lr-milestones", "82,123"), ("--lr-milestones: the scheduler is constant", "multisteplr")),
                *((("--lr-scheduler", "multisteplr", "--lr-milestones", value), ("--lr-milestones", part))
                  for value, part in [("82,8", ": 8;"), ("8,8", ": 8;"), ("0,8", ": 0;"), ("-1", ": -1;"), ("1.5", "'1.5'"),
                                      ("0x10", "'0x10'"), ("8,1.5", "'1.5'"), ("8;9", "'8;9'"), ("", "''"),
                                      ("99999999999999999999", "'99999999999999999999'")]),
                (("--lr-milestones",), "--lr-milestones"),
                (("--lr-warmup-epochs", "-1"), ("--lr-warmup-epochs: -1", "--epochs")),
                (("--lr-warmup-epochs", "11"), ("--lr-warmup-epochs: 11", "--epochs")),
                (("--lr-warmup-epochs", "nan"), "--lr-warmup-epochs: nan"),
                (("--lr-warmup-method", "cosine"), ("--lr-warmup-method: 'cosine'", "constant or linear")),
                (("--lr-warmup-decay", "2"), ("--lr-warmup-decay: 2", "[0, 1]")),
                (("--random-crop-padding", "-1"), ("--random-crop-padding: -1", "--image-size")),
                (("--random-crop-padding", "32"), ("--random-crop-padding: 32", "--image-size")),
                (("--random-crop-padding", "1.5"), ("--random-crop-padding", "1.5")),
                (("--hflip-prob", "1.5"), ("--hflip-prob: 1.5", "[0, 1]")),
                (("--hflip-prob", "-0.5"), "--hflip-prob: -0.5"),
                (("--hflip-prob", "nan"), "--hflip-prob: nan"),
                (("--epochs", "0"), "--epochs: 0"),
                (("--image-size", "0"), "--image-size: 0"),
                (("--image-size", "1000000"), "--image-size: 1000000"),
                (("--seed", "-1"), "--seed: -1"),
                (("--threads", "-1"), "--threads: -1"),
                (("--threads", "100000"), "--threads: 100000"),
                (("--workers", "1000"), "--workers: 1000"),
                (("--limit", "-1"), "--limit: -1"),
                (("--limit", "97"), ("--limit: 97", "96")),
                (("--max-steps", "-1"), "--max-steps: -1"),
                (("--log-every", "0"), "--log-every: 0"),
                (("--checkpoint-every", "-1"), "--checkpoint-every: -1"),
                (("--backend", "gpu"), ("--backend: 'gpu'", "cpu or reference")),
                (("--precision", "f16"), ("--precision: 'f16'", "f32 or f64")),
                (("--precision", "f64"), ("--precision", "--backend reference")),
                (("--disable-pass", "fuse"), ("--disable-pass", "'fuse'", "nearest")),
                (("--set", "lrr=1"), ("'lrr'", "nearest: lr")),
                (("--set", "model.stem_pading=1"), ("'model.stem_pading'", "model.stem_padding")),
                (("--set", "model.stem_padding=99"), ("model.stem_padding", "99")),
                (("--set", "model.init=he"), ("model.init", "'he'", "kaiming")),
                (("--set", "model.batch_norm=false"), ("lecture_resnet18", "model.batch_norm", "it takes model.stem_padding")),
                (("--model", "plain20_cifar", "--set", "model.zero_init_residual=true"), ("model.zero_init_residual", "model.init")),
                (("--model", "resnet21_cifar_a"), ("6n + 2", "20 and 26")),
                (("--set", "lr"), ("--set: 'lr'", "key=value")),
                (("--set", "lr=fast"), ("--set", "lr", "fast")),
                (("--set", "epochs=1.5"), ("epochs", "integer")),
                (("--set", "lr=1\nepochs=3"), ("--set lr", "more than one")),
                (("--set", "lr_milestones=[8, x]"), ("--set lr_milestones", "[8, x]")),
                (("--set", "lr_milestones=8,'9'"), ("lr_milestones", "list of integers")),
                (("--set", "lr_milestones=9,8"), "--lr-milestones: 8"),
                (("--set", "lr={a" + ".a" * 50000 + "=1}"), ("--set lr", "50000 dots")),
                (("--seed", "99999999999999999999"), ("--seed", "99999999999999999999")),
                (("--seed", "0x10"), ("--seed", "0x10")),
                (("--model", "resnet19"), ("resnet19", "resnet18")),
                (("--model", "lecture_resnet"), ("'lecture_resnet'", "lecture_resnet18")),
                (("--model", ""), "''"),
                (("--epoch", "1"), ("--epoch", "nearest: --epochs")),
                (("--learning-rate=1",), ("--learning-rate", "nearest")),
                (("extra",), "extra"),
        ]:
            with self.subTest(more=more):
                self.assert_refused(USAGE, parts, *self.train(*more))

    def test_wrong_verbs_flags_and_arguments_of_the_others(self):
        for arguments, parts in [
                (("trian",), ("'trian'", "nearest: train", "resnet --help")),
                ((), "--help"),
                (("--nonsense",), "--nonsense"),
                (("summary",), ("MODEL", "--list")),
                (("summary", "resnet19"), ("resnet19", "resnet18")),
                (("summary", "lecture_resnet18", "--input-sise", "1x96x96"), ("--input-sise", "--input-size")),
                (("summary", "lecture_resnet18", "second"), "second"),
                *((("summary", "lecture_resnet18", "--input-size", size), (f"--input-size: '{size}'", "1x96x96"))
                  for size in ("96", "1x96", "1x96x96x1", "1x0x96", "1x-1x96", "1xax96", "1x96x96x", "x", "1x96x99999", "1X96X96")),
                (("evaluate",), ("MODEL", "resnet evaluate --help")),
                (("evaluate", "run/last/model.safetensors", "--data", "data", "--split", "val"), ("--split: 'val'", "test, validation or train")),
                (("evaluate", "run/last/model.safetensors", "--data", "data", "--batch-size", "0"), "--batch-size: 0"),
                (("evaluate", "run/last/model.safetensors", "--data", "data", "--limit", "49"), ("--limit: 49", "48")),
                (("evaluate", "run/last/model.safetensors", "--data", "data", "--workers", "-1"), "--workers: -1"),
                (("evaluate", "run/last/model.safetensors", "--data", "data", "--backend", "gpu"), ("gpu", "cpu")),
                (("benchmark",), "MODEL"),
                (("benchmark", "resnet19"), ("resnet19", "resnet18")),
                (("benchmark", "lecture_resnet18", "--mode", "fast"), ("--mode: 'fast'", "inference or training")),
                (("benchmark", "lecture_resnet18", "--precision", "int9"), "--precision: 'int9'"),
                (("benchmark", "lecture_resnet18", "--batch-size", "0"), "--batch-size: 0"),
                (("benchmark", "lecture_resnet18", "--seconds", "nan"), "--seconds: nan"),
                (("benchmark", "lecture_resnet18", "--runs", "-1"), "--runs: -1"),
                (("benchmark", "lecture_resnet18", "--image-size", "-1"), "--image-size: -1"),
                (("benchmark", "lecture_resnet18", "--streams", "-1"), "--streams: -1"),
                (("benchmark", "lecture_resnet18", "--threads", "1", "--streams", "2"), "--streams: 2"),
                (("benchmark", "lecture_resnet18", "--threads", "2", "--streams", "2", "--batch-size", "1"),
                 ("--streams: 2", "several threads their number" if program.THREAD_LIMIT == 1 else "threads, 2,")),
                (("benchmark", "lecture_resnet18", "--threads", "2", "--streams", "2", "--backend", "reference"), ("--streams: 2", "backend cpu")),
                (("benchmark", "lecture_resnet18", "--threads", "2", "--streams", "2", "--mode", "training"), ("--streams: 2", "inference")),
                (("benchmark", "lecture_resnet18", "--backend", "gpu"), ("gpu", "cpu")),
        ]:
            with self.subTest(arguments=arguments):
                self.assert_refused(USAGE, parts, *arguments)

    def test_wrong_environment(self):
        for name, parts in [("RESNET_CONV_ALGORITHM", ("auto", "direct", "winograd")), ("RESNET_MAX_ISA", ("generic", "avx2", "avx512")),
                            ("RESNET_CONV_WITHOUT", ("gemm", "winograd", "on the fly", "stem", "int8 pairs"))]:
            for arguments in (self.train(), ("evaluate", "run/last/model.safetensors", "--data", "data"), ("benchmark", "lecture_resnet18")):
                with self.subTest(name=name, arguments=arguments):
                    self.assert_refused(USAGE, (name, "'foo'", *parts), *arguments, env={name: "foo"})

    def test_control_characters_in_names_are_escaped(self):
        evil = "a\x1b[31m\n\r\x7f\tb"
        shown = "a\\x1b[31m\\x0a\\x0d\\x7f\\x09b"
        for code, arguments in [
                (USAGE, (evil,)),
                (USAGE, ("train", "--" + evil)),
                (USAGE, ("train", "--lr", evil)),
                (USAGE, self.train("--model", evil)),
                (USAGE, self.train("--set", evil + "=1")),
                (USAGE, self.train("--disable-pass", evil)),
                (USAGE, self.train(data=evil)),
                (IO, self.train(data=f"./{evil}")),
                (IO, self.train("--weights", evil)),
                (IO, self.train("--config", evil)),
                (IO, ("train", "--resume", evil)),
                (IO, ("evaluate", evil + ".safetensors")),
                (USAGE, ("summary", evil)),
                (USAGE, ("summary", "lecture_resnet18", "--input-size", evil)),
                (USAGE, ("benchmark", "lecture_resnet18", "--mode", evil)),
                (USAGE, ("benchmark", evil)),
        ]:
            with self.subTest(arguments=arguments):
                self.assert_refused(code, shown, *arguments)

    def test_progress_escapes_names_too(self):
        result = self.ok(*self.train("--max-steps", "1", data="./data/.", output="odd\x1b[31m\nname"))
        self.addCleanup(shutil.rmtree, self.folder / "odd\x1b[31m\nname")
        self.assertIn("odd\\x1b[31m\\x0aname", result.err)
        self.assertNotIn("\x1b", result.err + result.out)

    def test_a_closed_or_full_stdout_is_an_error_and_never_a_file_of_ours(self):
        for arguments in (("summary", "lecture_resnet18"), ("summary", "resnet152", "--json"), ("--help",), ("train", "--help")):
            with self.subTest(arguments=arguments):
                with open("/dev/full", "wb") as full:
                    self.assert_refused(IO, "stdout", *arguments, stdout=full)
                self.assert_refused(IO, "stdout", *arguments, preexec=lambda: os.close(1))
        # A reader that has gone has read enough: no error line, and the code of a tool that SIGPIPE ends.
        read, write = os.pipe()
        os.close(read)
        for arguments in (("summary", "lecture_resnet18"), ("summary", "--list"), ("--help",)):
            result = self.call(*arguments, stdout=write)
            self.assertEqual((result.code, result.err), (128 + signal.SIGPIPE, ""), arguments)
        os.close(write)
        # All three closed: a run must not write its result into the first file it opens.
        run = self.folder / "closed"
        result = self.call(*self.train("--max-steps", "1", "--log-every", "1", "--json", output=run),
                           preexec=lambda: [os.close(fd) for fd in (0, 1, 2)])
        self.assertEqual((result.code, result.out, result.err), (IO, "", ""))
        self.assertEqual([e["step"] for e in program.events(run)], [1])
        self.assertEqual((run / ".lock").read_bytes(), b"")
        shutil.rmtree(run)


class DataSets(BadInput):
    def broken(self, **files):
        """A data folder with some files replaced: by bytes, or by a function that makes the path."""
        folder = self.folder / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good, folder)
        for name, content in files.items():
            path = folder / name.replace("_", "-").replace("-gz", ".gz")
            path.unlink(missing_ok=True)
            content(path) if callable(content) else path.write_bytes(content)
        return folder

    def assert_broken(self, code, parts, **files):
        with self.subTest(parts=parts, files=list(files)):
            folder = self.broken(**files)
            self.assert_refused(code, parts, *self.train(data="broken"))
            shutil.rmtree(folder)

    def test_idx_files_that_are_not_what_they_claim(self):
        images, labels = (self.good / IMAGES).read_bytes(), (self.good / LABELS).read_bytes()
        claim = lambda *dims: struct.pack(f">{len(dims) + 1}I", 0x800 + len(dims), *dims)
        for content, parts in [
                (images[:-1], ("byte 4 (count)", "96 x 12 x 12")),
                (images[:10], ("byte 10 (header)", "16 bytes")),
                (images[:3], "(header)"),
                (b"", "byte 0 (header)"),
                (images + b"\0", ("(end)", "1 more bytes")),
                (claim(2**32 - 1, 2**32 - 1, 2**32 - 1), "(count)"),
                (claim(2**32 - 1, 12, 12) + images[16:], "(count)"),
                (claim(0, 12, 12), ("byte 4 (count)", "found 0")),
                (claim(96, 0, 12), ("byte 8 (height)", "found 0")),
                (labels, ("byte 0 (magic)", "labels")),
                (struct.pack(">4I", 0xd03, 96, 12, 12) + images[16:], ("(magic)", "0x00000d03")),
                (b"\x89PNG" + images[4:], "(magic)"),
        ]:
            self.assert_broken(BAD_DATA, (IMAGES, *([parts] if isinstance(parts, str) else parts)), train_images_idx3_ubyte=content)
        for content, parts in [
                (labels[:-1], "(count)"),
                (labels + b"\0", "(end)"),
                (images, ("(magic)", "images")),
                (program.idx_labels(np.zeros(95)), ("(count)", "95 labels", "96")),
                (struct.pack(">2I", 0x801, 0), "found 0"),
        ]:
            self.assert_broken(BAD_DATA, (LABELS, *([parts] if isinstance(parts, str) else parts)), train_labels_idx1_ubyte=content)
        self.assert_broken(BAD_DATA, ("t10k-labels-idx1-ubyte", "byte 8 (label)", "found class 9", "0 to 2"),
                           t10k_labels_idx1_ubyte=program.idx_labels([9] * 48))

    def test_gzip_files_that_are_damaged_or_bombs(self):
        images = (self.good / IMAGES).read_bytes()
        packed = gzip.compress(images, mtime=0)
        absent = lambda path: None
        flipped = bytearray(packed)
        flipped[len(packed) // 2] ^= 0xff
        wrong_sum = packed[:-8] + bytes(4) + packed[-4:]
        # 400 KB that inflate to 400 MB of zeros behind an honest header.
        bomb = gzip.compress(images + bytes(400 << 20), 9, mtime=0)
        claims = gzip.compress(struct.pack(">4I", 0x803, 2**31, 1024, 1024) + bytes(1 << 20), mtime=0)
        for content, part in [(packed[:-9], "gzip stream"), (packed[:40], "gzip stream"), (bytes(flipped), "gzip"), (wrong_sum, "gzip stream"),
                              (packed + b"junk", "gzip stream"), (bomb, "(end)"), (claims, "(count)"), (gzip.compress(b""), "(header)")]:
            self.assert_broken(BAD_DATA, (IMAGES, part), train_images_idx3_ubyte=absent, train_images_idx3_ubyte_gz=content)

    def test_files_that_are_missing_or_no_files(self):
        absent = lambda path: None
        self.assert_broken(IO, (IMAGES, "holds neither"), train_images_idx3_ubyte=absent)
        self.assert_broken(IO, ("t10k-labels-idx1-ubyte", "holds neither"), t10k_labels_idx1_ubyte=absent)
        self.assert_broken(IO, (IMAGES, "folder"), train_images_idx3_ubyte=lambda path: path.mkdir())
        self.assert_broken(IO, (IMAGES, "pipe"), train_images_idx3_ubyte=os.mkfifo)
        self.assert_broken(IO, (IMAGES, "device"), train_images_idx3_ubyte=lambda path: path.symlink_to("/dev/zero"))
        self.assert_broken(IO, IMAGES, train_images_idx3_ubyte=lambda path: path.symlink_to(path))
        self.assert_refused(IO, ("./nowhere", "No such file"), *self.train(data="./nowhere"))
        self.assert_refused(USAGE, ("'fashion-mnits'", "fashion-mnist"), *self.train(data="fashion-mnits"))
        self.assert_refused(BAD_DATA, (IMAGES, "expected lines of path,label", "folder"), *self.train(data=f"data/{IMAGES}"))

    def test_images_too_small_for_the_network_leave_no_run_behind(self):
        self.assert_refused(USAGE, "larger image", *self.train("--set", "model.stem_padding=0", "--image-size", "4"))

    def test_a_last_batch_of_one_image_is_refused_before_the_first_step(self):
        self.assert_refused(USAGE, ("batch_norm", "one value a channel", "larger batch"), *self.train("--limit", "17"))
        # It is never reached here.
        self.ok(*self.train("--limit", "17", "--max-steps", "1", output="reached"))
        shutil.rmtree(self.folder / "reached")

    def test_more_memory_than_the_machine_has_is_refused_and_not_tried(self):
        self.assert_refused(LIMIT, ("memory: the program needs", "is available"), *self.train("--image-size", "8192", "--batch-size", "96"))
        self.assert_refused(LIMIT, ("memory: the program needs", "is available"), "benchmark", "lecture_resnet18", "--image-size", "8192", "--batch-size", "65536")


class Files(BadInput):
    def test_config_files(self):
        file = self.folder / "bad.toml"
        for code, text, parts in [
                (USAGE, "lr = ", ("line 1", "column")),
                (USAGE, "lr = 0.1\nlr = 0.2\n", "line 2"),
                (USAGE, "batch_size = 16\n[[", "line 2"),
                (USAGE, "lrr = 1", ("'lrr'", "nearest: lr")),
                (USAGE, "[model]\nstem_pading = 3", "model.stem_padding"),
                (USAGE, "lr = 'fast'", ("'lr'", "number")),
                (USAGE, "epochs = 1.5", ("'epochs'", "integer")),
                (USAGE, "shuffle = 1", ("'shuffle'", "true or false")),
                (USAGE, "model = 18", ("'model'", "string")),
                (USAGE, "lr_milestones = 82", ("'lr_milestones'", "list of integers")),
                (USAGE, "lr_milestones = [82, 123.0]", ("'lr_milestones'", "list of integers")),
                (USAGE, "[[lr_milestones]]\nat = 82", ("'lr_milestones'", "list of integers")),
                (USAGE, "lr_milestones = [82, 123]", "--lr-milestones: the scheduler is constant"),
                (USAGE, "batch_size = 0", "--batch-size: 0"),
                (USAGE, "lr = nan", "--lr: nan"),
                (USAGE, "momentum = -1", "--momentum: -1"),
                (USAGE, "backend = \"gpu\\u001b\"", "--backend: 'gpu\\x1b'"),
                (USAGE, b"model = '\xff\xfe'", "line 1"),
                (USAGE, "x = " + "[" * 100000, "line 1"),
                (USAGE, "a" + ".a" * 100000 + " = 1", "100000 dots"),
                (LIMIT, "#" * (1 << 20) + "\n", "bad.toml"),
        ]:
            with self.subTest(text=text[:40]):
                file.write_bytes(text if isinstance(text, bytes) else text.encode())
                parts = [parts] if isinstance(parts, str) else parts
                # A value that no flag may have either is told by the flag's name; anything else by the file's.
                where = [] if parts[0].startswith("--") else ["bad.toml"]
                self.assert_refused(code, (*where, *parts), "train", "--data", "data", "--output", "new", "--config", "bad.toml")
        file.unlink()
        self.assert_refused(IO, "bad.toml", *self.train("--config", "bad.toml"))
        self.assert_refused(IO, ("data", "directory"), *self.train("--config", "data"))

    def assert_bad_model(self, code, parts, header=None, data=None, content=None):
        file = self.folder / "bad.safetensors"
        if content is None:
            program.write_model(file, self.header if header is None else header, self.weights if data is None else data)
        else:
            file.write_bytes(content)
        parts = ("bad.safetensors", *([parts] if isinstance(parts, str) else parts))
        self.assert_refused(code, parts, "summary", "bad.safetensors", where=str(parts))
        if content is not None:  # the one reader of both; once is enough for files of 45 MB
            self.assert_refused(code, parts, "evaluate", "bad.safetensors", "--data", "data", where=str(parts))
        file.unlink()

    def with_metadata(self, **changes):
        metadata = {k: v for k, v in {**self.header["__metadata__"], **changes}.items() if v is not None}
        return {**self.header, "__metadata__": metadata}

    def test_model_files_cut_or_overwritten(self):
        whole = struct.pack("<Q", 8)
        for content, parts in [
                (b"", "byte 0"),
                (whole[:5], "byte"),
                (whole, "byte"),
                (struct.pack("<Q", 2**63) + b"{}", "byte 0"),
                (struct.pack("<Q", 50_000_000) + b"{}", "byte 0"),
                (whole + b"[1,2,3] ", "byte 8 (header)"),
                (whole + b"notjson!", "byte 8 (header)"),
                (struct.pack("<Q", 200_000) + b"[" * 200_000, "(header)"),
                (struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000, "byte"),
                (b"PK\x03\x04" + bytes(100), "byte 82 (zip end)"),
        ]:
            self.assert_bad_model(BAD_DATA, parts, content=content)
        self.assert_bad_model(BAD_DATA, "byte", data=self.weights[:-4])
        self.assert_bad_model(BAD_DATA, "byte", data=self.weights + bytes(4))

    def test_model_files_with_wrong_metadata(self):
        for changes, parts in [
                ({"architecture": "resnet19"}, ("resnet19", "resnet18")),
                ({"architecture": "resnet34"}, ("missing", "unexpected")),
                ({"num_classes": None}, "'num_classes'"),
                ({"num_classes": "4"}, "(num_classes)"),
                ({"num_classes": "-1"}, "(num_classes)"),
                ({"num_classes": "99999999999999999999"}, "(num_classes)"),
                ({"num_classes": "[" * 100_000}, "(num_classes)"),
                ({"class_names": "[]"}, "(class_names)"),
                ({"class_names": "[1,2,3]"}, "(class_names)"),
                ({"class_names": json.dumps(list("abcd")), "num_classes": "4"}, "misshaped"),
                ({"input_size": "[1,32]"}, "(input_size)"),
                ({"input_size": "[1,32,33]"}, "(input_size)"),
                ({"input_size": "[1,-1,-1]"}, "image"),
                ({"input_size": "[1,1000000000,1000000000]"}, "image"),
                ({"input_size": "[1,1e99,1e99]"}, "(input_size)"),
                ({"input_size": "[3,32,32]"}, ""),
                ({"mean": "[null]"}, "(mean)"),
                ({"mean": "[1e999]"}, "mean"),
                ({"std": "[0]"}, "std"),
                ({"std": "[1,1]"}, "std"),
                ({"interpolation": "cubic"}, ("(interpolation)", "bicubic")),
                ({"interpolation": None}, "'interpolation'"),
                ({"crop_pct": "1.5"}, ("crop_pct", "1.5", "at most 1")),
                ({"crop_pct": "1e-300"}, "crop_pct"),
                ({"resize_size": "99999"}, ("(resize_size)", "8192")),
                ({"exif_orientation": "1"}, ("(exif_orientation)", "true or false")),
                ({"crop_pct": "\"1.0\""}, "(crop_pct)"),
                ({"crop_pct": "\x1b[2J"}, ("(crop_pct)", "\\x1b[2J")),
                ({"crop_pct": None}, "'crop_pct'"),
                ({"resize": "shortest\x1b"}, ("(resize)", "'shortest\\x1b'", "expected squash")),
                ({"resize": None}, "'resize'"),
                ({"model.stem_padding": "7"}, "stem_padding"),
                ({"model.batch_norm": "false"}, ("lecture_resnet18", "model.batch_norm")),
                ({"model.widths": "1"}, "model.widths"),
                ({"architecture": "resnet999998_cifar_a"}, "10000"),
        ]:
            with self.subTest(changes=changes):
                self.assert_bad_model(BAD_DATA, parts, header=self.with_metadata(**changes))

    def test_weights_of_no_architecture_can_be_looked_at_but_not_used(self):
        file = self.folder / "foreign.safetensors"
        program.write_model(file, self.with_metadata(architecture=None), self.weights)
        self.assertIn("of no architecture that it names", self.ok("summary", file.name).out)
        self.assert_refused(BAD_DATA, ("foreign.safetensors", "'architecture'", "resnet convert"), "evaluate", file.name, "--data", "data")
        file.unlink()

    def test_model_files_with_wrong_tensors(self):
        names = sorted(n for n in self.header if n != "__metadata__")
        first = names[0]
        begin, end = self.header[first]["data_offsets"]
        for tensor, parts in [
                ({"dtype": "I32"}, first),
                ({"dtype": "F7"}, "dtype"),
                ({"shape": [end - begin]}, ""),
                ({"shape": [2**62, 2**62]}, ""),
                ({"data_offsets": [begin, end + 4]}, ""),
                ({"data_offsets": [end, begin]}, ""),
                ({"data_offsets": [2**63, 2**64 - 1]}, ""),
        ]:
            with self.subTest(tensor=tensor):
                self.assert_bad_model(BAD_DATA, parts, header={**self.header, first: {**self.header[first], **tensor}})

    def sparse_model(self, name, **extra):
        """A file with the model's tensors and one more of 4 GiB, none of which lie on the disk."""
        file, size = self.folder / name, 1 << 32
        added = {n.replace("__", "."): {"dtype": dtype, "shape": [size // width], "data_offsets": [len(self.weights), len(self.weights) + size]}
                 for n, (dtype, width) in extra.items()}
        program.write_model(file, {**self.header, **added}, self.weights)
        os.truncate(file, file.stat().st_size + size)
        return file

    def test_tensors_of_gigabytes_that_no_model_has_are_not_read(self):
        # Reading them would take four times the memory, and longer than the time, that assert_refused allows.
        for extra in ({"unknown": ("F32", 4)}, {"unknown": ("F16", 2)}, {"unknown": ("U8", 1)}, {"unknown": ("I64", 8)}):
            file = self.sparse_model("sparse.safetensors", **extra)
            for arguments in (("summary", file.name), ("evaluate", file.name, "--data", "data"), ("benchmark", file.name),
                              self.train("--weights", file.name)):
                with self.subTest(extra=extra, arguments=arguments):
                    self.assert_refused(BAD_DATA, ("sparse.safetensors", "1 unexpected: unknown"), *arguments)
            file.unlink()
        # PyTorch's counters are passed over, whatever their size.
        file = self.sparse_model("sparse.safetensors", bn__num_batches_tracked=("I64", 8))
        for arguments in (("summary", file.name), ("evaluate", file.name, "--data", "data")):
            with self.subTest(arguments=arguments):
                self.assertLess(self.ok(*arguments).peak_bytes, PEAK_BYTES)
        file.unlink()

    def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(self):
        file = self.folder / "weights.safetensors"
        names = [n for n in self.header if n.endswith(".bias")]
        chosen = names[-1]
        renamed = {("other" if n == chosen else n): t for n, t in self.header.items()}
        program.write_model(file, renamed, self.weights)
        self.assert_refused(BAD_DATA, ("weights.safetensors", f"missing: {chosen}", "unexpected: other"),
                            *self.train("--weights", "weights.safetensors"))
        self.assert_refused(BAD_DATA, ("weights.safetensors", "missing", "and", "more"),
                            *self.train("--weights", "weights.safetensors", "--model", "resnet34"))
        file.unlink()
        # Trained for three classes; ten here.
        ten = program.write_data(self.folder / "ten", classes=10)
        self.assert_refused(BAD_DATA, ("misshaped", "expected"), *self.train("--weights", "run/last/model.safetensors", data="ten"))
        self.assert_refused(REFUSED, ("3 classes", "10"), "evaluate", "run/last/model.safetensors", "--data", "ten")
        shutil.rmtree(ten)
        self.assert_refused(IO, "none.safetensors", *self.train("--weights", "none.safetensors"))
        self.assert_refused(IO, "none.safetensors", "evaluate", "none.safetensors")
        self.assert_refused(IO, "directory", "evaluate", "data")


class TorchFiles(BadInput):
    """Files that look like torch.save's: fuzz/corpus/zip has one of each kind, these are those that are large."""

    EXTRA_BYTES = 64 << 20

    def setUp(self):
        self.usual_bytes = self.ok("summary", "--list", "--json").peak_bytes

    def assert_bad(self, content, parts, codes=(BAD_DATA, LIMIT), verbs=(("summary", "bad.pth"),)):
        file = self.folder / "bad.pth"
        file.write_bytes(content) if content is not None else None
        for arguments in verbs:
            before = snapshot(self.folder)
            result = self.call(*arguments)
            told = f"{parts} {arguments}\nexit code {result.code}\n{result.err}"
            self.assertIn(result.code, codes, told)
            lines = "".join(line for line in result.err.splitlines(keepends=True) if not line.startswith("reading "))
            self.assertRegex(lines, r"^resnet: error: bad\.pth: byte \d+ \(.*\n$", told)
            for part in [parts] if isinstance(parts, str) else parts:
                self.assertIn(part, result.err, told)
            self.assertEqual(snapshot(self.folder), before, told)
            self.assertLess(result.cpu_seconds, CPU_SECONDS, told)
            self.assertLess(result.peak_bytes, self.usual_bytes + self.EXTRA_BYTES, told)
        file.unlink()

    def test_one_of_each_kind(self):
        corpus = sorted((pathlib.Path(__file__).parents[2] / "fuzz/corpus/zip").iterdir())
        self.assertGreater(len(corpus), 40)
        for file in corpus:
            # What is read as anything but a zip archive has its tests elsewhere.
            if file.name.startswith("ok-") or not file.read_bytes().startswith((b"PK\3\4", b"PK\5\6")):
                continue
            with self.subTest(file=file.name):
                self.assert_bad(file.read_bytes(), ())

    @staticmethod
    def archive(pickled, more=()):
        """A zip archive of stored entries around a pickle."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, data in (("m/data.pkl", pickled), *more):
                archive.writestr(zipfile.ZipInfo(name), data)
        return content.getvalue()

    def test_pickles_that_claim_much_or_call_something(self):
        million = 1_000_000
        for body, parts in [(b"N" * 7 * million, "600000 values"), (b"]" * 7 * million, "200000 containers"), (b"(" * 7 * million, "600000 values"),
                            (b"](" + b"N" * 500_000 + b"e" + b"q\0" + b"h\0" * 90_000 + b".", "90001 values and 0 marks are left"), (b"N" + b"\x85" * 190_000 + b".", "a tuple"),
                            (b"N" * 9 * million, "at most 8388608"), (b"X\xff\xff\xff\xff", "(BINUNICODE)"), (b"Nr\xff\xff\xff\xff", "(pickle LONG_BINPUT)"),
                            (b"cposix\nsystem\nX\x0a\0\0\0touch calls\x85R.", "'posix.system'"), (b"c" + b"a" * million + b"\nb\n)R.", "(pickle GLOBAL)"),
                            (b"ctorch.nn.modules.linear\nLinear\n)\x81}b.", "a whole model was pickled")]:
            with self.subTest(parts=parts):
                self.assert_bad(self.archive(b"\x80\2" + body), parts,
                                verbs=(("summary", "bad.pth"), ("convert", "bad.pth", "out.safetensors"), self.train("--weights", "bad.pth")))
        self.assertFalse((self.folder / "calls").exists())

    def test_directories_that_claim_much(self):
        self.assert_bad(self.archive(b"\x80\2N.", [(f"m/{k}", b"") for k in range(50_001)]), "50002 entries", codes=(LIMIT,))
        self.assert_bad(self.archive(b"\x80\2N.", [(f"m/{'n' * 60_000}{k}", b"") for k in range(150)]), "in a directory of", codes=(LIMIT,))

        self.assert_bad(self.archive(b"\x80\2N.", [("m/" + "n" * 60_000, b"")]), ("of 60002 bytes", "4096 at most"))

    def test_local_headers_that_overlap_are_not_all_read(self):
        """50,000 headers, each of which claims the 60,000 bytes after it as its name's and extra field's."""
        body, directory = bytearray(), bytearray()
        for k in range(50_000):
            name = b"m/%05d" % k
            directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 20, 20, 8, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, len(body)) + name
            body += struct.pack("<IHHHHHIIIHH", 0x04034b50, 20, 8, 0, 0, 0, 0, 0, 0, len(name), 60_000) + name
        body += bytes(60_000)
        end = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 50_000, 50_000, len(directory), len(body), 0)
        self.assert_bad(bytes(body + directory) + end, "names and extra fields", codes=(LIMIT,))

    def test_classes_that_no_tensor_has(self):
        """A classifier of no bytes with 16 million rows."""
        file = self.folder / "none.safetensors"
        program.write_model(file, {"fc.weight": {"dtype": "F32", "shape": [1 << 24, 0], "data_offsets": [0, 0]}}, b"")
        before = self.usual_bytes
        for verb in (("convert", "none.safetensors", "out.safetensors"), ("export", "none.safetensors", "out.onnx")):
            result = self.assert_refused(BAD_DATA, ("none.safetensors", "1 misshaped: fc.weight"), *verb, "--architecture", "resnet18")
            self.assertLess(result.peak_bytes, before + self.EXTRA_BYTES)
        file.unlink()

    def test_storages_of_gigabytes_that_lie_on_no_disk(self):
        """A hole of 2 GiB before the directory, which an entry claims as its content."""
        corpus = pathlib.Path(__file__).parents[2] / "fuzz/corpus/zip"
        pickled = (corpus / "ok-torch").read_bytes()
        begin, end = pickled.index(b"\x80\2"), pickled.index(b"PK\3\4", 4)
        elements = 1 << 29
        claims = pickled[begin:end].replace(b"J" + struct.pack("<i", 4), b"J" + struct.pack("<i", elements))
        hole = 4 * elements
        entry = lambda name, size, crc: struct.pack("<IHHHHHIIIHH", 0x04034b50, 20, 0, 0, 0, 0, crc, size, size, len(name), 0) + name
        listed = lambda name, size, crc, at: struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 20, 20, 0, 0, 0, 0, crc, size, size, len(name), 0, 0, 0, 0, 0, at) + name
        first = entry(b"m/data.pkl", len(claims), zlib.crc32(claims)) + claims
        second = entry(b"m/data/0", hole, 0)
        directory = listed(b"m/data.pkl", len(claims), zlib.crc32(claims), 0) + listed(b"m/data/0", hole, 0, len(first))
        at = len(first) + len(second) + hole
        with open(self.folder / "bad.pth", "wb") as file:
            file.write(first + second)
            file.seek(at)
            file.write(directory + struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 2, 2, len(directory), at, 0))
        self.assert_bad(None, "of which the tensors use 16", codes=(LIMIT,), verbs=(("summary", "bad.pth"), ("convert", "bad.pth", "out.safetensors")))


class ImageFiles(BadInput):
    """Files that look like photos: fuzz/corpus has one of each kind, these are those that are large."""

    EXTRA_BYTES = 64 << 20
    MODEL = "run/last/model.safetensors"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.corpus = pathlib.Path(__file__).parents[2] / "fuzz/corpus"
        (cls.folder / "good.png").write_bytes((cls.corpus / "png/ok-rgb").read_bytes()[1:])

    def assert_bad(self, content, parts, codes):
        """`content` makes the file, or is its bytes. A prediction names it and goes on; a check of the data finds it."""
        file = self.folder / "photos/cat/bad.jpg"
        file.parent.mkdir(parents=True)
        content(file) if callable(content) else file.write_bytes(content)
        shutil.copy(self.folder / "good.png", file.parent / "good.png")
        usual = [self.ok("predict", self.MODEL, "good.png"), self.ok("summary", "--list")]
        found = (1,)
        for arguments, allowed, same in ((("predict", self.MODEL, "photos", "--json"), codes, usual[0]),
                                         (("data", "check", "photos", "--json"), found, usual[1])):
            before = snapshot(self.folder)
            result = self.call(*arguments)
            told = f"{parts} {arguments}\nexit code {result.code}\n{result.err}\n{result.out}"
            self.assertIn(result.code, allowed, told)
            for part in parts:
                self.assertIn(part, result.err + result.out, told)
            self.assertIn("good.png" if arguments[0] == "predict" else "unreadable", result.out, told)
            self.assertEqual(snapshot(self.folder), before, told)
            self.assertLess(result.cpu_seconds, same.cpu_seconds + CPU_SECONDS, told)
            self.assertLess(result.peak_bytes, same.peak_bytes + self.EXTRA_BYTES, told)
        shutil.rmtree(self.folder / "photos")

    def test_headers_that_claim_much_and_bombs(self):
        chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        png = lambda w, h, data: (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", w, h, 8, 2, 0, 0, 0)) +
                                  chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
        # Of one colour, as Pillow writes it. Not made here: what this process takes is counted as the program's.
        webp = bytes.fromhex("524946461e000000574542505650384c110000002fc7f2b10c07508a2ad4a3ff8188e87f0000")
        self.assert_bad(png(65535, 65535, b"\0"), ("65535 x 65535",), (LIMIT,))
        self.assert_bad(png(13000, 13000, b"\0"), ("13000 x 13000",), (BAD_DATA,))
        self.assert_bad(webp, ("13000 x 13000", "pixels a byte"), (LIMIT,))

    def test_a_hole_of_gigabytes_that_is_no_image_is_not_read(self):
        def hole(path):
            path.touch()
            os.truncate(path, 1500 << 20)
        self.assert_bad(hole, ("(format)",), (BAD_DATA,))

    def test_one_of_each_kind(self):
        """All at once: each has its line, and the good one its prediction."""
        bad = {}
        # Pillow reads these over their flaw.
        good = ["arithmetic", "bytes-after", "data-checksum", "exif-count", "exif-cut", "exif-huge-offset", "jpeg", "no-end", "no-palette", "palette-late", "palette-of-4-bytes", "png", "restart", "rows-missing", "rows-too-many", "scan-empty", "scans", "segment-length-0", "wide"]
        for kind in ("jpeg", "png", "webp"):
            for file in sorted((self.corpus / kind).iterdir()):
                content = file.read_bytes()[1:]
                if file.name not in good and not file.name.startswith("ok-"):
                    bad[f"{kind}-{file.name}"] = content
        self.assertGreater(len(bad), 30)
        folder = self.folder / "photos/cat"
        folder.mkdir(parents=True)
        for name, content in bad.items():
            (folder / f"{name}.jpg").write_bytes(content)
        shutil.copy(self.folder / "good.png", folder)
        result = self.call("predict", self.MODEL, "photos", "--json")
        self.assertIn(result.code, (BAD_DATA, LIMIT), result.err)
        self.assertEqual([json.loads(line)["path"] for line in result.out.splitlines()], ["photos/cat/good.png"], result.err)
        for name in bad:
            self.assertRegex(result.err, rf"resnet: error: photos/cat/{name}\.jpg: ")
        checked = self.call("data", "check", "photos", "--json")
        self.assertEqual(checked.code, 1, checked.err)
        unreadable = {name for f in checked.json()["findings"] if f["kind"] == "unreadable" for name in f["files"]}
        self.assertEqual(unreadable, {f"cat/{name}.jpg" for name in bad})
        shutil.rmtree(self.folder / "photos")

    def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_used(self):
        for name in ("a", "sealed", "z"):
            (self.folder / "photos" / name).mkdir(parents=True)
            shutil.copy(self.folder / "good.png", self.folder / "photos" / name)
        (self.folder / "photos/sealed").chmod(0)
        result = self.call("predict", self.MODEL, "photos", "--json", preexec=obey_permissions)
        self.assertEqual(result.code, IO, result.err)
        self.assertIn("resnet: error: photos/sealed: ", result.err)
        self.assertEqual([json.loads(line)["path"] for line in result.out.splitlines()], ["photos/a/good.png", "photos/z/good.png"])
        stopped = self.call("predict", self.MODEL, "photos", "--on-bad-sample", "stop", preexec=obey_permissions)
        self.assertEqual((stopped.code, stopped.out), (IO, ""))
        (self.folder / "photos/sealed").chmod(0o700)
        shutil.rmtree(self.folder / "photos")


class RunDirectories(BadInput):
    def test_output_that_is_taken(self):
        self.assert_refused(REFUSED, ("run", "holds a run", "--resume run"), *self.train(output="run"))
        self.assert_refused(REFUSED, ("data", "not empty"), *self.train(output="data"))
        self.assert_refused(IO, f"data/{IMAGES}", *self.train(output=f"data/{IMAGES}"))

    def test_output_that_another_process_writes(self):
        folder = self.folder / "locked"
        folder.mkdir()
        with open(folder / ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assert_refused(REFUSED, ("locked", "another process"), *self.train(output="locked"))
        shutil.rmtree(folder)
        running = self.start(*self.train("--epochs", "1000", "--checkpoint-every", "1", output="busy"))
        running.wait_until(lambda: last_step(self.folder / "busy") >= 1)
        running.send(signal.SIGSTOP)
        self.assert_refused(REFUSED, ("busy", "another process"), "train", "--resume", "busy")
        self.assert_refused(REFUSED, "busy", *self.train(output="busy"))
        running.send(signal.SIGKILL)
        running.wait()
        self.ok("train", "--resume", "busy", "--epochs", "1")
        shutil.rmtree(self.folder / "busy")

    def test_output_that_cannot_be_made(self):
        (self.folder / "file").write_bytes(b"")
        for output in ("file/run", "file/a/b", "/proc/resnet-run", "/dev/null/run", "x" * 300):
            with self.subTest(output=output):
                self.assert_refused(IO, output, *self.train(output=output))
        (self.folder / "file").unlink()

    def test_what_may_not_be_written_or_read(self):
        sealed, secret = self.folder / "sealed", self.folder / "secret"
        sealed.mkdir(mode=0o555)
        shutil.copytree(self.good, secret)
        (secret / IMAGES).chmod(0)
        shutil.copy(self.folder / "run/last/model.safetensors", secret / "model")
        (secret / "model").chmod(0)
        for path, arguments in [("sealed", self.train(output="sealed/run")),
                                (f"secret/{IMAGES}", self.train(data="secret")),
                                ("secret/model", self.train("--weights", "secret/model")),
                                ("secret/model", ("evaluate", "secret/model", "--data", "data"))]:
            with self.subTest(arguments=arguments):
                self.assert_refused(IO, (path, "Permission denied"), *arguments, preexec=obey_permissions)
        sealed.rmdir()
        shutil.rmtree(secret)

    def test_resume_of_nothing(self):
        for path in ("nowhere", "data", f"data/{IMAGES}"):
            with self.subTest(path=path):
                self.assert_refused(IO, (path, "config.toml"), "train", "--resume", path)
        self.assert_refused(IO, ("runs", "--resume PATH"), "train", "--resume")

    def test_resume_with_other_settings_or_other_data(self):
        for more, parts in [(("--lr", "0.5"), "lr: 0.5, was 0.01"), (("--seed", "4"), "seed: 4, was 0"), (("--batch-size", "8"), "batch_size: 8"),
                            (("--model", "resnet18"), "resnet18"), (("--set", "model.stem_padding=1"), "stem_padding: 1, was 3"),
                            (("--momentum", "0"), "momentum: 0"), (("--no-shuffle",), "shuffle: false"),
                            (("--random-crop-padding", "4"), "random_crop_padding: 4, was 0"),
                            (("--hflip-prob", "0.5"), "hflip_prob: 0.5"),
                            (("--lr-scheduler", "multisteplr", "--lr-milestones", "82,123"), "lr_milestones: [82, 123], was []")]:
            with self.subTest(more=more):
                self.assert_refused(REFUSED, ("other settings", parts), "train", "--resume", "run", *more)
        kept = self.folder / "kept"
        self.good.rename(kept)
        program.write_data(self.good, seed=8)
        self.assert_refused(REFUSED, ("data", "fingerprint"), "train", "--resume", "run")
        shutil.rmtree(self.good)
        kept.rename(self.good)

    def test_damaged_checkpoints_are_refused_and_the_intact_one_is_named(self):
        checkpoint = self.folder / "run/last"
        for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
            file = checkpoint / name
            content = file.read_bytes()
            half = len(content) // 2
            # A bit that keeps text text: the hash must find it.
            for damaged in (content[:half] + bytes([content[half] ^ 1]) + content[half + 1:], content[:half], None):
                with self.subTest(name=name, damaged=damaged and len(damaged)):
                    file.unlink() if damaged is None else file.write_bytes(damaged)
                    # A bit of the manifest may be in the name of another file.
                    told = () if name == "manifest.json" else (name,)
                    self.assert_refused(BAD_DATA, (*told, "intact beside it: run/step-1"), "train", "--resume", "run", "--max-steps", "3",
                                        cpu_seconds=3 * CPU_SECONDS)  # it hashes the whole, on some processors by plain code
                    file.write_bytes(content)

    def test_a_disk_that_is_full_keeps_the_last_checkpoint(self):
        shutil.copytree(self.folder / "run", self.folder / "full", symlinks=True)
        before = program.sha256(self.folder / "full/last/model.safetensors")
        full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20))
        result = self.call("train", "--resume", "full", "--max-steps", "3", preexec=full)
        self.assertEqual(result.code, IO, result.err)
        self.assertRegex(result.err.splitlines()[-1], r"^resnet: error: .*full/.*(write|File too large)")
        self.assertEqual(last_step(self.folder / "full"), 2)
        self.assertEqual(program.sha256(self.folder / "full/last/model.safetensors"), before)
        self.assertEqual([p.name for p in (self.folder / "full").glob(".tmp*")], [])
        self.assertEqual(sorted(p.name for p in (self.folder / "full").glob("step-*")), ["step-1", "step-2"])
        self.ok("train", "--resume", "full", "--max-steps", "3")
        shutil.rmtree(self.folder / "full")

    def test_divergence_ends_with_6_and_keeps_a_good_checkpoint(self):
        result = self.call(*self.train("--lr", "1e30", "--checkpoint-every", "1", "--log-every", "1", output="diverged"))
        self.assertEqual(result.code, DIVERGED, result.err)
        self.assertIn("diverged", result.err.splitlines()[-1])
        run = self.folder / "diverged"
        self.assertGreaterEqual(last_step(run), 1)
        header, data = program.read_model(run / "last/model.safetensors")
        self.assertTrue(np.isfinite(np.frombuffer(data, np.float32)).all())
        self.assertEqual({t["dtype"] for n, t in header.items() if n != "__metadata__"}, {"F32"})
        steps = [e["step"] for e in program.events(run) if "skipped" not in e]
        self.assertEqual(len(steps), len(set(steps)))
        self.ok("evaluate", "diverged/last/model.safetensors", "--data", "data", "--json")
        shutil.rmtree(run)


if __name__ == "__main__":
    program.main()
