#!/usr/bin/python3
"""How long a cold process takes to its first answer: ResNet-18 at 224, one JPEG, resnet.cpp's library beside PyTorch.

    bench/cold_start.py [--rounds N] [--threads T]

Everything a process does counts, from its start to its exit: loading libraries, opening the model file (in the page
cache), preparing weights and kernels, decoding, preprocessing, one forward pass. The contestants:

    resnet.cpp                 examples/classify.cpp, as users build it, where the machine's algorithms are in the cache
    resnet.cpp, empty cache    the same on a machine that has measured nothing
    PyTorch                    import, torchvision's resnet18, load_state_dict, Pillow, one forward
    PyTorch, after import      the same without the interpreter's start and the imports

All give the same class and probability, or it is an error. A round runs each once, in an order that rotates, on the same
CPUs. Prints a table, appends one JSON line to bench/results/cold_start.jsonl.
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent / "tools")]
from peers import DEBIAN as PYTHON, ROOT, build_flags, machine  # noqa: E402

PHOTO = ROOT / "tests" / "data" / "photos" / "rocket.jpg"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LIMIT_MS = 150

MAKE_FILES = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import safetensors_numpy, torch, torchvision
torch.manual_seed(0)
state = torchvision.models.resnet18().eval().state_dict()
torch.save(state, sys.argv[1] + "/resnet18.pth")
safetensors_numpy.save(sys.argv[1] + "/resnet18.safetensors",
    {{name: value.numpy() for name, value in state.items() if not name.endswith("num_batches_tracked")}},
    {{"format": "pt", "architecture": "resnet18", "num_classes": "1000", "input_size": "[3,224,224]", "resize": "squash",
      "class_names": json.dumps([f"class {{k}}" for k in range(1000)]), "mean": "{MEAN}", "std": "{STD}",
      "interpolation": "bilinear", "crop_pct": "1.0"}})
"""

PYTORCH = f"""
import sys, time
import PIL.Image, torch, torchvision
from torchvision import transforms
start = time.perf_counter()
torch.set_num_threads(int(sys.argv[3]))
net = torchvision.models.resnet18()
net.load_state_dict(torch.load(sys.argv[1]))
net.eval()
image = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize({MEAN}, {STD})])(
    PIL.Image.open(sys.argv[2]).convert("RGB"))
with torch.inference_mode():
    best = torch.softmax(net(image[None])[0], 0).max(0)
print(f"{{best.values.item():.6g}} class {{best.indices.item()}}")
print(time.perf_counter() - start)
"""


class Contestant:
    def __init__(self, name, command, env, cpus, without=None):
        """`without`: a folder that is not there when it starts."""
        self.name, self.command, self.cpus, self.without = name, [str(word) for word in command], cpus, without
        self.env = {**os.environ, "OMP_NUM_THREADS": str(len(cpus)), **env}
        self.wall_ms, self.cpu_ms, self.inner_ms, self.resident = [], [], [], 0

    def run(self):
        """Its first line of output."""
        if self.without:
            shutil.rmtree(self.without, ignore_errors=True)
        read, write = os.pipe()
        start = time.perf_counter()
        process = subprocess.Popen(self.command, env=self.env, stdout=write, preexec_fn=lambda: os.sched_setaffinity(0, self.cpus))
        os.close(write)
        with os.fdopen(read) as pipe:
            lines = pipe.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        self.wall_ms.append(1e3 * (time.perf_counter() - start))
        self.cpu_ms.append(1e3 * (usage.ru_utime + usage.ru_stime))
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not lines:
            raise SystemExit(f"cold_start: error: {' '.join(self.command)}: exit code {process.returncode}")
        self.resident = max(self.resident, usage.ru_maxrss * 1024)
        if self.name == "PyTorch":
            self.inner_ms.append(1e3 * float(lines[1]))
        return lines[0]


def row(name, times, contestant):
    return {"name": name, "rounds_ms": [round(t, 2) for t in times], "median_ms": statistics.median(times), "min_ms": min(times),
            "max_ms": max(times), "cpu_ms": statistics.median(contestant.cpu_ms), "resident_bytes": contestant.resident}


def agree(answers):
    """Throws unless all name one class with one probability, to the rounding of f32."""
    values = {name: float(line.split()[0]) for name, line in answers.items()}
    classes = {line.split(maxsplit=1)[1] for line in answers.values()}
    if len(classes) != 1 or max(values.values()) > min(values.values()) * (1 + 1e-4):
        raise SystemExit(f"cold_start: error: the contestants answer differently: {answers}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"), help="folder with resnet and libresnet.so (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="CPUs of every contestant (default %(default)s)")
    parser.add_argument("--no-record", action="store_true", help="append nothing to bench/results/")
    args = parser.parse_args()
    host = machine()
    if host["load_before"] > 0.3:
        print(f"cold_start: warning: load average {host['load_before']:.1f}: another program computes; the times will be long", file=sys.stderr)
    cpus = sorted(os.sched_getaffinity(0))[:args.threads]
    with tempfile.TemporaryDirectory(prefix="resnet-cold-") as name:
        folder = pathlib.Path(name)
        subprocess.run([PYTHON, "-c", MAKE_FILES, folder], check=True)
        (folder / "pytorch.py").write_text(PYTORCH)
        classify = folder / "classify"
        subprocess.run(["c++", "-std=c++17", "-O2", ROOT / "examples/classify.cpp", f"-I{ROOT}/include", f"-L{args.build}", "-lresnet",
                        f"-Wl,-rpath,{args.build}", "-o", classify], check=True)
        warm, empty = {"XDG_CACHE_HOME": str(folder / "warm")}, {"XDG_CACHE_HOME": str(folder / "empty")}
        subprocess.run([f"{args.build}/resnet", "benchmark", "resnet18", "--mode", "inference", "--batch-size", "1", "--runs", "1",
                        "--threads", str(len(cpus))], check=True, env={**os.environ, **warm}, stdout=subprocess.DEVNULL)
        command = [classify, folder / "resnet18.safetensors", PHOTO]
        contestants = [Contestant("resnet.cpp", command, warm, cpus), Contestant("resnet.cpp, empty cache", command, empty, cpus, folder / "empty"),
                       Contestant("PyTorch", [PYTHON, folder / "pytorch.py", folder / "resnet18.pth", PHOTO, len(cpus)], {}, cpus)]
        agree({c.name: c.run() for c in contestants})  # also brings every file into the page cache
        for contestant in contestants:
            contestant.wall_ms, contestant.cpu_ms, contestant.inner_ms = [], [], []
        for number in range(args.rounds):
            for i in range(len(contestants)):
                contestants[(number + i) % len(contestants)].run()
            print(f"round {number + 1}/{args.rounds}: " + ", ".join(f"{c.name} {c.wall_ms[-1]:.0f}" for c in contestants) +
                  f" ms (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    rows = [row(c.name, c.wall_ms, c) for c in contestants]
    rows.append(row("PyTorch, after import", contestants[-1].inner_ms, contestants[-1]))
    version = subprocess.run([PYTHON, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True).stdout.strip()
    print(f"cold start: ResNet-18, 224x224, one JPEG, {len(cpus)} CPUs, {host['cpu']}, {args.rounds} rounds, commit {host['commit']}, "
          f"PyTorch {version}")
    print(f"{'process':<26} {'ms':>7} {'min..max':>15} {'CPU ms':>7} {'MiB':>5} {'times resnet.cpp':>17}")
    for each in rows:
        print(f"{each['name']:<26} {each['median_ms']:7.1f} {each['min_ms']:6.1f}..{each['max_ms']:7.1f} "
              f"{each['cpu_ms']:7.0f} {each['resident_bytes'] / 2**20:5.0f} {each['median_ms'] / rows[0]['median_ms']:17.1f}")
    within = rows[0]["median_ms"] <= LIMIT_MS
    print("times: wall time from start to exit by resnet.cpp's. CPU ms, MiB: of the whole process, on all its threads; its largest size.")
    print(f"the promise of {LIMIT_MS} ms is {'kept' if within else 'NOT kept'} (median, algorithms in the cache)")
    if not args.no_record:
        record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "mode": "cold_start",
                  "model": "resnet18", "image_size": 224, "threads": len(cpus), "rounds": args.rounds, **host,
                  "build": build_flags(pathlib.Path(args.build) / "resnet"), "pytorch": version, "results": rows}
        path = ROOT / "bench" / "results" / "cold_start.jsonl"
        with open(path, "a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
