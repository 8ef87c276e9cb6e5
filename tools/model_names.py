#!/usr/bin/env python3
"""Prints the parameter names and shapes of torchvision's ResNets: tests/models/torchvision_names.txt.

Run with Debian's python3-torchvision: /usr/bin/python3 tools/model_names.py > tests/models/torchvision_names.txt
`num_batches_tracked`, which nothing reads, is left out.
"""

import torch
import torchvision

print(f"# torchvision {torchvision.__version__}, torch {torch.__version__}: model, name, shape")
for model in ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"):
    for name, tensor in sorted(getattr(torchvision.models, model)().state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            print(model, name, "x".join(map(str, tensor.shape)))
