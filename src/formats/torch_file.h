#pragma once
// PyTorch's files (torch.save, https://github.com/pytorch/pytorch, torch/serialization.py): since 1.6 a zip archive
// with
//   NAME/data.pkl    a pickle of the saved object, whose tensors are views of numbered storages
//   NAME/data/KEY    each storage's bytes
// and before it what old_torch_file.h reads. Nothing in them is executed: pickle.h. What is looked for is a state dict,
// wrapped as training scripts wrap it.

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/old_torch_file.h"
#include "formats/stored_tensor.h"
#include "formats/zip.h"

namespace resnet {

/// One tensor of the state dict: a strided view of a storage, checked to lie in it.
struct TorchEntry {
  const StoredDType* dtype = nullptr;
  Shape shape;
  std::vector<int64_t> strides;  ///< elements
  uint64_t offset = 0;           ///< of the first element in the storage, in elements
  const std::pair<const std::string, ZipEntry>* storage = nullptr;  ///< of the archive, not a copy for each tensor
};

/// An open file: the archive's directory and the pickle are read and checked on opening, no tensor before it is asked
/// for. Several tensors may be views of one storage (tied weights).
class TorchFile {
 public:
  /// Throws io_error (exit code 4) when it cannot be opened; bad_data (3) when it is damaged, holds a whole model
  /// instead of its state dict, or a kind of tensor that we do not know; ResourceError (5) past the limits of zip.h and
  /// pickle.h.
  explicit TorchFile(const std::string& path);
  const std::string& path() const;
  const std::map<std::string, TorchEntry>& entries() const { return entries_; }
  /// The key under which the state dict lay in the file: "state_dict", "model_ema"; empty when it was the whole.
  const std::string& wrapper() const { return wrapper_; }

  /// As stored: row-major, whatever the strides. A storage is read whole once, for its checksum, however many tensors
  /// are views of it; then as much as the view spans. Throws bad_data when the checksum is not the promised one (an old
  /// file has none). Not for several threads at once.
  std::vector<std::byte> stored_bytes(const std::string& name) const;
  /// As tensor_from_stored has it.
  Tensor load(const std::string& name) const;
  /// The same of several, each storage read once; nothing is read when the memory cannot hold them together.
  std::map<std::string, Tensor> load_all(const std::vector<std::string>& names) const;

 private:
  void check_storages() const;

  std::variant<ZipFile, OldTorchFile> archive_;
  std::map<std::string, TorchEntry> entries_;
  std::string wrapper_;
  mutable std::set<const ZipEntry*> verified_;  ///< storages whose checksum is right
};

/// Whether a file that begins so is of a kind that torch.save wrote and that is not read here (a tar archive, a bare
/// pickle), and what to say of it; empty when it is not.
/// `beginning`: the first 512 bytes, or fewer when the file is shorter.
std::string old_torch_format(std::string_view beginning);

/// A state dict as torch.save writes it, which torch.load reads, with weights_only=True too. The metadata stay behind:
/// such a file has no place for them. Throws UserError for a type that PyTorch 1.13 has no storage of (U16, U32, U64),
/// ResourceError past 4 GiB.
void write_torch(ByteSink& sink, const StoredModel& model);
/// Atomically (atomic_write_file).
void write_torch(const std::string& path, const StoredModel& model);

}  // namespace resnet
