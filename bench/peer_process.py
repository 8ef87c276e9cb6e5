#!/usr/bin/python3
"""One peer of bench/peers.py: a long-lived process that computes only when told to.

    bench/peer_process.py KIND --batch-size N [--nets FOLDER] [--threads T] [--first-answer]

Line protocol. When warm it prints {"name", "version", "images"}, the last being images an iteration. For each number R on
stdin it runs R iterations and prints {"seconds": [R times], "resident_bytes"}. It ends with its stdin. Each kind is the peer
at its best, as its own documentation has it. An inference peer first proves that it computes the net of bench/peer_nets.py:
its logits of the reference image are within 1e-4 of the ones stored with the net (in int8: correlate with them), or it does
not take part. With --first-answer it prints {"program_bytes"} as soon as it has its first logits, and ends.
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
MOST_HALF_DEVIATION = 2e-2  # in half precision; random nets have 0.5 to 0.8 %, nonsense has 1 and more
# Of int8's logits with those in f32: nonsense has 0, and a random net's layers in 8 bits leave 0.95 and more.
LEAST_CORRELATION = 0.9


class Net:
    """The files of one net, see bench/peer_nets.py, and a batch that repeats the reference image."""

    def __init__(self, args):
        folder = pathlib.Path(args.nets)
        reference = np.load(folder / "reference.npz")
        self.images = np.tile(reference["x"], (args.batch_size, 1, 1, 1))
        self.logits = reference["y"]
        self.onnx, self.weights, self.calibration = folder / "net.onnx", folder / "weights.pth", folder / "calibration.npy"
        self.folder = folder
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


def pytorch_int8(args):
    """FX graph mode, static, per-channel weights, with PyTorch's own settings for x86."""
    source = Net(args)
    torch, net = source.torchvision(args.threads)
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    backend = "x86" if "x86" in torch.backends.quantized.supported_engines else "fbgemm"
    torch.backends.quantized.engine = backend
    images = torch.from_numpy(source.images)
    observed = prepare_fx(net, get_default_qconfig_mapping(backend), (images[:1],))
    with torch.inference_mode():
        for image in torch.from_numpy(np.load(source.calibration)).split(1):
            observed(image)
    quantised = convert_fx(observed)

    def run():
        with torch.inference_mode():
            return quantised(images).numpy()

    return f"PyTorch, int8, {backend}", torch.__version__, run


def onnxruntime(args, file="net.onnx", name="ONNX Runtime"):
    import onnxruntime as ort

    source = Net(args)
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(source.folder / file), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: source.images}
    return name, ort.__version__, lambda: session.run(None, feed)[0]


def onnxruntime_int8(args):
    """What ONNX Runtime's own quantiser makes."""
    return onnxruntime(args, "net.qdq.onnx", "ONNX Runtime, int8")


def onnxruntime_our_int8(args):
    return onnxruntime(args, "ours.qdq.onnx", "ONNX Runtime, our int8 export")


def openvino(args, hint, file="net.onnx", name="OpenVINO"):
    """One batch after the other (latency), or as many on their way at all times as OpenVINO finds best (throughput); f32 asked for."""
    import openvino as ov

    source = Net(args)
    net = ov.Core().read_model(source.folder / file)
    net.reshape(list(source.images.shape))
    compiled = ov.Core().compile_model(net, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": args.threads,
                                                    "INFERENCE_PRECISION_HINT": "f32"})
    queue = ov.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    answers = []
    queue.set_callback(lambda request, _: answers.append(request.get_output_tensor().data.copy()))

    def start():
        for _ in range(len(queue)):  # each waits for a request that is free
            queue.start_async({0: source.images}, share_inputs=True)

    def finish():
        queue.wait_all()
        done = np.concatenate(answers)
        answers.clear()
        return done

    def run():
        start()
        return finish()

    if hint == "THROUGHPUT":
        run.go_on, run.finish = start, finish
    return f"{name}, {hint.lower()}", ov.__version__.split("-")[0], run


def openvino_latency(args):
    return openvino(args, "LATENCY")


def openvino_throughput(args):
    return openvino(args, "THROUGHPUT")


def openvino_int8_latency(args):
    return openvino(args, "LATENCY", "net.qdq.onnx", "OpenVINO, int8")


def openvino_int8_throughput(args):
    return openvino(args, "THROUGHPUT", "net.qdq.onnx", "OpenVINO, int8")


def openvino_symmetric_int8_throughput(args):
    """OpenVINO's own tools make activations symmetric; its kernels may like that better."""
    return openvino(args, "THROUGHPUT", "net.symmetric.qdq.onnx", "OpenVINO, symmetric int8")


def openvino_our_int8_throughput(args):
    return openvino(args, "THROUGHPUT", "ours.qdq.onnx", "OpenVINO, our int8 export")


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


F32_KINDS = (pytorch_eager, pytorch_frozen, pytorch_compile, onnxruntime, openvino_latency, openvino_throughput, ncnn)
INT8_KINDS = (pytorch_int8, onnxruntime_int8, onnxruntime_our_int8, openvino_int8_latency, openvino_int8_throughput,
              openvino_symmetric_int8_throughput, openvino_our_int8_throughput)
KINDS = {kind.__name__: kind for kind in (pytorch_training, *F32_KINDS, *INT8_KINDS)}


def disagreement(answer, wanted, precision):
    """What is wrong with logits of [N,K], all of one image whose f32 logits are `wanted` [1,K]; None if nothing is."""
    if precision == "int8":
        correlation = min(np.corrcoef(row, wanted[0])[0, 1] for row in answer)
        return None if correlation > LEAST_CORRELATION else f"correlate by {correlation:.2f} only with f32's"
    deviation = np.abs(answer - wanted).max() / np.abs(wanted).max()
    most = MOST_HALF_DEVIATION if precision == "f16" else MOST_DEVIATION
    return None if deviation < most else f"differ from the stored ones by {deviation:.1e}"


def program_bytes(maps):
    """Bytes on disk of the program and the shared libraries that a process has loaded: the files that `maps`, the text of its
    /proc/PID/maps, holds code of. Python's own modules and the net's weights are not among them."""
    code = {tuple(words[3:5]): words[5] for line in maps.splitlines() if len(words := line.split(maxsplit=5)) == 6
            and "x" in words[1] and words[5].startswith("/")}
    return sum(os.path.getsize(path) for path in code.values() if os.path.isfile(path))


def timed(iteration, runs):
    """-> seconds of each run. A peer that starts the next before the last has ended, with go_on() in place of itself, is timed on
    its way: it has started a run's before, and ends the last after."""
    seconds = []
    go_on = getattr(iteration, "go_on", iteration)
    if go_on is not iteration:
        go_on()
    for _ in range(runs):
        start = time.perf_counter()
        go_on()
        seconds.append(time.perf_counter() - start)
    if go_on is not iteration:
        iteration.finish()
    return seconds


def images_of_iteration(kind, args, iteration):
    """Runs it once: how many images it takes. An inference peer's logits are held against the stored ones."""
    answer = iteration()
    if kind == "pytorch_training":
        return args.batch_size
    wanted = np.load(pathlib.Path(args.nets) / "reference.npz")["y"]
    if wrong := disagreement(answer, wanted, "int8" if KINDS[kind] in INT8_KINDS else "f32"):
        raise SystemExit(f"peer_process: the logits of {kind} {wrong}")
    return len(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image-size", type=int, help="of training")
    parser.add_argument("--nets", help="of inference: the folder that bench/peer_nets.py made")
    parser.add_argument("--model", help="of inference: the net's name in torchvision")
    parser.add_argument("--first-answer", action="store_true", help="end after the first logits")
    args = parser.parse_args()
    name, version, iteration = KINDS[args.kind](args)
    if args.first_answer:
        iteration()
        print(json.dumps({"program_bytes": program_bytes(pathlib.Path("/proc/self/maps").read_text())}), flush=True)
        return
    images = images_of_iteration(args.kind, args, iteration)
    for _ in range(2):  # the first iterations compile, profile and allocate
        iteration()
    print(json.dumps({"name": name, "version": version, "images": images}), flush=True)
    for line in sys.stdin:
        seconds = timed(iteration, int(line))
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "resident_bytes": resident}), flush=True)


if __name__ == "__main__":
    main()
