// What tools/model_parity.py compares with PyTorch: one net's numbers over given images, without a data set around it.
//
//   parity_helper forward   MODEL IMAGES OUT   f32 on the cpu backend: `logits` of inference, and every running
//   statistic
//                                              after one training step with rate 0
//   parity_helper gradients MODEL IMAGES OUT   f64 on the reference backend: `loss`, `gradient:NAME` of every parameter
//                                              and every running statistic after the same step
//
// All three are safetensors files; IMAGES holds `images` [N,C,S,S], as the net sees them, `labels` [N], and the factors
// of stochastic depth's branches, if it has any, under their names.

#include <cstdio>

#include "runtime/backends.h"
#include "train/inference.h"
#include "train/model_file.h"
#include "train/training_step.h"

namespace resnet {
namespace {

void keep_statistics(const Session& session, const std::vector<StateSpec>& states, ModelFile& out) {
  for (const StateSpec& s : states) {
    if (!s.trainable) out.tensors[s.name] = session.read_state(s.name);
  }
}

void run(const std::string& mode, const std::string& model_path, const std::string& images_path,
         const std::string& out_path) {
  const bool gradients = mode == "gradients";
  if (!gradients && mode != "forward") throw UserError("'{}'; expected forward or gradients", mode);
  const DType dtype = gradients ? DType::f64 : DType::f32;
  const LoadedModel model = load_model(model_path);
  const ModelOptions& options = model.description.options;
  const ModelFile fed = read_safetensors(images_path);
  const Tensor images = convert(fed.tensors.at("images"), dtype);
  ModelSpec spec = find_model(model.description.architecture);
  spec.input = {images.shape()[1], images.shape()[2], images.shape()[3]};
  const std::vector<StateSpec> states = model_states(spec, options, dtype);
  std::map<std::string, Tensor> values;
  for (const auto& [name, value] : model.values) values[name] = convert(value, dtype);
  const auto backend = [&] { return make_backend(gradients ? "reference" : "cpu", available_threads()); };
  ModelFile out;
  if (!gradients) {
    Session session(backend());
    InferenceProgram program(session, spec, {.model = options, .images = images.shape()});
    write_states(session, values);
    program.refresh();
    out.tensors["logits"] = program.run(images);
  }
  Session session(backend());
  Program& step = session.compile(make_training_step(
      spec, {.model = options, .dtype = dtype, .images = images.shape(), .gradient_outputs = gradients, .passes = {}}));
  write_states(session, values);
  Batch batch;
  batch.images = images;
  const Tensor labels = convert(fed.tensors.at("labels"), DType::f32);
  for (const float label : labels.as<float>()) batch.labels.push_back(static_cast<int32_t>(label));
  set_step_inputs(step, batch, 0);
  for (const DropPath& branch : drop_paths(spec, options))
    step.set_input(branch.input, convert(fed.tensors.at(branch.input), dtype));
  step.run();
  keep_statistics(session, states, out);
  if (gradients) {
    out.tensors["loss"] = step.output("loss");
    for (const StateSpec& s : states) {
      if (s.trainable) out.tensors["gradient:" + s.name] = step.output("gradient:" + s.name);
    }
  }
  write_safetensors(out_path, out);
}

}  // namespace
}  // namespace resnet

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: parity_helper forward|gradients MODEL IMAGES OUT\n", stderr);
    return 2;
  }
  try {
    resnet::run(argv[1], argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "parity_helper: error: %s\n", error.what());
    return 1;
  }
  return 0;
}
