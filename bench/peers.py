#!/usr/bin/python3
"""resnet.cpp beside its peers, paired and interleaved on one machine.

    bench/peers.py training      the lecture's net at 96x96, batch 256, against PyTorch
    bench/peers.py inference     torchvision's ResNets at 224, batch 1, 8, 32, in f32, int8 and f16, against PyTorch, ONNX Runtime,
                                 OpenVINO and ncnn
    bench/peers.py inference --models resnet18,resnet50 --batch-sizes 32 --precision int8
    bench/peers.py report        what the newest race's records say of the ratios that were promised

Peers are long-lived processes that wait on a pipe, so that only one of all computes at a time. A round asks each
contestant once, in an order that rotates; a ratio is the median over rounds of resnet's rate by the peer's rate *in the
same round*, so slow drift of the machine cancels. Inference: everyone runs the same random weights and proves it by its
logits; peers are of the same precision, but our f16, which no peer has, is held against our f32. With batch 1 those that
could gain from it take part once more, with as many images at once as there are threads. The time from a process's start to
its first answer is measured too then, and the size of the program with its libraries. Prints a table for each setup and
appends one JSON line each to bench/results/MODE.jsonl. A peer that cannot be had is named with its
reason. Peers from PyPI live in a virtual environment under build/peers, made on the first run (6 GB: the wheels of PyTorch
bring CUDA's libraries along).
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

from peer_process import disagreement, program_bytes

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
FOLDER = ROOT / "build" / "peers"
DEBIAN = "/usr/bin/python3"  # whose PyTorch is 1.13
# PyPI's, each with what it needs; one that cannot be installed leaves the others alone.
PINS = {"pytorch": ["torch==2.15.0", "torchvision==0.29.2", "onnx==1.23.2", "pnnx==20261020"],
        "onnxruntime": ["onnxruntime==1.32.0"],
        "openvino": ["openvino==2026.4.1"],
        "ncnn": ["ncnn==1.0.20261020"]}
NEEDED_BYTES = 8 << 30
USAGE = 2  # resnet's exit code for a flag that it does not take
# kind: (of bench/peer_process.py, the interpreter: Debian's or the name in PINS)
INFERENCE_PEERS = [("pytorch_frozen", DEBIAN), ("pytorch_eager", "pytorch"), ("pytorch_compile", "pytorch"),
                   ("onnxruntime", "onnxruntime"), ("openvino_latency", "openvino"), ("openvino_throughput", "openvino"),
                   ("ncnn", "ncnn")]
INT8_PEERS = [("pytorch_int8", "pytorch"), ("onnxruntime_int8", "onnxruntime"), ("onnxruntime_our_int8", "onnxruntime"),
              ("openvino_int8_latency", "openvino"), ("openvino_int8_throughput", "openvino"),
              ("openvino_symmetric_int8_throughput", "openvino"), ("openvino_our_int8_throughput", "openvino")]
PEERS_OF = {"f32": INFERENCE_PEERS, "int8": INT8_PEERS, "f16": []}
# Those that take part once more, and we, with an image for each thread in one batch, where single images are asked for.
AT_ONCE_OF = {"f32": ["onnxruntime", "openvino_latency"], "int8": ["onnxruntime_int8", "openvino_int8_latency"], "f16": []}
ROUND_GFLOP = 80  # of images that a round gives each contestant, and at least one batch, and LEAST_RUNS of batch 1
LEAST_RUNS = 16
GFLOP = {"resnet18": 3.6, "resnet34": 7.3, "resnet50": 8.2, "resnet101": 15.6}  # of an image of 224x224
STARTS = 5  # of each contestant, to its first answer; one that takes longer than SLOW_START once
SLOW_START = 10.0
MEASURED_IMAGES = 256  # from which on `resnet predict` measures its choices
PATIENCE = 900.0  # seconds that a peer may take for one answer


class Unavailable(Exception):
    """A contestant that cannot take part, with the reason."""


class Peer:
    """A peer_process.py; warm and waiting after greet()."""

    ours = False

    def __init__(self, kind, python, arguments, threads, at_once=False):
        self.kind, self.at_once = kind, at_once
        self.command = [str(word) for word in (python, BENCH / "peer_process.py", kind, "--threads", threads, *arguments)]
        self.env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env)

    def greet(self):
        hello = self.reply()
        self.name, self.version, self.images = hello["name"], hello["version"], hello["images"]
        self.name += f", {self.images} images at once" if self.at_once else ""
        return self

    def first_answer(self):
        """-> (seconds from a process's start to its first logits, bytes of its program and libraries)"""
        start = time.perf_counter()
        process = subprocess.Popen([*self.command, "--first-answer"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.DEVNULL, env=self.env)
        with process.stdout as lines:
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):
                    size = json.loads(line)["program_bytes"]
                    seconds = time.perf_counter() - start
                    process.wait()
                    return seconds, size
        raise Unavailable(f"no first answer: exit code {process.wait()}")

    def reply(self):
        """The next line that is JSON: libraries print their own."""
        too_late = threading.Timer(PATIENCE, self.process.kill)
        too_late.start()
        try:
            while line := self.process.stdout.readline():
                with contextlib.suppress(json.JSONDecodeError):
                    return json.loads(line)
        finally:
            too_late.cancel()
        raise Unavailable(f"its process ended with code {self.process.wait()}")

    def measure(self, runs):
        """-> (seconds of each run, images a run, resident bytes so far)"""
        with contextlib.suppress(BrokenPipeError):  # reply() says that it ended
            self.process.stdin.write(f"{runs}\n")
            self.process.stdin.flush()
        answer = self.reply()
        return answer["seconds"], self.images, answer["resident_bytes"]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Resnet:
    """`resnet benchmark`, one process a round: its kernels are chosen once and then come from its cache."""

    ours = True

    def __init__(self, program, mode, model, arguments, threads, name="resnet.cpp", at_once=False):
        self.at_once = at_once
        self.name, self.program, self.model, self.threads = name, program, model, threads
        self.command = [str(word) for word in (program, "benchmark", model, "--mode", mode, *arguments, "--threads", threads, "--json")]
        self.version = run_resnet([program, "--version"]).split()[-1]
        self.last, self.fma_peak_gflops, self.gflop_per_image = {}, 0.0, 0.0
        self.precision = self.command[self.command.index("--precision"):][:2] if "--precision" in self.command else []
        if self.precision:  # which this machine or this build may not have
            tried = subprocess.run([*self.command, "--runs", "1"], text=True, capture_output=True, stdin=subprocess.DEVNULL)
            if tried.returncode == USAGE:
                raise Unavailable(last_line(tried))
        self.measure(1)  # chooses kernels where no cache has them yet

    def measure(self, runs):
        self.last = json.loads(run_resnet([*self.command, "--runs", str(runs)]))
        rate, peak = self.last["images_per_second"]["median"], self.last["fma_peak_gflops"]
        self.gflop_per_image = self.last["peak_share"] * peak / rate
        self.fma_peak_gflops = max(self.fma_peak_gflops, peak)  # a disturbed measurement can only be too low
        return self.last["seconds"], self.last["batch_size"], self.last["resident_bytes"]

    def first_answer(self):
        """As Peer's, of `resnet predict` and a PNG that has the net's size; an image is decoded within this time."""
        start = time.perf_counter()
        run_resnet([self.program, "predict", self.model, self.model.parent / "image.png", "--logits", "--json", "--threads", self.threads,
                    *self.precision])
        return time.perf_counter() - start, resnet_bytes(self.program)

    def close(self):
        pass


def resnet_bytes(program):
    """As program_bytes(), of a program that is gone before anybody can look: what the loader says it would load."""
    listed = subprocess.run([program], text=True, capture_output=True, env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}).stdout
    paths = {os.path.realpath(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed, re.M)}
    return sum(os.path.getsize(path) for path in {*paths, os.path.realpath(program)})


def run_resnet(command):
    try:
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise SystemExit(f"peers: error: {command[0]}: {error}; build it with `make`")
    if done.returncode != 0:
        raise SystemExit(f"peers: error: {' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def last_line(done):
    return ((done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def prepare_venv(group):
    """The interpreter of build/peers/venv with the pinned packages of `group`; Unavailable says why there is none."""
    python, stamp = FOLDER / "venv" / "bin" / "python", FOLDER / "venv" / f"{group}.txt"
    pins = "\n".join(PINS[group])
    if stamp.is_file() and stamp.read_text() == pins:
        return python
    FOLDER.mkdir(parents=True, exist_ok=True)
    if group == "pytorch" and shutil.disk_usage(FOLDER).free < NEEDED_BYTES:
        raise Unavailable(f"{FOLDER} has less than {NEEDED_BYTES >> 30} GiB free")
    if not python.exists():
        done = subprocess.run([DEBIAN, "-m", "venv", FOLDER / "venv"], text=True, capture_output=True)
        if done.returncode != 0:
            raise Unavailable("no venv: " + last_line(done))
    print(f"installing {' '.join(PINS[group])}", file=sys.stderr)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS[group]], text=True, capture_output=True)
    if done.returncode != 0:
        raise Unavailable(f"pip cannot install {' '.join(PINS[group])}: {last_line(done)}")
    stamp.write_text(pins)
    return python


def prepare_net(program, model):
    """The folder with the net's files, made by the newest PyTorch there is, and our own model file beside them."""
    folder = FOLDER / "nets" / model
    stamp, maker = folder / ".done", (BENCH / "peer_nets.py").read_text()
    if not stamp.is_file() or stamp.read_text() != maker:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            python = prepare_venv("pytorch")
        except Unavailable:
            python = DEBIAN
        print(f"making {model}'s files", file=sys.stderr)
        done = subprocess.run([python, BENCH / "peer_nets.py", model, folder], text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"peers: error: bench/peer_nets.py {model}: {last_line(done)}")
        (folder / ".qdq").unlink(missing_ok=True)
        stamp.write_text(maker)
    ours = folder / "model.safetensors"
    # image.png has the input's size already: nothing to resize or crop.
    run_resnet([program, "convert", folder / "weights.pth", ours, "--architecture", model, "--metadata", "resize=squash",
                "--metadata", "crop_pct=1.0", "--force"])
    require_right_logits(program, ours, "f32")
    return folder


def require_right_logits(program, file, precision):
    """`file` beside the files of bench/peer_nets.py."""
    answer = json.loads(run_resnet([program, "predict", file, file.parent / "image.png", "--logits", "--json"]))
    wanted = np.load(file.parent / "reference.npz")["y"]
    if wrong := disagreement(np.array([answer["logits"]]), wanted, precision):
        raise SystemExit(f"peers: error: the logits of {file} {wrong}")


def require_right_logits_when_measured(program, file, flags, precision, threads):
    """What is timed: the algorithms and the number of images at a time that this machine takes for the batch of `flags`."""
    images = "\n".join([str(file.parent / "image.png")] * MEASURED_IMAGES)
    done = subprocess.run([str(word) for word in (program, "predict", file, "-", *flags, "--threads", threads, "--workers", 0,
                                                  "--logits", "--json")], input=images, text=True, capture_output=True)
    if done.returncode == USAGE and precision == "f16":
        return  # the race says why there is none
    if done.returncode != 0:
        raise SystemExit(f"peers: error: resnet predict {file}: {last_line(done)}")
    answers = np.array([json.loads(line)["logits"] for line in done.stdout.splitlines()])
    wanted = np.load(file.parent / "reference.npz")["y"]
    if len(answers) != MEASURED_IMAGES:
        raise SystemExit(f"peers: error: resnet predict {file}: {len(answers)} answers for {MEASURED_IMAGES} images")
    for answer in answers:
        if wrong := disagreement(answer[None], wanted, precision):
            raise SystemExit(f"peers: error: the logits of {file} with {' '.join(map(str, flags))} {wrong}")


def prepare_int8(program, folder):
    """Everybody's int8 files of a net, from the same images. Unavailable when our own cannot be made; a peer whose file is
    missing says so when it starts."""
    ours = folder / "model.int8.safetensors"
    done = subprocess.run([program, "quantize", folder / "model.safetensors", "--data", folder / "calibration" / "list.csv",
                           "--output", ours, "--force"], text=True, capture_output=True)
    if done.returncode != 0:
        raise Unavailable(f"resnet quantize: {last_line(done)}")
    require_right_logits(program, ours, "int8")
    run_resnet([program, "export", ours, folder / "ours.qdq.onnx", "--force"])
    if not (folder / ".qdq").exists():
        try:
            done = subprocess.run([prepare_venv("onnxruntime"), BENCH / "peer_qdq.py", folder], text=True, capture_output=True)
            if done.returncode != 0:
                raise Unavailable(last_line(done))
            (folder / ".qdq").touch()
        except Unavailable as reason:
            print(f"peers: warning: no QDQ files of {folder.name} for the peers: {reason}", file=sys.stderr)
    return ours


def start_peers(wanted, arguments, threads, at_once=()):
    """`wanted`: (kind, interpreter or group of PINS); those of the kinds in `at_once` take part once more. -> the peers that run,
    and {kind: reason} of the others."""
    started, peers, skipped = [], [], {}
    for kind, home in wanted:
        try:
            python = home if home == DEBIAN else prepare_venv(home)
            started.append(Peer(kind, python, arguments, threads))
            if kind in at_once:
                started.append(Peer(kind, python, [*arguments, "--batch-size", threads], threads, at_once=True))
        except Unavailable as reason:
            skipped[kind] = str(reason)
    print(f"starting {', '.join(peer.kind for peer in started)}", file=sys.stderr)
    for peer in started:  # they warm up beside one another; nothing is measured yet
        try:
            peers.append(peer.greet())
        except Unavailable as reason:
            skipped[peer.kind + (", an image a thread" if peer.at_once else "")] = str(reason)
    return peers, skipped


def first_answers(contestants):
    """-> per contestant: {"first_answer_ms": of each start, "program_bytes"}, empty for a peer that gives none. Rounds of one
    start each, files in the page cache."""
    series = [{"first_answer_ms": [], "program_bytes": 0} for _ in contestants]
    for number in range(STARTS):
        for i, (contestant, own) in enumerate(zip(contestants, series)):
            if number and (not own or own["first_answer_ms"][0] > 1e3 * SLOW_START):
                continue
            try:
                seconds, own["program_bytes"] = contestant.first_answer()
            except Unavailable as reason:
                if i == 0:
                    raise
                print(f"peers: warning: {contestant.name}: {reason}", file=sys.stderr)
                own.clear()
                continue
            own["first_answer_ms"].append(round(1e3 * seconds, 1))
        told = ", ".join(f"{c.name} {s['first_answer_ms'][-1]:.0f}" for c, s in zip(contestants, series) if s)
        print(f"start {number + 1}/{STARTS}: {told} ms (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return series


def race(contestants, rounds, runs, skipped):
    """-> per contestant: its series, {"rates": img/s of each round, "seconds": of every run, "images": of a run,
    "resident": largest resident size}. A rate is of the median run. A peer that fails has an empty one, and its reason is in
    `skipped`."""
    series = [{"rates": [], "seconds": [], "images": 0, "resident": 0} for _ in contestants]
    for number in range(rounds):
        for i in ((number + i) % len(contestants) for i in range(len(contestants))):
            if not series[i]:
                continue
            try:
                seconds, images, resident = contestants[i].measure(runs)
            except Unavailable as reason:
                if i == 0:
                    raise
                skipped[contestants[i].name] = f"in round {number + 1}: {reason}"
                series[i] = {}
                continue
            series[i]["rates"].append(images / statistics.median(seconds))
            series[i]["seconds"] += seconds
            series[i]["images"] = images
            series[i]["resident"] = max(series[i]["resident"], resident)
        print(f"round {number + 1}/{rounds}: " + ", ".join(f"{c.name} {s['rates'][-1]:.1f}" for c, s in zip(contestants, series) if s) +
              f" img/s (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return series


def percentile(seconds, share):
    """The smallest of `seconds` that `share` of them do not pass."""
    return sorted(seconds)[max(0, -int(-len(seconds) * share // 1) - 1)]


def paired(rates, others):
    """Rates by those of the same rounds."""
    return [a / b for a, b in zip(rates, others, strict=True)]


def summarise(contestants, series, image_share):
    """Rows of the table, ours first. `image_share`: FLOPs of an image by a second's FMA peak; a direct convolution's for everyone."""
    rows = []
    for contestant, own in zip(contestants, series):
        rates = own["rates"]
        median = statistics.median(rates)
        ratios = paired(series[0]["rates"], rates)
        rows.append({
            "name": contestant.name, "version": contestant.version, "rounds": [round(r, 3) for r in rates],
            "median": median, "min": min(rates), "max": max(rates), "mad": statistics.median(abs(r - median) for r in rates),
            "p50_ms": 1e3 * percentile(own["seconds"], 0.5), "p99_ms": 1e3 * percentile(own["seconds"], 0.99),
            "images_per_run": own["images"],
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "peak_share": image_share * median, "resident_bytes": own["resident"],
            "memory_ratio": series[0]["resident"] / own["resident"]})
        if contestant.at_once:
            rows[-1].update(at_once=True, ours=contestant.ours)
        if contestant.ours:  # how it was computed
            rows[-1].update({key: contestant.last[key] for key in ("micro_batch", "streams") if key in contestant.last})
    return rows


def peers_of(rows):
    """Those with the batch that was asked for."""
    return [row for row in rows[1:] if not row.get("at_once")]


def best_peer(rows):
    """The row of the fastest peer; none without peers."""
    return max(peers_of(rows), key=lambda row: row["median"], default=None)


def start_columns(row):
    return f"{statistics.median(row['first_answer_ms']):8.0f} {row['program_bytes'] / 1e6:7.0f}" if "first_answer_ms" in row else ""


def print_table(rows, skipped):
    width = max(len(row["name"]) for row in rows)
    print(f"{'peer':<{width}} {'version':<13} {'img/s':>7} {'min..max':>14} {'MAD':>5} {'p50 ms':>7} {'p99 ms':>7} {'ratio':>6} "
          f"{'min..max':>11} {'of peak':>7} {'MiB':>6} {'memory':>7} {'start ms':>8} {'disk MB':>7}")
    for i, row in enumerate(rows):
        ratio, spread, resident = (f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f}..{row['ratio_max']:.2f}",
                                   f"{row['memory_ratio']:.2f}") if i else ("", "", "")
        print(f"{row['name']:<{width}} {row['version']:<13} {row['median']:7.1f} {row['min']:6.1f}..{row['max']:6.1f} {row['mad']:5.1f} "
              f"{row['p50_ms']:7.1f} {row['p99_ms']:7.1f} {ratio:>6} {spread:>11} {row['peak_share']:7.0%} "
              f"{row['resident_bytes'] / 2**20:6.0f} {resident:>7} " +
              start_columns(row))
    if best := best_peer(rows):
        print(f"best peer: {best['name']}; ratio {best['ratio']:.2f} ({best['ratio_min']:.2f}..{best['ratio_max']:.2f}), memory "
              f"by the least of a peer's {memory(rows)[0]:.2f}")
    for what, measure_of in (("latency", latency), ("images a second, an image a thread", throughput)):
        if best and any(row.get("at_once") for row in rows):
            ratio, peer = measure_of(rows)
            print(f"{what}: ratio {ratio:.2f} ({peer})")
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")


EXPLANATION = ("ratio: resnet.cpp's rate, in the first row, by the row's, median over rounds. of peak: FLOPs of a direct convolution by the measured "
               "FMA peak in f32.\nms: of one run of all its images. MiB: largest resident size of the process. memory: resnet.cpp's by the peer's.\n"
               "start: from a process's start to its first logits, median. disk: the program and the shared libraries it loads.")


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"^model name\s*:\s*(.*)$", info, re.M)
    flags = set(re.search(r"^flags\s*:\s*(.*)$", info, re.M).group(1).split())
    return {"cpu": cpu.group(1) if cpu else platform.processor(), "cpus": os.cpu_count(),
            "isa": [f for f in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_fp16", "amx_tile") if f in flags],
            "kernel": platform.release(), "load_before": os.getloadavg()[0], "commit": commit()}


def build_flags(program):
    """The build's type, flags and compiler, from the cache beside the program; empty for a program installed elsewhere."""
    cache = pathlib.Path(program).resolve().parent / "CMakeCache.txt"
    if not cache.is_file():
        return {}
    return dict(re.findall(r"^(CMAKE_BUILD_TYPE|CMAKE_CXX_FLAGS(?:_RELEASE)?|CMAKE_CXX_COMPILER):\w+=(.*)$", cache.read_text(), re.M))


def commit():
    """Asked for once, at the start: the records that a run appends make a clean tree dirty."""
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"], text=True, capture_output=True)
    return done.stdout.strip() or "unknown"


def training_setups(args):
    size, batch = 96, (args.batch_sizes or [256])[0]
    flags = ["--batch-size", batch, "--image-size", size]
    yield {"model": "lecture_resnet18", "batch_size": batch, "image_size": size, "runs": args.runs or 2,
           "precision": "f32", "starts": False, "ours_in_f32": None, "ours_at_once": None, "unavailable": None,
           "resnet": ("lecture_resnet18", flags), "peers": ([("pytorch_training", DEBIAN)], flags), "at_once": (),
           "skipped": {"newest PyTorch": "measured in inference only"}}


def inference_setups(args):
    """A setup has "resnet": (model file, flags), or "unavailable": why there is none."""
    for model in args.models:
        folder = prepare_net(args.resnet, model)
        for precision in args.precision:
            ours, unavailable = folder / "model.safetensors", None
            if precision == "int8":
                try:
                    ours = prepare_int8(args.resnet, folder)
                except Unavailable as reason:
                    unavailable = str(reason)
            for batch in args.batch_sizes or [1, 8, 32]:
                flags = ["--batch-size", batch]
                at_once = AT_ONCE_OF[precision] if batch == 1 and args.threads > 1 else []
                least = LEAST_RUNS if batch == 1 else 1
                wanted = round(ROUND_GFLOP / (GFLOP.get(model, ROUND_GFLOP) * batch))
                yield {"model": model, "precision": precision, "batch_size": batch, "image_size": 224,
                       "runs": args.runs or max(least, wanted),
                       "resnet": (ours, [*flags, *(["--precision", "f16"] if precision == "f16" else [])]), "starts": batch == 1,
                       "ours_in_f32": (ours, flags) if precision == "f16" else None,
                       "ours_at_once": (ours, ["--batch-size", args.threads]) if at_once else None, "unavailable": unavailable,
                       "peers": (PEERS_OF[precision], [*flags, "--model", model, "--nets", folder]), "at_once": at_once, "skipped": {}}


def record_of(setup, args, host):
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "mode": args.mode,
            **{k: setup[k] for k in ("model", "batch_size", "image_size", "runs", "precision")}, "threads": args.threads,
            "rounds": args.rounds, **host, "build": build_flags(args.resnet), "python": platform.python_version()}


def measure(setup, args, host):
    """One setup: the race, its table on stdout, and the record; None when we ourselves cannot take part."""
    size = setup["image_size"]
    title = f"{args.mode}: {setup['model']}, {size}x{size}, batch {setup['batch_size']}, {setup['precision']}"
    if args.mode == "inference" and not setup["unavailable"]:
        for ours in filter(None, (setup["resnet"], setup["ours_at_once"])):
            require_right_logits_when_measured(args.resnet, *ours, setup["precision"], args.threads)
    try:
        if setup["unavailable"]:
            raise Unavailable(setup["unavailable"])
        mine = Resnet(args.resnet, args.mode, *setup["resnet"], args.threads)
    except Unavailable as reason:
        print(f"{title}: resnet.cpp: not measured: {reason}\n", flush=True)
        return None
    peers, skipped = start_peers(*setup["peers"], args.threads, setup["at_once"])
    if setup["ours_in_f32"]:
        peers.append(Resnet(args.resnet, args.mode, *setup["ours_in_f32"], args.threads, name="resnet.cpp, f32"))
    skipped.update(setup["skipped"])
    at_once = [Resnet(args.resnet, args.mode, *ours, args.threads, name=f"resnet.cpp, {args.threads} images at once", at_once=True)
               for ours in filter(None, [setup["ours_at_once"]])]
    contestants = [mine, *at_once, *peers]
    try:
        series = race(contestants, args.rounds, setup["runs"], skipped)
    finally:
        for contestant in contestants:
            contestant.close()
    contestants, series = zip(*((c, s) for c, s in zip(contestants, series) if s))
    rows = summarise(contestants, series, mine.gflop_per_image / mine.fma_peak_gflops)
    if setup["starts"]:
        starting = [(row, contestant) for row, contestant in zip(rows, contestants) if not contestant.at_once]
        for (row, _), first in zip(starting, first_answers([contestant for _, contestant in starting])):
            row.update(first)
    print(f"{title}, {args.threads} threads, {host['cpu']}, {args.rounds} rounds of {setup['runs']}, commit {host['commit']}")
    print_table(rows, skipped)
    print(flush=True)
    return {**record_of(setup, args, host), "fma_peak_gflops": mine.fma_peak_gflops, "planned_bytes": mine.last["peak_bytes"],
            "results": rows, "skipped": skipped}


# Measures of GOALS: (a number of a setup's rows, ours first; the peer that it is by); None where they cannot tell.
def speed(rows):
    """Images a second of ours with the batch that was asked for, by those of the fastest peer in whatever way it is fastest."""
    best = best_peer(rows)
    return best and (best["ratio"], best["name"])


def throughput(rows):
    """As speed, where everyone may compute as many images at once as there are threads."""
    ours = [rows[0], *(row for row in rows[1:] if row.get("ours"))]
    theirs = [row for row in rows[1:] if not row.get("ours")]
    if not theirs or len(ours) == 1:
        return None
    mine, best = (max(those, key=lambda row: row["median"]) for those in (ours, theirs))
    return statistics.median(paired(mine["rounds"], best["rounds"])), best["name"]


def latency(rows):
    """How much longer the peer that answers soonest takes."""
    soonest = min(peers_of(rows), key=lambda row: row["p50_ms"], default=None)
    if soonest is None:
        return None
    ratio = statistics.median(paired(rows[0]["rounds"], soonest["rounds"]))  # of images a second
    return ratio * soonest["images_per_run"] / rows[0]["images_per_run"], soonest["name"]


def memory(rows):
    leanest = min(peers_of(rows), key=lambda row: row["resident_bytes"], default=None)
    return leanest and (rows[0]["resident_bytes"] / leanest["resident_bytes"], leanest["name"])


def start(rows):
    """By the soonest of PyTorch's."""
    theirs = [(statistics.median(row["first_answer_ms"]), row["name"]) for row in peers_of(rows)
              if "PyTorch" in row["name"] and "first_answer_ms" in row]
    if not theirs or "first_answer_ms" not in rows[0]:
        return None
    soonest, name = min(theirs)
    return statistics.median(rows[0]["first_answer_ms"]) / soonest, name


# What the benchmark has to show: (what, model, precision, batch size, measure, floor, aim).
GOALS = [("ResNet-18 f32 batch 32, by the best peer", "resnet18", "f32", 32, speed, 1.8, 2.3),
         ("ResNet-34 f32 batch 32, by the best peer", "resnet34", "f32", 32, speed, 1.8, 2.3),
         ("ResNet-18 f32 batch 1, latency, by the soonest peer", "resnet18", "f32", 1, latency, 1.2, 1.8),
         ("ResNet-18 f32 batch 1, by the best peer", "resnet18", "f32", 1, speed, 1.2, 1.8),
         ("ResNet-18 f32, an image a thread, by the best peer", "resnet18", "f32", 1, throughput, None, None),
         ("ResNet-50 f32 batch 32, by the best peer", "resnet50", "f32", 32, speed, 1.2, 1.4),
         ("ResNet-50 f32 batch 1, latency, by the soonest peer", "resnet50", "f32", 1, latency, 1.05, 1.3),
         ("ResNet-50 f32 batch 1, by the best peer", "resnet50", "f32", 1, speed, 1.05, 1.3),
         ("ResNet-50 f32, an image a thread, by the best peer", "resnet50", "f32", 1, throughput, None, None),
         ("ResNet-50 int8 batch 32, by the best int8 peer", "resnet50", "int8", 32, speed, 1.05, 1.3),
         ("ResNet-18 int8 batch 32, by the best int8 peer", "resnet18", "int8", 32, speed, 1.05, 1.3),
         ("ResNet-18 f16 batch 32, by our own f32", "resnet18", "f16", 32, speed, 1.3, 1.8),
         ("ResNet-50 f16 batch 32, by our own f32", "resnet50", "f16", 32, speed, None, 1.6),
         ("memory, ResNet-50 f32 batch 32, by the leanest peer", "resnet50", "f32", 32, memory, 0.8, 0.5),
         ("start to first answer, ResNet-18 f32, by PyTorch", "resnet18", "f32", 1, start, 0.1, 0.03)]


def newest_records(path, commits=()):
    """{(model, precision, batch size): the last record of it, of those commits}, or of the last record's commit and processor, as
    ratios of two machines are no race; the first records had no latencies, and are left out."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if commits:
        records = [r for r in records if r.get("commit", "").startswith(tuple(commits))]
    else:
        records = [r for r in records if (r["commit"], r["cpu"]) == (records[-1]["commit"], records[-1]["cpu"])]
    return {(r["model"], r["precision"], r["batch_size"]): r for r in records if "p50_ms" in r["results"][0]}


def report(records):
    """Lines of the table of GOALS."""
    lines = [f"{'':<52} {'floor':>6} {'aim':>6} {'measured':>8}  {'':<6} peer, commit, cpu"]
    for what, *key, measure_of, floor, aim in GOALS:
        record = records.get(tuple(key))
        measured = record and measure_of(record["results"])
        told = lambda bound: "" if bound is None else f"{bound:.2f}"
        if measured is None:
            lines.append(f"{what:<52} {told(floor):>6} {told(aim):>6} {'-':>8}  not measured")
            continue
        value, peer = measured
        reaches = lambda bound: bound is not None and (value <= bound if measure_of in (memory, start) else value >= bound)
        verdict = "aim" if reaches(aim) else "floor" if reaches(floor) else "" if floor is aim is None else "missed"
        lines.append(f"{what:<52} {told(floor):>6} {told(aim):>6} {value:8.3f}  {verdict:<6} {peer}, {record['commit']}, {record['cpu']}")
    return lines


def names(text):
    return text.split(",")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["training", "inference", "report"])
    parser.add_argument("--resnet", default=str(ROOT / "build/release/resnet"), help="the program (default %(default)s)")
    parser.add_argument("--models", type=names, default=["resnet18", "resnet34", "resnet50", "resnet101"],
                        help="of inference, torchvision's names with commas between (default: resnet18,resnet34,resnet50,resnet101)")
    parser.add_argument("--precision", type=names, default=["f32", "int8", "f16"], help="of inference (default: f32,int8,f16)")
    parser.add_argument("--batch-sizes", type=numbers, help="default: 256 training, 1,8,32 inference")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--runs", type=int, help="steps or batches a round (default: 2 of training; of inference about 80 GFLOP, at least one, with batch 1 at least 16)")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant (default %(default)s)")
    parser.add_argument("--commits", type=names, default=[], help="of report: of these alone, by their first digits (default: the newest race's)")
    parser.add_argument("--no-record", action="store_true", help="append nothing to bench/results/")
    args = parser.parse_args()
    if strange := set(args.precision) - set(PEERS_OF):
        parser.error(f"--precision: '{min(strange)}'; expected {', '.join(PEERS_OF)}")
    if args.mode == "report":
        print("\n".join(report(newest_records(BENCH / "results" / "inference.jsonl", args.commits))))
        return
    host = machine()
    if host["load_before"] > 0.3:
        print(f"peers: warning: load average {host['load_before']:.1f}: another program computes; absolute rates will be low", file=sys.stderr)
    path = BENCH / "results" / f"{args.mode}.jsonl"
    for setup in {"training": training_setups, "inference": inference_setups}[args.mode](args):
        record = measure(setup, args, host)
        if record is None or args.no_record:
            continue
        path.parent.mkdir(exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)
    print(EXPLANATION)
    if args.mode == "inference" and not args.no_record:
        print("\n".join(["", *report(newest_records(path))]))


if __name__ == "__main__":
    main()
