#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"

namespace resnet {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the official reader's limit
constexpr size_t kMaxRank = 64;                    // NumPy's limit; keeps a hostile shape from costing memory
constexpr const char* kMetadataKey = "__metadata__";

/// Feeds the parser and counts what it took, so that errors can name the byte.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  CountingIterator(const char* at, size_t* taken) : at_(at), taken_(taken) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    if (taken_ != nullptr) ++*taken_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  size_t* taken_;
};

/// Takes the parser's events one by one and knows which may come where, so that no tree is built: nesting and
/// duplicates are refused at the byte where they appear, whatever the header's size.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  HeaderReader(const std::string& path, std::string_view text, uint64_t file_size)
      : path_(path), text_(text), data_begin_(kLengthBytes + text.size()), file_size_(file_size) {}

  SafetensorsHeader read() {
    json::sax_parse(CountingIterator(text_.data(), &taken_), CountingIterator(text_.data() + text_.size(), nullptr),
                    this);
    check_cover();
    return std::move(header_);
  }

  bool start_object(std::size_t) override {
    if (at_ == At::start) return enter(At::root);
    if (at_ == At::root && key_ == kMetadataKey) return enter(At::metadata);
    if (at_ == At::root) {
      entry_ = {};
      begin_given_ = shape_given_ = false;
      return enter(At::tensor);
    }
    return unexpected("an object");
  }
  bool end_object() override {
    if (at_ == At::tensor) finish_tensor();
    return enter(at_ == At::root ? At::start : At::root);
  }
  bool key(json::string_t& name) override {
    if (at_ == At::root) {
      const bool is_new =
          name == kMetadataKey ? !std::exchange(metadata_given_, true) : !header_.entries.contains(name);
      if (!is_new)
        throw bad_data(path_, token(), "header", "name '{}' appears twice; expected unique names", shown_name(name));
      entry_at_ = token();
    } else if (at_ == At::metadata) {
      if (header_.metadata.contains(name)) {
        throw bad_data(path_, token(), kMetadataKey, "key '{}' appears twice; expected unique keys", shown_name(name));
      }
    } else {
      const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
      const bool given = (name == "dtype" && !entry_.stored_dtype.empty()) || (name == "shape" && shape_given_) ||
                         (name == "data_offsets" && begin_given_);
      if (!known || given) {
        throw bad_data(path_, token(), shown_name(key_).c_str(),
                       "{} field '{}'; expected dtype, shape and data_offsets, once each",
                       known ? "repeated" : "unknown", shown_name(name));
      }
      field_ = name;
      return mark();
    }
    key_ = name;
    return mark();
  }
  bool start_array(std::size_t) override {
    if (at_ != At::tensor || field_ == "dtype") return unexpected("an array");
    numbers_.clear();
    return enter(At::numbers);
  }
  bool end_array() override {
    if (field_ == "shape") {
      entry_.shape = Shape(std::vector<int64_t>(numbers_.begin(), numbers_.end()));
      shape_given_ = true;
    } else {
      if (numbers_.size() != 2) {
        throw bad_data(path_, taken_at(), where("data_offsets").c_str(), "{} numbers; expected two", numbers_.size());
      }
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
      begin_given_ = true;
    }
    return enter(At::tensor);
  }
  bool number_unsigned(json::number_unsigned_t value) override {
    if (at_ != At::numbers) return unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return unexpected("a number past 2^63 - 1");
    const size_t most = field_ == "shape" ? kMaxRank : 2;
    if (numbers_.size() == most) {
      throw bad_data(path_, token(), where(field_).c_str(), "more than {} numbers; expected at most {}", most, most);
    }
    numbers_.push_back(value);
    return mark();
  }
  bool string(json::string_t& value) override {
    if (at_ == At::metadata) {
      header_.metadata.emplace(key_, value);
      return mark();
    }
    if (at_ != At::tensor || field_ != "dtype") return unexpected("a string");
    const StoredDType* stored = find_stored_dtype(value);
    if (stored == nullptr) {
      std::vector<std::string> names;
      for (const StoredDType& dtype : stored_dtypes()) names.push_back(dtype.name);
      throw bad_data(path_, token(), where("dtype").c_str(), "'{}'; expected one of {}", shown_name(value),
                     fmt::join(names, ", "));
    }
    entry_.stored_dtype = value;
    entry_.dtype = stored->loaded;
    return mark();
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(json::number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(json::number_float_t, const json::string_t&) override {
    return unexpected("a number that is no integer");
  }
  bool binary(json::binary_t&) override { return unexpected("binary data"); }
  bool parse_error(std::size_t, const std::string& last_token, const json::exception&) override {
    const uint64_t at = kLengthBytes + (taken_ > 0 ? taken_ - 1 : 0);
    if (taken_ >= text_.size()) throw bad_data(path_, at, "header", "the JSON is not complete or not UTF-8 at its end");
    throw bad_data(path_, at, "header", "invalid JSON or UTF-8 after '{}'; expected a JSON object",
                   shown_name(printable(last_token)));
  }

 private:
  enum class At { start, root, metadata, tensor, numbers };

  bool mark() {
    previous_end_ = taken_;
    return true;
  }
  bool enter(At at) {
    at_ = at;
    return mark();
  }
  uint64_t taken_at() const { return kLengthBytes + taken_ - 1; }
  /// Where the token that has just been read starts: past the separators that follow the one before it.
  uint64_t token() const {
    const size_t start = text_.find_first_not_of(" \t\r\n:,", previous_end_);
    return kLengthBytes + std::min(start, text_.size());
  }
  std::string where(const std::string& field) const { return fmt::format("{}.{}", shown_name(key_), field); }
  /// The lexer's last token may end inside a UTF-8 sequence.
  static std::string printable(std::string text) {
    for (char& c : text) c = (static_cast<unsigned char>(c) < 0x80) ? c : '?';
    return text;
  }

  [[noreturn]] bool unexpected(const char* what) {
    switch (at_) {
      case At::start: throw bad_data(path_, token(), "header", "{}; expected an object", what);
      case At::root: throw bad_data(path_, token(), shown_name(key_).c_str(), "{}; expected an object", what);
      case At::metadata:
        throw bad_data(path_, token(), fmt::format("{}.{}", kMetadataKey, shown_name(key_)).c_str(),
                       "{}; expected a string", what);
      case At::tensor:
        throw bad_data(path_, token(), where(field_).c_str(), "{}; expected {}", what,
                       field_ == "dtype" ? "a string" : "an array of integers");
      case At::numbers:
        throw bad_data(path_, token(), where(field_).c_str(), "{}; expected an integer from 0 to 2^63 - 1", what);
    }
    throw InternalError("safetensors: unknown parser state");
  }

  /// All three fields are there and agree; offsets become file offsets.
  void finish_tensor() {
    const std::string name = shown_name(key_);
    const char* missing = entry_.stored_dtype.empty() ? "dtype"
                          : !shape_given_             ? "shape"
                          : !begin_given_             ? "data_offsets"
                                                      : nullptr;
    if (missing != nullptr)
      throw bad_data(path_, entry_at_, name.c_str(), "has no {}; expected dtype, shape and data_offsets", missing);

    const uint64_t data_size = file_size_ - data_begin_;
    if (entry_.begin > entry_.end || entry_.end > data_size) {
      throw bad_data(path_, entry_at_, where("data_offsets").c_str(),
                     "[{}, {}]; expected begin <= end <= {}, the bytes after the header", entry_.begin, entry_.end,
                     data_size);
    }
    // A zero hides what the other dimensions multiply to, and index arithmetic would overflow later: bound it too.
    uint64_t nonzero = find_stored_dtype(entry_.stored_dtype)->bytes;
    bool has_zero = false;
    for (int64_t dim : entry_.shape.dims()) {
      has_zero = has_zero || dim == 0;
      const auto product = checked_multiply({nonzero, static_cast<uint64_t>(std::max<int64_t>(dim, 1))});
      if (!product || *product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        throw bad_data(path_, entry_at_, where("shape").c_str(), "[{}] of {} has more than 2^63 - 1 bytes",
                       fmt::join(entry_.shape.dims(), ", "), entry_.stored_dtype);
      }
      nonzero = *product;
    }
    const uint64_t bytes = has_zero ? 0 : nonzero;
    if (entry_.end - entry_.begin != bytes) {
      throw bad_data(path_, entry_at_, where("data_offsets").c_str(),
                     "[{}, {}] are {} bytes; shape [{}] of {} needs {}", entry_.begin, entry_.end,
                     entry_.end - entry_.begin, fmt::join(entry_.shape.dims(), ", "), entry_.stored_dtype, bytes);
    }
    entry_.begin += data_begin_;
    entry_.end += data_begin_;
    header_.entries.emplace(key_, std::move(entry_));
  }

  void check_cover() const {
    std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
    for (const auto& named : header_.entries) order.push_back(&named);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    uint64_t cursor = data_begin_;
    const std::string* last = nullptr;
    const auto before = [&] {
      return last == nullptr ? std::string("the header") : fmt::format("'{}'", shown_name(*last));
    };
    for (const auto* named : order) {
      const auto& [name, entry] = *named;
      if (entry.begin < cursor) {
        throw bad_data(path_, entry.begin, shown_name(name).c_str(), "overlaps {}, which ends at byte {}", before(),
                       cursor);
      }
      if (entry.begin > cursor) {
        throw bad_data(path_, cursor, "data", "{} bytes between {} and '{}' belong to no tensor", entry.begin - cursor,
                       before(), shown_name(name));
      }
      cursor = entry.end;
      last = &name;
    }
    if (cursor != file_size_) {
      throw bad_data(path_, cursor, "data", "{} bytes after {} belong to no tensor", file_size_ - cursor, before());
    }
  }

  const std::string& path_;
  std::string_view text_;
  uint64_t data_begin_;
  uint64_t file_size_;
  size_t taken_ = 0;
  size_t previous_end_ = 0;

  At at_ = At::start;
  std::string key_;    // of the root object or of the metadata
  std::string field_;  // of the tensor
  uint64_t entry_at_ = 0;
  SafetensorsEntry entry_;
  bool begin_given_ = false;
  bool shape_given_ = false;
  bool metadata_given_ = false;
  std::vector<uint64_t> numbers_;
  SafetensorsHeader header_;
};

/// N of the first 8 bytes, against the file's size and the limit.
uint64_t header_length(const std::string& path, std::string_view prefix, uint64_t file_size) {
  if (file_size < kLengthBytes) {
    throw bad_data(path, file_size, "header length", "the file ends here; expected 8 bytes of length");
  }
  uint64_t length = 0;
  std::memcpy(&length, prefix.data(), kLengthBytes);
  if (length > kMaxHeaderBytes) {
    throw bad_data(path, 0, "header length", "{} bytes; expected at most {}: not a safetensors file?", length,
                   kMaxHeaderBytes);
  }
  if (length > file_size - kLengthBytes) {
    throw bad_data(path, 0, "header length", "{} bytes; the file has {} after it: cut off, or not a safetensors file",
                   length, file_size - kLengthBytes);
  }
  if (length < 2)
    throw bad_data(path, 0, "header length", "{} bytes; expected at least 2, an empty JSON object", length);
  return length;
}

using NamedEntry = std::pair<const std::string, SafetensorsEntry>;

using ReadAt = std::function<void(uint64_t offset, std::span<std::byte> target)>;

Tensor load_tensor(const std::string& path, const std::string& name, const SafetensorsEntry& entry,
                   const ReadAt& read_at) {
  const StoredDType& stored = *find_stored_dtype(entry.stored_dtype);
  if (loads_as_stored(stored)) {  // straight into its place
    Tensor tensor(entry.dtype, entry.shape);
    read_at(entry.begin, {tensor.data(), tensor.size_bytes()});
    return tensor;
  }
  std::vector<std::byte> bytes(static_cast<size_t>(entry.end - entry.begin));
  read_at(entry.begin, bytes);
  return tensor_from_stored({path, name, entry.begin}, stored, entry.shape, bytes);
}

/// `entries` of one file by name, in the given order.
std::map<std::string, Tensor> load_tensors(const std::string& path, const std::vector<const NamedEntry*>& entries,
                                           const ReadAt& read_at) {
  LoadBudget budget(path);
  for (const NamedEntry* named : entries) {
    budget.add(named->first,
               checked_multiply({static_cast<uint64_t>(named->second.shape.elements()), size_of(named->second.dtype)})
                   .value_or(std::numeric_limits<uint64_t>::max()));
  }
  std::map<std::string, Tensor> tensors;
  for (const NamedEntry* named : entries) {
    tensors.emplace(named->first, load_tensor(path, named->first, named->second, read_at));
  }
  return tensors;
}

std::vector<const NamedEntry*> pointers_to(const std::map<std::string, SafetensorsEntry>& entries) {
  std::vector<const NamedEntry*> all;
  for (const NamedEntry& named : entries) all.push_back(&named);
  return all;
}

SafetensorsHeader read_header(const InputFile& file) {
  std::string prefix(static_cast<size_t>(std::min<uint64_t>(file.size(), kLengthBytes)), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(prefix)));
  const uint64_t length = header_length(file.path(), prefix, file.size());
  prefix.resize(static_cast<size_t>(kLengthBytes + length));
  file.read_at(0, std::as_writable_bytes(std::span(prefix)));
  return parse_safetensors_header(file.path(), prefix, file.size());
}

/// The writer's order: as the official enumeration, but the largest elements first, so that every tensor is aligned.
std::ptrdiff_t rank_of(const StoredDType& dtype) { return stored_dtypes().data() - &dtype; }

std::string quoted(const std::string& text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    throw UserError(ExitCode::bad_data, "safetensors: '{}' is not UTF-8; expected UTF-8 names and metadata",
                    shown_name(json(text).dump(-1, ' ', true, json::error_handler_t::replace)));
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view prefix, uint64_t file_size) {
  check(prefix.size() <= file_size, "safetensors: prefix longer than the file");
  const uint64_t length = header_length(path, prefix, file_size);
  check(prefix.size() >= kLengthBytes + length, "safetensors: prefix shorter than the header");
  const std::string_view text = prefix.substr(kLengthBytes, static_cast<size_t>(length));
  if (text[0] != '{') {
    throw bad_data(path, kLengthBytes, "header", "expected '{{', found 0x{:02x}", static_cast<unsigned char>(text[0]));
  }
  // The JSON lexer takes NUL for the end of its input; in a header it could hide anything behind it.
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos) throw bad_data(path, kLengthBytes + nul, "header", "a NUL byte; expected JSON");
  return HeaderReader(path, text, file_size).read();
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path), header_(read_header(file_)) {}

std::vector<std::byte> SafetensorsFile::stored_bytes(const std::string& name) const {
  const auto found = header_.entries.find(name);
  check(found != header_.entries.end(), "SafetensorsFile::stored_bytes: no such tensor");
  const uint64_t size = found->second.end - found->second.begin;
  LoadBudget(path()).add(name, size);
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  file_.read_at(found->second.begin, bytes);
  return bytes;
}

Tensor SafetensorsFile::load(const std::string& name) const { return std::move(load_all({name}).begin()->second); }

std::map<std::string, Tensor> SafetensorsFile::load_all(const std::vector<std::string>& names) const {
  std::vector<const NamedEntry*> chosen;
  for (const std::string& name : names) {
    const auto found = header_.entries.find(name);
    check(found != header_.entries.end(), "SafetensorsFile::load: no such tensor");
    chosen.push_back(&*found);
  }
  return load_tensors(path(), chosen,
                      [this](uint64_t offset, std::span<std::byte> target) { file_.read_at(offset, target); });
}

ModelFile read_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  std::vector<std::string> names;
  for (const auto& [name, entry] : file.entries()) names.push_back(name);
  return {.metadata = file.metadata(), .tensors = file.load_all(names)};
}

ModelFile read_safetensors_bytes(const std::string& name, std::string_view bytes) {
  SafetensorsHeader header = parse_safetensors_header(name, bytes, bytes.size());
  const auto copy_from = [&](uint64_t offset, std::span<std::byte> target) {
    if (!target.empty()) std::memcpy(target.data(), bytes.data() + offset, target.size());
  };
  std::map<std::string, Tensor> tensors = load_tensors(name, pointers_to(header.entries), copy_from);
  return {.metadata = std::move(header.metadata), .tensors = std::move(tensors)};
}

void write_safetensors(ByteSink& sink, const StoredModel& model) {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : model.tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return rank_of(*a->dtype) < rank_of(*b->dtype); });

  std::string header = "{";
  if (!model.metadata.empty()) {
    std::vector<std::string> items;
    for (const auto& [key, value] : model.metadata) items.push_back(fmt::format("{}:{}", quoted(key), quoted(value)));
    header += fmt::format("\"{}\":{{{}}}", kMetadataKey, fmt::join(items, ","));
  }
  uint64_t offset = 0;
  for (const StoredTensor* tensor : order) {
    const std::string& name = tensor->name;
    if (name == kMetadataKey) throw UserError("safetensors: a tensor cannot be named '{}', the name is reserved", name);
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          header.size() > 1 ? "," : "", quoted(name), tensor->dtype->name,
                          fmt::join(tensor->shape.dims(), ","), offset, offset + tensor->size());
    offset += tensor->size();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kMaxHeaderBytes)
    throw UserError(ExitCode::limit, "safetensors: the header would have {} bytes; readers accept {}", header.size(),
                    kMaxHeaderBytes);

  const uint64_t length = header.size();
  sink.write(std::as_bytes(std::span(&length, 1)));
  sink.write(header);
  for (const StoredTensor* tensor : order) tensor->write(sink);
}

void write_safetensors(ByteSink& sink, const ModelFile& model) {
  StoredModel stored{model.metadata, {}};
  for (const auto& [name, tensor] : model.tensors) {
    check(tensor.size_bytes() == static_cast<size_t>(tensor.elements()) * size_of(tensor.dtype()),
          "write_safetensors: a tensor without its bytes");
    const std::span<const std::byte> bytes(tensor.data(), tensor.size_bytes());
    stored.tensors.push_back(
        {name, &stored_dtype_of(tensor.dtype()), tensor.shape(), [bytes](ByteSink& to) { to.write(bytes); }});
  }
  write_safetensors(sink, stored);
}

void write_safetensors(const std::string& path, const StoredModel& model) {
  atomic_write_file(path, [&](ByteSink& sink) { write_safetensors(sink, model); });
}

void write_safetensors(const std::string& path, const ModelFile& model) {
  atomic_write_file(path, [&](ByteSink& sink) { write_safetensors(sink, model); });
}

}  // namespace resnet
