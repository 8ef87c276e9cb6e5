#!/usr/bin/python3
"""Does a trained net answer as PyTorch does? Every kernel family, f32, f16 and int8, on the test images of Fashion-MNIST.

    bench/accuracy.py                      runs/lecture/best.safetensors, which `make train` makes
    bench/accuracy.py --model FILE         another lecture net
    bench/accuracy.py --precision int8     f32, int8 or f16 alone
    bench/accuracy.py --page               writes the page again from the newest records

PyTorch is Debian's, with the lecture's net of tools/lecture_net.py, the weights that `resnet convert` makes of the model file,
and images that Pillow resizes: nothing of the program's own but the numbers in the file. Bounds: in f32 the same class as
PyTorch for 99.9 % of the images, and logits within 1e-4 of the largest of their image; int8 at most 0.5 points of top-1
below f32, with calibration images from the training split. f16's figures are told. Prints a table, appends a JSON line
for each precision to bench/results/accuracy.jsonl, and writes docs/results/accuracy.md of the newest of each. Exits 1 when a
bound is missed, 2 when something cannot run.
"""
import argparse
import datetime
import hashlib
import inspect
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image

import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "build/accuracy"  # of what takes minutes
sys.path.insert(0, str(ROOT / "tools"))
import fashion_mnist
import safetensors_numpy
from lecture_net import lecture_resnet18
from parity import CannotRun, run_program

IMAGES = 10_000
PRECISIONS = ("f32", "int8", "f16")
LEAST_SAME, MOST_ERROR, MOST_DROP = 0.999, 1e-4, 0.5  # a share, of an image's largest logit, points
# Half precision has 11 bits: logits closer to f32's than this were computed in f32.
LEAST_HALF_ERROR = 1e-5
DOUBLE_IMAGES, REFERENCE_IMAGES = 200, 100  # PyTorch has no fast convolutions in double; the reference's are plain loops
EMULATED_DIRECT_IMAGES = 1000  # of f16 without Winograd, which is further from f32 and has them all
PART = 500  # images of a process that answers for files: the emulation of f16 is slow, and its progress is told between parts
ISA_FLAGS = {"generic": None, "avx2": "avx2", "avx512": "avx512f", "avx512fp16": "avx512_fp16"}  # of RESNET_MAX_ISA
CALIBRATIONS = [(64, 1), (64, 2), (256, 1), (256, 2), (256, 3), (1024, 1), (1024, 2)]  # images, seed


def keep(path, write):
    """Calls write(another path) and gives the file its name, so that half a file never has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    write(partial)
    partial.rename(path)


class Oracle:
    """PyTorch's answers: f32 `logits` [N, 10] to hold others against, `labels`, and `double`, of the first images.

    They take PyTorch minutes, so they are kept under build/, by what they follow from.
    """

    def __init__(self, args, folder):
        _, metadata = safetensors_numpy.load(args.model)
        if metadata.get("architecture") != "lecture_resnet18" or metadata.get("resize") != "squash" or float(metadata["crop_pct"]) != 1:
            raise CannotRun(f"{args.model}: expected a lecture_resnet18 that takes whole images; train one with `make train`")
        _, self.size, _ = json.loads(metadata["input_size"])
        images, self.labels = fashion_mnist.batch(0, IMAGES, self.size, split="t10k")
        files = [args.model, ROOT / "tools/lecture_net.py", ROOT / "tools/fashion_mnist.py"]
        words = inspect.getsource(Oracle) + f"{IMAGES} {DOUBLE_IMAGES} {torch.__version__}"
        key = hashlib.sha256(b"".join(path.read_bytes() for path in files) + words.encode()).hexdigest()[:16]
        kept = KEPT / f"pytorch-{key}.npz"
        if not kept.is_file():
            print("PyTorch computes", file=sys.stderr)
            keep(kept, lambda path: np.savez(path, **self.compute(args, folder, images, metadata)))
        self.logits, self.double = (np.load(kept)[name] for name in ("logits", "double"))

    def compute(self, args, folder, images, metadata):
        run_program([args.resnet, "convert", args.model, folder / "model.pth"], folder, {})
        net = lecture_resnet18(stem_padding=int(metadata.get("model.stem_padding", 3)))
        net.load_state_dict(torch.load(folder / "model.pth"))
        net.eval()
        mean, std = (json.loads(metadata[key]) or [usual] for key, usual in (("mean", 0.0), ("std", 1.0)))
        images = torch.from_numpy((images - mean[0]) / std[0])
        with torch.no_grad():
            return {"logits": torch.cat([net(part.float()) for part in images.split(250)]).numpy(),
                    "double": net.double()(images[:DOUBLE_IMAGES]).numpy()}


def row_of(name, precision, logits, oracle, seconds, **more):
    """The figures of `logits` [N, 10], of the first N images, beside PyTorch's."""
    theirs, labels = oracle.logits[:len(logits)].astype(np.float64), oracle.labels[:len(logits)]
    if logits.shape != theirs.shape:
        raise CannotRun(f"{name}: logits have shape {logits.shape}, expected {theirs.shape}")
    errors = np.abs(logits - theirs) / np.abs(theirs).max(axis=1, keepdims=True)
    right, right_there = logits.argmax(1) == labels, theirs.argmax(1) == labels
    lost, gained = int((right_there & ~right).sum()), int((right & ~right_there).sum())
    return {"name": name, "precision": precision, "images": len(logits), "top1": float(right.mean()),
            "same": int((logits.argmax(1) == theirs.argmax(1)).sum()), "lost": lost, "gained": gained,
            "drop": 100 * (lost - gained) / len(logits),
            "worst_error": float(errors.max()), "rms_error": float(np.sqrt((errors ** 2).mean())),  # a NaN stays one
            "seconds": round(seconds, 1), **more}


def misses(row):
    """What of a row's bounds it misses; empty when none."""
    if row["precision"] == "f32":
        return [*(["agreement"] if not row["same"] >= LEAST_SAME * row["images"] else []),
                *(["logits"] if not row["worst_error"] <= MOST_ERROR else [])]
    return ["drop"] if row["precision"] == "int8" and not row["drop"] <= MOST_DROP else []


class Program:
    """The logits of resnet for test images, and the rows that come of them."""

    def __init__(self, args, folder, oracle):
        self.args, self.folder, self.oracle = args, folder, oracle

    def run(self, verb, model, flags, environment):
        return run_program([self.args.resnet, verb, model, *flags, "--threads", self.args.threads], self.folder,
                           {"OMP_WAIT_POLICY": "passive", **environment})[0]

    def evaluate(self, model, flags=(), environment=None):
        dump = self.folder / "logits.safetensors"
        self.run("evaluate", model, [*flags, "--dump-logits", dump, "--json"], environment or {})
        logits = safetensors_numpy.load(dump)[0]["logits"]
        dump.unlink()
        return logits

    def predict(self, model, flags=(), environment=None, images=IMAGES, told=None):
        """By image files: one pass, where `evaluate --dump-logits` makes two. What is `told` of is kept under build/ part by
        part, so that an interrupted run goes on from there."""
        logits, environment = [], environment or {}
        words = f"{flags} {environment} {self.args.threads}".encode()
        key = hashlib.sha256(pathlib.Path(self.args.resnet).read_bytes() + pathlib.Path(model).read_bytes() + words).hexdigest()[:16]
        for first in range(0, images, PART):
            start, count = time.monotonic(), min(PART, images - first)
            kept = KEPT / f"logits-{key}-{first}-{count}.npy"
            if told and kept.is_file():
                logits.append(np.load(kept))
                continue
            command = [self.pictures(first, count), "--json", "--logits", "--batch-size", 250, *flags]
            logits.append(np.array([json.loads(line)["logits"] for line in self.run("predict", model, command, environment).splitlines()]))
            if told:
                keep(kept, lambda path: np.save(path, logits[-1]))
                print(f"{told}: {first + count}/{images}, {count / (time.monotonic() - start):.1f} img/s", file=sys.stderr)
        return np.concatenate(logits)

    def pictures(self, first, count):
        """The folder with the test images first, first + 1, ... as PNG files in this order."""
        folder = self.folder / f"pictures-{first}-{count}"
        if not folder.exists():
            folder.mkdir()
            pixels = fashion_mnist.read_idx(fashion_mnist.FOLDER / "t10k-images-idx3-ubyte.gz", first + count)[first:]
            for i, image in enumerate(pixels, first):
                Image.fromarray(image).save(folder / f"{i:05}.png")
        return folder

    def row(self, name, precision, answer, **more):
        start = time.monotonic()
        logits = answer()
        row = row_of(name, precision, logits, self.oracle, time.monotonic() - start, **more)
        print_row(row)
        return row, logits

    def f32(self):
        model, rows, logits = self.args.model, [], {}

        def by(name, flags=(), answer=self.evaluate, **environment):
            row, logits[name] = self.row(name, "f32", lambda: answer(model, flags, environment), environment=environment)
            rows.append(row)

        by("the fastest kernel of each layer")
        by("direct convolutions", RESNET_CONV_ALGORITHM="direct")
        by("Winograd", RESNET_CONV_ALGORITHM="winograd")
        has = {"avx2", "avx512f", "avx512_fp16"} & set(self.args.host["isa"])
        for isa, flag in ISA_FLAGS.items():
            if flag is None or flag in has:
                by(f"Winograd, layouts and kernels for {isa}", RESNET_CONV_ALGORITHM="winograd", RESNET_MAX_ISA=isa)
                by(f"direct, layouts and kernels for {isa}", RESNET_CONV_ALGORITHM="direct", RESNET_MAX_ISA=isa)
        by("direct, oneDNN's kernels for SSE4.1", RESNET_CONV_ALGORITHM="direct", ONEDNN_MAX_CPU_ISA="SSE41")
        by("batches of one image", ["--batch-size", 1])
        by("batches of 1,000 images", ["--batch-size", 1000])
        by("image files, by predict", answer=self.predict)
        by("the reference backend", ["--backend", "reference", "--limit", REFERENCE_IMAGES])
        if np.array_equal(logits["Winograd"], logits["direct convolutions"]):
            raise CannotRun("Winograd and direct convolutions gave the same bytes: one of them was not used")
        return rows

    def f16(self):
        native = "avx512_fp16" in self.args.host["isa"]
        environment, rows = {} if native else {"RESNET_F16": "emulate"}, []
        for name, algorithm, images in (("Winograd", "winograd", IMAGES), ("direct convolutions", "direct", IMAGES if native else EMULATED_DIRECT_IMAGES)):
            title, using = name + ("" if native else ", emulated"), {**environment, "RESNET_CONV_ALGORITHM": algorithm}
            answer = lambda: self.predict(self.args.model, ["--precision", "f16"], using, min(images, self.args.f16_images), f"f16, {title}")
            row, _ = self.row(title, "f16", answer, environment=using)
            if row["rms_error"] < LEAST_HALF_ERROR:
                raise CannotRun(f"f16, {title}: logits are within {row['rms_error']:.1e} of f32's: half precision was not used")
            rows.append(row)
        return rows

    def subset(self, count, seed):
        """A data folder with all test images, and `count` of the training images drawn by `seed`."""
        folder = self.folder / f"calibration-{count}-{seed}"
        folder.mkdir()
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            (folder / name).symlink_to(fashion_mnist.FOLDER / name)
        chosen = None
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            all_of_them = fashion_mnist.read_idx(fashion_mnist.FOLDER / name)
            if chosen is None:
                chosen = np.sort(np.random.default_rng(seed).choice(len(all_of_them), count, replace=False))
            fashion_mnist.write_idx(folder / name, all_of_them[chosen])
        return folder

    def int8(self):
        rows, model = [], self.folder / "int8.safetensors"

        def quantized(name, data, *flags):
            told = json.loads(self.run("quantize", self.args.model, ["--data", data, "--calibration-split", "train", "--output", model,
                                                                     "--force", "--json", *flags], {}))
            layers = [layer["sqnr_db"] for layer in told["layers"] if layer["quantized"] and layer["sqnr_db"] is not None]
            row, logits = self.row(name, "int8", lambda: self.evaluate(model), layers=len(layers), all_layers=len(told["layers"]),
                                   least_sqnr_db=min(layers), told_drop=told["drop_points"])
            rows.append(row)
            if abs(told["top1"]["after"] - row["top1"]) > 1e-9:
                raise CannotRun(f"{name}: resnet quantize said {told['top1']['after']} right, its file's logits say {row['top1']}")
            return logits

        logits = quantized("as by default: 256", "fashion-mnist")
        for isa, flag in ISA_FLAGS.items():
            if flag is None or flag in self.args.host["isa"]:
                if not np.array_equal(self.evaluate(model, environment={"RESNET_MAX_ISA": isa}), logits):
                    raise CannotRun(f"int8: the kernels for {isa} give other bytes; expected the same on every processor")
        quantized("256, --method percentile", "fashion-mnist", "--method", "percentile")
        for count, seed in CALIBRATIONS:
            quantized(f"{count:,} drawn at random, seed {seed}", self.subset(count, seed), "--calibration-images", count)
        return rows


HEADER = (f"{'':<5} {'':<40} {'images':>6} {'top-1 %':>7} {'same class':>10} {'%':>7} {'lost':>4} {'gained':>6} {'drop':>6} "
          f"{'worst error':>11} {'rms':>8}  verdict")
EXPLANATION = ("same class: as PyTorch in f32 says. lost, gained: images that PyTorch has right and this has wrong, and the other way round. drop: their\n"
               "difference in points of top-1. error: of a logit, by the largest of its image; the worst and the root of the mean square.")


def text_of(row):
    share, missed = 100 * row["same"] / row["images"], misses(row)
    verdict = f"missed: {', '.join(missed)}" if missed else "" if row["precision"] in ("f16", "-") else "ok"
    return (f"{row['precision']:<5} {row['name']:<40} {row['images']:6} {100 * row['top1']:7.2f} {row['same']:10} {share:7.2f} "
            f"{row['lost']:4} {row['gained']:6} {row['drop']:6.2f} {row['worst_error']:11.1e} {row['rms_error']:8.1e}  {verdict}").rstrip()


def print_row(row):
    print(text_of(row), flush=True)


def told_of(precision, rows):
    """What was promised of a precision, and what its rows say: cells of the page's table."""
    share = lambda row: 100 * row["same"] / row["images"]
    if precision == "f32":
        least, worst = min(rows, key=share), max(rows, key=lambda row: row["worst_error"])
        yield f"f32: the same class as PyTorch for ≥ {100 * LEAST_SAME:.1f} %", f"least {share(least):.2f} % ({least['name']})"
        yield f"f32: logits within {MOST_ERROR:.0e} of PyTorch's", f"worst {worst['worst_error']:.1e} ({worst['name']})"
    elif precision == "int8":
        drops, kept = [row["drop"] for row in rows], sorted({f"{row['layers']} of {row['all_layers']}" for row in rows})
        yield (f"int8: ≤ {MOST_DROP} points below f32", f"worst {max(drops):.2f}, mean {np.mean(drops):.2f} of {len(drops)} calibrations; "
               f"{', '.join(kept)} convolutions in 8 bits")
    else:
        yield "f16: the measured figure", "; ".join(
            f"the same class for {share(row):.2f} %, logits off by {row['worst_error']:.1e} ({row['name']}, {row['images']:,} images)" for row in rows)


def page(records):
    """Of {precision: its newest record}."""
    lines = ["# Accuracy on Fashion-MNIST's test images", "",
             "Written by `bench/accuracy.py` from `bench/results/accuracy.jsonl`: the newest record of each precision, as `make bench-accuracy` made it",
             "([how it is measured](../../bench/README.md)). A lecture ResNet-18, trained by `make train`, beside PyTorch with the same weights, on as many",
             "of the 10,000 test images as each row says.", "", "| promised | measured |", "|---|---|"]
    for precision in PRECISIONS:
        told = told_of(precision, records[precision]["rows"]) if precision in records else [(precision, "not measured")]
        lines += [f"| {promised} | {measured} |" for promised, measured in told]
    for precision, record in ((precision, records[precision]) for precision in PRECISIONS if precision in records):
        lines += ["", f"## {precision}", "",
                  f"Input {record['image_size']}x{record['image_size']}, model's SHA-256 `{record['model_sha256'][:16]}`, PyTorch {record['torch']}, {record['threads']} threads, "
                  f"{record['cpu']} ({', '.join(record['isa'])}), commit {record['commit']}, {record['date'][:10]}.", "",
                  "```", HEADER, *(text_of(row) for row in [*record["oracle_rows"], *record["rows"]]), "```"]
    return "\n".join([
        *lines, "", EXPLANATION, "",
        "Each family of f32 kernels is switched on by its name (`RESNET_CONV_ALGORITHM`, `RESNET_MAX_ISA`, oneDNN's `ONEDNN_MAX_CPU_ISA`;",
        "[architecture](../architecture.md#how-a-convolution-is-chosen)). The 8-bit file of the first row gave the same bytes with each instruction set that",
        "the processor has; calibration images are of the training split. f16 on a processor without AVX512-FP16 is emulated, bit by bit what one with it computes ([decision 0016](../decisions/0016-half-precision.md)).",
        "The other nets' logits beside PyTorch's, with random weights: [models.md](models.md).", ""])


def newest_records(path):
    """{precision: the last record of it}"""
    lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        raise CannotRun(f"{path}: no record; run `make bench-accuracy` first")
    return {record["precision"]: record for record in map(json.loads, lines)}


def measure(args):
    """Yields a record for each precision."""
    if not args.model.is_file():
        raise CannotRun(f"{args.model}: no such file; train one with `make train`, or give another with --model")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        oracle = Oracle(args, folder)
        print(HEADER)
        known = row_of("PyTorch in double", "-", oracle.double, oracle, 0)
        print_row(known)
        program = Program(args, folder, oracle)
        for precision in args.precision:
            rows = {"f32": program.f32, "int8": program.int8, "f16": program.f16}[precision]()
            yield {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "precision": precision,
                   "threads": args.threads, **args.host, "build": peers.build_flags(args.resnet),
                   "torch": torch.__version__, "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
                   "image_size": oracle.size, "oracle_rows": [known], "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "runs/lecture/best.safetensors", help="default %(default)s")
    parser.add_argument("--resnet", default=str(ROOT / "build/release/resnet"), help="the program (default %(default)s)")
    parser.add_argument("--precision", type=peers.names, default=list(PRECISIONS), help="with commas between (default: all)")
    parser.add_argument("--f16-images", type=int, default=IMAGES, help="the first N, where emulation is too slow (default: all)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default %(default)s")
    parser.add_argument("--no-record", action="store_true", help="record nothing, and leave the page")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page again")
    args = parser.parse_args()
    if not 1 <= args.f16_images <= IMAGES:
        parser.error(f"--f16-images: {args.f16_images}; expected 1 to {IMAGES}")
    if strange := set(args.precision) - set(PRECISIONS):
        parser.error(f"--precision: '{min(strange)}'; expected {', '.join(PRECISIONS)}")
    args.host = peers.machine()
    torch.set_num_threads(args.threads)
    path, missed = ROOT / "bench/results/accuracy.jsonl", False
    try:
        for record in [] if args.page else measure(args):
            missed = missed or any(misses(row) for row in record["rows"])
            if not args.no_record:
                with open(path, "a") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)
        if not args.no_record:
            (ROOT / "docs/results/accuracy.md").write_text(page(newest_records(path)))
    except CannotRun as error:
        print(f"accuracy: error: {error}", file=sys.stderr)
        return 2
    if not args.page:
        print(EXPLANATION)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
