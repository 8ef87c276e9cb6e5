#pragma once
// CIFAR-10's and CIFAR-100's binary files (source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version"):
// records of one or two label bytes and 3 x 32 x 32 pixels, channel by channel; nothing before, between or after them.

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace resnet {

enum class CifarKind : uint8_t { cifar10, cifar100 };

struct CifarBatch {
  std::vector<int32_t> labels;  ///< [n]: the class, of CIFAR-100 the fine one
  std::vector<uint8_t> pixels;  ///< [n, 3, 32, 32]
};

/// Appends one file's records to `batch`. Throws UserError bad_data (a size that is no number of records, a label out
/// of range) with the byte, ResourceError io, ResourceError limit (more than max_bytes).
void read_cifar_file(const std::string& path, CifarKind kind, CifarBatch& batch,
                     uint64_t max_bytes = uint64_t{4} << 30);

/// Whether the folder has a file by which CIFAR-10 (data_batch_1.bin, test_batch.bin) or CIFAR-100 (train.bin,
/// test.bin) is known.
bool is_cifar_folder(const std::string& folder, CifarKind kind);

/// All of a split: data_batch_1.bin to data_batch_5.bin or test_batch.bin; train.bin or test.bin. Classes are named by
/// batches.meta.txt or fine_label_names.txt, by their numbers where that file is missing.
Dataset load_cifar_folder(const std::string& folder, CifarKind kind, Split split);

}  // namespace resnet
