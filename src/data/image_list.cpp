#include "data/image_list.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "data/class_names.h"
#include "data/file_bytes.h"

namespace resnet {

namespace {

constexpr size_t kMaxListBytes = size_t{1} << 30;
constexpr int64_t kMaxNumber = 99'999;

bool is_file(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The fields of one line; a quoted one may hold the separator, and a doubled quote for a quote.
std::vector<std::string> split_fields(std::string_view line, char separator, const std::string& name, uint64_t offset) {
  std::vector<std::string> fields;
  if (separator == ' ') {  // paths may hold spaces: the last one counts
    const size_t at = trimmed(line).rfind(' ');
    const std::string_view text = trimmed(line);
    if (at == std::string_view::npos) return {std::string(text)};
    return {std::string(trimmed(text.substr(0, at))), std::string(text.substr(at + 1))};
  }
  size_t at = 0;
  while (true) {
    std::string field;
    size_t start = at;
    while (start < line.size() && line[start] == ' ') ++start;
    if (start < line.size() && line[start] == '"') {
      at = start + 1;
      while (true) {
        if (at >= line.size()) {
          throw bad_data(name, offset + start, "quote", "found no end of a quoted field; expected one in its line");
        }
        if (line[at] != '"') {
          field += line[at++];
        } else if (at + 1 < line.size() && line[at + 1] == '"') {
          field += '"';
          at += 2;
        } else {
          break;
        }
      }
      const size_t end = std::min(line.find(separator, ++at), line.size());
      if (!trimmed(line.substr(at, end - at)).empty()) {
        throw bad_data(name, offset + at, "quote", "found text after a quoted field; expected a separator");
      }
      at = end;
    } else {
      const size_t end = std::min(line.find(separator, at), line.size());
      field = trimmed(line.substr(at, end - at));
      at = end;
    }
    fields.push_back(std::move(field));
    if (at >= line.size()) return fields;
    ++at;
  }
}

bool is_header(const std::string& first_field) {
  std::string word = first_field;
  for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  static constexpr std::array kWords = {"path",      "paths",    "file",  "files",      "filename",
                                        "file_name", "filepath", "image", "image_path", "imagepath",
                                        "image_id",  "img",      "name"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

std::optional<int64_t> number_of(const std::string& label) {
  const bool leading_zero = label.size() > 1 && label[0] == '0';
  int64_t value = 0;
  const auto [end, error] = std::from_chars(label.data(), label.data() + label.size(), value);
  if (error != std::errc() || end != label.data() + label.size() || leading_zero || value < 0) return std::nullopt;
  return value;
}

struct List {
  std::string path, shown;
  std::vector<ListRow> rows;
};

List read_list(const std::string& path) {
  std::vector<std::byte> bytes;
  read_file_bytes(path, kMaxListBytes, bytes);
  List list{.path = path, .shown = escape_control(path), .rows = {}};
  list.rows = parse_image_list({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, list.shown);
  return list;
}

void require_utf8_labels(const List& list) {
  for (const ListRow& row : list.rows) {
    if (is_utf8(row.label)) continue;
    throw bad_data(list.shown, row.offset, "label",
                   "found a name in line {} that is not UTF-8; expected one that a model file can keep; save the list "
                   "as UTF-8",
                   row.line);
  }
}

/// The names of the classes that rows speak of.
std::vector<std::string> classes_of(const List& list) {
  int64_t largest = -1;
  bool numbers = true;
  for (const ListRow& row : list.rows) {
    const std::optional<int64_t> number = number_of(row.label);
    numbers = numbers && number;
    largest = std::max(largest, number.value_or(-1));
  }
  if (!numbers) {
    std::set<std::string> names;
    for (const ListRow& row : list.rows) names.insert(row.label);
    return {names.begin(), names.end()};
  }
  if (largest > kMaxNumber) {
    throw ResourceError(ExitCode::limit, "{}: holds the class number {}; at most {} are read", list.shown, largest,
                        kMaxNumber);
  }
  std::vector<std::string> names;
  for (int64_t k = 0; k <= largest; ++k) names.push_back(std::to_string(k));
  return names;
}

List rows_with(const List& list, std::initializer_list<const char*> splits) {
  List part{.path = list.path, .shown = list.shown, .rows = {}};
  for (const ListRow& row : list.rows) {
    if (std::find(splits.begin(), splits.end(), row.split) != splits.end()) part.rows.push_back(row);
  }
  return part;
}

struct PathParts {
  std::string folder;  ///< with its "/", or empty
  std::string stem, ending;
};

PathParts parts_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const size_t start = slash == std::string::npos ? 0 : slash + 1;
  const std::string file = path.substr(start);
  const size_t dot = std::min(file.rfind('.'), file.size());
  return {.folder = path.substr(0, start), .stem = file.substr(0, dot), .ending = file.substr(dot)};
}

struct Parts {
  std::optional<List> train;  ///< whose classes count
  List own;
  Split split = Split::train;  ///< what the own rows are for: the one asked for, or the one that stands in for it
};

Split split_called(std::string_view name) {
  if (name == "train") return Split::train;
  return name == "test" ? Split::test : Split::validation;
}

Parts find_parts(const std::string& path, Split split) {
  const List list = read_list(path);
  const bool has_splits =
      std::any_of(list.rows.begin(), list.rows.end(), [](const ListRow& r) { return !r.split.empty(); });
  if (has_splits) {
    for (const ListRow& row : list.rows) {
      if (!row.split.empty()) continue;
      throw bad_data(list.shown, row.offset, "split",
                     "line {} has none; expected train, val, validation or test as in others", row.line);
    }
    Parts parts{.train = rows_with(list, {"train"}), .own = {}, .split = split};
    switch (split) {
      case Split::train: parts.own = *parts.train; break;
      case Split::validation: parts.own = rows_with(list, {"val", "validation"}); break;
      case Split::test: parts.own = rows_with(list, {"test"}); break;
    }
    if (parts.own.rows.empty() && split != Split::train) {
      parts.own = rows_with(list, {"val", "validation", "test"});
      if (!parts.own.rows.empty()) parts.split = split_called(parts.own.rows.front().split);
    }
    if (parts.train->rows.empty()) parts.train.reset();
    return parts;
  }
  const auto [folder, stem, ending] = parts_of(path);
  if (stem != "train" || split == Split::train) {
    if (split == Split::validation) {
      throw UserError(
          "{}: has no column of splits; expected one with train and val, or a list called train{} with val{} beside it",
          list.shown, ending, ending);
    }
    return {.train = std::nullopt, .own = list, .split = split};
  }
  std::vector<const char*> names = {"val", "validation", "test"};
  if (split == Split::test) names = {"test", "val", "validation"};
  for (const char* name : names) {
    const std::string beside = folder + name + ending;
    if (is_file(beside)) return {.train = list, .own = read_list(beside), .split = split_called(name)};
  }
  throw ResourceError(ExitCode::io, "{}: has no list of {} images beside it; expected val{}, validation{} or test{}",
                      list.shown, name_of(split), ending, ending, ending);
}

}  // namespace

std::vector<ListRow> parse_image_list(std::string_view text, const std::string& name) {
  std::vector<ListRow> rows;
  uint64_t line_number = 0;
  char separator = 0;
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  size_t at = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    const uint64_t offset = at;
    at = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (trimmed(line).empty()) continue;
    if (line.find('\0') != std::string_view::npos) {
      throw bad_data(
          name, offset + line.find('\0'), "line",
          "found a byte of 0 in line {}; expected lines of path,label; of idx or CIFAR files give the folder",
          line_number);
    }
    const bool first = separator == 0;
    if (first) {
      separator = line.find('\t') != std::string_view::npos  ? '\t'
                  : line.find(',') != std::string_view::npos ? ','
                                                             : ' ';
    }
    std::vector<std::string> fields = split_fields(line, separator, name, offset);
    if (first && is_header(fields[0])) continue;
    if (fields.size() < 2 || fields.size() > 3 || fields[0].empty() || fields[1].empty()) {
      throw bad_data(name, offset, "line", "found {} fields in line {}; expected path,label or path,label,split",
                     fields.size(), line_number);
    }
    ListRow row{.path = fields[0], .label = fields[1], .split = {}, .line = line_number, .offset = offset};
    if (fields.size() == 3) row.split = fields[2];
    static constexpr std::array kSplits = {"", "train", "val", "validation", "test"};
    if (std::find(kSplits.begin(), kSplits.end(), row.split) == kSplits.end()) {
      throw bad_data(name, offset, "split", "found '{}' in line {}; expected train, val, validation or test",
                     escape_control(row.split), line_number);
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw bad_data(name, 0, "line", "found no image; expected lines of path,label");
  return rows;
}

std::vector<ListSplit> image_list_splits(const std::string& path) {
  std::vector<ListSplit> splits;
  List list = read_list(path);
  const bool has_splits =
      std::any_of(list.rows.begin(), list.rows.end(), [](const ListRow& r) { return !r.split.empty(); });
  const auto [folder, stem, ending] = parts_of(path);
  if (has_splits || stem != "train") {
    for (const char* name : {"", "train", "val", "validation", "test"}) {
      List part = rows_with(list, {name});
      if (!part.rows.empty()) splits.push_back({name, std::move(part.rows)});
    }
    return splits;
  }
  splits.push_back({stem, std::move(list.rows)});
  for (const char* name : {"val", "validation", "test"}) {
    const std::string beside = folder + name + ending;
    if (is_file(beside)) splits.push_back({name, read_list(beside).rows});
  }
  return splits;
}

Dataset load_image_list(const std::string& path, Split split, bool missing_files) {
  const Parts parts = find_parts(path, split);
  const List& list = parts.own;
  if (parts.train) require_utf8_labels(*parts.train);
  require_utf8_labels(list);
  if (list.rows.empty()) {
    throw bad_data(list.shown, 0, "split", "found no {} images; expected rows with that split", name_of(split));
  }
  Dataset dataset;
  dataset.name = path;
  dataset.split = parts.split;
  dataset.channels = 3;
  dataset.count = static_cast<int64_t>(list.rows.size());
  dataset.class_names = classes_of(parts.train ? *parts.train : list);
  // A number is its class's name, so one map serves both kinds of label.
  std::unordered_map<std::string, int32_t> number_of_class;
  for (const std::string& name : dataset.class_names) {
    number_of_class.emplace(name, static_cast<int32_t>(number_of_class.size()));
  }
  dataset.root = parts_of(list.path).folder;
  for (const ListRow& row : list.rows) {
    const auto label = number_of_class.find(row.label);
    if (label == number_of_class.end()) {
      throw bad_data(list.shown, row.offset, "label", "found '{}' in line {}; expected one of the {} training classes",
                     escape_control(row.label), row.line, dataset.classes());
    }
    const std::string file = row.path.starts_with('/') ? row.path : dataset.root + row.path;
    struct stat status {};
    const bool found = stat(file.c_str(), &status) == 0;
    if (!found && !missing_files) {
      throw ResourceError(ExitCode::io,
                          "{}: line {} names {}, which is missing; expected a file below the list's folder", list.shown,
                          row.line, escape_control(file));
    }
    dataset.files.push_back(row.path);
    dataset.file_bytes.push_back(found ? static_cast<int64_t>(status.st_size) : -1);
    dataset.labels.push_back(label->second);
  }
  return dataset;
}

}  // namespace resnet
