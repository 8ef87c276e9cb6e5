#pragma once
// Tensors as weight files store them: more element types than we compute with, little endian, row-major.

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"
#include "formats/file_io.h"

namespace resnet {

/// An element type by safetensors' name for it.
struct StoredDType {
  const char* name;
  size_t bytes;
  DType loaded;  ///< what it is loaded as: F16 and BF16 as f32 (exact), BOOL as u8, the wider integers as i32
};

/// All of them, in the order of the official enumeration, which orders the data of a safetensors file.
std::span<const StoredDType> stored_dtypes();
/// Null when there is none of that name.
const StoredDType* find_stored_dtype(std::string_view name);
/// What a tensor of ours is written as.
const StoredDType& stored_dtype_of(DType dtype);
/// Whether the stored bytes are the loaded ones.
bool loads_as_stored(const StoredDType& dtype);

/// Where a tensor's bytes came from, for errors.
struct StoredPlace {
  const std::string& path;
  const std::string& name;
  uint64_t begin;  ///< first byte, in the file
};

/// Row-major stored elements as a tensor we compute with. Throws bad_data when an integer does not fit 32 bits.
Tensor tensor_from_stored(const StoredPlace& place, const StoredDType& dtype, const Shape& shape,
                          std::span<const std::byte> stored);

/// Adds up what is about to be loaded. A sparse file may claim any size and have it: memory decides.
class LoadBudget {
 public:
  explicit LoadBudget(const std::string& path);
  /// Throws ResourceError (limit) when this machine's memory cannot hold what was added so far and `bytes` more.
  void add(const std::string& tensor, uint64_t bytes);

 private:
  const std::string& path_;
  uint64_t memory_;
  uint64_t needed_ = 0;
};

/// A tensor to be written. Its bytes are asked for when their turn comes, and may be asked for again.
struct StoredTensor {
  std::string name;
  const StoredDType* dtype = nullptr;
  Shape shape;
  std::function<void(ByteSink&)> write;  ///< size() bytes

  /// Bytes of all elements.
  uint64_t size() const { return static_cast<uint64_t>(shape.elements()) * dtype->bytes; }
};

/// What a file is written from.
struct StoredModel {
  std::map<std::string, std::string> metadata;
  std::vector<StoredTensor> tensors;  ///< sorted by name, each name once
};

/// A name from a file, fit for a message: control characters escaped, not longer than a line.
std::string shown_name(const std::string& name);

}  // namespace resnet
