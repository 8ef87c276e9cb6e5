#!/usr/bin/python3
"""One peer of bench/peers.py: a long-lived process that computes only when told to.

    bench/peer_process.py KIND --batch-size N [--onnx FILE] [--threads T]

Line protocol. When warm it prints {"name", "version"}. For each number R on stdin it runs R iterations and prints
{"seconds": [R times], "resident_bytes"}. It ends with its stdin. `export` writes the ONNX file instead, and ends.
Each kind is the peer at its best, as its own documentation has it.
"""
import argparse
import json
import pathlib
import resource
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
LR = 0.05


def pytorch_training(args):
    """The lesson's net, real steps (forward, loss, backward, SGD), channels_last: faster than NCHW here by 2 to 3."""
    import torch
    from lecture_net import init_xavier, lecture_resnet18

    torch.set_num_threads(args.threads)
    net = init_xavier(lecture_resnet18(), 0).to(memory_format=torch.channels_last).train()
    images = torch.rand(args.batch_size, 1, args.image_size, args.image_size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (args.batch_size,))
    optimiser = torch.optim.SGD(net.parameters(), lr=LR)
    loss_of = torch.nn.CrossEntropyLoss()

    def step():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(net(images), labels)
        loss.backward()
        optimiser.step()

    return "PyTorch, channels_last", torch.__version__, step


def torchvision_net():
    import torch
    import torchvision

    torch.manual_seed(0)
    return torch, torchvision.models.resnet18().eval()


def pytorch_eager(args):
    torch, net = torchvision_net()
    torch.set_num_threads(args.threads)
    net = net.to(memory_format=torch.channels_last)
    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size).contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            net(images)

    return "PyTorch, eager, channels_last", torch.__version__, run


def pytorch_frozen(args):
    """Traced, frozen and optimize_for_inference: batch norm folded, oneDNN's layouts from end to end."""
    torch, net = torchvision_net()
    torch.set_num_threads(args.threads)
    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size)
    with torch.no_grad():
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, images)))

    def run():
        with torch.no_grad():
            frozen(images)

    return "PyTorch, frozen", torch.__version__, run


def reference_file(onnx):
    return pathlib.Path(onnx).with_suffix(".npz")


def export(args):
    """The ONNX file, with one input and PyTorch's answer beside it, so that the peer proves it computes the same net."""
    torch, net = torchvision_net()
    image = torch.rand(1, 3, args.image_size, args.image_size)
    with torch.no_grad():
        np.savez(reference_file(args.onnx), x=image.numpy(), y=net(image).numpy())
        torch.onnx.export(net, image, args.onnx, opset_version=13, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


def onnxruntime(args):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    reference = np.load(reference_file(args.onnx))
    (answer,) = session.run(["y"], {"x": reference["x"]})
    deviation = np.abs(answer - reference["y"]).max() / np.abs(reference["y"]).max()
    if not deviation < 1e-4:
        raise SystemExit(f"peer_process: ONNX Runtime's logits differ from PyTorch's by {deviation:.1e}")
    images = np.random.default_rng(0).random((args.batch_size, 3, args.image_size, args.image_size), np.float32)
    return "ONNX Runtime", ort.__version__, lambda: session.run(["y"], {"x": images})


KINDS = {"pytorch_training": pytorch_training, "pytorch_eager": pytorch_eager, "pytorch_frozen": pytorch_frozen,
         "onnxruntime": onnxruntime}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*KINDS, "export"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--onnx", help="the file to write or run")
    args = parser.parse_args()
    if args.kind == "export":
        return export(args)
    name, version, iteration = KINDS[args.kind](args)
    for _ in range(3):  # the first iterations compile, profile and allocate
        iteration()
    print(json.dumps({"name": name, "version": version}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            iteration()
            seconds.append(time.perf_counter() - start)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "resident_bytes": resident}), flush=True)


if __name__ == "__main__":
    main()
