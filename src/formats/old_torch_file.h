#pragma once
// PyTorch's files before 1.6 (torch/serialization.py, _legacy_save), as some published weights still are: no archive,
// but one after another
//   a pickle of a magic number, a pickle of the format's version (1001), a pickle of the writer's byte order
//   the pickle of the saved object, whose tensors are views of storages with keys
//   a pickle of the list of those keys
//   of each storage, in the list's order, its number of elements (8 bytes) and its bytes
// Nothing in them is executed: pickle.h. There are no checksums.

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "formats/file_io.h"
#include "formats/pickle.h"
#include "formats/stored_tensor.h"
#include "formats/zip.h"

namespace resnet {

/// Whether a file that begins so is one. `beginning`: 15 bytes or more, or the whole file.
bool is_old_torch_file(std::string_view beginning);

/// An open file; of the storages only the places are read, and checked to fill the file to its end.
class OldTorchFile {
 public:
  /// `allowed`: what the object's pickle may name. `dtype_of`: the type of a storage's elements by its class's name in
  /// the pickle; null when it is unknown. Throws as TorchFile.
  OldTorchFile(const std::string& path, std::span<const PickleGlobal> allowed,
               const StoredDType* (*dtype_of)(std::string_view));

  const std::string& path() const { return file_.path(); }
  /// The saved object's; to be taken once.
  std::unique_ptr<Pickle> take_pickle() { return std::move(pickle_); }
  /// Storages by key. There are no checksums: `crc` says nothing.
  const std::map<std::string, ZipEntry>& entries() const { return entries_; }

  void read(const std::string& key, std::span<std::byte> target) const { read_part(key, 0, target); }
  void verify(const std::string&) const {}
  void read_part(const std::string& key, uint64_t offset, std::span<std::byte> target) const;

 private:
  /// The pickle at `offset`, which is then that of the first byte after it.
  std::unique_ptr<Pickle> read_pickle(uint64_t& offset, uint64_t limit, std::span<const PickleGlobal> allowed) const;
  void place_storages(const Pickle& keys, uint64_t offset, const StoredDType* (*dtype_of)(std::string_view));

  InputFile file_;
  std::unique_ptr<Pickle> pickle_;
  std::map<std::string, ZipEntry> entries_;
};

}  // namespace resnet
