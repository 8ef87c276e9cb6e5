#!/usr/bin/python3
"""The nets that every contestant of bench/peers.py runs: torchvision's, with the same random weights for all.

    bench/peer_nets.py MODEL FOLDER [--image-size 224]

Writes weights.pth (a state dict), net.onnx, net.ncnn.param and .bin (where pnnx can be imported), image.png, and
reference.npz: x [1,3,S,S], image.png as torchvision normalises it, and y [1,1000], the logits of this PyTorch; and images
that ranges for int8 are measured on, as calibration.npy [N,3,S,S] and as PNGs in calibration/ with a list of made-up labels.
Batch norm's running statistics are those of random images, so that values keep their size through the layers as in a
trained net.
"""
import argparse
import os
import pathlib
import sys

import numpy as np
import torch
import torchvision
from PIL import Image

CALIBRATION_IMAGES, CLASSES = 16, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_net(model):
    torch.manual_seed(0)
    net = getattr(torchvision.models, model)().train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # the running statistics are the last batch's
    with torch.no_grad():
        net(torch.randn(8, 3, 128, 128))
    return net.eval()


def normalised(pixels):
    """pixels u8 [S,S,3] -> [1,3,S,S]"""
    return torchvision.transforms.functional.normalize(torch.from_numpy(pixels.transpose(2, 0, 1).copy()) / 255.0, MEAN, STD)[None]


def write_calibration(folder, rng, image_size):
    """Noise, as image.png is: what the nets' statistics are of. Labels 0 and 999 make the list one of 1000 classes."""
    (folder / "calibration").mkdir(exist_ok=True)
    batch, lines = [], []
    for number in range(CALIBRATION_IMAGES):
        pixels = rng.integers(0, 256, (image_size, image_size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "calibration" / f"{number:02}.png")
        batch.append(normalised(pixels).numpy())
        lines.append(f"{number:02}.png,{number * (CLASSES - 1) // (CALIBRATION_IMAGES - 1)}")
    np.save(folder / "calibration.npy", np.concatenate(batch))
    (folder / "calibration" / "list.csv").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    net = random_net(args.model)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (args.image_size, args.image_size, 3), np.uint8)
    Image.fromarray(pixels).save(args.folder / "image.png")
    write_calibration(args.folder, rng, args.image_size)
    x = normalised(pixels)
    with torch.no_grad():
        np.savez(args.folder / "reference.npz", x=x.numpy(), y=net(x).numpy())
    torch.save(net.state_dict(), args.folder / "weights.pth")
    legacy = {"dynamo": False} if int(torch.__version__.split(".")[0]) >= 2 else {}
    torch.onnx.export(net, (x,), str(args.folder / "net.onnx"), opset_version=13, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, **legacy)
    try:
        import pnnx
    except ImportError as error:
        print(f"peer_nets: no files for ncnn: {error}", file=sys.stderr)
        return
    os.chdir(args.folder)  # it leaves its by-products where it stands
    pnnx.export(net, "net.pt", x, fp16=False)


if __name__ == "__main__":
    main()
