#!/usr/bin/python3
"""predict, verify and evaluate from outside: inputs of every kind, outputs for scripts, bad images; numbers against numpy."""
import csv
import io
import json
import os
import pathlib
import shutil
import signal
import sys

import numpy as np
import program
from PIL import Image
from program import ProgramTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import safetensors_numpy

PHOTOS = pathlib.Path(__file__).resolve().parents[1] / "data/photos"
CLASSES = ["dark, or \"black\"", "middle", "b\u00e9ige"]
USAGE, BAD_DATA, IO, LIMIT = 2, 3, 4, 5
PEAK_MIB = int(os.environ.get("RESNET_TEST_PEAK_MIB", "250"))


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Predicting(ProgramTest):
    """One small model of colour images, and a folder of them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program.write_data(cls.folder / "data")
        run = program.Running([program.PROGRAM, "train", "--model", "resnet20_cifar_a", "--data", "data", "--image-size", "32",
                               "--batch-size", "16", "--epochs", "3", "--lr", "0.05", "--seed", "3", "--output", "grey"],
                              cls.folder, cls.env).wait()
        assert run.code == 0, run.err
        tensors, metadata = safetensors_numpy.load(cls.folder / "grey/last/model.safetensors")
        tensors["conv1.weight"] = np.repeat(tensors["conv1.weight"], 3, axis=1) / 3
        metadata.update(input_size="[3,32,32]", class_names=json.dumps(CLASSES), mean="[0.1,0.2,0.3]", std="[0.5,0.6,0.7]")
        safetensors_numpy.save(cls.folder / "m.safetensors", tensors, metadata)
        rng = np.random.default_rng(1)
        (cls.folder / "photos/deeper").mkdir(parents=True)
        for i in range(12):
            level = (30, 110, 200)[i % 3]
            pixels = np.clip(rng.normal(level, 25, (20 + 3 * i, 41 - 2 * i, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(cls.folder / "photos" / ("deeper" if i >= 9 else ".") / f"{i:02}.{'png' if i % 2 else 'jpg'}")
        (cls.folder / "photos/notes.txt").write_text("no image")
        (cls.folder / "photos/nameless").write_bytes((cls.folder / "photos/01.png").read_bytes())
        cls.files = sorted(str(p) for p in (cls.folder / "photos").rglob("*") if p.is_file() and p.suffix != ".txt")
        cls.files = [os.path.relpath(f, cls.folder) for f in cls.files]
        assert len(cls.files) == 13

    def predict(self, *arguments, model="m.safetensors", **options):
        return self.ok("predict", model, *arguments, **options)

    def objects(self, *arguments, **options):
        return [json.loads(line) for line in self.predict(*arguments, "--json", **options).out.splitlines()]


class Predict(Predicting):
    def test_json_has_an_object_an_image_in_the_order_given_with_what_the_contract_lists(self):
        order = self.files[::-1] + self.files[:1]  # one twice
        objects = self.objects(*order, "--logits")
        self.assertEqual([o["path"] for o in objects], order)
        self.assertEqual(objects[-1], objects[-2])
        seen = set()
        for o in objects:
            self.assertEqual(set(o), {"path", "predictions", "logits"})
            logits = np.array(o["logits"])
            self.assertEqual(logits.shape, (3,))
            expected = softmax(logits)
            self.assertEqual([p["index"] for p in o["predictions"]], list(np.argsort(-logits, kind="stable")))
            for p in o["predictions"]:
                self.assertEqual(set(p), {"index", "class", "probability"})
                self.assertEqual(p["class"], CLASSES[p["index"]])
                self.assertAlmostEqual(p["probability"], expected[p["index"]], places=9)
            seen.add(o["predictions"][0]["index"])
        self.assertGreater(len(seen), 1, "a model that always says the same proves nothing")
        self.assertNotIn("logits", self.objects(self.files[0])[0])

    def test_folders_patterns_and_lists_on_stdin_are_the_files_they_stand_for(self):
        expected = self.objects(*self.files)
        self.assertEqual(self.objects("photos"), expected)
        jpg = [f for f in self.files if f.startswith("photos/0") and f.endswith(".jpg")]
        self.assertEqual([o["path"] for o in self.objects("photos/0*.jpg")], jpg)
        self.assertEqual([o["path"] for o in self.objects("photos/deep*", "photos/0[13].png")],
                         [f for f in self.files if "deeper" in f] + ["photos/01.png", "photos/03.png"])
        # A file of that name is no pattern.
        odd = self.folder / "odd [1]*.png"
        odd.write_bytes((self.folder / "photos/01.png").read_bytes())
        self.assertEqual([o["path"] for o in self.objects(odd.name)], [odd.name])
        listed = self.folder / "list"
        for text in (b"photos/03.png\n\nphotos/00.jpg\n", b"photos/03.png\r\n\r\nphotos/00.jpg"):
            listed.write_bytes(text)
            with open(listed) as stdin:
                result = self.call("predict", "m.safetensors", "photos/05.png", "-", "photos/07.png", "--json",
                                   preexec=lambda: os.dup2(stdin.fileno(), 0))
            self.assertEqual(result.code, 0, result.err)
            self.assertEqual([json.loads(line)["path"] for line in result.out.splitlines()],
                             ["photos/05.png", "photos/03.png", "photos/00.jpg", "photos/07.png"])

    def test_a_list_parted_by_zero_bytes_is_refused(self):
        listed = self.folder / "zeros"
        listed.write_bytes(b"photos/03.png\0photos/00.jpg\0")
        with open(listed) as stdin:
            result = self.call("predict", "m.safetensors", "-", preexec=lambda: os.dup2(stdin.fileno(), 0))
        self.assertEqual((result.code, result.out), (USAGE, ""), result.err)
        self.assertIn("stdin: line 1 holds a zero byte", result.err)

    def test_a_number_of_threads_that_is_refused_is_the_one_given(self):
        for number in ("-1", "999", "1000000"):
            result = self.call("predict", "m.safetensors", "photos", "--threads", number)
            self.assertEqual(result.code, USAGE, result.err)
            self.assertIn(f"--threads: {number}; expected 0 (all ", result.err)

    def test_batches_threads_and_workers_change_no_order_and_numbers_only_by_rounding(self):
        expected = self.objects("photos", "--logits")
        teams = (("--threads", "3", "--workers", "2", "-b", "2"), ("--threads", "2", "-j", "1", "-b", "3"))
        for more in (("-b", "1"), ("-b", "5"), ("--threads", "1"), ("--backend", "reference"),
                     *(teams if program.THREAD_LIMIT is None or program.THREAD_LIMIT >= 3 else ())):
            other = self.objects("photos", "--logits", *more)
            self.assertEqual([o["path"] for o in other], self.files, more)
            for a, b in zip(other, expected):
                np.testing.assert_allclose(a["logits"], b["logits"], rtol=1e-4, atol=1e-4, err_msg=str(more))
        self.assertEqual(self.predict("photos", "--json", "--logits").out, self.predict("photos", "--json", "--logits").out)

    def test_the_table_has_a_line_an_image_with_columns_that_line_up(self):
        lines = self.predict("photos", "--top-k", "2").out.splitlines()
        self.assertEqual(len(lines), len(self.files))
        objects = self.objects("photos", "--top-k", "2")
        for line, o in zip(lines, objects):
            self.assertTrue(line.startswith(o["path"] + " "), line)
            for p in o["predictions"]:
                self.assertIn(p["class"], line)
                self.assertIn(f"{100 * p['probability']:.2f} %", line)
        self.assertEqual(len({len(line) for line in lines}), 1)
        self.assertEqual({len(o["predictions"]) for o in objects}, {2})
        self.assertEqual({len(o["predictions"]) for o in self.objects("photos", "--top-k", "100")}, {3})

    def test_csv_is_read_by_pythons_reader(self):
        rows = list(csv.reader(io.StringIO(self.predict("photos", "--csv", "--logits", "--top-k", "2").out, newline="")))
        self.assertEqual(rows[0], ["path", "rank", "index", "class", "probability", "logit"])
        self.assertEqual(len(rows), 1 + 2 * len(self.files))
        objects = self.objects("photos", "--logits")
        for i, row in enumerate(rows[1:]):
            o = objects[i // 2]
            p = o["predictions"][i % 2]
            self.assertEqual(row[:4], [o["path"], str(1 + i % 2), str(p["index"]), p["class"]])
            self.assertAlmostEqual(float(row[4]), p["probability"], places=12)
            self.assertAlmostEqual(float(row[5]), o["logits"][p["index"]], places=5)
        self.assertEqual(self.predict("photos", "--csv").out.splitlines()[0], "path,rank,index,class,probability")

    def test_a_bad_image_is_named_the_others_are_predicted_and_the_exit_code_tells(self):
        whole = (self.folder / "photos/00.jpg").read_bytes()
        bad = self.folder / "bad"
        bad.mkdir()
        (bad / "a cut.jpg").write_bytes(whole[:len(whole) // 2])
        (bad / "b text.png").write_text("not at all")
        (bad / "c empty.jpg").write_bytes(b"")
        (bad / "d good.jpg").write_bytes(whole)
        (bad / "e wide.png").write_bytes(_png_header(70000, 3))
        for batch in ("1", "2", "32"):
            result = self.call("predict", "m.safetensors", "photos/01.png", "bad", "gone.png", "photos/00.jpg", "--json", "-b", batch)
            self.assertEqual(result.code, BAD_DATA, result.err)
            objects = [json.loads(line) for line in result.out.splitlines()]
            self.assertEqual([o["path"] for o in objects], ["photos/01.png", "bad/d good.jpg", "photos/00.jpg"])
            self.assertEqual(objects[1]["predictions"], objects[2]["predictions"])
            errors = [line for line in result.err.splitlines() if line.startswith("resnet: error: ")]
            for line, name in zip(errors, ("bad/a cut.jpg", "bad/b text.png", "bad/c empty.jpg", "bad/e wide.png", "gone.png"), strict=True):
                self.assertIn(name, line)
        # The first one's code: a missing file, then damage.
        self.assertEqual(self.call("predict", "m.safetensors", "gone.png", "bad/b text.png").code, IO)
        self.assertEqual(self.call("predict", "m.safetensors", "bad/c empty.jpg", "gone.png").code, BAD_DATA)
        skipped = self.predict("bad", "--json", "--on-bad-sample", "skip")
        self.assertEqual(len(skipped.out.splitlines()), 1)
        self.assertEqual(skipped.err.count("resnet: warning: "), 4)
        stopped = self.call("predict", "m.safetensors", "photos/01.png", "bad", "photos/00.jpg", "-b", "1", "--on-bad-sample", "stop")
        self.assertEqual((stopped.code, len(stopped.out.splitlines())), (BAD_DATA, 1))
        self.assertIn("a cut.jpg", stopped.err)

    def test_nothing_to_predict_and_wrong_flags_are_told(self):
        (self.folder / "none").mkdir()
        (self.folder / "none/readme").write_text("")
        for code, part, *arguments in ((IO, "none: no image", "none"), (IO, "x*.png: no file matches", "x*.png"),
                                       (IO, "gone.jpg", "gone.jpg"), (USAGE, "--top-k: 0", "photos", "--top-k", "0"),
                                       (USAGE, "--csv", "photos", "--csv", "--json"), (USAGE, "--logits", "photos", "--logits"),
                                       (USAGE, "--workers: 2", "photos", "--threads", "2", "-j", "2"),
                                       (USAGE, "on-bad-sample", "photos", "--on-bad-sample", "go")):
            with self.subTest(arguments=arguments):
                result = self.call("predict", "m.safetensors", *arguments)
                self.assertEqual(result.code, code, result.err)
                self.assertIn(part, result.err)
                self.assertEqual(result.out, "")
        missing = self.call("predict", "gone.safetensors", "photos")
        self.assertEqual(missing.code, IO)

    def test_names_that_would_write_to_the_terminal_are_escaped(self):
        name = "evil\x1b[2J\n.png"
        (self.folder / name).write_bytes((self.folder / "photos/01.png").read_bytes())
        self.assertIn("evil\\x1b[2J\\x0a.png", self.predict(name).out)
        self.assertEqual(self.objects(name)[0]["path"], name)
        self.assertEqual(next(csv.DictReader(io.StringIO(self.predict(name, "--csv").out, newline="")))["path"], name)
        broken = self.folder / "broken\x1b[2J.png"
        broken.write_bytes(b"\x1b[2J")
        self.assertNotIn("\x1b", self.call("predict", "m.safetensors", broken).err)

    def test_an_orientation_is_obeyed_where_the_model_says_so_and_mentioned_where_not(self):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[:, :10] = 250
        image = Image.fromarray(pixels)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(self.folder / "turned.png", exif=exif)
        image.save(self.folder / "stored.png")
        image.transpose(Image.Transpose.ROTATE_270).save(self.folder / "upright.png")
        logits = [o["logits"] for o in self.objects("turned.png", "stored.png", "upright.png", "--logits")]
        self.assertEqual(logits[0], logits[1])
        self.assertNotEqual(logits[0], logits[2])
        self.assertIn("1 of 2 images carry an EXIF orientation", self.predict("turned.png", "stored.png").err)
        tensors, metadata = safetensors_numpy.load(self.folder / "m.safetensors")
        safetensors_numpy.save(self.folder / "exif.safetensors", tensors, {**metadata, "exif_orientation": "true"})
        obeyed = self.predict("turned.png", "stored.png", "upright.png", "--logits", "--json", model="exif.safetensors")
        logits = [json.loads(line)["logits"] for line in obeyed.out.splitlines()]
        self.assertEqual(logits[0], logits[2])
        self.assertNotIn("warning", obeyed.err)

    def test_a_grey_model_takes_colour_photos_as_pillows_convert_does(self):
        Image.open(PHOTOS / "cat.png").convert("RGB").save(self.folder / "cat.png")
        Image.open(PHOTOS / "cat.png").convert("L").save(self.folder / "cat-grey.png")
        objects = self.objects("cat.png", "cat-grey.png", "--logits", model="grey/last/model.safetensors")
        self.assertEqual(objects[0]["logits"], objects[1]["logits"])

    def test_a_signal_ends_it_between_two_batches(self):
        many = self.folder / "many"
        many.write_text("photos/00.jpg\n" * 200000)
        with open(many) as stdin:
            running = self.start("predict", "m.safetensors", "-", "-b", "4", preexec=lambda: os.dup2(stdin.fileno(), 0))
            running.wait_until(lambda: os.fstat(running.out.fileno()).st_size > 0)
            running.send(signal.SIGINT)
            result = running.wait(20)
        self.assertEqual(result.code, 130, result.err)
        self.assertTrue(result.out.endswith("\n"), "a line is written whole")


def _png_header(width, height):
    import struct
    import zlib
    body = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width)))) + chunk(b"IEND", b""))


class Verify(Predicting):
    def test_a_golden_holds_for_the_model_it_was_written_with(self):
        self.ok("verify", "m.safetensors", "photos", "--write", "photos/golden.json")
        again = self.call("verify", "m.safetensors", "photos", "--write", "photos/golden.json")
        self.assertEqual(again.code, 8, again.err)
        self.assertIn("--force", again.err)
        self.ok("verify", "m.safetensors", "photos", "--write", "photos/golden.json", "--force")
        golden = json.loads((self.folder / "photos/golden.json").read_text())
        self.assertEqual([os.path.normpath("photos/" + i["file"]) for i in golden["images"]], self.files)
        for image in golden["images"]:
            self.assertEqual(image["sha256"], program.sha256(self.folder / "photos" / image["file"]))
        logits = {o["path"]: o["logits"] for o in self.objects(*self.files, "--logits", "-b", "1")}
        for image in golden["images"]:
            np.testing.assert_allclose(image["logits"], logits["photos/" + image["file"]], rtol=1e-5, atol=1e-5)
        for against in ("photos/golden.json", "photos"):
            result = self.ok("verify", "m.safetensors", "--against", against)
            self.assertIn("13 images are as in photos/golden.json", result.out)
        self.assertEqual(self.ok("verify", "m.safetensors", "--against", "photos", "--json").json()["differences"], [])
        # From another folder, and moved together with its images.
        os.rename(self.folder / "photos", self.folder / "moved")
        self.ok("verify", self.folder / "m.safetensors", "--against", self.folder / "moved", cwd="/")
        os.rename(self.folder / "moved", self.folder / "photos")
        os.remove(self.folder / "photos/golden.json")

    def test_every_kind_of_difference_is_found_named_and_ends_in_1(self):
        self.ok("verify", "m.safetensors", "photos/01.png", "photos/02.jpg", "photos/03.png", "photos/04.jpg", "photos/05.png", "--write", "g.json")
        golden = json.loads((self.folder / "g.json").read_text())
        images = golden["images"]
        images[0]["logits"][1] += 0.01 * max(map(abs, images[0]["logits"]))
        images[1]["pixels_sha256"] = "0" * 64
        images[2]["sha256"] = "f" * 64
        images[3]["file"] = "gone.jpg"
        (self.folder / "wrong.json").write_text(json.dumps(golden))
        result = self.call("verify", "m.safetensors", "--against", "wrong.json")
        self.assertEqual(result.code, 1, result.err)
        lines = result.out.splitlines()
        self.assertEqual(len(lines), 6, result.out)
        self.assertRegex(lines[1], r"^photos/01\.png +same +same +[0-9.e-]+ \(too far\)$")
        self.assertRegex(lines[2], r"^photos/02\.jpg +same +differ ")
        self.assertRegex(lines[3], r"^photos/03\.png +another +same ")
        self.assertIn("gone.jpg", lines[4])
        self.assertIn("4 of 5 images differ", lines[5])
        told = self.call("verify", "m.safetensors", "--against", "wrong.json", "--json").json()
        self.assertEqual([d["file"] for d in told["differences"]], ["photos/01.png", "photos/02.jpg", "photos/03.png", "gone.jpg"])
        self.assertEqual(told["images"], 5)
        del images[1:4]
        (self.folder / "near.json").write_text(json.dumps(golden))
        self.assertEqual(self.call("verify", "m.safetensors", "--against", "near.json").code, 1)
        self.ok("verify", "m.safetensors", "--against", "near.json", "--tolerance", "0.02")
        # Another preprocessing makes other pixels, other weights other logits.
        tensors, metadata = safetensors_numpy.load(self.folder / "m.safetensors")
        safetensors_numpy.save(self.folder / "cubic.safetensors", tensors, {**metadata, "interpolation": "bicubic"})
        told = self.call("verify", "cubic.safetensors", "--against", "g.json", "--json").json()
        self.assertEqual([d["same_pixels"] for d in told["differences"]], [False] * 5)
        tensors["linear.bias"] = tensors["linear.bias"] + np.float32([0, 1, 0])
        safetensors_numpy.save(self.folder / "other.safetensors", tensors, metadata)
        told = self.call("verify", "other.safetensors", "--against", "g.json", "--json").json()
        self.assertEqual([d["same_pixels"] for d in told["differences"]], [True] * 5)

    def test_a_golden_that_is_none_is_bad_data_naming_the_field(self):
        self.ok("verify", "m.safetensors", "photos/01.png", "--write", "good.json")
        good = json.loads((self.folder / "good.json").read_text())

        def changed(**fields):
            return json.dumps({**good, "images": [{**good["images"][0], **fields}]})

        for text, part in (("", "golden"), ("{", "golden"), ("[" * 100000, "golden"), ("[" + "0," * 15_000_000 + "0]", "golden"), ("[]", "format"), ("{}", "format"),
                           (json.dumps({**good, "format": "resnet golden 2"}), "format"), (json.dumps({**good, "images": []}), "images"),
                           (json.dumps({**good, "images": {}}), "images"), (json.dumps({**good, "images": [7]}), "file"),
                           (changed(file=7), "file"), (changed(file=""), "file"), (changed(sha256="0"), "sha256"),
                           (changed(pixels_sha256="Z" * 64), "pixels_sha256"), (changed(logits=[1, 2]), "logits"),
                           (changed(logits=[1, 2, "3"]), "logits"), (changed(logits="x"), "logits")):
            (self.folder / "bad.json").write_text(text)
            result = self.call("verify", "m.safetensors", "--against", "bad.json")
            self.assertEqual(result.code, BAD_DATA, f"{text[:200]}\n{result.err}")
            self.assertIn(f"bad.json: byte 0 ({part})", result.err)
            self.assertLess(result.cpu_seconds, 8 * program.PATIENCE)
            self.assertLess(result.peak_bytes, PEAK_MIB << 20)
        self.assertEqual(self.call("verify", "m.safetensors", "--against", "gone.json").code, IO)
        self.assertEqual(self.call("verify", "m.safetensors", "photos/01.png").code, USAGE)
        self.assertEqual(self.call("verify", "m.safetensors", "photos/01.png", "--against", "good.json").code, USAGE)
        self.assertEqual(self.call("verify", "m.safetensors", "--write", "x.json").code, USAGE)
        self.assertEqual(self.call("verify", "m.safetensors", "--against", "good.json", "--tolerance", "-1").code, USAGE)
        # A bad image leaves no golden behind.
        self.assertEqual(self.call("verify", "m.safetensors", "photos/01.png", "photos/notes.txt", "--write", "none.json").code, BAD_DATA)
        self.assertFalse((self.folder / "none.json").exists())


    def test_a_golden_keeps_no_name_that_json_has_no_way_for(self):
        (self.folder / os.fsdecode(b"caf\xe9.png")).write_bytes((self.folder / "photos/01.png").read_bytes())
        refused = self.call("verify", "m.safetensors", os.fsdecode(b"caf\xe9.png"), "--write", "never.json")
        self.assertEqual(refused.code, USAGE, refused.err)
        self.assertIn("not UTF-8", refused.err)
        self.assertFalse((self.folder / "never.json").exists())

    def test_no_images_still_need_a_model_and_make_a_table(self):
        (self.folder / "bare").mkdir()
        for model, code, out in (("m.safetensors", IO, "path,rank,index,class,probability\n"), ("gone.safetensors", IO, "")):
            result = self.call("predict", model, "bare", "--csv")
            self.assertEqual((result.code, result.out.replace("\r", "")), (code, out), result.err)
            self.assertEqual("gone.safetensors" in result.err, not out, result.err)
        refused = self.call("predict", "m.safetensors", "photos", "--workers", "-1")
        self.assertEqual(refused.code, USAGE, refused.err)
        self.assertIn("--workers: -1", refused.err)


class Evaluate(Predicting):
    def test_every_number_is_numpys(self):
        e = self.ok("evaluate", "grey/last/model.safetensors", "--data", "data", "--json", "--plots", "plots", "--dump-logits", "logits").json()
        logits = safetensors_numpy.load(self.folder / "logits")[0]["logits"].astype(np.float64)
        labels = np.arange(48) % 3
        p = softmax(logits)
        best = p.argmax(axis=1)
        right = best == labels
        self.assertAlmostEqual(e["top1"], right.mean())
        self.assertAlmostEqual(e["loss"], -np.log(p[np.arange(48), labels]).mean(), places=6)
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (labels, best), 1)
        self.assertEqual(e["confusion"], confusion.tolist())
        for k, scores in enumerate(e["per_class"]):
            precision = confusion[k, k] / max(confusion[:, k].sum(), 1)
            recall = confusion[k, k] / confusion[k].sum()
            np.testing.assert_allclose([scores["precision"], scores["recall"], scores["f1"]],
                                       [precision, recall, 2 * precision * recall / max(precision + recall, 1e-300)], atol=1e-12)
        # Guo et al. 2017: 15 bins of equal width, each with its upper edge.
        confidence = p.max(axis=1)
        edges = np.linspace(0, 1, 16)
        ece = 0
        for i, told in enumerate(e["calibration"]):
            inside = (confidence > edges[i]) & (confidence <= edges[i + 1])
            self.assertEqual(told["images"], inside.sum())
            if inside.any():
                self.assertAlmostEqual(told["confidence"], confidence[inside].mean(), places=6)
                self.assertAlmostEqual(told["accuracy"], right[inside].mean(), places=9)
                ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        self.assertAlmostEqual(e["ece"], ece, places=6)
        self.assertEqual(e["tta"], "none")
        self.assertIn(f"calibration error {100 * ece:.2f} %", self.ok("evaluate", "grey/last/model.safetensors", "--data", "data").out)
        for name in ("confusion", "reliability"):
            self.assertIn("<svg", (self.folder / f"plots/{name}.svg").read_text()[:400])

    def test_wrong_flags_and_a_folder_that_cannot_be_made_are_told(self):
        evaluate = ("evaluate", "grey/last/model.safetensors", "--data", "data")
        for code, part, *more in ((USAGE, "--tta: 'both'", "--tta", "both"), (USAGE, "ten crops", "--tta", "ten-crop"),
                                  (IO, "data/t10k-labels-idx1-ubyte", "--plots", "data/t10k-labels-idx1-ubyte/x")):
            result = self.call(*evaluate, *more)
            self.assertEqual(result.code, code, result.err)
            self.assertIn(part, result.err)

    def test_training_keeps_the_preprocessing_it_was_given(self):
        self.ok("train", "--model", "resnet20_cifar_a", "--data", "data", "--image-size", "24", "--resize", "shortest", "--resize-size", "27",
                "--interpolation", "bicubic", "--mean", "0.4", "--std=0.25", "--max-steps", "2", "--batch-size", "8", "--output", "kept")
        _, metadata = safetensors_numpy.load(self.folder / "kept/last/model.safetensors")
        self.assertEqual({k: metadata[k] for k in ("resize", "resize_size", "interpolation", "input_size", "std")},
                         {"resize": "shortest", "resize_size": "27", "interpolation": "bicubic", "input_size": "[1,24,24]", "std": "[0.25]"})
        self.assertAlmostEqual(json.loads(metadata["mean"])[0], 0.4, places=7)
        self.ok("evaluate", "kept/last/model.safetensors", "--data", "data", "--tta", "ten-crop")
        # Weights bring their preprocessing along, wherever they are given; what the user says himself is over it.
        (self.folder / "w.toml").write_text('weights = "kept/last/model.safetensors"\nmax_steps = 1\nbatch_size = 8\n')
        kept = {"resize": "shortest", "resize_size": None, "crop_pct": str(24 / 27), "interpolation": "bicubic", "input_size": "[1,24,24]", "std": "[0.25]"}
        weights = ("--weights", "kept/last/model.safetensors")
        (self.folder / "other.toml").write_text('model = "lecture_resnet18"\n')
        for more, expected in ((weights, kept), (("--set", "weights=kept/last/model.safetensors"), kept), (("--config", "w.toml"), kept),
                               (("--config", "w.toml", "--interpolation", "box"), {**kept, "interpolation": "box"}),
                               (("--config", "w.toml", "--set", "std=[0.5]"), {**kept, "std": "[0.5]"}),
                               (("--config", "w.toml", "--crop-pct", "0.5"), {**kept, "crop_pct": "0.5"}),
                               (("--config", "w.toml", "--resize-size", "28"), {**kept, "resize_size": "28", "crop_pct": str(24 / 28)}),
                               ((*weights, "--set", "resize_size=9"), {**kept, "resize_size": "9", "crop_pct": "1.0"}),
                               ((*weights, "--set", "crop_pct=0.5"), {**kept, "crop_pct": "0.5"})):
            self.ok("train", "--data", "data", "--max-steps", "1", "--batch-size", "8", *more, "--output", "again")
            _, metadata = safetensors_numpy.load(self.folder / "again/last/model.safetensors")
            self.assertEqual({k: metadata.get(k) for k in expected}, expected, more)
            shutil.rmtree(self.folder / "again")
        both = self.call("train", "--data", "data", *weights, "--resize-size", "28", "--crop-pct", "0.9", "--output", "never")
        self.assertEqual(both.code, USAGE, both.err)
        # Weights of another model than the user's say nothing of preprocessing: a padding that is too much for their 24 pixels is
        # none for the 96 that are usual, and only then are they found not to fit.
        for more in (("--config", "other.toml"), ("--set", "model=lecture_resnet18"), ("--model", "lecture_resnet18")):
            refused = self.call("train", "--data", "data", *weights, *more, "--random-crop-padding", "30", "--output", "never")
            self.assertEqual(refused.code, BAD_DATA, refused.err)
            self.assertIn("kept/last/model.safetensors", refused.err)
        refused = self.call("train", "--resume", "kept", "--interpolation", "box")
        self.assertEqual(refused.code, 8, refused.err)
        self.assertIn("interpolation", refused.err)
        for flag, value in (("--resize", "crop"), ("--interpolation", "cubic"), ("--crop-pct", "1.5"), ("--std", "0"), ("--mean", "1,2")):
            result = self.call("train", "--model", "resnet20_cifar_a", "--data", "data", flag, value, "--output", "never")
            self.assertEqual(result.code, USAGE, result.err)
            self.assertFalse((self.folder / "never").exists())


if __name__ == "__main__":
    program.main()
