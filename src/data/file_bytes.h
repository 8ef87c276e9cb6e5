#pragma once
// Small files in whole.

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace resnet {

/// No file can be read at a path: there is none, it may not be read, or it is a folder or a device. That is a property
/// of the path and will be the same the next time, unlike a failing disk or too many open files.
class NoFileError : public ResourceError {
 public:
  using ResourceError::ResourceError;
};

/// The bytes of a regular file into `out`, whose memory is used again. What the file is now decides, not its size of
/// before. Throws NoFileError (missing, not permitted, not a regular file), ResourceError io (what else a disk may say)
/// and ResourceError limit (more than max_bytes).
/// `look`, where given, sees the first bytes (64, or all) before memory is taken for the rest, and throws what they are
/// not. Memory that a large file took is given back when a much smaller one is read.
void read_file_bytes(const std::string& path, size_t max_bytes, std::vector<std::byte>& out,
                     const std::function<void(std::span<const std::byte>)>& look = {});

/// The first `most` bytes, or all where the file is shorter. Throws as above, but not for the size.
void read_file_start(const std::string& path, size_t most, std::vector<std::byte>& out);

}  // namespace resnet
