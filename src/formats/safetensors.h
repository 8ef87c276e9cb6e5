#pragma once
// The safetensors file format (https://github.com/huggingface/safetensors, README "Format"):
//   8 bytes: N, the header's length, little endian; N bytes: JSON, may end in spaces; then the tensors' bytes.
//   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets": [begin, end]}}
// data_offsets count from the end of the header; together they must cover the rest of the file exactly.

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"
#include "formats/file_io.h"
#include "formats/stored_tensor.h"

namespace resnet {

/// A model as a file holds it: named tensors and a map of strings.
struct ModelFile {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;
};

/// One tensor as the header declares it. `begin`, `end`: bytes from the start of the file.
struct SafetensorsEntry {
  std::string stored_dtype;
  DType dtype = DType::f32;  ///< what it is loaded as, see SafetensorsFile::load
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// The checked header of a file: every entry lies in the file, has the size its shape and dtype say, and the
/// entries touch each other without overlap or hole.
struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::map<std::string, SafetensorsEntry> entries;
};

/// Parses the first 8 + N bytes of a file of `file_size` bytes. `prefix` may hold more than the header.
/// Throws bad_data (exit code 3): `PATH: byte OFFSET (FIELD): what came; what was expected`.
SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view prefix, uint64_t file_size);

/// An open file: the header is checked on opening; no tensor is read before it is asked for, straight into its place.
class SafetensorsFile {
 public:
  /// Throws io_error (exit code 4) when it cannot be opened, bad_data (3) when it is no valid safetensors file.
  explicit SafetensorsFile(const std::string& path);
  const std::string& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::map<std::string, SafetensorsEntry>& entries() const { return header_.entries; }
  /// F32, F64, I32, U8 and I8 as stored; F16 and BF16 as f32 (exact); BOOL as u8; the other integers as i32,
  /// bad_data when a value does not fit. ResourceError (5) when the machine's memory cannot hold it.
  Tensor load(const std::string& name) const;
  /// The same of several; nothing is read when the machine's memory cannot hold them together.
  std::map<std::string, Tensor> load_all(const std::vector<std::string>& names) const;
  /// Its bytes as they lie in the file.
  std::vector<std::byte> stored_bytes(const std::string& name) const;
  const InputFile& file() const { return file_; }

 private:
  InputFile file_;
  SafetensorsHeader header_;
};

/// Every tensor of the file, as SafetensorsFile::load gives it.
ModelFile read_safetensors(const std::string& path);
/// The same from memory; `name` stands for the path in errors.
ModelFile read_safetensors_bytes(const std::string& name, std::string_view bytes);

/// Writes the file's bytes. The same content gives the same bytes: tensors lie by element size, largest first, then
/// by name (as the official writer has it, so that every tensor is aligned), the header is padded to 8 bytes.
/// Throws UserError when a name or a metadata value is not UTF-8 or a name is reserved.
void write_safetensors(ByteSink& sink, const StoredModel& model);
void write_safetensors(ByteSink& sink, const ModelFile& model);
/// Atomically (atomic_write_file): `path` holds the old content or the new, whole.
void write_safetensors(const std::string& path, const StoredModel& model);
void write_safetensors(const std::string& path, const ModelFile& model);

}  // namespace resnet
