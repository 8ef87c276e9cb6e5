#include "formats/old_torch_file.h"

#include <algorithm>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"

namespace resnet {
namespace {

/// The first pickle: 0x1950a86a20f9469cfc6c, a number of ten bytes.
constexpr std::string_view kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
constexpr int64_t kVersion = 1001;
constexpr uint64_t kSmallPickle = 4096;  // the version's and the writer's

/// What a storage's id in the pickle says of it: ('storage', type, key, device, elements, view).
struct Declared {
  const StoredDType* dtype = nullptr;
  uint64_t elements = 0;
};

}  // namespace

bool is_old_torch_file(std::string_view beginning) { return beginning.starts_with(kMagic); }

std::unique_ptr<Pickle> OldTorchFile::read_pickle(uint64_t& offset, uint64_t limit,
                                                  std::span<const PickleGlobal> allowed) const {
  std::string bytes(static_cast<size_t>(std::min(file_.size() - offset, limit)), '\0');
  file_.read_at(offset, std::as_writable_bytes(std::span(bytes)));
  auto pickle = std::make_unique<Pickle>(path(), std::move(bytes), offset, allowed, PickleEnd::more_follows);
  offset += pickle->size();
  return pickle;
}

OldTorchFile::OldTorchFile(const std::string& path, std::span<const PickleGlobal> allowed,
                           const StoredDType* (*dtype_of)(std::string_view))
    : file_(path) {
  uint64_t offset = std::min<uint64_t>(kMagic.size(), file_.size());
  const auto version = read_pickle(offset, kSmallPickle, {});
  if (version->root().kind != PickleKind::integer || version->root().integer != kVersion) {
    throw bad_data(path, kMagic.size(), "version", "a format of another version; expected {}", kVersion);
  }
  const uint64_t writer_offset = offset;
  const auto writer = read_pickle(offset, kSmallPickle, {});
  bool little = false;
  if (writer->root().kind == PickleKind::dictionary) {
    const auto items = writer->items(writer->root());
    for (size_t i = 0; i < items.size(); i += 2) {
      if (items[i].kind == PickleKind::text && writer->text(items[i]) == "little_endian")
        little = items[i + 1].kind == PickleKind::boolean && items[i + 1].integer == 1;
    }
  }
  if (!little)
    throw bad_data(path, writer_offset, "little_endian",
                   "a writer that does not say so; expected little-endian numbers");
  pickle_ = read_pickle(offset, kMaxPickleBytes, allowed);
  const auto keys = read_pickle(offset, kMaxPickleBytes, {});
  place_storages(*keys, offset, dtype_of);
}

void OldTorchFile::place_storages(const Pickle& keys, uint64_t offset,
                                  const StoredDType* (*dtype_of)(std::string_view)) {
  std::map<std::string_view, Declared> declared;
  for (const PickleValue& persistent : pickle_->persistents()) {
    const PickleValue id = pickle_->items(persistent)[0];
    if (id.kind != PickleKind::tuple) continue;  // what is no storage, its reader refuses
    const auto items = pickle_->items(id);
    if (items.size() < 5 || items[1].kind != PickleKind::global || items[2].kind != PickleKind::text ||
        items[4].kind != PickleKind::integer || items[4].integer < 0)
      continue;
    if (items.size() > 5 && items[5].kind != PickleKind::none) {
      throw bad_data(path(), pickle_->offset(items[5]), "storage",
                     "a view of another storage, as PyTorch 0.3 wrote them; expected whole ones; save it again with "
                     "torch.save(torch.load(FILE, map_location='cpu'), NEW)");
    }
    declared.emplace(pickle_->text(items[2]),
                     Declared{dtype_of(pickle_->name(items[1])), static_cast<uint64_t>(items[4].integer)});
  }
  if (keys.root().kind != PickleKind::list)
    throw bad_data(path(), keys.offset(keys.root()), "keys", "{}; expected a list of the storages' keys",
                   Pickle::name_of(keys.root().kind));
  for (const PickleValue& key : keys.items(keys.root())) {
    const std::string name = key.kind == PickleKind::text ? std::string(keys.text(key)) : "";
    const auto found = declared.find(name);
    if (key.kind != PickleKind::text || found == declared.end() || found->second.dtype == nullptr)
      throw bad_data(path(), keys.offset(key), "keys", "a storage '{}' that no tensor declares", shown_name(name));
    uint64_t elements = 0;
    if (file_.size() - offset < sizeof(elements))
      throw bad_data(path(), offset, "storage", "{} bytes are left for the length of '{}'; expected {}",
                     file_.size() - offset, shown_name(name), sizeof(elements));
    file_.read_at(offset, std::as_writable_bytes(std::span(&elements, 1)));
    if (elements != found->second.elements)
      throw bad_data(path(), offset, "storage", "'{}' of {} elements; its tensor declares {}", shown_name(name),
                     elements, found->second.elements);
    offset += sizeof(elements);
    const auto bytes = checked_multiply({elements, found->second.dtype->bytes});
    if (!bytes || *bytes > file_.size() - offset)
      throw bad_data(path(), offset, "storage", "'{}' of {} elements of {}; {} bytes are left", shown_name(name),
                     elements, found->second.dtype->name, file_.size() - offset);
    if (!entries_.emplace(name, ZipEntry{.begin = offset, .bytes = *bytes}).second)
      throw bad_data(path(), keys.offset(key), "keys", "'{}' appears twice; expected unique keys", shown_name(name));
    offset += *bytes;
  }
  if (offset != file_.size())
    throw bad_data(path(), offset, "storage", "{} bytes follow the last storage; expected none", file_.size() - offset);
}

void OldTorchFile::read_part(const std::string& key, uint64_t offset, std::span<std::byte> target) const {
  const ZipEntry& entry = entries_.at(key);
  check(offset <= entry.bytes && target.size() <= entry.bytes - offset, "OldTorchFile: past a storage's end");
  file_.read_at(entry.begin + offset, target);
}

}  // namespace resnet
