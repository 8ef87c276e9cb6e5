#!/usr/bin/python3
"""Folders of images and lists from outside: training on them, bad images in them, `resnet data check`.

Usage: data_test.py PATH/OF/resnet [unittest's arguments]
"""
import io
import json
import os
import pathlib
import shutil
import sys
import unittest

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from program import SMALL, ProgramTest, events, idx_images, idx_labels, main, metrics, sha256  # noqa: E402

BAD_DATA, IO, REFUSED = 3, 4, 8
ROCKET = pathlib.Path(__file__).resolve().parent.parent / "data" / "photos" / "rocket.jpg"


def write_both(folder, idx, train=96, test=48, classes=3, side=12):
    """The same images as a folder of PNGs and as idx files, in the same order."""
    rng = np.random.default_rng(7)
    idx.mkdir(parents=True)
    for split, stem, count in (("train", "train", train), ("val", "t10k", test)):
        labels = np.sort(np.arange(count) % classes)
        pixels = (rng.integers(0, 90, (count, side, side)) + labels[:, None, None] * (160 // classes)).astype(np.uint8)
        (idx / f"{stem}-images-idx3-ubyte").write_bytes(idx_images(pixels))
        (idx / f"{stem}-labels-idx1-ubyte").write_bytes(idx_labels(labels))
        for i, (image, label) in enumerate(zip(pixels, labels)):
            path = folder / split / str(label) / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


class DataTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.photos = write_both(cls.folder / "photos", cls.folder / "idx")

    def copy_of_photos(self, name):
        return pathlib.Path(shutil.copytree(self.photos, self.folder / name))

    def train(self, data, output, *flags):
        return self.call("train", *SMALL, "--data", data, "--output", output, "--json", *flags)

    def test_a_folder_of_pngs_trains_to_the_bytes_that_idx_files_train_to(self):
        self.assertEqual(self.train("photos", "by-folder", "--channels", 1, "--epochs", 2).code, 0)
        self.assertEqual(self.train("idx", "by-idx", "--epochs", 2).code, 0)
        self.assert_same_weights(self.folder / "by-folder/last/model.safetensors", self.folder / "by-idx/last/model.safetensors")
        evaluated = [self.ok("evaluate", "by-idx/best.safetensors", "--data", data, "--json").json() for data in ("photos", "idx")]
        self.assertEqual([e.pop("split") for e in evaluated], ["validation", "test"])  # whose images they are
        self.assertEqual(evaluated[0], evaluated[1])
        self.assertEqual(evaluated[0]["images"], 48)

    def test_a_list_trains_to_the_bytes_that_its_folder_trains_to(self):
        with open(self.folder / "pets.csv", "w") as out:
            print("filename,label,split", file=out)
            for path in sorted(self.photos.rglob("*.png")):
                print(f"{path.relative_to(self.folder)},{path.parent.name},{path.parent.parent.name}", file=out)
        self.assertEqual(self.train("pets.csv", "list", "--max-steps", 3).code, 0)
        self.assertEqual(self.train("photos", "folder", "--max-steps", 3, "-j", 3).code, 0)
        self.assert_same_weights(self.folder / "list/last/model.safetensors", self.folder / "folder/last/model.safetensors")

    def test_photos_of_any_size_and_mode_train_and_evaluate(self):
        data = self.copy_of_photos("mixed")
        shutil.copy(ROCKET, data / "train/0/rocket.jpg")
        Image.open(ROCKET).convert("CMYK").resize((50, 31)).save(data / "train/1/cmyk.jpg")
        Image.open(ROCKET).resize((33, 40)).save(data / "val/2/x.webp")
        self.assertEqual(self.train("mixed", "mixed-run", "--epochs", 1).code, 0)
        self.assertEqual(self.ok("evaluate", "mixed-run/best.safetensors", "--data", "mixed", "--json").json()["images"], 49)

    def test_training_says_when_photos_would_be_turned(self):
        data = self.copy_of_photos("turned")
        exif = Image.Exif()
        exif[0x112] = 8
        Image.open(ROCKET).resize((40, 20)).save(data / "train/2/turned.jpg", exif=exif)
        result = self.train("turned", "turned-run", "--max-steps", 1)
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("turned: 1 of the 145 images looked at carry an EXIF orientation", result.err)
        self.assertNotIn("EXIF", self.train("photos", "upright-run", "--max-steps", 1).err)

    def test_training_says_when_a_limit_leaves_out_classes(self):
        said = "--limit: the first 40 images of photos lack 1 of its 3 classes"
        self.assertIn(said, self.train("photos", "limited", "--max-steps", 1, "--limit", 40).err)
        self.assertNotIn("--limit", self.train("photos", "less-limited", "--max-steps", 1, "--limit", 65).err)

    def test_a_bad_image_stops_training_with_its_name(self):
        data = self.copy_of_photos("stop")
        bad = data / "train/1/0040.png"
        bad.write_bytes(bad.read_bytes()[:70])
        result = self.train("stop", "stop-run", "--epochs", 1)
        self.assertEqual(result.code, BAD_DATA, result.err)
        self.assertIn("stop/train/1/0040.png: byte ", result.err.splitlines()[-1])

    def test_skipped_images_are_counted_and_a_resumed_run_repeats_them(self):
        data = self.copy_of_photos("skip")
        for name in ("train/0/0000.png", "train/0/0001.png", "train/1/0040.png", "train/2/0095.png", "val/1/0020.png"):
            (data / name).write_bytes((data / name).read_bytes()[:70])
        skip = ("--on-bad-sample", "skip")
        whole = self.train("skip", "whole", "--epochs", 2, *skip)
        self.assertEqual(whole.code, 0, whole.err)
        self.assertEqual(whole.json()["skipped_samples"], 8)  # four images in each of two epochs
        self.assertEqual(whole.err.count("skipped: the next image"), 4)  # and each named once
        self.assertIn("skip/train/0/0000.png", whole.err)
        skipped = [e for e in events(self.folder / "whole") if "skipped_sample" in e]
        self.assertEqual(sorted(e["skipped_sample"] for e in skipped), sorted([0, 1, 40, 95] * 2))
        tests = [e for e in events(self.folder / "whole") if e["split"] == "validation"]  # there is no folder test
        self.assertEqual([(e["images"], e["skipped_samples"]) for e in tests], [(47, 1)] * 2)
        self.assertEqual(self.train("skip", "parts", "--epochs", 2, "--max-steps", 4, *skip).code, 0)
        resumed = self.call("train", "--resume", "parts", "--max-steps", 0, "--json", "-j", 3)
        self.assertEqual(resumed.code, 0, resumed.err)
        self.assertEqual(resumed.json()["skipped_samples"], 8)
        self.assert_same_weights(self.folder / "whole/last/model.safetensors", self.folder / "parts/last/model.safetensors")
        self.assertEqual([r["train_loss"] for r in metrics(self.folder / "whole")], [r["train_loss"] for r in metrics(self.folder / "parts")])

    def test_a_run_that_a_bad_image_stopped_goes_on_without_it(self):
        data = self.copy_of_photos("late")
        bad = data / "train/1/0040.png"
        bad.write_bytes(bad.read_bytes()[:70])
        self.assertEqual(self.train("late", "late-run", "--epochs", 1, "--checkpoint-every", 1).code, BAD_DATA)
        self.assertEqual(self.call("train", "--resume", "late-run", "--on-bad-sample", "skip").code, 0)
        self.assertEqual(self.train("late", "skip-at-once", "--epochs", 1, "--on-bad-sample", "skip").code, 0)
        self.assert_same_weights(self.folder / "late-run/last/model.safetensors", self.folder / "skip-at-once/last/model.safetensors")

    def test_nothing_but_bad_images_is_an_error(self):
        data = self.copy_of_photos("all-bad")
        for path in data.rglob("train/*/*.png"):
            path.write_bytes(b"\x89PNG\r\n\x1a\n")
        result = self.train("all-bad", "all-bad-run", "--epochs", 1, "--on-bad-sample", "skip")
        self.assertEqual(result.code, BAD_DATA, result.err)
        self.assertIn("none of its 96 images can be read", result.err)

    def test_resume_refuses_a_folder_that_changed(self):
        data = self.copy_of_photos("changed")
        self.assertEqual(self.train("changed", "changed-run", "--max-steps", 2).code, 0)
        os.remove(data / "train/2/0095.png")
        result = self.call("train", "--resume", "changed-run", "--max-steps", 4)
        self.assertEqual(result.code, REFUSED, result.err)
        self.assertIn("the data is not what the run was started on", result.err)

    def test_check_finds_nothing_in_good_data(self):
        for data, kind in (("photos", "image folder"), ("idx", "idx")):
            report = self.ok("data", "check", data, "--json").json()
            self.assertEqual((report["kind"], report["images"], report["checked"], report["findings"]), (kind, 144, 144, []))
            self.assertEqual([s["images"] for s in report["splits"]], [96, 48])
            self.assertEqual([c["images"] for c in report["splits"][0]["classes"]], [32] * 3)
            self.assertEqual(report["width"], {"min": 12, "median": 12, "max": 12})
        self.assertIn("nothing found", self.ok("data", "check", "photos").out)

    def test_check_finds_each_kind_of_flaw(self):
        data = self.copy_of_photos("flawed")
        flaws = {}

        def flaw(kind, *files):
            flaws.setdefault(kind, set()).add(files)

        cut = data / "train/0/0003.png"
        cut.write_bytes(cut.read_bytes()[:70])
        flaw("unreadable", "train/0/0003.png")
        (data / "train/0/empty.jpg").touch()
        flaw("unreadable", "train/0/empty.jpg")
        (data / "train/0/gone.png").symlink_to("nowhere.png")
        flaw("unreadable", "train/0/gone.png")
        content = (data / "train/0/0004.png").read_bytes()
        at = content.rindex(b"IEND") - 8  # the checksum of the pixel data
        (data / "train/0/0004.png").write_bytes(content[:at] + bytes(4) + content[at + 4:])
        flaw("damaged", "train/0/0004.png")
        shutil.copy(data / "train/0/0005.png", data / "train/0/zz-again.png")
        flaw("duplicate", "train/0/0005.png", "train/0/zz-again.png")
        Image.open(data / "train/1/0040.png").save(data / "val/1/zz-leak.png", compress_level=1)  # other bytes, the same pixels
        flaw("leak", "train/1/0040.png", "val/1/zz-leak.png")
        shutil.copy(data / "train/1/0041.png", data / "train/2/zz-other.png")
        flaw("two_classes", "train/1/0041.png", "train/2/zz-other.png")
        shutil.copy(ROCKET, data / "train/1/bad\nname.jpg")
        flaw("name", "train/1/bad\nname.jpg")
        (data / "train/3").mkdir()
        flaw("empty_class", "train/3")
        flaw("classes", "val/3")
        exif = Image.Exif()
        exif[0x112] = 6
        Image.open(ROCKET).resize((40, 20)).save(data / "train/2/turned.jpg", exif=exif)
        (data / "train/2/notes.txt").write_text("not an image")
        (data / "val/a-stray.png").write_bytes((data / "train/0/0006.png").read_bytes())
        result = self.call("data", "check", "flawed", "--json")
        self.assertEqual(result.code, 1, result.err)
        report = result.json()
        found = {}
        for finding in report["findings"]:
            found.setdefault(finding["kind"], set()).add(tuple(finding["files"]))
            self.assertTrue(finding["detail"])
        self.assertEqual(found, flaws)
        self.assertEqual(report["exif_orientation"], 1)
        self.assertEqual(report["formats"], {"JPEG": 2, "PNG": 144 - 1 + 3})
        self.assertTrue(any("train/2/notes.txt" in note and "val/a-stray.png" in note for note in report["notes"]), report["notes"])
        self.assertFalse(any("resnet train wants" in note for note in report["notes"]), report["notes"])
        shutil.copytree(data / "train", self.folder / "flat", symlinks=True)
        flat = self.call("data", "check", "flat", "--json").json()
        self.assertTrue(any("resnet train wants" in note for note in flat["notes"]), flat["notes"])
        text = self.call("data", "check", "flawed", "--threads", 1)
        self.assertEqual(text.code, 1)
        self.assertNotIn("bad\nname", text.out)
        for word in ("unreadable 3", "leak 1", "two_classes 1", "duplicate 1", "bad\\x0aname"):
            self.assertIn(word, text.out)

    def test_check_looks_at_one_split_where_the_other_is_missing(self):
        data = pathlib.Path(shutil.copytree(self.folder / "idx", self.folder / "half"))
        os.remove(data / "t10k-images-idx3-ubyte")
        result = self.call("data", "check", "half", "--json")
        self.assertEqual(result.code, 1, result.err)
        report = result.json()
        self.assertEqual((report["images"], [f["kind"] for f in report["findings"]]), (96, ["unreadable"]))
        self.assertIn("t10k-images-idx3-ubyte", report["findings"][0]["detail"])
        os.remove(data / "train-labels-idx1-ubyte")
        self.assertEqual(self.call("data", "check", "half").code, IO)

    def test_evaluation_says_when_classes_have_other_names_or_photos_would_be_turned(self):
        self.assertEqual(self.train("photos", "named-run", "--max-steps", 1).code, 0)
        evaluate = ("evaluate", "named-run/last/model.safetensors", "--data")
        self.assertNotIn("warning", self.ok(*evaluate, "photos").err)
        data = self.copy_of_photos("renamed")
        for split in ("train", "val"):
            for k in range(3):
                (data / split / str(k)).rename(data / split / f"class-{k}")
        self.assertIn("other names than the model's, e.g. 'class-0' for '0'", self.ok(*evaluate, "renamed").err)
        for split in ("train", "val"):
            (data / split / "class-0").rename(data / split / "0")
        refused = self.call(*evaluate, "renamed")
        self.assertEqual(refused.code, REFUSED, refused.err)
        self.assertIn("'class-1'", refused.err)
        exif = Image.Exif()
        exif[0x112] = 6
        data = self.copy_of_photos("turned-val")
        Image.open(ROCKET).resize((40, 20)).save(data / "val/2/turned.jpg", exif=exif)
        self.assertIn("turned-val: 1 of the 49 images looked at carry an EXIF", self.ok(*evaluate, "turned-val").err)
        self.assertIn("1 of the 145 images looked at carry an EXIF", self.train("turned-val", "turned-val-run", "--max-steps", 1).err)

    def test_a_folder_for_pictures_is_made_before_the_evaluation(self):
        self.assertEqual(self.train("photos", "plots-run", "--max-steps", 1).code, 0)
        data = self.copy_of_photos("plots")
        bad = data / "val/0/0000.png"
        bad.write_bytes(bad.read_bytes()[:70])
        evaluate = ("evaluate", "plots-run/last/model.safetensors", "--data", "plots")
        self.assertEqual(self.call(*evaluate).code, BAD_DATA)
        self.assertEqual(self.call(*evaluate, "--plots", "plots/val/0/0000.png/x").code, IO)

    def test_check_says_what_it_cannot_look_at(self):
        self.assertEqual(self.call("data", "check", "no/such/folder").code, IO)
        self.assertEqual(self.call("data", "check", "no-such-name").code, 2)
        self.assertEqual(self.call("data", "chekc", "photos").code, 2)
        (self.folder / "broken.csv").write_text("a.png\n")
        self.assertEqual(self.call("data", "check", "broken.csv").code, BAD_DATA)


if __name__ == "__main__":
    main()
