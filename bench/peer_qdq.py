#!/usr/bin/python3
"""The int8 files of bench/peers.py's peers, by ONNX Runtime's own quantiser from net.onnx and calibration.npy.

    bench/peer_qdq.py FOLDER

Writes net.qdq.onnx (activations in u8 with a zero point) and net.symmetric.qdq.onnx (in s8 about zero). Weights are s8, a
scale for each channel; ranges are the smallest and largest values seen. Without VNNI, products of u8 and s8 are added in
pairs that 16 bits must hold: weights get 7 bits then, as ONNX Runtime's documentation recommends.
"""
import pathlib
import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.feeds = iter([{"x": image[None]} for image in images])

    def get_next(self):
        return next(self.feeds, None)


def main():
    folder = pathlib.Path(sys.argv[1])
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    narrow = not {"avx512_vnni", "avx_vnni"} & set(flags)
    prepared = folder / "net.prepared.onnx"
    quant_pre_process(str(folder / "net.onnx"), str(prepared))
    images = np.load(folder / "calibration.npy")
    for name, activations in (("net.qdq.onnx", QuantType.QUInt8), ("net.symmetric.qdq.onnx", QuantType.QInt8)):
        quantize_static(str(prepared), str(folder / name), Images(images), quant_format=QuantFormat.QDQ, per_channel=True,
                        reduce_range=narrow, activation_type=activations, weight_type=QuantType.QInt8,
                        calibrate_method=CalibrationMethod.MinMax,
                        extra_options={"ActivationSymmetric": activations == QuantType.QInt8})
    prepared.unlink()


if __name__ == "__main__":
    main()
