// Any bytes are read as a pickle of plain data or refused; every value that comes out can be looked at.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/pickle.h"

namespace {

constexpr resnet::PickleGlobal kAllowed[] = {
    {"collections.OrderedDict", resnet::PickleGlobal::Use::dictionary},
    {"torch._utils._rebuild_tensor_v2", resnet::PickleGlobal::Use::call},
    {"torch.FloatStorage", resnet::PickleGlobal::Use::name},
    {"a.b", resnet::PickleGlobal::Use::call},
};

/// Every value once, whatever the cycles: a container's values are visited when it is first met.
size_t visit(const resnet::Pickle& pickle, size_t size) {
  using resnet::PickleKind;
  std::vector<resnet::PickleValue> todo = {pickle.root()};
  std::vector<bool> seen(size + 1, false);
  size_t visited = 0;
  while (!todo.empty()) {
    const resnet::PickleValue value = todo.back();
    todo.pop_back();
    ++visited;
    if (pickle.offset(value) >= size) std::abort();
    if (value.kind == PickleKind::text && pickle.text(value).size() > size) std::abort();
    if (value.kind == PickleKind::global && pickle.name(value).empty()) std::abort();
    const bool container = value.kind >= PickleKind::list && value.kind != PickleKind::global;
    if (!container || seen[value.index]) continue;
    seen[value.index] = true;
    const auto items = pickle.items(value);
    if (value.kind == PickleKind::dictionary && items.size() % 2 != 0) std::abort();
    todo.insert(todo.end(), items.begin(), items.end());
  }
  return visited;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  try {
    const resnet::Pickle pickle("fuzz", std::string(reinterpret_cast<const char*>(bytes), size), 0, kAllowed);
    if (visit(pickle, size) == 0) std::abort();
  } catch (const resnet::Error& error) {
    if (error.code() != resnet::ExitCode::bad_data && error.code() != resnet::ExitCode::limit) std::abort();
  }
  return 0;
}
