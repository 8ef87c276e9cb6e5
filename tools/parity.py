#!/usr/bin/python3
"""Does resnet.cpp compute what PyTorch does? The tests of the project's promise, against Debian's python3-torch.

    tools/parity.py double   --resnet build/release/resnet     ten steps in double on the reference backend
    tools/parity.py gradient --resnet build/release/resnet     one f32 step of the cpu backend, Winograd and direct
    tools/parity.py logits   --resnet build/release/resnet     f32 logits of torchvision's nets, Winograd and direct
    tools/parity.py pytorch                                    PyTorch's own f32 against its double: how tight can it be?

Step-by-step losses in f32 prove nothing (the recipe amplifies rounding a thousandfold within ten steps), hence double
for ten steps, and single gradients for f32. Prints a table; exits 1 when a bound fails, 2 when a run could not be made.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torchvision
from torch import nn

import fashion_mnist
import safetensors_numpy
from lecture_net import bias_before_batch_norm, init_xavier, lecture_resnet18

# The promise. DOUBLE: ten losses, relative. LOSS, MEDIAN, WORST: one f32 step, see compare_gradients. LOGITS: of each
# image, relative to its largest.
DOUBLE_BOUND = 1e-6
LOSS_BOUND, MEDIAN_BOUND, WORST_BOUND = 1e-5, 1e-2, 3e-2
LOGITS_NETS = {"resnet18": True, "resnet50": True, "resnext50_32x4d": False}  # name: whether Winograd can do its 3x3 convolutions
LOGITS_BOUND = 1e-4

LR = 0.05
STEPS, DOUBLE_SIZE, DOUBLE_BATCH = 10, 28, 16
GRADIENT_SIZE, GRADIENT_BATCH = 96, 64
# The lecture's net has 13 convolutions that Winograd can do, each with three passes.
LEAST_WINOGRAD_STEPS = 30
# One image more than the batch, so that a batch that is not full is among them.
LOGITS_IMAGES, LOGITS_BATCH, LOGITS_SIZE, LOGITS_CLASSES = 5, 4, 224, 100
LOGITS_MEAN, LOGITS_STD = 0.45, 0.225


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


def run_program(command, folder, environment):
    """Runs it with a tuning cache of its own, so that no earlier choice decides what is tested; returns (stdout, stderr)."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": str(folder), **environment}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise CannotRun(f"{command[0]}: {error.strerror}")
    if done.returncode != 0:
        raise CannotRun(f"{' '.join(command)}\n  exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout, done.stderr


def winograd_steps(plan):
    """How many convolutions of a plan (`--dump-plan`) are done by Winograd: ours, "winograd f4", or oneDNN's "jit_wino_4x3".

    "onednn jit:avx2 (no winograd: stride 2)" is none: what stands in brackets is a remark.
    """
    steps = re.findall(r"^ *\d+ +conv2d.*$", plan, re.MULTILINE)
    return sum("wino" in re.sub(r"\(.*?\)", "", step) for step in steps)


def check_plan(plan, algorithm):
    """A run told to use `algorithm` must have: otherwise its numbers say nothing about it."""
    steps = winograd_steps(plan)
    least, most = (LEAST_WINOGRAD_STEPS, np.inf) if algorithm == "winograd" else (0, 0)
    if not least <= steps <= most:
        raise CannotRun(f"convolutions: {algorithm} was asked for, and the plan has {steps} Winograd steps; expected {least} to {most}")
    return steps


def run_resnet(program, folder, steps, batch, size, seed, backend, precision, extra=(), environment=None):
    """Trains `steps` steps in `folder`; returns the losses of its events.jsonl, and what it wrote to stderr."""
    data, weights, output = folder / "data", folder / "weights.safetensors", folder / "run"
    data.mkdir()
    # A run ends with an evaluation, which on the reference backend would take minutes over 10,000 images.
    fashion_mnist.small_copy(data, train=steps * batch, test=batch)
    save_weights(weights, seed)
    command = [program, "train", "--model", "lecture_resnet18", "--data", data, "--backend", backend, "--precision",
               precision, "--image-size", size, "--batch-size", batch, "--lr", LR, "--weights", weights, "--no-shuffle",
               "--max-steps", steps, "--log-every", 1, "--limit", steps * batch, "--output", output, *extra]
    _, told = run_program(command, folder, environment or {})
    losses = {}
    for line in (output / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("split") == "train" and "step" in event and "loss" in event:
            losses.setdefault(event["step"], event["loss"])
    if len(losses) != steps:
        raise CannotRun(f"{output}/events.jsonl has losses of {len(losses)} training steps, expected {steps}")
    return [losses[step] for step in sorted(losses)], told


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
        mine, _ = run_resnet(args.resnet, pathlib.Path(folder), STEPS, DOUBLE_BATCH, DOUBLE_SIZE, args.seed, "reference", "f64")
    print(f"ten steps in double, {DOUBLE_SIZE}x{DOUBLE_SIZE}, batch {DOUBLE_BATCH}, lr {LR}, seed {args.seed}")
    return compare_losses(mine, losses_in_double(args.seed), DOUBLE_BOUND)


def check_gradient(args):
    true_loss, true_gradients = gradients_in_double(args.seed, args.cache)
    passed = True
    for algorithm in ("winograd", "direct"):
        with tempfile.TemporaryDirectory() as folder:
            dump = pathlib.Path(folder) / "gradients.safetensors"
            (loss,), plan = run_resnet(args.resnet, pathlib.Path(folder), 1, GRADIENT_BATCH, GRADIENT_SIZE, args.seed, "cpu",
                                       "f32", ("--dump-gradients", dump, "--dump-plan"), {"RESNET_CONV_ALGORITHM": algorithm})
            gradients, _ = safetensors_numpy.load(dump)
        print(f"one f32 step, {GRADIENT_SIZE}x{GRADIENT_SIZE}, batch {GRADIENT_BATCH}, seed {args.seed}, "
              f"convolutions: {algorithm} ({check_plan(plan, algorithm)} Winograd steps)")
        passed = compare_gradients(loss, gradients, true_loss, true_gradients) and passed
    return passed


def torchvision_net(name, seed, images):
    """torchvision's `name` for one channel. Random weights; statistics, scales and shifts that batch norm must not ignore.

    Statistics are those of `images` at first, so that no activation dies, and are then moved away.
    """
    torch.manual_seed(seed)
    net = getattr(torchvision.models, name)(num_classes=LOGITS_CLASSES)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
        net.train()(images)
        for norm in norms:
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2)
        net.fc.bias.normal_(0, 0.3)
    return net.eval()


def save_model(path, name, net):
    """A model file as resnet.cpp has it: the state dict under its own names, and what an image must go through."""
    safetensors_numpy.save(path, {key: value.numpy() for key, value in net.state_dict().items()}, {
        "format": "pt", "architecture": name, "num_classes": str(LOGITS_CLASSES),
        "class_names": json.dumps([str(k) for k in range(LOGITS_CLASSES)]),
        "input_size": json.dumps([1, LOGITS_SIZE, LOGITS_SIZE]), "mean": json.dumps([LOGITS_MEAN]), "std": json.dumps([LOGITS_STD]),
        "interpolation": "bilinear", "crop_pct": "1.0", "resize": "squash"})


def patchwork(seed):
    """Grey images of large patches, [LOGITS_IMAGES, S, S] u8: unlike noise, a network tells them apart."""
    rng, patch = np.random.default_rng(seed), LOGITS_SIZE // 8
    coarse = rng.integers(0, 256, (LOGITS_IMAGES, 8, 8)) * rng.uniform(0.2, 1, (LOGITS_IMAGES, 1, 1))
    return np.kron(coarse, np.ones((1, patch, patch))).astype(np.uint8)


def compare_logits(mine, theirs, bound):
    """Largest deviation of an image's logits relative to its largest logit. Images with one answer would prove nothing."""
    if mine.shape != theirs.shape:
        raise CannotRun(f"logits have shape {mine.shape}, expected {theirs.shape}")
    largest = np.abs(theirs).max(axis=1)
    apart = float(np.abs(theirs - theirs.mean(axis=0)).max() / largest.max())
    if not apart > 0.1:
        raise CannotRun(f"the oracle's logits differ by {apart:.1e} between images: too little to tell right from wrong")
    worst = float(np.max(np.abs(mine.astype(np.float64) - theirs).max(axis=1) / largest))  # keeps a NaN
    passed = worst <= bound
    print(f"  worst {worst:.2e}, bound {bound:.0e}: {'ok' if passed else 'FAILED'}")
    return passed


def check_logits(args):
    pixels = patchwork(args.seed)
    images = (torch.from_numpy(pixels[:, None].astype(np.float64)) / 255 - LOGITS_MEAN) / LOGITS_STD
    passed = True
    for name, winograd in LOGITS_NETS.items():
        net = torchvision_net(name, args.seed, images.float())
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            folder = pathlib.Path(folder)
            model, dump = folder / "model.safetensors", folder / "logits.safetensors"
            save_model(model, name, net)
            fashion_mnist.write_idx(folder / "t10k-images-idx3-ubyte.gz", pixels)
            fashion_mnist.write_idx(folder / "t10k-labels-idx1-ubyte.gz",
                                    np.linspace(0, LOGITS_CLASSES - 1, LOGITS_IMAGES).astype(np.uint8))
            own = net(images.float()).double().numpy()
            truth = net.double()(images).numpy()
            print(f"{name}, {LOGITS_IMAGES} images of 1x{LOGITS_SIZE}x{LOGITS_SIZE}, seed {args.seed}, against PyTorch's double\n"
                  f"  PyTorch's own f32: {np.max(np.abs(own - truth).max(axis=1) / np.abs(truth).max(axis=1)):.1e}")
            found = {}
            for algorithm in ("winograd", "direct"):
                run_program([args.resnet, "evaluate", model, "--data", folder, "--batch-size", LOGITS_BATCH, "--dump-logits", dump,
                             "--json"], folder, {"RESNET_CONV_ALGORITHM": algorithm})
                logits = safetensors_numpy.load(dump)[0]["logits"]
                dump.unlink()
                found[algorithm] = logits
                print(f"  convolutions: {algorithm}", end="")
                passed = compare_logits(logits, truth, LOGITS_BOUND) and passed
            # Without Winograd the two differ by what the stem measures alone, on some processors by no byte.
            if winograd and found["winograd"].tobytes() == found["direct"].tobytes():
                raise CannotRun("Winograd and direct gave the same bytes; expected two algorithms to differ")
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


CHECKS = {"double": check_double, "gradient": check_gradient, "logits": check_logits, "pytorch": check_pytorch}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--resnet", default="build/release/resnet", help="the program (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default %(default)s)")
    parser.add_argument("--cache", type=pathlib.Path, help="keep PyTorch's double gradients here")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        passed = CHECKS[args.check](args)
    except CannotRun as error:
        print(f"parity: error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
