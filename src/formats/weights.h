#pragma once
// A file of weights, whoever wrote it: safetensors, or PyTorch's .pth. One interface over both.

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "formats/safetensors.h"
#include "formats/torch_file.h"

namespace resnet {

/// One tensor as its file declares it.
struct WeightsEntry {
  const StoredDType* stored = nullptr;
  Shape shape;

  DType dtype() const { return stored->loaded; }
  /// As stored.
  uint64_t bytes() const { return static_cast<uint64_t>(shape.elements()) * stored->bytes; }
};

/// An open file. Its content decides what it is, not its name. What it declares is checked on opening; no tensor is
/// read before it is asked for.
class WeightsFile {
 public:
  /// Throws io_error (exit code 4) when it cannot be opened; bad_data (3) and ResourceError (5) as SafetensorsFile and
  /// TorchFile; files of PyTorch before 0.2 are named, with the way out. With a `strip_prefix` only the tensors whose
  /// names begin with it are there, without it; UserError when there are none. What DataParallel, averaged and compiled
  /// models put before every name ("module.", "_orig_mod.", in any order) is always left out.
  explicit WeightsFile(const std::string& path, const std::string& strip_prefix = "");

  const std::string& path() const { return path_; }
  /// "safetensors" or "torch".
  const char* format() const;
  /// Of a safetensors file; a torch file has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::map<std::string, WeightsEntry>& entries() const { return entries_; }
  /// The key under which a torch file held its state dict ("model_ema"); empty when it was the whole.
  std::string wrapper() const;
  /// What was before every name in the file, and is left out here.
  const std::string& prefix() const { return prefix_; }
  /// The open file, where it is one of safetensors; else null.
  const InputFile* safetensors_file() const;
  /// Tensors of the file that are not among the entries, as their names lack the prefix.
  size_t left_out() const { return left_out_; }

  /// Converted to what we compute with: SafetensorsFile::load. Integers past 32 bits are bad_data.
  Tensor load(const std::string& name) const;
  /// The same of several; nothing is read when the machine's memory cannot hold them together.
  std::map<std::string, Tensor> load_all(const std::vector<std::string>& names) const;
  /// As stored, row-major.
  std::vector<std::byte> stored_bytes(const std::string& name) const;

 private:
  std::string path_;
  std::variant<SafetensorsFile, TorchFile> file_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, WeightsEntry> entries_;
  std::string prefix_;
  size_t left_out_ = 0;
};

/// All tensors of `file`, to be written again as they are stored; `file` must outlive it.
StoredModel stored_model(const WeightsFile& file);

}  // namespace resnet
