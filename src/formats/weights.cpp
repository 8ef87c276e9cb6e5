#include "formats/weights.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace resnet {
namespace {

std::variant<SafetensorsFile, TorchFile> open_weights(const std::string& path) {
  std::string beginning;
  {
    const InputFile file(path);
    constexpr uint64_t kLooked = 512;  // a tar archive tells its kind at byte 257
    beginning.resize(static_cast<size_t>(std::min(file.size(), kLooked)));
    file.read_at(0, std::as_writable_bytes(std::span(beginning)));
  }
  // A safetensors file begins with a length, which may be the letters of any other format; but then comes its '{'.
  const bool header = beginning.size() > 8 && beginning[8] == '{';
  if (!header && (beginning.starts_with("PK\x03\x04") || beginning.starts_with("PK\x05\x06"))) return TorchFile(path);
  if (is_old_torch_file(beginning)) return TorchFile(path);
  if (const std::string old = old_torch_format(beginning); !old.empty()) throw bad_data(path, 0, "format", "{}", old);
  return SafetensorsFile(path);
}

/// What wrappers of a whole net put before every name: DataParallel and AveragedModel, which counts beside them, and
/// torch.compile; one around the other, too.
std::string wrappers_prefix(const std::map<std::string, WeightsEntry>& entries) {
  constexpr std::string_view kCounter = "n_averaged";
  std::string prefix;
  const auto all_begin_with = [&](const std::string& tried) {
    return entries.size() > entries.count(std::string(kCounter)) &&
           std::all_of(entries.begin(), entries.end(), [&](const auto& named) {
             return named.first == kCounter || (named.first.starts_with(tried) && named.first.size() > tried.size());
           });
  };
  for (bool longer = true; longer;) {
    longer = false;
    for (const char* wrapper : {"module.", "_orig_mod."}) {
      if (!all_begin_with(prefix + wrapper)) continue;
      prefix += wrapper;
      longer = true;
    }
  }
  return prefix;
}

}  // namespace

WeightsFile::WeightsFile(const std::string& path, const std::string& strip_prefix)
    : path_(path), file_(open_weights(path)), prefix_(strip_prefix) {
  if (const auto* safetensors = std::get_if<SafetensorsFile>(&file_)) {
    metadata_ = safetensors->metadata();
    for (const auto& [name, entry] : safetensors->entries())
      entries_.emplace(name, WeightsEntry{find_stored_dtype(entry.stored_dtype), entry.shape});
  } else {
    for (const auto& [name, entry] : std::get<TorchFile>(file_).entries())
      entries_.emplace(name, WeightsEntry{entry.dtype, entry.shape});
  }
  if (prefix_.empty()) prefix_ = wrappers_prefix(entries_);
  if (prefix_.empty()) return;
  std::map<std::string, WeightsEntry> stripped;
  for (const auto& [name, entry] : entries_) {
    if (name.starts_with(prefix_) && name.size() > prefix_.size()) stripped.emplace(name.substr(prefix_.size()), entry);
  }
  if (stripped.empty()) {
    throw UserError("--strip-prefix: '{}'; expected what names in {} begin with, such as '{}'", escape_control(prefix_),
                    path, entries_.empty() ? "" : shown_name(entries_.begin()->first));
  }
  left_out_ = entries_.size() - stripped.size();
  entries_ = std::move(stripped);
}

const char* WeightsFile::format() const {
  return std::holds_alternative<SafetensorsFile>(file_) ? "safetensors" : "torch";
}

const InputFile* WeightsFile::safetensors_file() const {
  const auto* safetensors = std::get_if<SafetensorsFile>(&file_);
  return safetensors ? &safetensors->file() : nullptr;
}

std::string WeightsFile::wrapper() const {
  const auto* torch = std::get_if<TorchFile>(&file_);
  return torch != nullptr ? torch->wrapper() : "";
}

Tensor WeightsFile::load(const std::string& name) const {
  return std::visit([&](const auto& file) { return file.load(prefix_ + name); }, file_);
}

std::map<std::string, Tensor> WeightsFile::load_all(const std::vector<std::string>& names) const {
  std::vector<std::string> in_file;
  for (const std::string& name : names) in_file.push_back(prefix_ + name);
  std::map<std::string, Tensor> loaded = std::visit([&](const auto& file) { return file.load_all(in_file); }, file_);
  if (prefix_.empty()) return loaded;
  std::map<std::string, Tensor> tensors;
  for (auto& [name, tensor] : loaded) tensors.emplace(name.substr(prefix_.size()), std::move(tensor));
  return tensors;
}

std::vector<std::byte> WeightsFile::stored_bytes(const std::string& name) const {
  return std::visit([&](const auto& file) { return file.stored_bytes(prefix_ + name); }, file_);
}

StoredModel stored_model(const WeightsFile& file) {
  StoredModel model{file.metadata(), {}};
  for (const auto& [name, entry] : file.entries()) {
    const auto write = [&file, &name = name](ByteSink& sink) { sink.write(file.stored_bytes(name)); };
    model.tensors.push_back({name, entry.stored, entry.shape, write});
  }
  return model;
}

}  // namespace resnet
