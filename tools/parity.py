#!/usr/bin/python3
"""Does resnet.cpp train as PyTorch does? The two tests of the project's promise, against Debian's python3-torch.

    tools/parity.py double   --resnet build/release/resnet     ten steps in double on the reference backend
    tools/parity.py gradient --resnet build/release/resnet     one f32 step of the cpu backend, Winograd and direct
    tools/parity.py pytorch                                    PyTorch's own f32 against its double: how tight can it be?

Step-by-step losses in f32 prove nothing (the recipe amplifies rounding a thousandfold within ten steps), hence double
for ten steps, and single gradients for f32. Prints a table; exits 1 when a bound fails, 2 when a run could not be made.
"""
import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch import nn

import fashion_mnist
import safetensors_numpy
from lecture_net import bias_before_batch_norm, init_xavier, lecture_resnet18

# The promise. DOUBLE: ten losses, relative. LOSS, MEDIAN, WORST: one f32 step, see compare_gradients.
DOUBLE_BOUND = 1e-6
LOSS_BOUND, MEDIAN_BOUND, WORST_BOUND = 1e-5, 1e-2, 3e-2

LR = 0.05
STEPS, DOUBLE_SIZE, DOUBLE_BATCH = 10, 28, 16
GRADIENT_SIZE, GRADIENT_BATCH = 96, 64


class CannotRun(Exception):
    """The program is missing, failed, or left no result: not a verdict about its numbers."""


def make_net(seed, dtype):
    """Weights are drawn in f32, so that the f32 file that resnet reads holds the double net's weights exactly."""
    return init_xavier(lecture_resnet18(), seed).to(dtype)


def save_weights(path, seed):
    state = make_net(seed, torch.float32).state_dict()
    safetensors_numpy.save(path, {name: value.numpy() for name, value in state.items()}, {"format": "pt"})


def one_step(net, images, labels):
    """Forward and backward in the net's own type; returns the loss. The gradients are left on the parameters."""
    dtype = next(net.parameters()).dtype
    net.train()
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(torch.from_numpy(images).to(dtype)), torch.from_numpy(labels))
    loss.backward()
    return loss.item()


def losses_in_double(seed):
    net = make_net(seed, torch.float64)
    optimiser = torch.optim.SGD(net.parameters(), lr=LR)
    losses = []
    for step in range(STEPS):
        losses.append(one_step(net, *fashion_mnist.batch(step * DOUBLE_BATCH, DOUBLE_BATCH, DOUBLE_SIZE)))
        optimiser.step()
    return losses


def gradients_of(net):
    return {name: p.grad.numpy().astype(np.float64) for name, p in net.named_parameters()}


def gradients_in_double(seed, cache):
    """First loss and gradients at 96x96, batch 64. Half a minute of double arithmetic, so kept beside the build."""
    sources = [pathlib.Path(__file__), pathlib.Path(__file__).with_name("lecture_net.py"),
               pathlib.Path(__file__).with_name("fashion_mnist.py")]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in sources) + torch.__version__.encode()).hexdigest()[:16]
    path = cache / f"gradients-{seed}-{key}.safetensors" if cache else None
    if path and path.is_file():
        gradients, metadata = safetensors_numpy.load(path)
        return float(metadata["loss"]), gradients
    net = make_net(seed, torch.float64)
    loss = one_step(net, *fashion_mnist.batch(0, GRADIENT_BATCH, GRADIENT_SIZE))
    gradients = gradients_of(net)
    if path:
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        safetensors_numpy.save(partial, gradients, {"loss": repr(loss)})
        partial.rename(path)
    return loss, gradients


def run_resnet(program, folder, steps, batch, size, seed, backend, precision, extra=(), environment=None):
    """Trains `steps` steps in `folder` and returns the losses of its events.jsonl."""
    data, weights, output = folder / "data", folder / "weights.safetensors", folder / "run"
    data.mkdir()
    # A run ends with an evaluation, which on the reference backend would take minutes over 10,000 images.
    fashion_mnist.small_copy(data, train=steps * batch, test=batch)
    save_weights(weights, seed)
    command = [program, "train", "--model", "lecture_resnet18", "--data", data, "--backend", backend, "--precision",
               precision, "--image-size", size, "--batch-size", batch, "--lr", LR, "--weights", weights, "--no-shuffle",
               "--max-steps", steps, "--log-every", 1, "--limit", steps * batch, "--output", output, *extra]
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, env={**os.environ, **(environment or {})}, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL)
    except OSError as error:
        raise CannotRun(f"{program}: {error.strerror}")
    if done.returncode != 0:
        raise CannotRun(f"{' '.join(command)}\n  exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    losses = {}
    for line in (output / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("split") == "train" and "step" in event and "loss" in event:
            losses.setdefault(event["step"], event["loss"])
    if len(losses) != steps:
        raise CannotRun(f"{output}/events.jsonl has losses of {len(losses)} training steps, expected {steps}")
    return [losses[step] for step in sorted(losses)]


def compare_losses(mine, theirs, bound):
    """Prints both columns; True when every relative deviation is within `bound` (a NaN is not)."""
    print(f"{'step':>4}  {'resnet':>20}  {'PyTorch double':>20}  {'relative':>9}")
    deviations = [abs(a - b) / abs(b) for a, b in zip(mine, theirs, strict=True)]
    for step, (a, b, deviation) in enumerate(zip(mine, theirs, deviations), 1):
        print(f"{step:4}  {a:20.15f}  {b:20.15f}  {deviation:9.1e}")
    worst = float(np.max(deviations))  # numpy's maximum keeps a NaN, and NaN <= bound is false
    passed = worst <= bound
    print(f"worst {worst:.2e}, bound {bound:.0e}: {'ok' if passed else 'FAILED'}")
    return passed


def compare_gradients(loss, gradients, true_loss, true_gradients, rows=5):
    """||g - g*|| / ||g*|| per parameter, in double. True when loss, median and worst are within the bounds."""
    wanted = {name for name in true_gradients if not bias_before_batch_norm(name)}
    missing = wanted - gradients.keys()
    if missing:
        raise CannotRun(f"gradients are missing: {', '.join(sorted(missing)[:5])} ({len(missing)} in all)")
    deviations = []
    for name in sorted(wanted):
        truth, mine = true_gradients[name], gradients[name].astype(np.float64)
        if mine.shape != truth.shape:
            raise CannotRun(f"gradient '{name}' has shape {mine.shape}, expected {truth.shape}")
        deviation = np.linalg.norm(mine - truth) / np.linalg.norm(truth)
        # A NaN would vanish in a maximum and a sort.
        deviations.append((deviation if np.isfinite(deviation) else np.inf, name))
    deviations.sort(reverse=True)
    loss_deviation = abs(loss - true_loss) / abs(true_loss)
    median = float(np.median([d for d, _ in deviations]))
    passed = loss_deviation <= LOSS_BOUND and median <= MEDIAN_BOUND and deviations[0][0] <= WORST_BOUND
    for deviation, name in deviations[:rows]:
        print(f"  {name:24} {deviation:9.2e}")
    print(f"  loss {loss:.8f} (PyTorch double {true_loss:.8f}): relative {loss_deviation:.1e}, bound {LOSS_BOUND:.0e}")
    print(f"  {len(deviations)} parameters: median {median:.2e} (bound {MEDIAN_BOUND:.0e}), "
          f"worst {deviations[0][0]:.2e} (bound {WORST_BOUND:.0e}): {'ok' if passed else 'FAILED'}")
    return passed


def check_double(args):
    with tempfile.TemporaryDirectory() as folder:
        mine = run_resnet(args.resnet, pathlib.Path(folder), STEPS, DOUBLE_BATCH, DOUBLE_SIZE, args.seed, "reference", "f64")
    print(f"ten steps in double, {DOUBLE_SIZE}x{DOUBLE_SIZE}, batch {DOUBLE_BATCH}, lr {LR}, seed {args.seed}")
    return compare_losses(mine, losses_in_double(args.seed), DOUBLE_BOUND)


def check_gradient(args):
    true_loss, true_gradients = gradients_in_double(args.seed, args.cache)
    passed = True
    for algorithm in ("winograd", "direct"):
        with tempfile.TemporaryDirectory() as folder:
            dump = pathlib.Path(folder) / "gradients.safetensors"
            (loss,) = run_resnet(args.resnet, pathlib.Path(folder), 1, GRADIENT_BATCH, GRADIENT_SIZE, args.seed, "cpu", "f32",
                                 ("--dump-gradients", dump), {"RESNET_CONV_ALGORITHM": algorithm})
            gradients, _ = safetensors_numpy.load(dump)
        print(f"one f32 step, {GRADIENT_SIZE}x{GRADIENT_SIZE}, batch {GRADIENT_BATCH}, seed {args.seed}, "
              f"convolutions: {algorithm}")
        passed = compare_gradients(loss, gradients, true_loss, true_gradients) and passed
    return passed


def check_pytorch(args):
    """PyTorch's own f32, both layouts, held against the same bounds; information only, so always True."""
    start = time.monotonic()
    true_loss, true_gradients = gradients_in_double(args.seed, args.cache)
    print(f"double oracle: {time.monotonic() - start:.0f} s")
    images, labels = fashion_mnist.batch(0, GRADIENT_BATCH, GRADIENT_SIZE)
    for layout in (torch.contiguous_format, torch.channels_last):
        net = make_net(args.seed, torch.float32).to(memory_format=layout)
        loss = one_step(net, images, labels)
        print(f"PyTorch {torch.__version__} f32, {layout}, seed {args.seed}")
        compare_gradients(loss, gradients_of(net), true_loss, true_gradients)
    print("ten losses in double:", *(f"{loss:.12f}" for loss in losses_in_double(args.seed)))
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("double", "gradient", "pytorch"))
    parser.add_argument("--resnet", default="build/release/resnet", help="the program (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default %(default)s)")
    parser.add_argument("--cache", type=pathlib.Path, help="keep PyTorch's double gradients here")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        passed = {"double": check_double, "gradient": check_gradient, "pytorch": check_pytorch}[args.check](args)
    except CannotRun as error:
        print(f"parity: error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
