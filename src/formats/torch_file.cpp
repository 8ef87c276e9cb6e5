#include "formats/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/utf8.h"
#include "formats/pickle.h"

namespace resnet {
namespace {

constexpr size_t kMaxRank = 8;          // a convolution over volumes has 5; a tuple may be shared by every tensor
constexpr size_t kMaxTensors = 50'000;  // a ResNet-1202 has 7,218
constexpr const char* kWayOut = "save it again with torch.save(model.state_dict(), FILE)";

struct TorchStorage {
  const char* name;  ///< of the class in the pickle
  const char* dtype;
};
constexpr std::array<TorchStorage, 10> kStorages{{{"torch.DoubleStorage", "F64"},
                                                  {"torch.FloatStorage", "F32"},
                                                  {"torch.HalfStorage", "F16"},
                                                  {"torch.BFloat16Storage", "BF16"},
                                                  {"torch.LongStorage", "I64"},
                                                  {"torch.IntStorage", "I32"},
                                                  {"torch.ShortStorage", "I16"},
                                                  {"torch.CharStorage", "I8"},
                                                  {"torch.ByteStorage", "U8"},
                                                  {"torch.BoolStorage", "BOOL"}}};

using Use = PickleGlobal::Use;

/// What a file of torch.save may name: tensors, and the plain data that training scripts save beside a state dict
/// (epochs, arguments, best accuracies). Everything else is an error.
constexpr PickleGlobal kAllowed[] = {
    {"torch._utils._rebuild_tensor_v2", Use::call},
    {"torch._utils._rebuild_tensor", Use::call},
    {"torch._utils._rebuild_parameter", Use::call},
    {"collections.OrderedDict", Use::dictionary},
    {"collections.defaultdict", Use::dictionary},
    {"torch.DoubleStorage", Use::name},
    {"torch.FloatStorage", Use::name},
    {"torch.HalfStorage", Use::name},
    {"torch.BFloat16Storage", Use::name},
    {"torch.LongStorage", Use::name},
    {"torch.IntStorage", Use::name},
    {"torch.ShortStorage", Use::name},
    {"torch.CharStorage", Use::name},
    {"torch.ByteStorage", Use::name},
    {"torch.BoolStorage", Use::name},
    {"collections.Counter", Use::call},
    {"argparse.Namespace", Use::call},
    {"torch.Size", Use::call},
    {"torch.device", Use::call},
    {"torch.torch_version.TorchVersion", Use::call},
    {"torch.float64", Use::name},
    {"torch.float32", Use::name},
    {"torch.float16", Use::name},
    {"torch.bfloat16", Use::name},
    {"torch.int64", Use::name},
    {"torch.int32", Use::name},
    {"torch.int16", Use::name},
    {"torch.int8", Use::name},
    {"torch.uint8", Use::name},
    {"torch.bool", Use::name},
    {"torch.complex64", Use::name},
    {"torch.complex128", Use::name},
    {"numpy.dtype", Use::call},
    {"numpy.ndarray", Use::call},
    {"numpy.core.multiarray.scalar", Use::call},
    {"numpy._core.multiarray.scalar", Use::call},
    {"numpy.core.multiarray._reconstruct", Use::call},
    {"numpy._core.multiarray._reconstruct", Use::call},
    {"numpy.core.numeric._frombuffer", Use::call},
    {"numpy._core.numeric._frombuffer", Use::call},
    {"_codecs.encode", Use::call},
    {"pathlib.PosixPath", Use::call},
    {"pathlib.PurePosixPath", Use::call},
    {"pathlib.WindowsPath", Use::call},
    {"pathlib.PureWindowsPath", Use::call},
    // Protocol 2 has Python 2's name of the module. As an argument: what a defaultdict makes.
    {"__builtin__.set", Use::call},
    {"__builtin__.frozenset", Use::call},
    {"__builtin__.complex", Use::call},
    {"__builtin__.bytes", Use::call},
    {"__builtin__.bytearray", Use::call},
    {"__builtin__.dict", Use::name},
    {"__builtin__.list", Use::name},
    {"__builtin__.int", Use::name},
    {"__builtin__.long", Use::name},
    {"__builtin__.float", Use::name},
    {"builtins.set", Use::call},
    {"builtins.frozenset", Use::call},
    {"builtins.complex", Use::call},
    {"builtins.bytes", Use::call},
    {"builtins.bytearray", Use::call},
    {"builtins.dict", Use::name},
    {"builtins.list", Use::name},
    {"builtins.int", Use::name},
    {"builtins.float", Use::name},
};

/// The keys under which scripts keep the state dict, the first one wins: averaged weights before the last ones, as
/// timm's load_checkpoint chooses.
constexpr const char* kWrappers[] = {"state_dict_ema", "model_ema",        "model_ema_state_dict",
                                     "ema_state_dict", "ema_model",        "ema",
                                     "state_dict",     "model_state_dict", "model"};

/// The type of a storage's elements by its class's name; null when it is none that we know.
const StoredDType* dtype_of_storage(std::string_view name) {
  const auto known =
      std::find_if(kStorages.begin(), kStorages.end(), [&](const TorchStorage& s) { return s.name == name; });
  return known == kStorages.end() ? nullptr : find_stored_dtype(known->dtype);
}

/// Understands the pickle of one file.
class StateDictReader {
 public:
  /// The storages are those of `entries` whose names begin with `prefix`.
  StateDictReader(const std::string& path, const std::map<std::string, ZipEntry>& entries, const std::string& prefix,
                  const Pickle& pickle)
      : path_(path), pickle_(pickle) {
    for (auto entry = entries.lower_bound(prefix); entry != entries.end() && entry->first.starts_with(prefix); ++entry)
      storages_.emplace(std::string_view(entry->first).substr(prefix.size()), &*entry);
  }

  std::map<std::string, TorchEntry> read(std::string& wrapper) {
    PickleValue dict = pickle_.root();
    if (dict.kind == PickleKind::dictionary) {
      for (const char* key : kWrappers) {
        const PickleValue* inner = find(dict, key);
        if (inner == nullptr || !holds_tensors(*inner)) continue;  // "ema" may be no more than its decay
        dict = *inner;
        wrapper = key;
        break;
      }
    }
    if (dict.kind != PickleKind::dictionary) {
      throw bad(dict, "data.pkl", "holds {}; expected a state dict, names with tensors; {}", described(dict), kWayOut);
    }
    std::map<std::string, TorchEntry> entries;
    const auto items = pickle_.items(dict);
    for (size_t i = 0; i < items.size(); i += 2) {
      const std::string name = key_of(items[i]);
      if (!is_tensor(items[i + 1])) {
        throw bad(items[i + 1], shown_name(name), "{}; expected a tensor, or a state dict under one of {}; {}",
                  described(items[i + 1]), fmt::join(kWrappers, ", "), kWayOut);
      }
      if (entries.size() == kMaxTensors) {
        throw ResourceError(ExitCode::limit,
                            "{}: byte {} (data.pkl): more than {} tensors; at most so many are accepted", path_,
                            pickle_.offset(items[i]), kMaxTensors);
      }
      if (!entries.emplace(name, tensor_of(items[i + 1], name)).second)
        throw bad(items[i], shown_name(name), "appears twice; expected unique names");
    }
    if (entries.empty()) throw bad(dict, "data.pkl", "an empty state dict; expected tensors");
    return entries;
  }

 private:
  template <class... Args>
  UserError bad(const PickleValue& value, const std::string& field, fmt::format_string<Args...> text,
                Args&&... args) const {
    return bad_data(path_, pickle_.offset(value), field.c_str(), text, std::forward<Args>(args)...);
  }

  std::string described(const PickleValue& value) const {
    if (value.kind == PickleKind::call) return fmt::format("an object of {}", pickle_.name(pickle_.items(value)[0]));
    return Pickle::name_of(value.kind);
  }

  /// The value under `key`; null when there is none.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const {
    const auto items = pickle_.items(dict);
    const PickleValue* found = nullptr;
    for (size_t i = 0; i < items.size(); i += 2) {
      if (items[i].kind != PickleKind::text || pickle_.text(items[i]) != key) continue;
      if (found != nullptr) throw bad(items[i], "data.pkl", "'{}' appears twice; expected unique keys", key);
      found = &items[i + 1];
    }
    return found;
  }

  std::string key_of(const PickleValue& value) const {
    if (value.kind != PickleKind::text)
      throw bad(value, "state dict", "{} as a name; expected a text", described(value));
    const std::string_view text = pickle_.text(value);
    for (size_t at = 0; at < text.size();) {
      const auto point = code_point_at(text, at);
      if (!point) throw bad(value, "state dict", "a name that is not UTF-8 at its byte {}", at);
      at += point->bytes;
    }
    return std::string(text);
  }

  bool calls(const PickleValue& value, std::string_view name) const {
    return value.kind == PickleKind::call && pickle_.name(pickle_.items(value)[0]) == name;
  }
  bool is_tensor(const PickleValue& value) const {
    return calls(value, "torch._utils._rebuild_tensor_v2") || calls(value, "torch._utils._rebuild_tensor") ||
           calls(value, "torch._utils._rebuild_parameter");
  }

  bool holds_tensors(const PickleValue& value) const {
    if (value.kind != PickleKind::dictionary) return false;
    const auto items = pickle_.items(value);
    for (size_t i = 1; i < items.size(); i += 2) {
      if (is_tensor(items[i])) return true;
    }
    return false;
  }

  int64_t size_of_value(const PickleValue& value, const std::string& field) const {
    if (value.kind != PickleKind::integer || value.integer < 0)
      throw bad(value, field, "{}; expected an integer of 0 or more", described(value));
    return value.integer;
  }
  std::vector<int64_t> sizes(const PickleValue& value, const std::string& field) const {
    if (calls(value, "torch.Size")) {
      const auto items = pickle_.items(value);
      if (items.size() == 2) return sizes(items[1], field);
    }
    if (value.kind != PickleKind::tuple) throw bad(value, field, "{}; expected a tuple of integers", described(value));
    const auto items = pickle_.items(value);
    if (items.size() > kMaxRank) throw bad(value, field, "{} dimensions; expected {} at most", items.size(), kMaxRank);
    std::vector<int64_t> numbers;
    for (const PickleValue& item : items) numbers.push_back(size_of_value(item, field));
    return numbers;
  }

  TorchEntry tensor_of(const PickleValue& outer, const std::string& name) const {
    const std::string field = shown_name(name);
    PickleValue value = outer;
    if (calls(value, "torch._utils._rebuild_parameter")) {  // (tensor, requires_grad, hooks)
      const auto items = pickle_.items(value);
      if (items.size() < 2 || !is_tensor(items[1]) || calls(items[1], "torch._utils._rebuild_parameter"))
        throw bad(value, field, "a parameter of no tensor; expected one");
      value = items[1];
    }
    const auto items =
        pickle_.items(value);  // callee, storage, offset, size, stride[, requires_grad, hooks[, metadata]]
    if (items.size() < 5 || items[1].kind != PickleKind::persistent)
      throw bad(value, field, "a tensor of {} arguments; expected a storage, an offset, sizes and strides",
                items.size() - 1);
    TorchEntry entry;
    const uint64_t storage_elements = storage_of(items[1], field, entry);
    entry.offset = static_cast<uint64_t>(size_of_value(items[2], field + ".offset"));
    entry.shape = Shape(sizes(items[3], field + ".shape"));
    entry.strides = sizes(items[4], field + ".stride");
    check_view(value, field, entry, storage_elements);
    return entry;
  }

  /// Fills in the storage and its type. Returns its elements.
  uint64_t storage_of(const PickleValue& persistent, const std::string& tensor, TorchEntry& entry) const {
    const PickleValue id = pickle_.items(persistent)[0];
    const std::string field = tensor + ".storage";
    if (id.kind != PickleKind::tuple) throw bad(id, field, "{} as its id; expected a tuple", described(id));
    const auto items = pickle_.items(id);  // "storage", type, key, device, elements
    const bool right = items.size() >= 5 && items[0].kind == PickleKind::text && pickle_.text(items[0]) == "storage" &&
                       items[1].kind == PickleKind::global && items[2].kind == PickleKind::text;
    if (!right)
      throw bad(id, field, "an id of {} parts; expected ('storage', type, key, device, elements)", items.size());
    const std::string_view type = pickle_.name(items[1]);
    entry.dtype = dtype_of_storage(type);
    if (entry.dtype == nullptr) throw bad(items[1], field, "'{}'; expected a storage's type", type);
    const auto elements = static_cast<uint64_t>(size_of_value(items[4], field));
    const auto found = storages_.find(pickle_.text(items[2]));
    if (found == storages_.end()) {
      throw bad(items[2], field, "a storage '{}' that is not in the archive",
                shown_name(std::string(pickle_.text(items[2]))));
    }
    entry.storage = found->second;
    const auto& [stored_name, stored] = *entry.storage;
    const auto bytes = checked_multiply({elements, entry.dtype->bytes});
    if (bytes != stored.bytes) {
      throw bad(items[4], field, "{} elements of {}; '{}' holds {} bytes", elements, entry.dtype->name,
                shown_name(stored_name), stored.bytes);
    }
    return elements;
  }

  /// Every element of the view lies in the storage, and it has no more of them: a stride of 0 could make any number.
  void check_view(const PickleValue& value, const std::string& field, const TorchEntry& entry,
                  uint64_t storage_elements) const {
    const auto& dims = entry.shape.dims();
    if (dims.size() != entry.strides.size())
      throw bad(value, field, "{} sizes and {} strides; expected as many", dims.size(), entry.strides.size());
    const bool empty = std::find(dims.begin(), dims.end(), 0) != dims.end();
    uint64_t nonzero = entry.dtype->bytes, last = entry.offset;
    bool overflow = false;
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      if (dims[axis] == 0) continue;  // a zero hides what the others multiply to
      const auto size = static_cast<uint64_t>(dims[axis]);
      const auto product = checked_multiply({nonzero, size});
      const auto reach = checked_multiply({size - 1, static_cast<uint64_t>(entry.strides[axis])});
      const auto sum = reach ? checked_add(last, *reach) : std::nullopt;
      overflow = overflow || !product || !sum || *product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
      if (overflow) break;
      nonzero = *product;
      last = *sum;
    }
    if (overflow) throw bad(value, field, "shape [{}] is more than 2^63 bytes", fmt::join(dims, ", "));
    if (empty) return;
    if (last >= storage_elements) {
      throw bad(value, field, "shape [{}] with strides [{}] from {} reaches element {} of a storage of {}",
                fmt::join(dims, ", "), fmt::join(entry.strides, ", "), entry.offset, last, storage_elements);
    }
    if (nonzero / entry.dtype->bytes > storage_elements) {
      throw bad(value, field,
                "shape [{}] repeats the {} elements of its storage; expected a tensor of its own: .contiguous()",
                fmt::join(dims, ", "), storage_elements);
    }
  }

  const std::string& path_;
  const Pickle& pickle_;
  std::map<std::string_view, const std::pair<const std::string, ZipEntry>*> storages_;  ///< by key
};

/// Whether the elements lie one after another, row-major.
bool is_contiguous(const TorchEntry& entry) {
  int64_t expected = 1;
  for (int axis = entry.shape.rank() - 1; axis >= 0; --axis) {
    const int64_t size = entry.shape[axis];
    if (size == 0) return true;
    if (size != 1 && entry.strides[static_cast<size_t>(axis)] != expected) return false;
    expected *= size;
  }
  return true;
}

uint64_t bytes_of(const TorchEntry& entry) {
  return static_cast<uint64_t>(entry.shape.elements()) * entry.dtype->bytes;
}

/// From the view's first element to its last, bytes.
uint64_t span_of(const TorchEntry& entry) {
  if (entry.shape.elements() == 0) return 0;
  int64_t last = 0;
  for (int axis = 0; axis < entry.shape.rank(); ++axis)
    last += (entry.shape[axis] - 1) * entry.strides[static_cast<size_t>(axis)];
  return (static_cast<uint64_t>(last) + 1) * entry.dtype->bytes;
}

/// Copies the view's elements, row-major, out of the storage's bytes from the view's first element on.
void gather(const TorchEntry& entry, std::span<const std::byte> from, std::span<std::byte> target) {
  if (target.empty()) return;
  const size_t width = entry.dtype->bytes;
  if (is_contiguous(entry)) {
    std::memcpy(target.data(), from.data(), target.size());
    return;
  }
  const int rank = entry.shape.rank();
  std::vector<int64_t> index(static_cast<size_t>(rank), 0);
  int64_t element = 0;
  for (size_t out = 0; out < target.size(); out += width) {
    std::memcpy(target.data() + out, from.data() + static_cast<size_t>(element) * width, width);
    for (int axis = rank - 1; axis >= 0; --axis) {  // the next index, as an odometer
      const auto a = static_cast<size_t>(axis);
      element += entry.strides[a];
      if (++index[a] < entry.shape[axis]) break;
      element -= index[a] * entry.strides[a];
      index[a] = 0;
    }
  }
}

/// "resnet18" of "resnet18/data.pkl": the archive's one folder.
std::string folder_of(const ZipFile& zip) {
  constexpr std::string_view kPickle = "/data.pkl";
  std::string folder;
  for (const auto& [name, entry] : zip.entries()) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    if (!folder.empty()) {
      throw bad_data(zip.path(), entry.begin, "data.pkl", "a second one, '{}'; expected one", shown_name(name));
    }
    folder = name.substr(0, name.size() - kPickle.size());
  }
  if (folder.empty()) {
    throw bad_data(zip.path(), 0, "zip", "no NAME/data.pkl among its {} entries; expected a file of torch.save",
                   zip.entries().size());
  }
  if (zip.entries().contains(folder + "/constants.pkl")) {
    throw bad_data(
        zip.path(), zip.entries().at(folder + "/constants.pkl").begin, "constants.pkl",
        "a TorchScript archive, which holds code; expected tensors; save torch.jit.load(FILE).state_dict() with "
        "torch.save");
  }
  if (const std::string name = folder + "/byteorder"; zip.entries().contains(name)) {
    const std::string order = zip.read_text(name, 16);
    if (order != "little") {
      throw bad_data(zip.path(), zip.entries().at(name).begin, "byteorder", "'{}'; expected little",
                     escape_control(order));
    }
  }
  return folder;
}

std::variant<ZipFile, OldTorchFile> open_archive(const std::string& path) {
  using Archive = std::variant<ZipFile, OldTorchFile>;
  std::string beginning;
  {
    const InputFile file(path);
    constexpr uint64_t kLooked = 16;
    beginning.resize(static_cast<size_t>(std::min(file.size(), kLooked)));
    file.read_at(0, std::as_writable_bytes(std::span(beginning)));
  }
  if (is_old_torch_file(beginning)) return Archive(std::in_place_type<OldTorchFile>, path, kAllowed, dtype_of_storage);
  return Archive(std::in_place_type<ZipFile>, path);
}

}  // namespace

TorchFile::TorchFile(const std::string& path) : archive_(open_archive(path)) {
  if (auto* old = std::get_if<OldTorchFile>(&archive_)) {
    const std::unique_ptr<Pickle> pickle = old->take_pickle();
    entries_ = StateDictReader(path, old->entries(), "", *pickle).read(wrapper_);
  } else {
    const ZipFile& zip = std::get<ZipFile>(archive_);
    const std::string folder = folder_of(zip);
    const std::string name = folder + "/data.pkl";
    const Pickle pickle(path, zip.read_text(name, kMaxPickleBytes), zip.entries().at(name).begin, kAllowed);
    entries_ = StateDictReader(path, zip.entries(), folder + "/data/", pickle).read(wrapper_);
  }
  check_storages();
}

const std::string& TorchFile::path() const {
  return std::visit([](const auto& archive) -> const std::string& { return archive.path(); }, archive_);
}

/// Three ways in which a small file, or a sparse one, could ask for much: many views of one storage, views of few
/// elements far apart, between which all is read, and a storage of which the tensors are a small part, though all of it
/// must be read to check its sum.
void TorchFile::check_storages() const {
  struct Use {
    uint64_t bytes = 0;  ///< of the tensors
    uint64_t read = 0;   ///< for them
    const std::string* tensor = nullptr;
  };
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  std::map<const std::pair<const std::string, ZipEntry>*, Use> used;
  for (const auto& [name, entry] : entries_) {
    Use& use = used[entry.storage];
    use.bytes = checked_add(use.bytes, bytes_of(entry)).value_or(kMost);
    use.read = checked_add(use.read, std::max(bytes_of(entry), span_of(entry))).value_or(kMost);
    use.tensor = &name;
  }
  constexpr uint64_t kMostViews = 8, kLeastShare = 16, kSmall = uint64_t{64} << 20;
  for (const auto& [storage, use] : used) {
    const ZipEntry& entry = storage->second;
    if (use.read > kSmall && use.read / kMostViews > entry.bytes) {
      throw ResourceError(
          ExitCode::limit,
          "{}: byte {} ({}): the tensors of its storage span {} bytes, more than {} times the storage's {}; expected "
          "tensors of their own: save a clone() of each",
          path(), entry.begin, shown_name(*use.tensor), use.read, kMostViews, entry.bytes);
    }
    if (entry.bytes > kSmall && entry.bytes / kLeastShare > use.bytes) {
      throw ResourceError(
          ExitCode::limit,
          "{}: byte {} ({}): its storage has {} bytes, of which the tensors use {}; expected 1/{} or more: save "
          "a clone() of the tensor",
          path(), entry.begin, shown_name(*use.tensor), entry.bytes, use.bytes, kLeastShare);
    }
  }
}

std::vector<std::byte> TorchFile::stored_bytes(const std::string& name) const {
  const TorchEntry& entry = entries_.at(name);
  const std::string& storage = entry.storage->first;  // clang 14 lets no lambda capture a structured binding
  const ZipEntry& stored = entry.storage->second;
  const bool contiguous = is_contiguous(entry);
  LoadBudget budget(path());
  budget.add(name, span_of(entry));
  if (!contiguous) budget.add(name, bytes_of(entry));
  std::vector<std::byte> spanned(static_cast<size_t>(span_of(entry)));
  if (contiguous && spanned.size() == stored.bytes) {
    std::visit([&](const auto& archive) { archive.read(storage, spanned); }, archive_);
    return spanned;
  }
  if (!verified_.contains(&stored)) {
    std::visit([&](const auto& archive) { archive.verify(storage); }, archive_);
    verified_.insert(&stored);
  }
  const uint64_t begin = spanned.empty() ? 0 : entry.offset * entry.dtype->bytes;
  std::visit([&](const auto& archive) { archive.read_part(storage, begin, spanned); }, archive_);
  if (contiguous) return spanned;
  std::vector<std::byte> bytes(static_cast<size_t>(bytes_of(entry)));
  gather(entry, spanned, bytes);
  return bytes;
}

Tensor TorchFile::load(const std::string& name) const { return std::move(load_all({name}).begin()->second); }

std::map<std::string, Tensor> TorchFile::load_all(const std::vector<std::string>& names) const {
  LoadBudget budget(path());
  std::map<const std::pair<const std::string, ZipEntry>*, std::vector<const std::string*>> by_storage;
  for (const std::string& name : names) {
    const auto found = entries_.find(name);
    check(found != entries_.end(), "TorchFile::load_all: no such tensor");
    const TorchEntry& entry = found->second;
    budget.add(name, checked_multiply({static_cast<uint64_t>(entry.shape.elements()), size_of(entry.dtype->loaded)})
                         .value_or(std::numeric_limits<uint64_t>::max()));
    by_storage[entry.storage].push_back(&found->first);
  }
  std::map<std::string, Tensor> tensors;
  std::vector<std::byte> storage, bytes;
  for (const auto& [stored, tensor_names] : by_storage) {
    const std::string& name = stored->first;  // as above
    const ZipEntry& zipped = stored->second;
    const TorchEntry& first = entries_.at(*tensor_names.front());
    if (tensor_names.size() == 1 && loads_as_stored(*first.dtype) && is_contiguous(first) &&
        bytes_of(first) == zipped.bytes) {
      Tensor tensor(first.dtype->loaded, first.shape);  // straight into its place
      std::visit([&](const auto& archive) { archive.read(name, {tensor.data(), tensor.size_bytes()}); }, archive_);
      tensors.emplace(*tensor_names.front(), std::move(tensor));
      continue;
    }
    storage.resize(static_cast<size_t>(zipped.bytes));
    std::visit([&](const auto& archive) { archive.read(name, storage); }, archive_);
    for (const std::string* tensor : tensor_names) {
      const TorchEntry& entry = entries_.at(*tensor);
      bytes.resize(static_cast<size_t>(bytes_of(entry)));
      if (!bytes.empty()) gather(entry, std::span(storage).subspan(entry.offset * entry.dtype->bytes), bytes);
      tensors.emplace(*tensor, tensor_from_stored({path(), *tensor, zipped.begin}, *entry.dtype, entry.shape, bytes));
    }
  }
  return tensors;
}

std::string old_torch_format(std::string_view beginning) {
  constexpr const char* kAgain =
      "save it again with PyTorch 1.6 or later: torch.save(torch.load(FILE, map_location='cpu'), NEW)";
  if (beginning.size() >= 262 && beginning.substr(257, 5) == "ustar")
    return fmt::format("a tar archive, as torch.save wrote before PyTorch 0.2; expected a zip archive; {}", kAgain);
  // A safetensors file may begin with any length, but a '{' follows it.
  const bool pickle = beginning.size() >= 3 && beginning[0] == '\x80' && beginning[1] >= 2 && beginning[1] <= 5 &&
                      !(beginning.size() > 8 && beginning[8] == '{');
  if (pickle)
    return "a bare pickle; expected a zip archive of torch.save; load it in Python and use torch.save(state_dict, NEW)";
  return "";
}

namespace {

/// The opcodes that torch.save itself would write, without the memo.
class PickleWriter {
 public:
  PickleWriter& op(char opcode) {
    bytes_ += opcode;
    return *this;
  }
  PickleWriter& text(const std::string& text) {
    op('X').number(static_cast<uint32_t>(text.size()));
    bytes_ += text;
    return *this;
  }
  PickleWriter& global(const std::string& module, const std::string& name) {
    bytes_ += "c" + module + "\n" + name + "\n";
    return *this;
  }
  PickleWriter& integer(int64_t value) {
    if (value >= 0 && value < 256) return op('K').number(static_cast<uint8_t>(value));
    if (value >= 0 && value < 65536) return op('M').number(static_cast<uint16_t>(value));
    if (std::in_range<int32_t>(value)) return op('J').number(static_cast<int32_t>(value));
    return op('\x8a').op(8).number(value);
  }
  PickleWriter& tuple(std::span<const int64_t> values) {
    op('(');
    for (const int64_t value : values) integer(value);
    return op('t');
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  PickleWriter& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }

  std::string bytes_;
};

/// OrderedDict([(name, _rebuild_tensor_v2(('storage', type, key, 'cpu', elements), 0, sizes, strides, False, {})),
/// ...])
std::string pickle_of(const StoredModel& model) {
  PickleWriter p;
  p.op('\x80').op(2).global("collections", "OrderedDict").op(')').op('R').op('(');
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const StoredTensor& tensor = model.tensors[i];
    const auto storage = std::find_if(kStorages.begin(), kStorages.end(), [&](const TorchStorage& s) {
      return std::string_view(s.dtype) == tensor.dtype->name;
    });
    if (storage == kStorages.end()) {
      throw UserError(ExitCode::bad_data,
                      "torch file: '{}' is {}, which PyTorch has no storage of; expected another format: .safetensors",
                      shown_name(tensor.name), tensor.dtype->name);
    }
    p.text(tensor.name).global("torch._utils", "_rebuild_tensor_v2").op('(').op('(').text("storage");
    p.global("torch", std::string(storage->name).substr(6)).text(std::to_string(i)).text("cpu");
    p.integer(tensor.shape.elements()).op('t').op('Q').integer(0).tuple(tensor.shape.dims());
    std::vector<int64_t> strides(tensor.shape.dims().size(), 1);
    for (int axis = tensor.shape.rank() - 2; axis >= 0; --axis) {
      const auto a = static_cast<size_t>(axis);
      strides[a] = strides[a + 1] * std::max<int64_t>(1, tensor.shape[axis + 1]);
    }
    p.tuple(strides).op('\x89').global("collections", "OrderedDict").op(')').op('R').op('t').op('R');
  }
  p.op('u').op('.');
  return p.bytes();
}

}  // namespace

void write_torch(ByteSink& sink, const StoredModel& model) {
  ZipWriter zip(sink);
  const std::string pickle = pickle_of(model);
  zip.add("archive/data.pkl", pickle.size(), [&](ByteSink& to) { to.write(pickle); });
  zip.add("archive/byteorder", 6, [](ByteSink& to) { to.write("little"); });
  for (size_t i = 0; i < model.tensors.size(); ++i)
    zip.add(fmt::format("archive/data/{}", i), model.tensors[i].size(), model.tensors[i].write);
  zip.add("archive/version", 2, [](ByteSink& to) { to.write("3\n"); });
  zip.finish();
}

void write_torch(const std::string& path, const StoredModel& model) {
  atomic_write_file(path, [&](ByteSink& sink) { write_torch(sink, model); });
}

}  // namespace resnet
