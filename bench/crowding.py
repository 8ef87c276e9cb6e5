#!/usr/bin/python3
"""What is left of the speed when two programs compute on the same CPUs: `resnet benchmark` alone, and two of it at once.

    bench/crowding.py [--batch-size N] [--rounds N]

Each round runs one process, then two, each with a thread for every CPU. Together the two should reach what one reaches alone;
waiting threads that spin on the other's CPU are what prevents it. Prints img/s of each and the median ratio; exits 1 when it
is below 0.8. GOMP_SPINCOUNT and OMP_WAIT_POLICY of the environment count, for comparisons.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEAST = 0.8


def rates(command, count):
    """img/s of `count` processes at once, each over its whole time."""
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(count)]
    answers = [json.loads(process.communicate()[0]) for process in started]
    return [a["batch_size"] * len(a["seconds"]) / sum(a["seconds"]) for a in answers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resnet", default=str(ROOT / "build/release/resnet"), help="the program (default %(default)s)")
    parser.add_argument("--model", default="resnet18", help="default %(default)s")
    parser.add_argument("--batch-size", type=int, default=1, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=3, help="of each process (default %(default)s)")
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    command = [args.resnet, "benchmark", args.model, "--batch-size", str(args.batch_size), "--threads", str(threads),
               "--seconds", str(args.seconds), "--json"]
    rates(command, 1)  # chooses kernels where no cache has them yet
    ratios = []
    for number in range(args.rounds):
        (alone,), both = rates(command, 1), rates(command, 2)
        ratios.append(sum(both) / alone)
        print(f"round {number + 1}: alone {alone:.1f} img/s, two at once {both[0]:.1f} + {both[1]:.1f}, ratio {ratios[-1]:.2f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"{args.model}, batch {args.batch_size}, {threads} threads: two at once by one alone, median {ratio:.2f} (at least {LEAST})")
    return 0 if ratio >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
