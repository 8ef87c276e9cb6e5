// Any bytes are read as safetensors or refused with bad_data; what is read is written and read back the same.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  resnet::ModelFile model;
  try {
    model = resnet::read_safetensors_bytes("fuzz", {reinterpret_cast<const char*>(data), size});
  } catch (const resnet::UserError& error) {
    if (error.code() != resnet::ExitCode::bad_data) std::abort();
    return 0;
  }
  if (model.tensors.contains("__metadata__")) std::abort();
  resnet::StringSink first;
  resnet::write_safetensors(first, model);
  resnet::StringSink second;
  resnet::write_safetensors(second, resnet::read_safetensors_bytes("again", first.text()));
  if (first.text() != second.text()) std::abort();
  return 0;
}
