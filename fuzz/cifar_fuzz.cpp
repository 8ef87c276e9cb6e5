// Feeds the CIFAR reader any bytes as a file, through the same system calls as a real one.
// Run: make fuzz, or build/fuzz/fuzz/fuzz_cifar NEW_FINDS fuzz/corpus/cifar -max_len=16384

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "data/cifar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const int file = memfd_create("cifar", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (file < 0 || size == 0 || ftruncate(file, 0) != 0) return 0;
  // The first byte chooses the kind, so that one corpus serves both.
  const bool ten = bytes[0] % 2 == 0;
  if (pwrite(file, bytes + 1, size - 1, 0) != static_cast<ssize_t>(size - 1)) return 0;
  try {
    resnet::CifarBatch batch;
    resnet::read_cifar_file(path, ten ? resnet::CifarKind::cifar10 : resnet::CifarKind::cifar100, batch, 1 << 20);
    const size_t record_bytes = (ten ? 1 : 2) + 3 * 32 * 32;
    if (batch.labels.size() != (size - 1) / record_bytes || batch.labels.empty()) std::abort();
    if (batch.pixels.size() != batch.labels.size() * 3 * 32 * 32) std::abort();
    for (const int32_t label : batch.labels) {
      if (label < 0 || label >= (ten ? 10 : 100)) std::abort();
    }
  } catch (const resnet::Error& error) {
    // Only the file can be at fault here; a bug of ours ends the run.
    if (error.code() != resnet::ExitCode::bad_data && error.code() != resnet::ExitCode::limit) std::abort();
  }
  return 0;
}
