#!/usr/bin/python3
"""resnet.cpp beside its peers, paired and interleaved on one machine.

    bench/peers.py training     the lecture's net at 96x96, batch 256, against PyTorch
    bench/peers.py inference    ResNet-18 at 224, batch 32, against PyTorch (eager, frozen) and ONNX Runtime

Peers are long-lived processes that wait on a pipe, so that only one of all computes at a time. A round asks each
contestant once, in an order that rotates; a ratio is the median over rounds of resnet's rate by the peer's rate *in the
same round*, so slow drift of the machine cancels. Prints one table and appends one JSON line to bench/results/MODE.jsonl.
A peer that cannot be had is named with its reason.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKER = ROOT / "bench" / "peer_process.py"
PYTHON = "/usr/bin/python3"  # Debian's, whose PyTorch we compare with
ONNXRUNTIME = "1.30.0"
SETUPS = {
    "training": {"model": "lecture_resnet18", "batch_size": 256, "image_size": 96, "peers": ["pytorch_training"]},
    "inference": {"model": "resnet18", "batch_size": 32, "image_size": 224,
                  "peers": ["pytorch_eager", "pytorch_frozen", "onnxruntime"]},
}
SKIPPED = {"newest PyTorch": "PyPI's Linux wheels of PyTorch 2 come with gigabytes of CUDA libraries; Debian 12 has 1.13"}


class Unavailable(Exception):
    """A contestant that cannot take part, with the reason."""


class Peer:
    """A peer_process.py, warm and waiting."""

    def __init__(self, kind, python, setup, threads, onnx=None):
        command = [python, WORKER, kind, "--batch-size", setup["batch_size"], "--image-size", setup["image_size"], "--threads", threads]
        command += ["--onnx", onnx] if onnx else []
        self.batch_size = setup["batch_size"]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        hello = self.reply()
        self.name, self.version = hello["name"], hello["version"]

    def reply(self):
        line = self.process.stdout.readline()
        if not line:
            raise Unavailable(f"its process ended with code {self.process.wait()}")
        return json.loads(line)

    def measure(self, runs):
        """-> (median img/s, resident bytes so far)"""
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        answer = self.reply()
        return self.batch_size / statistics.median(answer["seconds"]), answer["resident_bytes"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Resnet:
    """`resnet benchmark`, one process a round: its kernels are chosen once and then come from its cache."""

    name = "resnet.cpp"

    def __init__(self, program, mode, setup, threads):
        self.command = [str(word) for word in (
            program, "benchmark", setup["model"], "--mode", mode, "--batch-size", setup["batch_size"], "--image-size",
            setup["image_size"], "--threads", threads, "--json")]
        try:
            self.version = subprocess.run([program, "--version"], text=True, capture_output=True, check=True).stdout.split()[-1]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise SystemExit(f"peers: error: {program}: {error}; build it with `make`")
        self.last, self.fma_peak_gflops, self.gflop_per_image = {}, 0.0, 0.0
        self.measure(1)  # chooses kernels where no cache has them yet

    def measure(self, runs):
        done = subprocess.run([*self.command, "--runs", str(runs)], text=True, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit(f"peers: error: {' '.join(self.command)}: exit code {done.returncode}: {done.stderr.strip()}")
        self.last = json.loads(done.stdout)
        rate, peak = self.last["images_per_second"]["median"], self.last["fma_peak_gflops"]
        self.gflop_per_image = self.last["peak_share"] * peak / rate
        self.fma_peak_gflops = max(self.fma_peak_gflops, peak)  # a disturbed measurement can only be too low
        return rate, self.last.get("resident_bytes", self.last["peak_bytes"])

    def close(self):
        pass


def prepare_onnxruntime(setup, folder):
    """A venv with the pinned ONNX Runtime under build/peers, and the net exported by Debian's PyTorch."""
    python = folder / "venv" / "bin" / "python"
    probe = [str(python), "-c", f"import onnxruntime as o; assert o.__version__ == '{ONNXRUNTIME}'"]
    if not python.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        done = subprocess.run([PYTHON, "-m", "venv", "--system-site-packages", folder / "venv"], text=True, capture_output=True)
        if done.returncode != 0:
            raise Unavailable("no venv: " + (done.stdout + done.stderr).strip().splitlines()[-1])
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", f"onnxruntime=={ONNXRUNTIME}"], text=True,
                              capture_output=True)
        if done.returncode != 0:
            raise Unavailable(f"pip cannot install onnxruntime=={ONNXRUNTIME}: " + done.stderr.strip().splitlines()[-1])
    onnx = folder / f"resnet18_{setup['image_size']}.onnx"
    if not onnx.exists():
        done = subprocess.run([PYTHON, WORKER, "export", "--image-size", str(setup["image_size"]), "--onnx", onnx],
                              text=True, capture_output=True)
        if done.returncode != 0:
            raise Unavailable("torch.onnx export failed: " + done.stderr.strip().splitlines()[-1])
    return python, onnx


def start_peers(setup, threads, folder):
    peers, skipped = [], dict(SKIPPED) if "onnxruntime" in setup["peers"] else {}
    for kind in setup["peers"]:
        print(f"starting {kind}", file=sys.stderr)
        try:
            if kind == "onnxruntime":
                folder.mkdir(parents=True, exist_ok=True)
                python, onnx = prepare_onnxruntime(setup, folder)
                peers.append(Peer(kind, python, setup, threads, onnx))
            else:
                peers.append(Peer(kind, PYTHON, setup, threads))
        except Unavailable as reason:
            skipped[kind] = str(reason)
    return peers, skipped


def race(contestants, rounds, runs):
    """-> per contestant: the rates of all rounds, and the largest resident size."""
    rates, resident = [[] for _ in contestants], [0] * len(contestants)
    for number in range(rounds):
        order = [(number + i) % len(contestants) for i in range(len(contestants))]
        for i in order:
            rate, size = contestants[i].measure(runs)
            rates[i].append(rate)
            resident[i] = max(resident[i], size)
        print(f"round {number + 1}/{rounds}: " + ", ".join(f"{c.name} {r[-1]:.1f}" for c, r in zip(contestants, rates)) +
              f" img/s (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return rates, resident


def summarise(contestants, rates, resident, image_share):
    """Rows of the table. `image_share`: FLOPs of an image by a second's FMA peak; a direct convolution's for everyone."""
    rows = []
    for contestant, series, size in zip(contestants, rates, resident):
        median = statistics.median(series)
        ratios = [a / b for a, b in zip(rates[0], series, strict=True)]
        rows.append({
            "name": contestant.name, "version": contestant.version, "rounds": [round(r, 3) for r in series],
            "median": median, "min": min(series), "max": max(series),
            "mad": statistics.median(abs(r - median) for r in series),
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "peak_share": image_share * median, "resident_bytes": size, "memory_ratio": resident[0] / size})
    return rows


def print_table(rows, skipped):
    print(f"{'peer':<30} {'version':<10} {'img/s':>7} {'min..max':>14} {'MAD':>5} {'ratio':>6} {'min..max':>11} "
          f"{'of peak':>7} {'MiB':>6} {'memory':>7}")
    for i, row in enumerate(rows):
        ratio, spread, memory = (f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f}..{row['ratio_max']:.2f}",
                                 f"{row['memory_ratio']:.2f}") if i else ("", "", "")
        print(f"{row['name']:<30} {row['version']:<10} {row['median']:7.1f} {row['min']:6.1f}..{row['max']:6.1f} {row['mad']:5.1f} "
              f"{ratio:>6} {spread:>11} {row['peak_share']:7.0%} {row['resident_bytes'] / 2**20:6.0f} {memory:>7}")
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")
    print("ratio: resnet.cpp's rate by the peer's, median over rounds. of peak: FLOPs of a direct convolution by the measured "
          "FMA peak.\nMiB: largest resident size of the process. memory: resnet.cpp's by the peer's.")


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=SETUPS)
    parser.add_argument("--resnet", default=str(ROOT / "build/release/resnet"), help="the program (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--runs", type=int, help="steps or batches a round (default: 2 of training, 10 of inference)")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant (default %(default)s)")
    parser.add_argument("--batch-size", type=int, help="default: 256 training, 32 inference")
    parser.add_argument("--no-record", action="store_true", help="append nothing to bench/results/")
    args = parser.parse_args()
    setup = dict(SETUPS[args.mode])
    setup["batch_size"] = args.batch_size or setup["batch_size"]
    runs = args.runs or {"training": 2, "inference": 10}[args.mode]
    host = machine()
    if host["load_before"] > 0.3:
        print(f"peers: warning: load average {host['load_before']:.1f}: another program computes; absolute rates will be low", file=sys.stderr)

    mine = Resnet(args.resnet, args.mode, setup, args.threads)
    peers, skipped = start_peers(setup, args.threads, ROOT / "build" / "peers")
    contestants = [mine, *peers]
    try:
        rates, resident = race(contestants, args.rounds, runs)
    finally:
        for contestant in contestants:
            contestant.close()
    rows = summarise(contestants, rates, resident, mine.gflop_per_image / mine.fma_peak_gflops)
    title = f"{args.mode}: {setup['model']}, {setup['image_size']}x{setup['image_size']}, batch {setup['batch_size']}, f32"
    print(f"{title}, {args.threads} threads, {host['cpu']}, {args.rounds} rounds of {runs}, commit {commit()}")
    print_table(rows, skipped)
    if not args.no_record:
        record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "mode": args.mode,
                  **{k: setup[k] for k in ("model", "batch_size", "image_size")}, "precision": "f32", "threads": args.threads,
                  "rounds": args.rounds, "runs": runs, "commit": commit(), **host, "build": build_flags(args.resnet),
                  "fma_peak_gflops": mine.fma_peak_gflops, "planned_bytes": mine.last["peak_bytes"],
                  "python": platform.python_version(), "results": rows, "skipped": skipped}
        path = ROOT / "bench" / "results" / f"{args.mode}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
