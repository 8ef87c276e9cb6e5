"""The course's ResNet-18 in PyTorch, as an independent oracle for resnet.cpp.

Modules and names are those of the d2l lesson's listing (an nn.Sequential of b1..b5, pool, flatten, linear), so a
state dict of this net has the names that `resnet train --weights` expects: `0.0.weight`, `2.0.conv3.bias`, `7.bias`.
Needs Debian's python3-torch only.
"""
import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut (identity, or a 1x1 convolution without BN), then ReLU."""

    def __init__(self, input_channels, num_channels, use_1x1conv=False, strides=1):
        super().__init__()
        self.conv1 = nn.Conv2d(input_channels, num_channels, kernel_size=3, padding=1, stride=strides)
        self.conv2 = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(input_channels, num_channels, kernel_size=1, stride=strides) if use_1x1conv else None
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.bn2 = nn.BatchNorm2d(num_channels)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (self.conv3(x) if self.conv3 is not None else x))


def resnet_block(input_channels, num_channels, num_residuals, first_block=False):
    """One stage: its first Residual halves the map and changes the channels, unless it is the first stage."""
    blocks = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blocks.append(Residual(input_channels, num_channels, use_1x1conv=True, strides=2))
        else:
            blocks.append(Residual(num_channels, num_channels))
    return nn.Sequential(*blocks)


def lecture_resnet18(num_classes=10, in_channels=1, stem_padding=3):
    """x [N, in_channels, H, W] -> logits [N, num_classes]. The lesson's listing has stem_padding 0, its text 3."""
    b1 = nn.Sequential(
        nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=stem_padding),
        nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    return nn.Sequential(
        b1,
        resnet_block(64, 64, 2, first_block=True),
        resnet_block(64, 128, 2),
        resnet_block(128, 256, 2),
        resnet_block(256, 512, 2),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, num_classes))


def init_xavier(net, seed):
    """The lesson's initialisation: Xavier-uniform for every conv and linear weight, PyTorch's default for biases.

    The seed is set before the default biases are drawn again, so the result depends on the seed alone.
    """
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
    return net


def bias_before_batch_norm(name):
    """True for a bias whose true gradient is zero: batch norm subtracts it again. conv3 (the shortcut) has no BN."""
    return name.endswith((".conv1.bias", ".conv2.bias")) or name == "0.0.bias"
