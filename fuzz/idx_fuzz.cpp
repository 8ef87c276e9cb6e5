// Feeds the idx reader any bytes as a file, through the same system calls as a real one.
// Run: make fuzz, or build/fuzz/fuzz/fuzz_idx NEW_FINDS fuzz/corpus/idx -max_len=4096

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "data/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const int file = memfd_create("idx", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (file < 0 || size == 0 || ftruncate(file, 0) != 0) return 0;
  // The first byte chooses the kind, so that one corpus serves both.
  const auto kind = bytes[0] % 2 == 0 ? resnet::IdxFile::Kind::images : resnet::IdxFile::Kind::labels;
  if (pwrite(file, bytes + 1, size - 1, 0) != static_cast<ssize_t>(size - 1)) return 0;
  constexpr uint64_t kMaxBytes = uint64_t{1} << 22;
  try {
    resnet::IdxFile idx(path, kind, kMaxBytes);
    const auto claimed = static_cast<uint64_t>(idx.count() * idx.height() * idx.width());
    if (idx.read().size() != claimed || claimed == 0 || claimed > kMaxBytes) std::abort();
  } catch (const resnet::Error& error) {
    // Only the file can be at fault here; a bug of ours ends the run.
    if (error.code() != resnet::ExitCode::bad_data && error.code() != resnet::ExitCode::limit) std::abort();
  }
  return 0;
}
