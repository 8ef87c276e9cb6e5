#pragma once
// A data set small enough to train on in a second.

#include <filesystem>
#include <string>

#include "base/rng.h"
#include "data/idx_bytes.h"
#include "formats/temporary_directory.h"

namespace resnet::testing_data {

/// A folder of idx files: 20 training and 20 test images of 8x8 pixels, noise by `seed`, 3 classes; with batches of 8
/// the last of an epoch has 4.
inline void write_idx_folder(const std::string& folder, uint64_t seed) {
  std::filesystem::create_directories(folder);
  for (const std::string stem : {"train", "t10k"}) {
    constexpr uint32_t kCount = 20;
    Rng rng(hash_combine(seed, hash_text(stem)));
    Bytes pixels(size_t{kCount} * 64), labels(kCount);
    for (uint8_t& p : pixels) p = static_cast<uint8_t>(rng.below(256));
    for (size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<uint8_t>(i % 3);
    const auto text = [](const Bytes& bytes) { return std::string(bytes.begin(), bytes.end()); };
    put(folder + "/" + stem + "-images-idx3-ubyte", text(idx_header(0x803, {kCount, 8, 8}) + pixels));
    put(folder + "/" + stem + "-labels-idx1-ubyte", text(label_file(labels)));
  }
}

}  // namespace resnet::testing_data
