#!/usr/bin/python3
"""What the cache of weights does for a start: `resnet predict` of one image, from the process's start to its first line.

    bench/second_start.py MODEL.safetensors IMAGE [--program build/release/resnet] [--other PROGRAM] [--starts 15] [--threads 2]

Interleaved starts: without the cache, with it, with an empty one, and of --other (an older build) without it. Prints a line for each: median,
least and most milliseconds to the first answer, median to the end, peak memory; then the paired ratio of with to without.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time


def start(command, cache, mib):
    """-> (ms to the first line, ms to the end, resident MiB, the line)"""
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "XDG_CACHE_HOME": str(cache), "RESNET_WEIGHTS_CACHE_MIB": mib}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env)
    line = process.stdout.readline()
    answered = time.perf_counter() - begin
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"second_start: error: {' '.join(command)}: exit code {process.returncode}; expected 0")
    return 1e3 * answered, 1e3 * ended, usage.ru_maxrss / 1024, line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("--program", default="build/release/resnet")
    parser.add_argument("--other")
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    words = ["predict", a.model, a.image, "--logits", "--json", "--threads", str(a.threads)]
    with tempfile.TemporaryDirectory() as folder:
        full, empty = pathlib.Path(folder) / "full", pathlib.Path(folder) / "empty"
        ways = {"without": ([a.program, *words], full, "0"), "with": ([a.program, *words], full, "2048"),
                "empty": ([a.program, *words], empty, "2048")}
        if a.other:
            ways["other"] = ([a.other, *words], full, "0")
        start(*ways["with"])  # fills the cache, and the page cache
        results = {name: [] for name in ways}
        for _ in range(a.starts):
            shutil.rmtree(empty, ignore_errors=True)
            for name, way in ways.items():
                results[name].append(start(*way))
    for name, runs in results.items():
        first = [run[0] for run in runs]
        print(f"{name:8} first answer {statistics.median(first):6.1f} ms ({min(first):.1f} to {max(first):.1f}), "
              f"end {statistics.median(run[1] for run in runs):6.1f} ms, {statistics.median(run[2] for run in runs):.0f} MiB")
    for name in [name for name in ("without", "other") if name in results]:
        ratio = statistics.median(w[0] / o[0] for w, o in zip(results["with"], results[name]))
        print(f"with / {name}: {ratio:.3f} (median of pairs)")
    answers = {run[3] for name in ("without", "with", "empty") for run in results[name]}
    print("the same answer each time" if len(answers) == 1 else f"{len(answers)} different answers")


if __name__ == "__main__":
    main()
