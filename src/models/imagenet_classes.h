#pragma once
// Names of the 1,000 classes of ImageNet-1k (ILSVRC 2012), in the order in which torchvision's and timm's models number
// them: by WordNet's number of the class.

#include <array>
#include <cstdint>

namespace resnet {

inline constexpr int64_t kImagenetClasses = 1000;

/// "tench", "goldfish", ... Source: torchvision 0.14, torchvision/models/_meta.py, _IMAGENET_CATEGORIES.
extern const std::array<const char*, kImagenetClasses> kImagenetClassNames;

}  // namespace resnet
