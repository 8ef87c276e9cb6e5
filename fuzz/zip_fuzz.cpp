// Any bytes are read as a file of torch.save or refused; the archive's entries lie in the file and do not overlap.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "formats/torch_file.h"
#include "formats/zip.h"

namespace {

/// A bug of ours ends the run: only the file can be at fault here.
template <class Read>
void refused_or_read(Read&& read) {
  try {
    read();
  } catch (const resnet::Error& error) {
    if (error.code() != resnet::ExitCode::bad_data && error.code() != resnet::ExitCode::limit) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const int file = memfd_create("zip", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (file < 0 || ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != static_cast<ssize_t>(size)) return 0;
  refused_or_read([&] {
    const resnet::ZipFile zip(path);
    uint64_t total = 0;
    for (const auto& named : zip.entries()) {
      const resnet::ZipEntry& entry = named.second;
      if (entry.begin > size || entry.bytes > size - entry.begin) std::abort();
      total += entry.bytes;
      refused_or_read([&] { zip.read_text(named.first, size); });
    }
    if (total > size) std::abort();
  });
  refused_or_read([&] {
    const resnet::TorchFile torch(path);
    std::vector<std::string> names;
    for (const auto& [name, entry] : torch.entries()) names.push_back(name);
    for (const auto& [name, tensor] : torch.load_all(names)) {
      if (tensor.shape() != torch.entries().at(name).shape) std::abort();
    }
  });
  return 0;
}
