#include "data/cifar.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "base/error.h"
#include "data/class_names.h"
#include "data/file_bytes.h"

namespace resnet {

namespace {

constexpr int64_t kSide = 32, kChannels = 3;
constexpr size_t kPixelBytes = kChannels * kSide * kSide;

struct Format {
  size_t label_bytes;  ///< the last one is the class
  int classes;
  int coarse_classes;  ///< of the label byte before it, if any
  const char* names_file;
};

const Format& format_of(CifarKind kind) {
  static constexpr Format kFormats[] = {{1, 10, 0, "batches.meta.txt"}, {2, 100, 20, "fine_label_names.txt"}};
  return kFormats[static_cast<size_t>(kind)];
}

std::vector<std::string> files_of(CifarKind kind, Split split) {
  const bool train = split == Split::train;
  if (kind == CifarKind::cifar100) return {train ? "train.bin" : "test.bin"};
  if (!train) return {"test_batch.bin"};
  return {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"};
}

bool exists(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 || errno != ENOENT;
}

std::vector<std::string> read_names(const std::string& folder, const Format& format) {
  std::vector<std::string> names;
  const std::string path = folder + "/" + format.names_file;
  if (!exists(path)) {
    for (int k = 0; k < format.classes; ++k) names.push_back(std::to_string(k));
    return names;
  }
  constexpr size_t kMostBytes = 1 << 16;
  std::vector<std::byte> bytes;
  read_file_bytes(path, kMostBytes, bytes);
  std::string line;
  for (const std::byte b : bytes) {
    const char c = static_cast<char>(b);
    if (c != '\n') {
      line += c;
      continue;
    }
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) names.push_back(line);
    line.clear();
  }
  if (!line.empty()) names.push_back(line);
  if (names.size() != static_cast<size_t>(format.classes)) {
    throw bad_data(escape_control(path), 0, "names", "found {} names; expected {}, one a line", names.size(),
                   format.classes);
  }
  for (size_t k = 0; k < names.size(); ++k) {
    if (is_utf8(names[k])) continue;
    throw bad_data(escape_control(path), 0, "names", "found name {} not to be UTF-8; expected all of them to be",
                   k + 1);
  }
  return names;
}

}  // namespace

void read_cifar_file(const std::string& path, CifarKind kind, CifarBatch& batch, uint64_t max_bytes) {
  const Format& format = format_of(kind);
  const size_t record_bytes = format.label_bytes + kPixelBytes;
  const std::string shown = escape_control(path);
  std::vector<std::byte> bytes;
  read_file_bytes(path, max_bytes, bytes);
  const size_t records = bytes.size() / record_bytes;
  if (records == 0 || bytes.size() % record_bytes != 0) {
    throw bad_data(shown, records * record_bytes, "record", "found {} bytes in all; expected records of {} bytes",
                   bytes.size(), record_bytes);
  }
  try {
    batch.pixels.reserve(batch.pixels.size() + records * kPixelBytes);
    for (size_t i = 0; i < records; ++i) {
      const auto* record = reinterpret_cast<const uint8_t*>(bytes.data()) + i * record_bytes;
      const auto require = [&](size_t at, int classes, const char* field) {
        if (record[at] < classes) return;
        throw bad_data(shown, i * record_bytes + at, field, "found class {} for image {}; expected 0 to {}", record[at],
                       i, classes - 1);
      };
      if (format.coarse_classes > 0) require(0, format.coarse_classes, "coarse label");
      require(format.label_bytes - 1, format.classes, "label");
      batch.labels.push_back(record[format.label_bytes - 1]);
      batch.pixels.insert(batch.pixels.end(), record + format.label_bytes, record + record_bytes);
    }
  } catch (const std::bad_alloc&) {
    throw ResourceError(ExitCode::limit, "{}: not enough memory for its {} images", shown, records);
  }
}

bool is_cifar_folder(const std::string& folder, CifarKind kind) {
  return exists(folder + "/" + files_of(kind, Split::train)[0]) ||
         exists(folder + "/" + files_of(kind, Split::test)[0]);
}

Dataset load_cifar_folder(const std::string& folder, CifarKind kind, Split split) {
  CifarBatch batch;
  for (const std::string& file : files_of(kind, split)) read_cifar_file(folder + "/" + file, kind, batch);
  Dataset dataset;
  dataset.name = folder;
  dataset.split = split == Split::train ? Split::train : Split::test;  // there is no third
  dataset.count = static_cast<int64_t>(batch.labels.size());
  dataset.channels = dataset.stored_channels = kChannels;
  dataset.height = dataset.width = kSide;
  dataset.labels = std::move(batch.labels);
  dataset.pixels = std::move(batch.pixels);
  dataset.class_names = read_names(folder, format_of(kind));
  return dataset;
}

}  // namespace resnet
