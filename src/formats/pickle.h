#pragma once
// Python's pickle format, read as plain data. A pickle is a program for a stack machine whose GLOBAL names any object
// of the interpreter and whose REDUCE calls it. Here nothing is ever called: a global is a name of a given list or an
// error, and a call stays what it is, a callee and its arguments, for the reader of the data to understand.
// Source: Lib/pickletools.py of CPython 3.11, which documents every opcode; protocols 2 to 5.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resnet {

enum class PickleKind : uint8_t {
  none,
  boolean,
  integer,
  long_integer,  ///< of more than 8 bytes, such as a random generator's state: no size of ours, and not kept
  real,
  text,        ///< str, bytes or bytearray
  list,        ///< items
  tuple,       ///< items
  set,         ///< items
  dictionary,  ///< key, value, key, value
  global,      ///< a name of the list
  call,        ///< the callee (a global), then its arguments, then the state that BUILD gave, if any
  persistent,  ///< one item: the id of an object kept elsewhere
};

/// Where a text lies in the pickle.
struct PickleText {
  uint32_t begin, bytes;
};

/// One value. Containers are shared: two values may stand for one list, and a list may hold itself.
struct PickleValue {
  PickleKind kind = PickleKind::none;
  uint32_t at = 0;  ///< the opcode's byte in the pickle
  union {
    int64_t integer;  ///< also boolean
    double real;
    PickleText text;
    uint32_t index;  ///< of a container, or of the name in the list
  };
  PickleValue() : integer(0) {}
};

/// A name that a pickle may hold.
struct PickleGlobal {
  enum class Use : uint8_t {
    name,        ///< stands for itself; calling it is an error
    call,        ///< may be called: the call is kept as data
    dictionary,  ///< called with at most one argument it is an empty dictionary
  };
  std::string_view name;  ///< "torch._utils._rebuild_tensor_v2"
  Use use = Use::call;
};

/// Whether the bytes that a pickle is read from are its own, or go on after it.
enum class PickleEnd : uint8_t { with_bytes, more_follows };

/// What one pickle holds.
class Pickle {
 public:
  /// `bytes` lie at byte `base` of the file `path`, which errors name. Takes time and memory in proportion to the
  /// pickle's length, whatever it says. Throws bad_data (exit code 3) for anything that is no pickle of plain data and
  /// globals of the list, ResourceError (5) past 200,000 containers or 600,000 values.
  Pickle(const std::string& path, std::string bytes, uint64_t base, std::span<const PickleGlobal> allowed,
         PickleEnd end = PickleEnd::with_bytes);

  const PickleValue& root() const { return root_; }
  /// Its length in bytes.
  size_t size() const { return bytes_.size(); }
  /// Every persistent id in it, in its order.
  std::span<const PickleValue> persistents() const { return persistents_; }
  /// Of a list, tuple, set, dictionary, call or persistent id.
  std::span<const PickleValue> items(const PickleValue& value) const;
  /// Of a text.
  std::string_view text(const PickleValue& value) const;
  /// Of a global: "torch.FloatStorage".
  std::string_view name(const PickleValue& value) const;
  /// Of the value's opcode, in the file.
  uint64_t offset(const PickleValue& value) const { return base_ + value.at; }
  /// "a list", for messages.
  static const char* name_of(PickleKind kind);

 private:
  friend class PickleMachine;

  std::string bytes_;
  uint64_t base_;
  std::span<const PickleGlobal> allowed_;
  std::vector<std::vector<PickleValue>> containers_;
  std::vector<PickleValue> persistents_;
  PickleValue root_;
};

/// Bytes of a pickle that are accepted.
inline constexpr uint64_t kMaxPickleBytes = uint64_t{8} << 20;

}  // namespace resnet
