#include "data/turned_images.h"

#include <algorithm>

#include "base/error.h"
#include "data/decode.h"
#include "data/file_bytes.h"

namespace resnet {

TurnedImages look_for_turned_images(const Dataset& dataset, int64_t most) {
  TurnedImages result;
  if (dataset.in_memory()) return result;
  constexpr size_t kMostBytes = size_t{8} << 20;
  std::vector<std::byte> bytes;
  const int64_t chosen = std::min(most, dataset.count);
  for (int64_t k = 0; k < chosen; ++k) {
    const std::string path = dataset.path_of(k * dataset.count / chosen);
    try {
      read_file_start(path, kMostBytes, bytes);
      result.turned += probe_image(bytes, path).orientation != 1;
      ++result.looked_at;
    } catch (const Error&) {
      continue;
    }
  }
  return result;
}

}  // namespace resnet
