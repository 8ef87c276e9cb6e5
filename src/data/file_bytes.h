#pragma once
// Small files in whole.

#include <cstddef>
#include <string>
#include <vector>

namespace resnet {

/// The bytes of a regular file into `out`, whose memory is used again. What the file is now decides, not its size of
/// before. Throws ResourceError io (missing, unreadable, not a regular file) and ResourceError limit (more than
/// max_bytes).
void read_file_bytes(const std::string& path, size_t max_bytes, std::vector<std::byte>& out);

}  // namespace resnet
