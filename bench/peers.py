#!/usr/bin/python3
"""resnet.cpp beside its peers, paired and interleaved on one machine.

    bench/peers.py training      the lecture's net at 96x96, batch 256, against PyTorch
    bench/peers.py inference     torchvision's ResNets at 224, at batch 1, 8 and 32, against PyTorch, ONNX Runtime, OpenVINO, ncnn
    bench/peers.py inference --models resnet18,resnet50 --batch-sizes 32

Peers are long-lived processes that wait on a pipe, so that only one of all computes at a time. A round asks each
contestant once, in an order that rotates; a ratio is the median over rounds of resnet's rate by the peer's rate *in the
same round*, so slow drift of the machine cancels. Inference: everyone runs the same random weights and proves it by its
logits. Prints a table for each setup and appends one JSON line each to bench/results/MODE.jsonl. A peer that cannot be had
is named with its reason. Peers from PyPI live in a virtual environment under build/peers, made on the first run (6 GB: the
wheels of PyTorch bring CUDA's libraries along).
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

import numpy as np

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
# kind: (of bench/peer_process.py, the interpreter: Debian's or the name in PINS)
INFERENCE_PEERS = [("pytorch_frozen", DEBIAN), ("pytorch_eager", "pytorch"), ("pytorch_compile", "pytorch"),
                   ("onnxruntime", "onnxruntime"), ("openvino_latency", "openvino"), ("openvino_throughput", "openvino"),
                   ("ncnn", "ncnn")]
MOST_DEVIATION = 1e-4  # of our logits from the stored ones, by the largest of them


class Unavailable(Exception):
    """A contestant that cannot take part, with the reason."""


class Peer:
    """A peer_process.py, warm and waiting."""

    def __init__(self, kind, python, arguments, threads):
        command = [python, BENCH / "peer_process.py", kind, "--threads", threads, *arguments]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        hello = self.reply()
        self.name, self.version, self.images = hello["name"], hello["version"], hello["images"]

    def reply(self):
        """The next line that is JSON: libraries print their own."""
        while line := self.process.stdout.readline():
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(line)
        raise Unavailable(f"its process ended with code {self.process.wait()}")

    def measure(self, runs):
        """-> (seconds of each run, images a run, resident bytes so far)"""
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        answer = self.reply()
        return answer["seconds"], self.images, answer["resident_bytes"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Resnet:
    """`resnet benchmark`, one process a round: its kernels are chosen once and then come from its cache."""

    name = "resnet.cpp"

    def __init__(self, program, mode, model, arguments, threads):
        self.command = [str(word) for word in (program, "benchmark", model, "--mode", mode, *arguments, "--threads", threads, "--json")]
        self.version = run_resnet([program, "--version"]).split()[-1]
        self.last, self.fma_peak_gflops, self.gflop_per_image = {}, 0.0, 0.0
        self.measure(1)  # chooses kernels where no cache has them yet

    def measure(self, runs):
        self.last = json.loads(run_resnet([*self.command, "--runs", str(runs)]))
        rate, peak = self.last["images_per_second"]["median"], self.last["fma_peak_gflops"]
        self.gflop_per_image = self.last["peak_share"] * peak / rate
        self.fma_peak_gflops = max(self.fma_peak_gflops, peak)  # a disturbed measurement can only be too low
        return self.last["seconds"], self.last["batch_size"], self.last["resident_bytes"]

    def close(self):
        pass


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
    if not (folder / ".done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            python = prepare_venv("pytorch")
        except Unavailable:
            python = DEBIAN
        print(f"making {model}'s files", file=sys.stderr)
        done = subprocess.run([python, BENCH / "peer_nets.py", model, folder], text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"peers: error: bench/peer_nets.py {model}: {last_line(done)}")
        (folder / ".done").touch()
    ours = folder / "model.safetensors"
    # image.png has the input's size already: nothing to resize or crop.
    run_resnet([program, "convert", folder / "weights.pth", ours, "--architecture", model, "--metadata", "resize=squash",
                "--metadata", "crop_pct=1.0", "--force"])
    answer = json.loads(run_resnet([program, "predict", ours, folder / "image.png", "--logits", "--json"]))
    wanted = np.load(folder / "reference.npz")["y"][0]
    deviation = np.abs(np.array(answer["logits"]) - wanted).max() / np.abs(wanted).max()
    if not deviation < MOST_DEVIATION:
        raise SystemExit(f"peers: error: our logits of {model} differ from PyTorch's by {deviation:.1e}")
    return folder


def start_peers(wanted, arguments, threads):
    """`wanted`: (kind, interpreter or group of PINS). -> the peers that run, and {kind: reason} of the others."""
    peers, skipped = [], {}
    for kind, home in wanted:
        try:
            python = home if home == DEBIAN else prepare_venv(home)
            print(f"starting {kind}", file=sys.stderr)
            peers.append(Peer(kind, python, arguments, threads))
        except Unavailable as reason:
            skipped[kind] = str(reason)
    return peers, skipped


def race(contestants, rounds, runs):
    """-> per contestant: its series, {"rates": img/s of each round, "seconds": of every run, "images": of a run,
    "resident": largest resident size}. A rate is of the median run."""
    series = [{"rates": [], "seconds": [], "images": 0, "resident": 0} for _ in contestants]
    for number in range(rounds):
        for i in ((number + i) % len(contestants) for i in range(len(contestants))):
            seconds, images, resident = contestants[i].measure(runs)
            series[i]["rates"].append(images / statistics.median(seconds))
            series[i]["seconds"] += seconds
            series[i]["images"] = images
            series[i]["resident"] = max(series[i]["resident"], resident)
        print(f"round {number + 1}/{rounds}: " + ", ".join(f"{c.name} {s['rates'][-1]:.1f}" for c, s in zip(contestants, series)) +
              f" img/s (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return series


def percentile(seconds, share):
    """The smallest of `seconds` that `share` of them do not pass."""
    return sorted(seconds)[max(0, -int(-len(seconds) * share // 1) - 1)]


def summarise(contestants, series, image_share):
    """Rows of the table, ours first. `image_share`: FLOPs of an image by a second's FMA peak; a direct convolution's for everyone."""
    rows = []
    for contestant, own in zip(contestants, series):
        rates = own["rates"]
        median = statistics.median(rates)
        ratios = [a / b for a, b in zip(series[0]["rates"], rates, strict=True)]
        rows.append({
            "name": contestant.name, "version": contestant.version, "rounds": [round(r, 3) for r in rates],
            "median": median, "min": min(rates), "max": max(rates), "mad": statistics.median(abs(r - median) for r in rates),
            "p50_ms": 1e3 * percentile(own["seconds"], 0.5), "p99_ms": 1e3 * percentile(own["seconds"], 0.99),
            "images_per_run": own["images"],
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "peak_share": image_share * median, "resident_bytes": own["resident"],
            "memory_ratio": series[0]["resident"] / own["resident"]})
    return rows


def best_peer(rows):
    """The row of the fastest peer; none without peers."""
    return max(rows[1:], key=lambda row: row["median"], default=None)


def print_table(rows, skipped):
    print(f"{'peer':<30} {'version':<13} {'img/s':>7} {'min..max':>14} {'MAD':>5} {'p50 ms':>7} {'p99 ms':>7} {'ratio':>6} "
          f"{'min..max':>11} {'of peak':>7} {'MiB':>6} {'memory':>7}")
    for i, row in enumerate(rows):
        ratio, spread, memory = (f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f}..{row['ratio_max']:.2f}",
                                 f"{row['memory_ratio']:.2f}") if i else ("", "", "")
        print(f"{row['name']:<30} {row['version']:<13} {row['median']:7.1f} {row['min']:6.1f}..{row['max']:6.1f} {row['mad']:5.1f} "
              f"{row['p50_ms']:7.1f} {row['p99_ms']:7.1f} {ratio:>6} {spread:>11} {row['peak_share']:7.0%} "
              f"{row['resident_bytes'] / 2**20:6.0f} {memory:>7}")
    if best := best_peer(rows):
        print(f"best peer: {best['name']}; ratio {best['ratio']:.2f} ({best['ratio_min']:.2f}..{best['ratio_max']:.2f}), memory "
              f"by the least of a peer's {rows[0]['resident_bytes'] / min(row['resident_bytes'] for row in rows[1:]):.2f}")
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")


EXPLANATION = ("ratio: resnet.cpp's rate by the peer's, median over rounds. of peak: FLOPs of a direct convolution by the measured "
               "FMA peak.\nms: of one run of all its images. MiB: largest resident size of the process. memory: resnet.cpp's by the peer's.")


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"^model name\s*:\s*(.*)$", info, re.M)
    flags = set(re.search(r"^flags\s*:\s*(.*)$", info, re.M).group(1).split())
    return {"cpu": cpu.group(1) if cpu else platform.processor(), "cpus": os.cpu_count(),
            "isa": [f for f in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_fp16", "amx_tile") if f in flags],
            "kernel": platform.release(), "load_before": os.getloadavg()[0]}


def build_flags(program):
    """The build's type, flags and compiler, from the cache beside the program; empty for a program installed elsewhere."""
    cache = pathlib.Path(program).resolve().parent / "CMakeCache.txt"
    if not cache.is_file():
        return {}
    return dict(re.findall(r"^(CMAKE_BUILD_TYPE|CMAKE_CXX_FLAGS(?:_RELEASE)?|CMAKE_CXX_COMPILER):\w+=(.*)$", cache.read_text(), re.M))


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"], text=True, capture_output=True)
    return done.stdout.strip() or "unknown"


def training_setups(args):
    size, batch = 96, (args.batch_sizes or [256])[0]
    flags = ["--batch-size", batch, "--image-size", size]
    yield {"model": "lecture_resnet18", "batch_size": batch, "image_size": size, "runs": args.runs or 2,
           "resnet": ("lecture_resnet18", flags), "peers": ([("pytorch_training", DEBIAN)], flags),
           "skipped": {"newest PyTorch": "measured in inference only"}}


def inference_setups(args):
    for model in args.models:
        folder = prepare_net(args.resnet, model)
        for batch in args.batch_sizes or [1, 8, 32]:
            flags = ["--batch-size", batch]
            yield {"model": model, "batch_size": batch, "image_size": 224, "runs": args.runs or max(3, 48 // batch),
                   "resnet": (folder / "model.safetensors", flags),
                   "peers": (INFERENCE_PEERS, [*flags, "--model", model, "--nets", folder]), "skipped": {}}


def measure(setup, args, host):
    """One setup: the race, its table on stdout, and the record."""
    mine = Resnet(args.resnet, args.mode, *setup["resnet"], args.threads)
    peers, skipped = start_peers(*setup["peers"], args.threads)
    skipped.update(setup["skipped"])
    contestants = [mine, *peers]
    try:
        series = race(contestants, args.rounds, setup["runs"])
    finally:
        for contestant in contestants:
            contestant.close()
    rows = summarise(contestants, series, mine.gflop_per_image / mine.fma_peak_gflops)
    title = f"{args.mode}: {setup['model']}, {setup['image_size']}x{setup['image_size']}, batch {setup['batch_size']}, f32"
    print(f"{title}, {args.threads} threads, {host['cpu']}, {args.rounds} rounds of {setup['runs']}, commit {commit()}")
    print_table(rows, skipped)
    print(flush=True)
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "mode": args.mode,
            **{k: setup[k] for k in ("model", "batch_size", "image_size", "runs")}, "precision": "f32", "threads": args.threads,
            "rounds": args.rounds, "commit": commit(), **host, "build": build_flags(args.resnet),
            "fma_peak_gflops": mine.fma_peak_gflops, "planned_bytes": mine.last["peak_bytes"],
            "python": platform.python_version(), "results": rows, "skipped": skipped}


def names(text):
    return text.split(",")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["training", "inference"])
    parser.add_argument("--resnet", default=str(ROOT / "build/release/resnet"), help="the program (default %(default)s)")
    parser.add_argument("--models", type=names, default=["resnet18", "resnet34", "resnet50", "resnet101"],
                        help="of inference, torchvision's names with commas between (default: resnet18,resnet34,resnet50,resnet101)")
    parser.add_argument("--batch-sizes", type=numbers, help="default: 256 training, 1,8,32 inference")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--runs", type=int, help="steps or batches a round (default: 2 of training, 48 images of inference, 3 batches at least)")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant (default %(default)s)")
    parser.add_argument("--no-record", action="store_true", help="append nothing to bench/results/")
    args = parser.parse_args()
    host = machine()
    if host["load_before"] > 0.3:
        print(f"peers: warning: load average {host['load_before']:.1f}: another program computes; absolute rates will be low", file=sys.stderr)
    path = BENCH / "results" / f"{args.mode}.jsonl"
    for setup in {"training": training_setups, "inference": inference_setups}[args.mode](args):
        record = measure(setup, args, host)
        if args.no_record:
            continue
        path.parent.mkdir(exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)
    print(EXPLANATION)


if __name__ == "__main__":
    main()
