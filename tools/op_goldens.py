#!/usr/bin/env python3
"""Writes tests/ops/op_goldens.txt: what PyTorch computes for every op, forward and backward, in double.

    /usr/bin/python3 tools/op_goldens.py > tests/ops/op_goldens.txt

Needs Debian's python3-torch and python3-numpy. The inputs are drawn from a formula that
tests/ops/torch_golden_test.cpp repeats, so the file holds only the results. One case:

    case NAME OP
    attr KEY NUMBER...
    input NAME SHAPE SEED [positive]
    labels N...
    result NAME SHAPE NUMBER...

A backward result `d/NAME` is the gradient of sum(y * cotangent), the cotangent being drawn with seed 99.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

COTANGENT_SEED = 99


def draw(shape, seed, positive=False):
    """Numbers in [-1, 1) that are exact in double: a multiplicative hash of (seed, index)."""
    count = int(np.prod(shape, dtype=np.int64))
    index = np.arange(count, dtype=np.uint64)
    bits = (index + np.uint64(1000003 * seed + 1)) * np.uint64(2654435761) % np.uint64(2**32)
    bits = (bits ^ (bits >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(2**32)
    values = bits.astype(np.float64) / 2**31 - 1
    if positive:
        values = np.abs(values) + 0.5
    return torch.tensor(values.reshape(shape), dtype=torch.float64)


def shape_text(shape):
    return "x".join(str(d) for d in shape) if len(shape) else "scalar"


class Case:
    def __init__(self, name, op, **attrs):
        print(f"case {name} {op}")
        for key, value in attrs.items():
            numbers = value if isinstance(value, (tuple, list)) else [value]
            print("attr", key, *[repr(float(v)) if isinstance(v, float) else int(v) for v in numbers])
        self.inputs = {}

    def input(self, name, *shape, positive=False, constant=False):
        seed = len(self.inputs) + 1
        print("input", name, shape_text(shape), seed, *(["positive"] if positive else []))
        self.inputs[name] = draw(shape, seed, positive).requires_grad_(not constant)
        return self.inputs[name]

    def labels(self, *labels):
        print("labels", *labels)
        return torch.tensor(labels)

    def result(self, name, tensor):
        tensor = tensor.detach()
        numbers = [repr(v) if tensor.is_floating_point() else str(v) for v in tensor.reshape(-1).tolist()]
        print("result", name, shape_text(tensor.shape), *numbers)

    def backward(self, y):
        """Records y and the gradient of every input."""
        self.result("y", y)
        (y * draw(tuple(y.shape), COTANGENT_SEED)).sum().backward()
        for name, tensor in self.inputs.items():
            if tensor.requires_grad:
                self.result("d/" + name, tensor.grad)


def conv(name, x, w, bias=True, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1):
    c = Case("conv2d_" + name, "conv2d", stride=stride, pad=pad, dilation=dilation, groups=groups)
    xt, wt = c.input("x", *x), c.input("w", *w)
    bt = c.input("b", w[0]) if bias else None
    c.backward(F.conv2d(xt, wt, bt, stride, pad, dilation, groups))


def batch_norm(name, shape, training, residual=False, relu=False):
    c = Case("batch_norm_" + name, "batch_norm", training=training, residual=residual, relu=relu, epsilon=1e-3)
    channels = shape[1]
    x, gamma, beta = c.input("x", *shape), c.input("gamma", channels), c.input("beta", channels)
    mean = c.input("mean", channels, constant=True)
    var = c.input("var", channels, positive=True, constant=True)
    running_mean, running_var = mean.clone(), var.clone()
    y = F.batch_norm(x, running_mean, running_var, gamma, beta, training, 0.1, 1e-3)
    if residual:
        y = y + c.input("residual", *shape)
    if relu:
        y = F.relu(y)
    c.backward(y)
    if training:
        c.result("running_mean", running_mean)
        c.result("running_var", running_var)


def pool(name, shape, kernel, stride, pad):
    c = Case("max_pool_" + name, "max_pool", kernel=kernel, stride=stride, pad=pad)
    x = c.input("x", *shape)
    y, flat = F.max_pool2d(x, kernel, stride, pad, return_indices=True)
    # PyTorch's index counts within the plane, ours within the window.
    rows = flat // shape[3] - (torch.arange(y.shape[2]) * stride[0] - pad[0]).reshape(-1, 1)
    columns = flat % shape[3] - (torch.arange(y.shape[3]) * stride[1] - pad[1])
    c.result("index", rows * kernel[1] + columns)
    c.backward(y)


def average(name, shape, kernel, stride, pad, include, ceil=False):
    c = Case("avg_pool_" + name, "avg_pool", kernel=kernel, stride=stride, pad=pad, count_include_pad=include, **(dict(ceil_mode=1) if ceil else {}))
    x = c.input("x", *shape)
    c.backward(F.avg_pool2d(x, kernel, stride, pad, ceil, include))


def loss(name, classes, labels, smoothing):
    c = Case("softmax_cross_entropy_" + name, "softmax_cross_entropy", label_smoothing=float(smoothing))
    x = c.input("x", len(labels), classes)
    target = c.labels(*labels)
    c.result("probabilities", F.softmax(x, 1))
    c.result("correct", (x.argmax(1) == target).sum().to(torch.float64))
    c.backward(F.cross_entropy(x, target, label_smoothing=smoothing))


def sgd(name, steps=3, **settings):
    attrs = dict(momentum=0.0, weight_decay=0.0, nesterov=False)
    attrs.update(settings)
    c = Case("sgd_" + name, "sgd_update", steps=steps, lr=0.05, **attrs)
    param = c.input("param", 5)
    optimizer = torch.optim.SGD([param], lr=0.05, **attrs)
    for step in range(steps):
        param.grad = draw((5,), 50 + step)
        optimizer.step()
    c.result("param", param)
    if attrs["momentum"]:
        c.result("buffer", optimizer.state[param]["momentum_buffer"])


def residual(name, projected, stride):
    """The lecture's Residual: biases everywhere, no batch norm on the shortcut."""
    c = Case("residual_" + name, "residual", stride=stride)
    x = c.input("x", 2, 2, 3, 3)
    out = 4 if projected else 2
    weights = {}
    for conv_name, shape in [("conv1", (out, 2, 3, 3)), ("conv2", (out, out, 3, 3)), ("conv3", (out, 2, 1, 1))]:
        if conv_name != "conv3" or projected:
            weights[conv_name] = c.input(conv_name + ".weight", *shape), c.input(conv_name + ".bias", out)
    bn = {n: (c.input(n + ".weight", out), c.input(n + ".bias", out)) for n in ("bn1", "bn2")}

    def norm(n, v):
        return F.batch_norm(v, None, None, *bn[n], True, 0.1, 1e-5)

    y = F.relu(norm("bn1", F.conv2d(x, *weights["conv1"], stride, 1)))
    y = norm("bn2", F.conv2d(y, *weights["conv2"], 1, 1))
    c.backward(F.relu(y + (F.conv2d(x, *weights["conv3"], stride) if projected else x)))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"# Made by tools/op_goldens.py: torch {torch.__version__}, numpy {np.__version__}, "
          f"python {sys.version.split()[0]}. Do not edit.")
    conv("plain", (2, 3, 4, 5), (2, 3, 3, 3))
    conv("stem", (1, 1, 9, 8), (3, 1, 7, 7), stride=(2, 2), pad=(3, 3))
    conv("stem_without_padding", (1, 1, 9, 8), (2, 1, 7, 7), stride=(2, 2))
    conv("projection", (2, 3, 5, 4), (4, 3, 1, 1), stride=(2, 2))
    conv("groups", (2, 4, 4, 3), (6, 2, 3, 2), bias=False, pad=(1, 1), groups=2)
    conv("depthwise", (1, 3, 4, 4), (3, 1, 3, 3), pad=(1, 1), groups=3)
    conv("dilation", (1, 2, 6, 7), (2, 2, 3, 2), bias=False, pad=(2, 1), dilation=(2, 3))
    conv("uneven", (1, 2, 5, 7), (2, 2, 3, 1), stride=(1, 3), pad=(2, 0))
    conv("one_pixel", (1, 2, 1, 1), (2, 2, 3, 3), pad=(1, 1))
    batch_norm("image", (3, 2, 2, 3), True)
    batch_norm("flat", (5, 3), True)
    batch_norm("relu", (3, 2, 2, 2), True, relu=True)
    batch_norm("residual", (3, 2, 2, 2), True, residual=True)
    batch_norm("residual_relu", (3, 2, 2, 2), True, residual=True, relu=True)
    batch_norm("inference", (2, 3, 2, 2), False)
    batch_norm("inference_residual_relu", (2, 3, 2, 2), False, residual=True, relu=True)
    c = Case("relu", "relu")
    c.backward(F.relu(c.input("x", 3, 7)))
    c = Case("add", "add")
    c.backward(c.input("a", 2, 3) + c.input("b", 2, 3))
    pool("stem", (2, 2, 5, 6), (3, 3), (2, 2), (1, 1))
    pool("plain", (1, 2, 4, 4), (2, 2), (2, 2), (0, 0))
    pool("uneven", (1, 1, 6, 7), (4, 3), (1, 2), (2, 0))
    average("plain", (2, 1, 4, 5), (2, 2), (2, 2), (0, 0), True)
    average("with_padding", (1, 2, 5, 4), (3, 3), (2, 2), (1, 1), True)
    average("without_padding", (1, 2, 5, 4), (3, 3), (2, 1), (1, 1), False)
    average("ceil", (1, 2, 5, 3), (2, 2), (2, 2), (0, 0), False, ceil=True)
    average("ceil_with_padding", (1, 1, 6, 7), (3, 3), (2, 3), (1, 1), True, ceil=True)
    average("ceil_without_padding", (1, 1, 6, 7), (3, 3), (2, 3), (1, 1), False, ceil=True)
    c = Case("sigmoid", "sigmoid")
    c.backward(torch.sigmoid(c.input("x", 2, 3, 1, 2)))
    c = Case("scale", "scale")
    c.backward(c.input("x", 2, 3, 2, 2) * c.input("s", 2, 3, 1, 1))
    c = Case("channel_conv", "channel_conv")
    x, w = c.input("x", 2, 7, 1, 1), c.input("w", 1, 1, 5)
    c.backward(F.conv1d(x.reshape(2, 1, 7), w, padding=2).reshape(2, 7, 1, 1))
    for name, shape, stride in (("even", (2, 2, 4, 6), 2), ("odd", (1, 2, 5, 3), 2), ("full", (1, 1, 2, 3), 1)):
        c = Case("blur_pool_" + name, "blur_pool", stride=stride)
        taps = torch.tensor([1.0, 2, 1], dtype=torch.float64) / 4
        weight = (taps[:, None] * taps).expand(shape[1], 1, 3, 3)
        c.backward(F.conv2d(F.pad(c.input("x", *shape), (1, 1, 1, 1), mode="reflect"), weight, stride=stride, groups=shape[1]))
    c = Case("global_avg_pool", "global_avg_pool")
    c.backward(F.adaptive_avg_pool2d(c.input("x", 2, 3, 3, 2), 1))
    c = Case("flatten", "flatten")
    c.backward(torch.flatten(c.input("x", 2, 3, 1, 2), 1))
    for bias in (False, True):
        c = Case("linear_bias" if bias else "linear", "linear")
        c.backward(F.linear(c.input("x", 3, 4), c.input("w", 2, 4), c.input("b", 2) if bias else None))
    loss("plain", 4, [0, 3, 1], 0.0)
    loss("smooth", 5, [4, 0, 2, 2], 0.1)
    loss("one_row", 2, [1], 0.5)
    sgd("plain")
    sgd("weight_decay", weight_decay=0.1)
    sgd("momentum", momentum=0.9)
    sgd("nesterov", momentum=0.9, weight_decay=0.01, nesterov=True)
    residual("identity", False, 1)
    residual("projected", True, 2)


if __name__ == "__main__":
    main()
