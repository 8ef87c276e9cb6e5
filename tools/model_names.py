#!/usr/bin/env python3
"""Prints the parameter names and shapes of torchvision's or timm's ResNets: tests/models/{torchvision,timm}_names.txt.

    /usr/bin/python3 tools/model_names.py torchvision > tests/models/torchvision_names.txt    (Debian's python3-torchvision)
    build/oracles/bin/python tools/model_names.py timm > tests/models/timm_names.txt          (PyPI's timm, tools/install_oracles.sh)

`num_batches_tracked`, which nothing reads, is left out.
"""
import sys

import torch


def torchvision_nets():
    import torchvision
    print(f"# torchvision {torchvision.__version__}, torch {torch.__version__}: model, name, shape")
    for model in ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"):
        yield model, getattr(torchvision.models, model)()


def timm_nets():
    import timm
    print(f"# timm {timm.__version__}, torch {torch.__version__}: model, name, shape")
    for model in ("resnet18d", "seresnet50", "ecaresnet50d", "resnetv2_50"):
        yield model, timm.create_model(model)


if sys.argv[1:] not in (["torchvision"], ["timm"]):
    sys.exit(__doc__)
for model, net in torchvision_nets() if sys.argv[1] == "torchvision" else timm_nets():
    for name, tensor in sorted(net.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            print(model, name, "x".join(map(str, tensor.shape)))
