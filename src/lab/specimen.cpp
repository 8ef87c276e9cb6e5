#include "lab/specimen.h"

#include "runtime/backends.h"
#include "train/training_step.h"

namespace resnet {
namespace {

int64_t threads_of(const SpecimenOptions& options) {
  return options.threads > 0 ? options.threads : available_threads();
}

}  // namespace

Specimen::Specimen(const Dataset& data, const SpecimenOptions& options)
    : data_(data),
      options_(options),
      spec_(find_model(options.model)),
      threads_(threads_of(options)),
      session_(make_backend(options.backend, static_cast<int>(threads_))) {
  spec_.input = {data.channels, options.image_size, options.image_size};
  options_.model_options.num_classes = data.classes();
  const int64_t images = options.limit > 0 ? std::min(options.limit, data.count) : data.count;
  if (images < options.batch_size) {
    throw UserError("--batch-size: {}, but there are {} training images{}; expected no more than that",
                    options.batch_size, images,
                    options.limit > 0 ? fmt::format(" (--limit {})", options.limit) : std::string());
  }
  // Whole batches only: every step runs the same program.
  options_.limit = images / options.batch_size * options.batch_size;
  states_ = model_states(spec_, options_.model_options, DType::f32);
  for (const StateSpec& s : states_) {
    session_.add_state(s.name, s.type);
    session_.write_state(s.name, initial_value(s, static_cast<uint64_t>(options.seed)));
  }
}

Program& Specimen::compile(std::unique_ptr<Graph> graph) { return session_.compile(std::move(graph)); }

void Specimen::prepare_step() {
  if (step_) return;
  step_ = &compile(make_training_step(spec_, {.model = options_.model_options,
                                              .images = images(),
                                              .momentum = options_.momentum,
                                              .weight_decay = options_.weight_decay,
                                              .passes = {}}));
  constexpr int64_t kEndless = int64_t{1} << 40;
  loader_.emplace(data_, LoaderOptions{.batch_size = options_.batch_size,
                                       .seed = static_cast<uint64_t>(options_.seed),
                                       .limit = options_.limit,
                                       .preprocessing = {.image_size = options_.image_size},
                                       .epochs = kEndless});
}

StepResult Specimen::train_step(double lr) {
  prepare_step();
  const Batch& batch = *loader_->next();
  set_step_inputs(*step_, batch, lr);
  step_->run();
  return {step_->scalar("loss"), step_->scalar("correct") / static_cast<double>(batch.size())};
}

void Specimen::run_on_first_batch(Program& program) {
  Loader loader(data_, {.batch_size = options_.batch_size,
                        .shuffle = false,
                        .limit = options_.batch_size,
                        .workers = 0,
                        .preprocessing = {.image_size = options_.image_size}});
  set_step_inputs(program, *loader.next(), 0);
  program.run();
}

InferenceProgram& Specimen::inference() {
  if (!inference_) {
    inference_.emplace(session_, spec_, InferenceOptions{.model = options_.model_options, .images = images()});
  }
  inference_->refresh();
  return *inference_;
}

Tensor Specimen::logits(const Dataset& data, int64_t count) {
  InferenceProgram& program = inference();
  Loader loader(data, {.batch_size = options_.batch_size,
                       .shuffle = false,
                       .limit = count,
                       .workers = 0,
                       .preprocessing = {.image_size = options_.image_size}});
  Tensor all(DType::f32, Shape{count, data.classes()});
  auto next = all.as<float>().begin();
  while (const Batch* batch = loader.next()) {
    const Tensor some = program.run(batch->images);
    next = std::copy(some.as<float>().begin(), some.as<float>().end(), next);
  }
  return all;
}

std::map<std::string, Tensor> Specimen::values() const { return read_states(session_, states_); }

void Specimen::set_value(const std::string& name, const Tensor& value) { session_.write_state(name, value); }

int64_t Specimen::parameters() const {
  int64_t count = 0;
  for (const StateSpec& s : states_) count += s.trainable ? s.type.shape.elements() : 0;
  return count;
}

size_t Specimen::memory_bytes() const {
  return session_.arena_bytes() + session_.state_bytes() + session_.held_bytes();
}

}  // namespace resnet
