#pragma once
// The one EXIF field that changes how an image looks: its orientation.

#include <cstddef>
#include <span>

#include "data/image.h"

namespace resnet {

/// The orientation, 1..8, of an EXIF block: a TIFF header and its first directory, with or without "Exif\0\0" before
/// it. 1 where the block has none or is damaged, as Pillow does. Source: EXIF 2.3, Sec. 4.6.4 A and TIFF 6.0, Sec. 2.
int exif_orientation(std::span<const std::byte> exif);

/// The image that an orientation of 1..8 asks for, upright; equal to PIL.ImageOps.exif_transpose.
Image upright(Image image, int orientation);

}  // namespace resnet
