// A new architecture in ten lines: a narrow residual net with a 3x3 stem, trained for a few steps.

#include <algorithm>
#include <cstdio>
#include <exception>

#include "data/loader.h"
#include "models/torchvision.h"
#include "runtime/backends.h"
#include "runtime/session.h"
#include "train/model_state.h"
#include "train/training_step.h"

using namespace resnet;

/// The ten lines. x [N,C,H,W] -> logits [N, classes]; names follow from the scope: `stem.conv.weight`,
/// `stage0.conv1.weight`...
Value narrow_resnet(Scope s, Value x, int64_t classes) {
  x = relu(batch_norm(s / "stem" / "bn", conv(s / "stem" / "conv", x, 16, {.kernel = 3, .pad = 1})));
  for (int64_t stage = 0; stage < 3; ++stage) {
    const Scope block = s / ("stage" + std::to_string(stage));
    x = torchvision::basic_block(block, x, int64_t{16} << stage, stage == 0 ? 1 : 2);
  }
  return linear(s / "head", flatten(global_avg_pool(x)), classes);
}

void train_thirty_steps() {
  const ModelSpec model{
      "narrow_resnet", "three basic blocks", {1, 28, 28}, 10, [](Scope s, Value x, const ModelOptions&) {
        return narrow_resnet(s, x, 10);
      }};
  const Dataset data = load_dataset("fashion-mnist", Split::train);
  constexpr int64_t kBatch = 64;
  Session session(make_backend("cpu", available_threads()));
  Program& step = session.compile(make_training_step(model, {.images = {kBatch, 1, 28, 28}, .momentum = 0.9}));
  for (const StateSpec& state : model_states(model, {}, DType::f32))
    session.write_state(state.name, initial_value(state, 0));

  Loader loader(data, {.batch_size = kBatch, .limit = 30 * kBatch, .preprocessing = {.image_size = 28}});
  Tensor lr(DType::f32, Shape{}), labels(DType::i32, Shape{kBatch});
  lr.as<float>()[0] = 0.05f;
  double first = 0, last = 0;
  while (const Batch* batch = loader.next()) {
    std::copy(batch->labels.begin(), batch->labels.end(), labels.as<int32_t>().begin());
    step.set_input("images", batch->images);
    step.set_input("labels", labels);
    step.set_input("lr", lr);
    step.run();
    last = step.scalar("loss");
    if (first == 0) first = last;
  }
  std::printf("loss of the first batch %.3f, of the last %.3f\n", first, last);
  check(last < 0.7 * first, "thirty steps should lower the loss");
}

int main() {
  try {
    train_thirty_steps();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "example_new_architecture: %s\n", error.what());
    return 1;
  }
}
