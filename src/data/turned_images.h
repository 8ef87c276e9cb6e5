#pragma once
// Photos that a viewer turns and training does not, so that a user hears of them.

#include <cstdint>

#include "data/dataset.h"

namespace resnet {

struct TurnedImages {
  int64_t looked_at = 0;
  int64_t turned = 0;  ///< whose EXIF orientation is not 1
};

/// Looks at the headers of up to `most` evenly chosen files of a data set (none where it is in memory). What cannot be
/// read is passed over: saying so is the loader's part.
TurnedImages look_for_turned_images(const Dataset& dataset, int64_t most);

}  // namespace resnet
