#include "formats/weights.h"

#include <algorithm>

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
  if (const std::string old = old_torch_format(beginning); !old.empty()) throw bad_data(path, 0, "format", "{}", old);
  return SafetensorsFile(path);
}

}  // namespace

WeightsFile::WeightsFile(const std::string& path) : path_(path), file_(open_weights(path)) {
  if (const auto* safetensors = std::get_if<SafetensorsFile>(&file_)) {
    metadata_ = safetensors->metadata();
    for (const auto& [name, entry] : safetensors->entries())
      entries_.emplace(name, WeightsEntry{find_stored_dtype(entry.stored_dtype), entry.shape});
  } else {
    for (const auto& [name, entry] : std::get<TorchFile>(file_).entries())
      entries_.emplace(name, WeightsEntry{entry.dtype, entry.shape});
  }
}

const char* WeightsFile::format() const {
  return std::holds_alternative<SafetensorsFile>(file_) ? "safetensors" : "torch";
}

std::string WeightsFile::wrapper() const {
  const auto* torch = std::get_if<TorchFile>(&file_);
  return torch != nullptr ? torch->wrapper() : "";
}

Tensor WeightsFile::load(const std::string& name) const {
  return std::visit([&](const auto& file) { return file.load(name); }, file_);
}

std::map<std::string, Tensor> WeightsFile::load_all(const std::vector<std::string>& names) const {
  return std::visit([&](const auto& file) { return file.load_all(names); }, file_);
}

std::vector<std::byte> WeightsFile::stored_bytes(const std::string& name) const {
  return std::visit([&](const auto& file) { return file.stored_bytes(name); }, file_);
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
