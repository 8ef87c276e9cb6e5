#!/usr/bin/env python3
"""Is every net what torchvision and timm say it is? Parameters, logits and batch statistics, with PyPI's oracles.

    build/oracles/bin/python tools/model_parity.py logits           a few nets of each kind, as `make test` does
    build/oracles/bin/python tools/model_parity.py logits --all     every net; NAME... instead of --all: those
    build/oracles/bin/python tools/model_parity.py gradients        backward too: small nets of each kind, in double

`logits`: random weights and statistics that the oracle's own net saves; then, on 8 random images, the logits of inference
(largest error of an image relative to its largest logit) and the running statistics after one training step with rate 0
(largest error of a tensor relative to its largest value), both of the cpu backend in f32 against PyTorch in double, and for comparison the logits of PyTorch's own f32. Where
statistics miss their bound, twice the error of PyTorch's own f32 is allowed: in 1001 layers that too is 1.4e-4.
`gradients`: loss, every parameter's gradient and every statistic of one step of the reference backend in double.
Prints a line a net; exits 1 when a bound fails, 2 when a net could not be run.
"""
import argparse
import copy
import json
import pathlib
import re
import sys
import tempfile
import time

try:
    import numpy as np
    import timm
    import torch
    import torchvision
    from timm.layers import BatchNormAct2d, BlurPool2d, create_conv2d
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet
    from timm.models.resnetv2 import ResNetV2
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"model_parity: error: {error}; run it with build/oracles/bin/python (tools/install_oracles.sh makes it)", file=sys.stderr)
    sys.exit(2)

import safetensors_numpy
from parity import CannotRun, run_program

LOGITS_BOUND, STATISTICS_BOUND, DOUBLE_BOUND = 1e-4, 1e-4, 1e-11
IMAGES, CLASSES = 8, 100
SIZE, FEW_SIZE, CIFAR_SIZE = 72, 40, 32  # pixels; at 72 the maps are 18, 9, 5 and 3 wide, at 40 10, 5, 3 and 2: odd edges count

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
               "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
TIMM = ("resnet18d", "resnet26d", "resnet34d", "resnet50d", "resnet101d", "resnet152d", "resnet50c", "resnet50s", "seresnet50",
        "ecaresnet50d", "resnetblur50", "resnetv2_50", "resnetv2_101")
V1 = ("resnet50_v1", "resnet101_v1", "resnet152_v1")
CIFAR = ("preresnet164_cifar", "preresnet1001_cifar", "wrn28_10_cifar")
ALL = TORCHVISION + V1 + TIMM + CIFAR
FEW = ("resnext50_32x4d", "resnet18d", "resnet50s", "seresnet50", "ecaresnet50d", "resnetblur50", "resnetv2_50",
       "preresnet164_cifar", "wrn16_2_cifar")


class WideBlock(nn.Module):
    """Zagoruyko and Komodakis 2016, with the names of xternalz/WideResNet-pytorch."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels_in), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (self.convShortcut(active) if hasattr(self, "convShortcut") else x)


class WideStage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, blocks, width, num_classes):
        super().__init__()
        self.conv1, channels = nn.Conv2d(3, 16, 3, 1, 1, bias=False), 16
        for stage, count in enumerate(blocks):
            wide = (16 << stage) * width
            setattr(self, f"block{stage + 1}", WideStage(*(WideBlock(channels if i == 0 else wide, wide, 2 if stage and i == 0 else 1)
                                                           for i in range(count))))
            channels = wide
        self.bn1, self.fc, self.stages = nn.BatchNorm2d(channels), nn.Linear(channels, num_classes), len(blocks)

    def forward(self, x):
        x = self.conv1(x)
        for stage in range(self.stages):
            x = getattr(self, f"block{stage + 1}")(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def preactivation_cifar(blocks, num_classes, **options):
    """He et al. 2016's, made of timm's blocks: another stem, and the stride on the first 1x1 (KaimingHe/resnet-1k-layers)."""
    net = ResNetV2(list(blocks), channels=tuple(64 << i for i in range(len(blocks))), num_classes=num_classes, stem_chs=16,
                   conv_layer=create_conv2d, norm_layer=BatchNormAct2d, **options)
    net.stem = nn.Sequential()
    net.stem.add_module("conv", nn.Conv2d(3, 16, 3, 1, 1, bias=False))
    for stage in net.stages[1:]:
        stage.blocks[0].conv1.stride, stage.blocks[0].conv2.stride = (2, 2), (1, 1)
    return net


def oracle(name, classes):
    """The net of that name as its library makes it."""
    if name in TORCHVISION:
        return getattr(torchvision.models, name)(num_classes=classes)
    if name in V1:
        net = getattr(torchvision.models, name[:-3])(num_classes=classes)
        for layer in (net.layer2, net.layer3, net.layer4):  # the paper's: the stride on the first 1x1
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        return net
    if name in TIMM:
        return timm.create_model(name, num_classes=classes)
    if match := re.fullmatch(r"preresnet(\d+)_cifar", name):
        return preactivation_cifar([(int(match[1]) - 2) // 9] * 3, classes)
    if match := re.fullmatch(r"wrn(\d+)_(\d+)_cifar", name):
        return WideResNet([(int(match[1]) - 4) // 6] * 3, int(match[2]), classes)
    raise CannotRun(f"no oracle for '{name}'; expected one of {', '.join(ALL)}, preresnetN_cifar or wrnN_K_cifar")


def randomise(net, images):
    """Weights as the library draws them, but scales, shifts and statistics that batch norm must not ignore.

    Statistics are those of `images` at first, so that no activation dies, and are then moved away.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
        for module in net.modules():  # timm's classifier of a pre-activation net starts with all but zeros
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                module.bias.normal_(0, 0.3)
        net.train()(images)
        for norm in norms:
            norm.momentum = 0.1
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2)
    return net


def save_model(path, name, net, size, classes, options=None):
    """A model file as resnet.cpp has it: the state dict under its own names, and what an image must go through."""
    safetensors_numpy.save(path, {key: value.numpy() for key, value in net.state_dict().items()}, {
        "format": "pt", "architecture": name, "num_classes": str(classes), "class_names": json.dumps([str(k) for k in range(classes)]),
        "input_size": json.dumps([3, size, size]), "mean": json.dumps([0.5] * 3), "std": json.dumps([0.25] * 3),
        "interpolation": "bilinear", "crop_pct": "1.0", "resize": "squash", **(options or {})})


def patchwork(count, size, generator):
    """Images of large patches: unlike noise, a network tells them apart."""
    coarse = torch.rand((count, 3, 8, 8), generator=generator) * torch.empty((count, 1, 1, 1)).uniform_(0.2, 1, generator=generator)
    return F.interpolate(coarse, size=(size, size)) * 4 - 2


def run_helper(helper, mode, folder, environment):
    """`mode` of tests/models/parity_helper.cpp in `folder`; returns its tensors."""
    run_program([helper, mode, *(folder / f"{part}.safetensors" for part in ("model", "images", "out"))], folder, environment)
    return safetensors_numpy.load(folder / "out.safetensors")[0]


def largest(values):
    return float(np.max(np.abs(values)))  # keeps a NaN, and NaN <= bound is false


def logits_error(mine, truth):
    """Largest error of an image relative to its largest logit. Images with one answer would prove nothing."""
    if mine.shape != truth.shape:
        raise CannotRun(f"logits have shape {mine.shape}, expected {truth.shape}")
    apart = largest(truth - truth.mean(axis=0)) / largest(truth)
    if not apart > 0.05:
        raise CannotRun(f"the oracle's logits differ by {apart:.1e} between images: too little to tell right from wrong")
    return float(np.max(np.abs(mine - truth).max(axis=1) / np.abs(truth).max(axis=1)))


def tensors_error(mine, truth):
    """Largest error of any tensor of `truth`, relative to the tensor's largest value."""
    if missing := truth.keys() - mine.keys():
        raise CannotRun(f"tensors are missing: {', '.join(sorted(missing)[:5])} ({len(missing)} in all)")
    return max((largest(mine[name] - value) / largest(value) for name, value in truth.items()), key=lambda e: (np.isnan(e), e))


def statistics_of(net):
    return {name: value.double().numpy().copy() for name, value in net.state_dict().items() if name.endswith(("running_mean", "running_var"))}


def check_net(name, args):
    """Logits and statistics of one net; prints its line. True when both are within their bounds."""
    torch.manual_seed(args.seed)
    size = CIFAR_SIZE if name.endswith("_cifar") else args.size
    images = patchwork(IMAGES, size, torch.Generator().manual_seed(args.seed))
    parameters = sum(p.numel() for p in oracle(name, 10 if name.endswith("_cifar") else 1000).parameters())
    listed = args.listed.get(name)
    if listed and listed["parameters"] != parameters:
        raise CannotRun(f"{name}: resnet lists {listed['parameters']} parameters, its library has {parameters}")
    net = randomise(oracle(name, CLASSES), images)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        folder = pathlib.Path(folder)
        save_model(folder / "model.safetensors", name, net, size, CLASSES)
        safetensors_numpy.save(folder / "images.safetensors", {"images": images.numpy(), "labels": np.zeros(IMAGES, np.float32)})
        start = time.monotonic()
        mine = run_helper(args.helper, "forward", folder, {"RESNET_CONV_ALGORITHM": args.algorithm})
        seconds = time.monotonic() - start
    with torch.no_grad():
        single, net = copy.deepcopy(net), net.double()
        truth = net.eval()(images.double()).numpy()
        own_logits = logits_error(single.eval()(images).numpy(), truth)
        before = statistics_of(net)
        net.train()(images.double())
        statistics = statistics_of(net)
    moved = tensors_error(before, statistics)
    if not moved > 1e-2:
        raise CannotRun(f"{name}: the step moved the statistics by {moved:.1e}: too little to tell right from wrong")
    logits, step = logits_error(mine["logits"], truth), tensors_error(mine, statistics)
    bound, note = STATISTICS_BOUND, ""
    if step > bound:  # a thousand layers amplify every rounding: is PyTorch's own f32 as far off?
        with torch.no_grad():
            single.train()(images)
        own = tensors_error(statistics_of(single), statistics)
        bound, note = max(bound, 2 * own), f" (PyTorch's own f32: {own:.1e}, bound twice that)"
    passed = logits <= LOGITS_BOUND and step <= bound
    macs = f"{listed['macs'] / 1e6:12,.1f}" if listed else f"{'':>12}"
    print(f"{name:22} {parameters:12,} {macs}  {logits:9.1e}  {own_logits:11.1e}  {step:10.1e}  {seconds:6.1f}  {'ok' if passed else 'FAILED'}{note}", flush=True)
    return passed


def check_logits(args):
    names = args.names or (ALL if args.all else FEW)
    args.size = FEW_SIZE if names is FEW else SIZE
    listed, _ = run_program([args.resnet, "summary", "--list", "--json"], tempfile.gettempdir(), {})
    args.listed = {line["model"]: line for line in json.loads(listed)}
    print(f"torchvision {torchvision.__version__}, timm {timm.__version__}, torch {torch.__version__} in double; {IMAGES} images of "
          f"3x{args.size}x{args.size} (3x{CIFAR_SIZE}x{CIFAR_SIZE} for CIFAR), seed {args.seed}; bounds {LOGITS_BOUND:.0e} and {STATISTICS_BOUND:.0e}\n"
          f"{'model':22} {'parameters':>12} {'MMACs':>12}  {'logits':>9}  {'PyTorch f32':>11}  {'statistics':>10}  {'s':>6}")
    return all([check_net(name, args) for name in names])


def small_nets():
    """name -> (architecture here, its options, oracle): every kind of block, as few of them as show it."""
    four = dict(layers=(2, 1, 1, 1), num_classes=7)  # timm's ResNet has four stages, whatever it is told
    here, here_four = {"model.blocks": "[2, 1]"}, {"model.blocks": "[2, 1, 1, 1]"}
    deep = dict(stem_width=32, stem_type="deep", avg_down=True)
    pre = dict(layers=[2, 1], channels=(256, 512), num_classes=7, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)
    drop = {"model.drop_path": "0.5"}
    return {
        "basic": ("resnet18", here_four, ResNet(BasicBlock, **four)),
        "bottleneck": ("resnet50", here_four, ResNet(Bottleneck, **four)),
        "basic, D": ("resnet18d", here_four, ResNet(BasicBlock, **four, **deep)),
        "bottleneck, S": ("resnet50s", here_four, ResNet(Bottleneck, **four, stem_width=64, stem_type="deep")),
        "squeeze-and-excitation": ("seresnet50", here_four, ResNet(Bottleneck, **four, block_args=dict(attn_layer="se"))),
        "channel attention, D": ("ecaresnet50d", here_four, ResNet(Bottleneck, **four, **deep, block_args=dict(attn_layer="eca"))),
        "blur": ("resnetblur50", here_four, ResNet(Bottleneck, **four, aa_layer=BlurPool2d)),
        "pre-activation": ("resnetv2_50", here, ResNetV2(**pre)),
        "pre-activation, CIFAR": ("preresnet11_cifar", here, preactivation_cifar([2, 1], 7)),
        "wide": ("wrn10_2_cifar", here, WideResNet([2, 1], 2, 7)),
        "attention, stochastic depth": ("seresnet50", {**here_four, **drop}, ResNet(Bottleneck, **four, block_args=dict(attn_layer="se"), drop_path_rate=0.5)),
        "pre-activation, stochastic depth": ("resnetv2_50", {**here, **drop}, ResNetV2(**pre, drop_path_rate=0.5)),
    }


def fix_drop_paths(net, images, generator):
    """Draws each of timm's DropPaths once and for all; returns the factors, [N], under their names."""
    factors = {}
    for name, module in net.named_modules():
        if type(module).__name__ == "DropPath":
            keep = 1 - module.drop_prob
            factors[name] = (torch.rand(len(images), generator=generator) < keep).double() / keep
            module.forward = lambda x, f=factors[name]: x * f.reshape(-1, 1, 1, 1).to(x.dtype)
    return factors


def check_gradients(args):
    size, classes, passed = 33, 7, True
    print(f"{'kind':34} {'loss':>9}  {'gradients':>9}  {'statistics':>10}  {'s':>5}   (double, bound {DOUBLE_BOUND:.0e})")
    for index, (kind, (architecture, options, net)) in enumerate(small_nets().items()):
        torch.manual_seed(args.seed + index)
        generator = torch.Generator().manual_seed(args.seed)
        images = patchwork(3, size, generator)
        labels = torch.tensor([1, 5, 2])
        randomise(net, images)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            save_model(folder / "model.safetensors", architecture, net, size, classes, options)
            factors = fix_drop_paths(net, images, generator)
            if ("drop_path" in str(options)) != (len(factors) > 0):
                raise CannotRun(f"{kind}: the oracle has {len(factors)} branches of stochastic depth")
            safetensors_numpy.save(folder / "images.safetensors", {"images": images.numpy(), "labels": labels.float().numpy(),
                                                                   **{name: f.numpy() for name, f in factors.items()}})
            start = time.monotonic()
            mine = run_helper(args.helper, "gradients", folder, {})
            seconds = time.monotonic() - start
        net = net.double().train()
        loss = F.cross_entropy(net(images.double()), labels)
        loss.backward()
        truth = {f"gradient:{name}": p.grad.numpy() for name, p in net.named_parameters()}
        errors = (abs(float(mine["loss"]) - loss.item()) / loss.item(), tensors_error(mine, truth), tensors_error(mine, statistics_of(net)))
        passed = all(error <= DOUBLE_BOUND for error in errors) and passed
        print(f"{kind:34} {errors[0]:9.1e}  {errors[1]:9.1e}  {errors[2]:10.1e}  {seconds:5.1f}  "
              f"{'ok' if max(errors) <= DOUBLE_BOUND else 'FAILED'}", flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("logits", "gradients"))
    parser.add_argument("names", nargs="*", help="nets to check instead of the few")
    parser.add_argument("--all", action="store_true", help="every net")
    parser.add_argument("--helper", default="build/release/tests/parity_helper", help="the test helper (default %(default)s)")
    parser.add_argument("--resnet", default="build/release/resnet", help="the program, for its list of parameters and MACs (default %(default)s)")
    parser.add_argument("--algorithm", choices=("direct", "winograd", "auto"), default="direct", help="of convolutions (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images (default %(default)s)")
    args = parser.parse_args()
    try:
        passed = (check_logits if args.check == "logits" else check_gradients)(args)
    except CannotRun as error:
        print(f"model_parity: error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
