#!/usr/bin/python3
"""One peer of bench/peers.py: a long-lived process that computes only when told to.

    bench/peer_process.py KIND --batch-size N [--nets FOLDER] [--threads T]

Line protocol. When warm it prints {"name", "version", "images"}, the last being images an iteration. For each number R on
stdin it runs R iterations and prints {"seconds": [R times], "resident_bytes"}. It ends with its stdin. Each kind is the peer
at its best, as its own documentation has it. An inference peer first proves that it computes the net of bench/peer_nets.py:
its logits of the reference image are within 1e-4 of the ones stored with the net, or it does not take part.
"""
import argparse
import json
import os
import pathlib
import resource
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
LR = 0.05
MOST_DEVIATION = 1e-4  # of the logits, by the largest of them


class Net:
    """The files of one net, see bench/peer_nets.py, and a batch that repeats the reference image."""

    def __init__(self, args):
        folder = pathlib.Path(args.nets)
        reference = np.load(folder / "reference.npz")
        self.images = np.tile(reference["x"], (args.batch_size, 1, 1, 1))
        self.logits = reference["y"]
        self.onnx, self.weights = folder / "net.onnx", folder / "weights.pth"
        self.ncnn = folder / "net.ncnn.param", folder / "net.ncnn.bin"
        self.model = args.model

    def torchvision(self, threads):
        import torch
        import torchvision

        torch.set_num_threads(threads)
        net = getattr(torchvision.models, self.model)()
        net.load_state_dict(torch.load(self.weights))
        return torch, net.eval()


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


def pytorch_eager(args):
    source = Net(args)
    torch, net = source.torchvision(args.threads)
    net = net.to(memory_format=torch.channels_last)
    images = torch.from_numpy(source.images).contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            return net(images).numpy()

    return "PyTorch, eager, channels_last", torch.__version__, run


def pytorch_frozen(args):
    """Traced, frozen and optimize_for_inference: batch norm folded, oneDNN's layouts from end to end."""
    source = Net(args)
    torch, net = source.torchvision(args.threads)
    images = torch.from_numpy(source.images)
    with torch.no_grad():
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, images)))

    def run():
        with torch.no_grad():
            return frozen(images).numpy()

    return "PyTorch, frozen", torch.__version__, run


def pytorch_compile(args):
    """torch.compile with the weights frozen into the graph: batch norm folded, weights packed for oneDNN."""
    source = Net(args)
    torch, net = source.torchvision(args.threads)
    import torch._inductor.config as inductor

    inductor.freezing = True
    net = net.to(memory_format=torch.channels_last)
    images = torch.from_numpy(source.images).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(net)

    def run():
        with torch.inference_mode():
            return compiled(images).numpy()

    return "PyTorch, compiled, frozen", torch.__version__, run


def onnxruntime(args):
    import onnxruntime as ort

    source = Net(args)
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(source.onnx), options, providers=["CPUExecutionProvider"])
    return "ONNX Runtime", ort.__version__, lambda: session.run(["y"], {"x": source.images})[0]


def openvino(args, hint):
    """One batch after the other (latency), or as many at once as OpenVINO finds best (throughput); f32 asked for."""
    import openvino as ov

    source = Net(args)
    net = ov.Core().read_model(source.onnx)
    net.reshape(list(source.images.shape))
    compiled = ov.Core().compile_model(net, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": args.threads,
                                                    "INFERENCE_PRECISION_HINT": "f32"})
    queue = ov.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    answers = []
    queue.set_callback(lambda request, _: answers.append(request.get_output_tensor().data.copy()))

    def run():
        answers.clear()
        for _ in range(len(queue)):
            queue.start_async({0: source.images})
        queue.wait_all()
        return np.concatenate(answers)

    return f"OpenVINO, {hint.lower()}", ov.__version__.split("-")[0], run


def openvino_latency(args):
    return openvino(args, "LATENCY")


def openvino_throughput(args):
    return openvino(args, "THROUGHPUT")


def ncnn(args):
    """Winograd and packing are on by default; it has no batches, so images go one after the other."""
    os.environ["KMP_BLOCKTIME"] = "20"
    import ncnn as library

    source = Net(args)
    net = library.Net()
    net.opt.num_threads = args.threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    net.load_param(str(source.ncnn[0]))
    net.load_model(str(source.ncnn[1]))

    def run():
        answers = []
        for image in source.images:
            extractor = net.create_extractor()
            extractor.input("in0", library.Mat(image).clone())
            answers.append(np.array(extractor.extract("out0")[1]))
        return np.stack(answers)

    return "ncnn", library.__version__, run


KINDS = {kind.__name__: kind for kind in (pytorch_training, pytorch_eager, pytorch_frozen, pytorch_compile, onnxruntime,
                                          openvino_latency, openvino_throughput, ncnn)}


def images_of_iteration(kind, args, iteration):
    """Runs it once: how many images it takes. An inference peer's logits are held against the stored ones."""
    answer = iteration()
    if kind == "pytorch_training":
        return args.batch_size
    wanted = np.load(pathlib.Path(args.nets) / "reference.npz")["y"]
    deviation = np.abs(answer - wanted).max() / np.abs(wanted).max()
    if not deviation < MOST_DEVIATION:
        raise SystemExit(f"peer_process: the logits of {kind} differ from the stored ones by {deviation:.1e}")
    return len(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image-size", type=int, help="of training")
    parser.add_argument("--nets", help="of inference: the folder that bench/peer_nets.py made")
    parser.add_argument("--model", help="of inference: the net's name in torchvision")
    args = parser.parse_args()
    name, version, iteration = KINDS[args.kind](args)
    images = images_of_iteration(args.kind, args, iteration)
    for _ in range(2):  # the first iterations compile, profile and allocate
        iteration()
    print(json.dumps({"name": name, "version": version, "images": images}), flush=True)
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
