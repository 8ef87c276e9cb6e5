"""An 8-bit network's QDQ file in ONNX Runtime: the same answers as ours."""
import gzip
import pathlib

import numpy as np
import onnx
import onnxruntime
import program
import quantized_net  # its class by way of the module: in this one it would be run as a test of its own
from quantized_net import FASHION


class QuantizeOnnx(quantized_net.QuantizedNetTest):
    def test_onnx_runtime_agrees_on_the_exported_file(self):
        for flags in ((), ("--opset", "17", "--no-dynamic-batch", "--batch-size", "50")):
            self.ok("export", "int8.safetensors", "int8.onnx", "--force", *flags)
            written = onnx.load(self.folder / "int8.onnx")
            onnx.checker.check_model(written, full_check=True)
            kinds = [node.op_type for node in written.graph.node]
            self.assertEqual(kinds.count("Conv"), 20)
            self.assertGreater(kinds.count("QuantizeLinear"), 20)
            # As written, not replaced by kernels of its own, some of which saturate where there is no VNNI.
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = onnxruntime.InferenceSession(self.folder / "int8.onnx", options, providers=["CPUExecutionProvider"])
            folder = pathlib.Path("/usr/share/datasets/fashion-mnist")
            pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
            images = pixels.reshape(-1, 1, 28, 28)[:200].astype(np.float32) / 255
            theirs = np.concatenate([session.run(["logits"], {"images": images[i:i + 50]})[0] for i in range(0, 200, 50)])
            self.ok("evaluate", "int8.safetensors", "--data", FASHION, "--limit", "200", "--dump-logits", "logits.safetensors")
            header, data = program.read_model(self.folder / "logits.safetensors")
            ours = np.frombuffer(data, np.float32).reshape(header["logits"]["shape"])
            # The same whole numbers but where a sum in f32 falls on the other side of a half.
            self.assertLess(np.abs(ours - theirs).max(), 0.05 * np.abs(ours).max())
            self.assertGreaterEqual((ours.argmax(1) == theirs.argmax(1)).mean(), 0.97)  # an undecided net, and such halves


if __name__ == "__main__":
    program.main()
