// The input is a record of quantisation, then a zero byte, then bytes that are laid over all tensors of the file again
// and again. Any of them is refused with bad_data, or read; what is read is written the same, and gives every number
// that the program runs with.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "passes/quantize_graph.h"
#include "train/inference.h"
#include "train/quantized_model.h"

namespace {

using namespace resnet;

/// A small net with everything that the 8-bit form has: pixels, residuals, a convolution of stride two, an add outside.
const ModelSpec& model() {
  static const ModelSpec spec = find_model("resnet8_cifar_a");
  return spec;
}

/// `read`'s result; none when it refuses the input as it should.
template <class Read>
auto read_or_refuse(Read&& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const UserError& error) {
    if (error.code() != ExitCode::bad_data) std::abort();
    return std::nullopt;
  }
}

Quantization parsed(const std::string& text) {
  return parse_quantization("fuzz", text, model().input[0], {0.5f, 0.4f, 0.3f}, {});
}

/// The bytes as a file with a name, for as long as this lives.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : descriptor_(memfd_create("fuzz", 0)) {
    if (descriptor_ < 0 || write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      std::abort();
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

std::string file_of(const std::map<std::string, TensorType>& tensors, std::string_view pattern) {
  ModelFile file;
  for (const auto& [name, type] : tensors) {
    Tensor tensor(type);
    std::byte* bytes = tensor.data();
    for (size_t i = 0; i < tensor.size_bytes() && !pattern.empty(); ++i)
      bytes[i] = static_cast<std::byte>(pattern[i % pattern.size()]);
    file.tensors.emplace(name, std::move(tensor));
  }
  StringSink sink;
  write_safetensors(sink, file);
  return sink.text();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string text(input.substr(0, end));
  const std::string_view pattern = end == std::string_view::npos ? std::string_view() : input.substr(end + 1);

  const auto record = read_or_refuse([&] { return parsed(text); });
  if (!record) return 0;
  const Quantization again = parsed(to_json(*record));
  if (again.layers != record->layers || again.method != record->method || again.images != record->images) std::abort();

  const auto tensors = read_or_refuse([&] { return quantized_tensors(model(), {}, *record); });
  if (!tensors) return 0;
  const MemoryFile file(file_of(*tensors, pattern));
  const auto values = read_or_refuse([&] { return read_quantized(WeightsFile(file.path()), *tensors); });
  if (!values) return 0;
  const Shape& image = model().input;
  const auto graph =
      make_inference_graph(model(), {.model = {}, .images = {1, image[0], image[1], image[2]}, .passes = {}});
  run_inference_passes(*graph, before_quantization());
  for (const DerivedState& state : quantize_graph(*graph, record->layers).derived) {
    if (derive(state, *values, *record).type() != state.type) std::abort();
  }
  return 0;
}
