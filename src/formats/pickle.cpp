#include "formats/pickle.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/stored_tensor.h"

namespace resnet {
namespace {

// What a hostile pickle may cost at most, with kMaxPickleBytes: about 60 MB. A ResNet-1202 with the optimiser's state
// has 130,000 containers and 500,000 values.
constexpr size_t kMaxContainers = 200'000;
constexpr size_t kMaxValues = 600'000;

/// The opcodes that are understood; pickletools' names.
enum class Op : uint8_t {
  mark = '(',
  stop = '.',
  none = 'N',
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  binfloat = 'G',
  binstring = 'T',
  short_binstring = 'U',
  binunicode = 'X',
  binbytes = 'B',
  short_binbytes = 'C',
  empty_list = ']',
  append = 'a',
  appends = 'e',
  empty_tuple = ')',
  tuple = 't',
  empty_dict = '}',
  setitem = 's',
  setitems = 'u',
  build = 'b',
  global = 'c',
  reduce = 'R',
  binput = 'q',
  long_binput = 'r',
  binget = 'h',
  long_binget = 'j',
  binpersid = 'Q',
  proto = 0x80,
  newobj = 0x81,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8a,
  long4 = 0x8b,
  short_binunicode = 0x8c,
  binunicode8 = 0x8d,
  binbytes8 = 0x8e,
  empty_set = 0x8f,
  additems = 0x90,
  frozenset = 0x91,
  stack_global = 0x93,
  memoize = 0x94,
  frame = 0x95,
  bytearray8 = 0x96,
};

/// Modules whose classes are networks: their name in a pickle means that a whole model was pickled, code and all.
bool names_a_network(std::string_view name) {
  for (const std::string_view prefix : {"torch.nn.modules.", "torch.nn.parallel.", "torchvision.models.",
                                        "timm.models.", "timm.layers.", "__main__.", "torch.jit.", "torch.fx."}) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

}  // namespace

/// Runs the opcodes of one pickle.
class PickleMachine {
 public:
  PickleMachine(Pickle& pickle, const std::string& path)
      : p_(pickle), path_(path), reader_(path, p_.bytes_, p_.base_) {}

  void run(PickleEnd end) {
    while (true) {
      at_ = static_cast<uint32_t>(reader_.position());
      const auto op = static_cast<Op>(reader_.number<uint8_t>("opcode"));
      if (op == Op::stop) break;
      step(op);
    }
    if (stack_.size() != 1 || !marks_.empty())
      throw bad("STOP", "{} values and {} marks are left; expected one value", stack_.size(), marks_.size());
    if (reader_.left() > 0 && end == PickleEnd::with_bytes)
      throw bad("STOP", "{} bytes follow it; expected none", reader_.left());
    p_.root_ = stack_.front();
    p_.bytes_.resize(reader_.position());
  }

 private:
  void step(Op op) {
    switch (op) {
      case Op::proto: {
        const auto version = reader_.number<uint8_t>("PROTO");
        if (version < 2 || version > 5) throw bad("PROTO", "version {}; expected 2 to 5", version);
        return;
      }
      case Op::frame: reader_.number<uint64_t>("FRAME"); return;  // how much to read ahead: all is here already
      case Op::none: return push(make(PickleKind::none));
      case Op::newtrue: return push_integer(PickleKind::boolean, 1);
      case Op::newfalse: return push_integer(PickleKind::boolean, 0);
      case Op::binint: return push_integer(PickleKind::integer, reader_.number<int32_t>("BININT"));
      case Op::binint1: return push_integer(PickleKind::integer, reader_.number<uint8_t>("BININT1"));
      case Op::binint2: return push_integer(PickleKind::integer, reader_.number<uint16_t>("BININT2"));
      case Op::long1: return push_long(reader_.number<uint8_t>("LONG1"), "LONG1");
      case Op::long4: return push_long(reader_.number<uint32_t>("LONG4"), "LONG4");
      case Op::binfloat: {
        PickleValue value = make(PickleKind::real);
        value.real = std::bit_cast<double>(__builtin_bswap64(reader_.number<uint64_t>("BINFLOAT")));  // big endian
        return push(value);
      }
      case Op::short_binstring: return push_text(reader_.number<uint8_t>("SHORT_BINSTRING"), "SHORT_BINSTRING");
      case Op::short_binbytes: return push_text(reader_.number<uint8_t>("SHORT_BINBYTES"), "SHORT_BINBYTES");
      case Op::short_binunicode: return push_text(reader_.number<uint8_t>("SHORT_BINUNICODE"), "SHORT_BINUNICODE");
      case Op::binstring: return push_text(reader_.number<uint32_t>("BINSTRING"), "BINSTRING");
      case Op::binbytes: return push_text(reader_.number<uint32_t>("BINBYTES"), "BINBYTES");
      case Op::binunicode: return push_text(reader_.number<uint32_t>("BINUNICODE"), "BINUNICODE");
      case Op::binunicode8: return push_text(reader_.number<uint64_t>("BINUNICODE8"), "BINUNICODE8");
      case Op::binbytes8: return push_text(reader_.number<uint64_t>("BINBYTES8"), "BINBYTES8");
      case Op::bytearray8: return push_text(reader_.number<uint64_t>("BYTEARRAY8"), "BYTEARRAY8");
      case Op::empty_list: return push_container(PickleKind::list, 0, "EMPTY_LIST");
      case Op::empty_dict: return push_container(PickleKind::dictionary, 0, "EMPTY_DICT");
      case Op::empty_set: return push_container(PickleKind::set, 0, "EMPTY_SET");
      case Op::empty_tuple: return push_container(PickleKind::tuple, 0, "EMPTY_TUPLE");
      case Op::tuple1: return push_container(PickleKind::tuple, 1, "TUPLE1");
      case Op::tuple2: return push_container(PickleKind::tuple, 2, "TUPLE2");
      case Op::tuple3: return push_container(PickleKind::tuple, 3, "TUPLE3");
      case Op::mark:
        count_value("MARK");
        marks_.push_back(static_cast<uint32_t>(stack_.size()));
        return;
      case Op::tuple: return push_container(PickleKind::tuple, above_mark("TUPLE"), "TUPLE");
      case Op::frozenset: return push_container(PickleKind::set, above_mark("FROZENSET"), "FROZENSET");
      case Op::append: return extend(PickleKind::list, 1, "APPEND");
      case Op::appends: return extend(PickleKind::list, above_mark("APPENDS"), "APPENDS");
      case Op::additems: return extend(PickleKind::set, above_mark("ADDITEMS"), "ADDITEMS");
      case Op::setitem: return extend(PickleKind::dictionary, 2, "SETITEM");
      case Op::setitems: return extend(PickleKind::dictionary, above_mark("SETITEMS"), "SETITEMS");
      case Op::global: {
        const std::string_view module = line("GLOBAL"), name = line("GLOBAL");
        return push_global(module, name, "GLOBAL");
      }
      case Op::stack_global: {
        const PickleValue name = pop("STACK_GLOBAL"), module = pop("STACK_GLOBAL");
        if (name.kind != PickleKind::text || module.kind != PickleKind::text)
          throw bad("STACK_GLOBAL", "{} and {}; expected two texts", Pickle::name_of(module.kind),
                    Pickle::name_of(name.kind));
        return push_global(p_.text(module), p_.text(name), "STACK_GLOBAL");
      }
      case Op::reduce: return call("REDUCE");
      case Op::newobj: return call("NEWOBJ");
      case Op::build: return build();
      case Op::binpersid:
        push_container(PickleKind::persistent, 1, "BINPERSID");
        p_.persistents_.push_back(stack_.back());
        return;
      case Op::binput: return put(reader_.number<uint8_t>("BINPUT"), "BINPUT");
      case Op::long_binput: return put(reader_.number<uint32_t>("LONG_BINPUT"), "LONG_BINPUT");
      case Op::memoize: return put(memo_.size(), "MEMOIZE");
      case Op::binget: return get(reader_.number<uint8_t>("BINGET"), "BINGET");
      case Op::long_binget: return get(reader_.number<uint32_t>("LONG_BINGET"), "LONG_BINGET");
      case Op::stop: break;
    }
    throw bad("opcode", "0x{:02x}; expected one that a file of torch.save(model.state_dict(), ...) holds",
              static_cast<unsigned>(op));
  }

  template <class... Args>
  UserError bad(const char* opcode, fmt::format_string<Args...> text, Args&&... args) const {
    return bad_data(path_, p_.base_ + at_, fmt::format("pickle {}", opcode).c_str(), text, std::forward<Args>(args)...);
  }

  PickleValue make(PickleKind kind) const {
    PickleValue value;
    value.kind = kind;
    value.at = at_;
    return value;
  }

  void count_value(const char* opcode) {
    if (++values_ > kMaxValues) {
      throw ResourceError(ExitCode::limit,
                          "{}: byte {} (pickle {}): more than {} values; a state dict has no use for so many", path_,
                          p_.base_ + at_, opcode, kMaxValues);
    }
  }
  void push(const PickleValue& value, const char* opcode = "value") {
    count_value(opcode);
    stack_.push_back(value);
  }
  void push_integer(PickleKind kind, int64_t integer) {
    PickleValue value = make(kind);
    value.integer = integer;
    push(value);
  }
  void push_text(uint64_t bytes, const char* opcode) {
    const std::string_view text = reader_.text(bytes, opcode);
    PickleValue value = make(PickleKind::text);
    value.text = {static_cast<uint32_t>(text.data() - p_.bytes_.data()), static_cast<uint32_t>(text.size())};
    push(value, opcode);
  }
  /// Little-endian two's complement.
  void push_long(uint32_t bytes, const char* opcode) {
    const std::string_view digits = reader_.text(bytes, opcode);
    if (bytes > 8) return push(make(PickleKind::long_integer), opcode);
    uint64_t integer = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = digits.size(); i-- > 0;) integer = (integer << 8) | static_cast<unsigned char>(digits[i]);
    push_integer(PickleKind::integer, static_cast<int64_t>(integer));
  }

  /// How many values lie above the last mark, which is taken away.
  size_t above_mark(const char* opcode) {
    if (marks_.empty()) throw bad(opcode, "no MARK before it; expected one");
    const uint32_t mark = marks_.back();
    marks_.pop_back();
    return stack_.size() - mark;
  }
  /// Throws unless `count` values may be taken off the stack: they are there and no mark lies under the topmost of
  /// them.
  void require(size_t count, const char* opcode) const {
    const size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() - floor < count)
      throw bad(opcode, "{} values before it; expected {}", stack_.size() - floor, count);
  }
  PickleValue pop(const char* opcode) {
    require(1, opcode);
    const PickleValue value = stack_.back();
    stack_.pop_back();
    return value;
  }
  const PickleValue& top(const char* opcode) const {
    require(1, opcode);
    return stack_.back();
  }

  /// Takes `count` values off the stack into a new container.
  void push_container(PickleKind kind, size_t count, const char* opcode) {
    require(count, opcode);
    if (p_.containers_.size() == kMaxContainers) {
      throw ResourceError(ExitCode::limit,
                          "{}: byte {} (pickle {}): more than {} containers; a state dict has no use for so many",
                          path_, p_.base_ + at_, opcode, kMaxContainers);
    }
    p_.containers_.emplace_back(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    PickleValue value = make(kind);
    value.index = static_cast<uint32_t>(p_.containers_.size() - 1);
    push(value, opcode);
  }
  /// Takes `count` values off the stack into the container under them.
  void extend(PickleKind kind, size_t count, const char* opcode) {
    require(count + 1, opcode);
    const PickleValue target = *(stack_.end() - static_cast<std::ptrdiff_t>(count) - 1);
    if (target.kind != kind)
      throw bad(opcode, "into {}; expected {}", Pickle::name_of(target.kind), Pickle::name_of(kind));
    if (kind == PickleKind::dictionary && count % 2 != 0) throw bad(opcode, "{} values; expected pairs", count);
    std::vector<PickleValue>& items = p_.containers_[target.index];
    items.insert(items.end(), stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
  }

  std::string_view line(const char* opcode) {
    const std::string_view rest = std::string_view(p_.bytes_).substr(reader_.position());
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) throw bad(opcode, "a name without end; expected a line");
    const std::string_view text = reader_.text(end, opcode);
    reader_.text(1, opcode);
    return text;
  }
  void push_global(std::string_view module, std::string_view name, const char* opcode) {
    const std::string full = fmt::format("{}.{}", module, name);
    const auto found = std::find_if(p_.allowed_.begin(), p_.allowed_.end(),
                                    [&](const PickleGlobal& global) { return global.name == full; });
    if (found == p_.allowed_.end()) {
      constexpr const char* kWayOut = "save it again with torch.save(model.state_dict(), FILE)";
      if (names_a_network(full)) {
        throw bad(opcode,
                  "'{}': a whole model was pickled, which only its own Python code can read; expected tensors; {}",
                  shown_name(full), kWayOut);
      }
      throw bad(opcode, "'{}'; expected nothing but tensors and plain data, and nothing of a pickle is ever run; {}",
                shown_name(full), kWayOut);
    }
    PickleValue value = make(PickleKind::global);
    value.index = static_cast<uint32_t>(found - p_.allowed_.begin());
    push(value, opcode);
  }
  /// callee(arguments...), kept as data.
  void call(const char* opcode) {
    const PickleValue arguments = pop(opcode), callee = pop(opcode);
    if (callee.kind != PickleKind::global || arguments.kind != PickleKind::tuple) {
      throw bad(opcode, "a call of {} with {}; expected one of a name with a tuple", Pickle::name_of(callee.kind),
                Pickle::name_of(arguments.kind));
    }
    const PickleGlobal& global = p_.allowed_[callee.index];
    const size_t count = p_.containers_[arguments.index].size();
    if (global.use == PickleGlobal::Use::name)
      throw bad(opcode, "a call of '{}'; expected it to stand for itself", global.name);
    if (global.use == PickleGlobal::Use::dictionary) {
      if (count > 1) throw bad(opcode, "'{}' with {} arguments; expected none, then SETITEMS", global.name, count);
      return push_container(PickleKind::dictionary, 0, opcode);
    }
    push(callee, opcode);
    // By index: push_container moves the containers.
    for (size_t i = 0; i < count; ++i) push(p_.containers_[arguments.index][i], opcode);
    push_container(PickleKind::call, count + 1, opcode);
  }
  /// Attributes of an object: a dictionary of ours has none that matter (torch hangs `_metadata` on its state dicts).
  void build() {
    const PickleValue state = pop("BUILD");
    const PickleValue target = top("BUILD");
    if (target.kind == PickleKind::dictionary) return;
    if (target.kind != PickleKind::call) throw bad("BUILD", "of {}; expected an object", Pickle::name_of(target.kind));
    p_.containers_[target.index].push_back(state);
  }

  void put(uint64_t index, const char* opcode) {
    const PickleValue& value = top(opcode);
    if (index > memo_.size()) throw bad(opcode, "place {} of a memo of {}; expected the next", index, memo_.size());
    if (index < memo_.size()) {
      memo_[static_cast<size_t>(index)] = value;
      return;
    }
    count_value(opcode);
    memo_.push_back(value);
  }
  void get(uint64_t index, const char* opcode) {
    if (index >= memo_.size()) throw bad(opcode, "place {} of a memo of {}", index, memo_.size());
    push(memo_[static_cast<size_t>(index)], opcode);
  }

  Pickle& p_;
  const std::string& path_;
  ByteReader reader_;
  uint32_t at_ = 0;
  size_t values_ = 0;
  std::vector<PickleValue> stack_, memo_;
  std::vector<uint32_t> marks_;
};

Pickle::Pickle(const std::string& path, std::string bytes, uint64_t base, std::span<const PickleGlobal> allowed,
               PickleEnd end)
    : bytes_(std::move(bytes)), base_(base), allowed_(allowed) {
  if (bytes_.size() > kMaxPickleBytes) {
    throw ResourceError(ExitCode::limit, "{}: byte {} (pickle): {} bytes; at most {} are accepted", path, base,
                        bytes_.size(), kMaxPickleBytes);
  }
  PickleMachine(*this, path).run(end);
}

std::span<const PickleValue> Pickle::items(const PickleValue& value) const {
  check(value.kind >= PickleKind::list && value.kind != PickleKind::global, "Pickle::items: no container");
  return containers_[value.index];
}

std::string_view Pickle::text(const PickleValue& value) const {
  check(value.kind == PickleKind::text, "Pickle::text: no text");
  return std::string_view(bytes_).substr(value.text.begin, value.text.bytes);
}

std::string_view Pickle::name(const PickleValue& value) const {
  check(value.kind == PickleKind::global, "Pickle::name: no global");
  return allowed_[value.index].name;
}

const char* Pickle::name_of(PickleKind kind) {
  switch (kind) {
    case PickleKind::none: return "None";
    case PickleKind::boolean: return "a boolean";
    case PickleKind::integer: return "an integer";
    case PickleKind::long_integer: return "an integer of more than 64 bits";
    case PickleKind::real: return "a float";
    case PickleKind::text: return "a text";
    case PickleKind::list: return "a list";
    case PickleKind::tuple: return "a tuple";
    case PickleKind::set: return "a set";
    case PickleKind::dictionary: return "a dictionary";
    case PickleKind::global: return "a name";
    case PickleKind::call: return "an object";
    case PickleKind::persistent: return "a storage";
  }
  throw InternalError("pickle: unknown kind");
}

}  // namespace resnet
