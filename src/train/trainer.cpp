#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "formats/checkpoint_directory.h"
#include "runtime/backends.h"
#include "train/training_step.h"

namespace resnet {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A double for JSON, which has no NaN or infinity.
json finite(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

class Trainer {
 public:
  Trainer(const TrainRequest& request, const TrainObserver& observer)
      : request_(request), config_(request.config), observer_(observer), spec_(find_model(config_.model)) {}

  TrainResult run() {
    validate(config_);
    load_data();
    prepare_session();
    open_run();
    try {
      first_values();
    } catch (...) {  // no memory for it, say
      run_->withdraw();
      throw;
    }
    announce();
    loop();
    return finish();
  }

 private:
  struct StepProgram {
    Program* program = nullptr;
    int64_t batch = 0;
  };

  void load_data() {
    if (observer_.on_prepare) observer_.on_prepare("reading " + config_.data, 0, 0);
    train_set_ = load_dataset(config_.data, Split::train);
    test_set_ = load_dataset(config_.data, Split::test);
    if (config_.limit > train_set_.count) {
      throw UserError("--limit: {} images, but {} has {}; expected no more than that", config_.limit, config_.data,
                      train_set_.count);
    }
    description_.architecture = config_.model;
    description_.options = {.num_classes = train_set_.classes(), .stem_padding = config_.stem_padding};
    description_.channels = train_set_.channels;
    description_.class_names = train_set_.class_names;
    description_.preprocessing = {.image_size = config_.image_size};
    validate(description_.preprocessing, description_.channels);
    spec_.input = {description_.channels, config_.image_size, config_.image_size};
    images_per_epoch_ = config_.limit > 0 ? config_.limit : train_set_.count;
    steps_per_epoch_ = (images_per_epoch_ + config_.batch_size - 1) / config_.batch_size;
    total_steps_ = config_.epochs * steps_per_epoch_;
    if (config_.max_steps > 0) total_steps_ = std::min(total_steps_, config_.max_steps);
  }

  void prepare_session() {
    threads_ = config_.threads > 0 ? config_.threads : available_threads();
    session_ = std::make_unique<Session>(make_backend(config_.backend, static_cast<int>(threads_)));
    states_ = model_states(spec_, description_.options, config_.dtype());
  }

  void open_run() {
    if (request_.resume) {
      run_.emplace(RunDirectory::open(request_.output));
      check_settings();
      if (request_.checkpoint.empty() && run_->before_first_checkpoint()) {
        if (observer_.on_warning)
          observer_.on_warning(run_->path() + ": no checkpoint yet; starting from the first step");
        begin();
      } else {
        restore();
      }
      atomic_write_file(run_->path() + "/config.toml", to_toml(config_));
      run_->write_metrics(state_.metrics);
      run_->rewind_events(state_.step, state_.evaluation_pending);
    } else {
      const std::string path =
          request_.output.empty() ? RunDirectory::fresh_name("runs/" + config_.model) : request_.output;
      begin();
      run_.emplace(RunDirectory::create(path, config_));
    }
  }

  /// What step 0 starts from. Throws before there is a directory when the weights or the shapes do not fit.
  void begin() {
    make_step(std::min(config_.batch_size, images_per_epoch_));
    const int64_t rest = images_per_epoch_ % config_.batch_size;
    if (rest != 0 && total_steps_ >= steps_per_epoch_) make_step(rest);
    if (!config_.weights.empty()) {
      initial_ = match_weights(config_.weights, read_safetensors(config_.weights), states_);
    } else {
      for (const StateSpec& s : states_) initial_[s.name] = initial_value(s, static_cast<uint64_t>(config_.seed));
    }
    state_.data_fingerprint = train_set_.fingerprint();
    state_.threads = threads_;
    state_.instruction_set = instruction_set();
    state_.version = RESNET_VERSION;
  }

  std::unique_ptr<Graph> make_step(int64_t batch) const {
    return make_training_step(spec_, {.model = description_.options,
                                      .dtype = config_.dtype(),
                                      .images = {batch, description_.channels, config_.image_size, config_.image_size},
                                      .momentum = config_.momentum,
                                      .nesterov = config_.nesterov,
                                      .weight_decay = config_.weight_decay,
                                      .label_smoothing = config_.label_smoothing,
                                      .gradient_outputs = !request_.dump_gradients.empty(),
                                      .passes = {.disabled = request_.disabled_passes, .observer = {}}});
  }

  /// The step's program for `batch` images, compiled when first needed: the last batch of an epoch may be smaller.
  Program& step_program(int64_t batch) {
    for (const StepProgram& p : programs_) {
      if (p.batch == batch) return *p.program;
    }
    Program& program = session_->compile(make_step(batch), [&](int done, int total) {
      if (observer_.on_prepare) observer_.on_prepare("choosing kernels", done, total);
    });
    programs_.push_back({&program, batch});
    return program;
  }

  InferenceProgram& inference_program() {
    if (!inference_) {
      inference_.emplace(*session_, spec_,
                         InferenceOptions{.model = description_.options,
                                          .dtype = config_.dtype(),
                                          .images = {std::min(config_.batch_size, test_set_.count),
                                                     description_.channels, config_.image_size, config_.image_size},
                                          .passes = {.disabled = request_.disabled_passes, .observer = {}}});
    }
    return *inference_;
  }

  /// Throws unless the settings that shape the result are those of the run.
  void check_settings() const {
    const TrainConfig before = run_->config();
    // What shapes the result must be what it was; how long, how often and with what helpers may change.
    TrainConfig free = config_;
    free.epochs = before.epochs;
    free.max_steps = before.max_steps;
    free.workers = before.workers;
    free.threads = before.threads;
    free.log_every = before.log_every;
    free.checkpoint_every = before.checkpoint_every;
    if (const auto changed = differences(free, before); !changed.empty()) {
      throw UserError(ExitCode::refused,
                      "{}: --resume with other settings ({}); expected those of the run; leave them out", run_->path(),
                      fmt::join(changed, "; "));
    }
  }

  /// Reads the checkpoint behind `last`, or the one that was named: where to go on, the algorithms to use, and the
  /// values to start from.
  void restore() {
    const Checkpoint checkpoint = open_checkpoint(request_.checkpoint.empty() ? run_->path() : request_.checkpoint);
    state_ = train_state_from_json(checkpoint.path_of("state.json"),
                                   read_whole_file(checkpoint.path_of("state.json"), 1 << 28));
    restored_ = true;
    if (state_.data_fingerprint != train_set_.fingerprint()) {
      throw UserError(ExitCode::refused,
                      "{}: the training data is not what the run was started on (fingerprint {:016x}, was {:016x})",
                      config_.data, train_set_.fingerprint(), state_.data_fingerprint);
    }
    if ((state_.threads != threads_ || state_.instruction_set != instruction_set()) && observer_.on_warning) {
      observer_.on_warning(
          fmt::format("resuming with {} threads on {}, the run had {} on {}: results will differ by rounding", threads_,
                      instruction_set(), state_.threads, state_.instruction_set));
    }
    session_->backend().adopt(state_.choices);
    const std::string model = checkpoint.path_of("model.safetensors");
    initial_ = match_weights(model, read_safetensors(model), states_);
    if (config_.momentum != 0) {
      const std::string optimizer = checkpoint.path_of("optimizer.safetensors");
      for (auto& [name, tensor] : read_safetensors(optimizer).tensors)
        initial_momenta_[name] = convert(tensor, config_.dtype());
    }
  }

  void first_values() {
    step_program(std::min(config_.batch_size, images_per_epoch_));
    write_states(*session_, initial_);
    for (const StateSpec& s : states_) {
      if (!s.trainable || config_.momentum == 0 || !restored_) continue;
      const auto found = initial_momenta_.find(s.name);
      if (found == initial_momenta_.end() || found->second.type() != s.type) {
        throw UserError(ExitCode::bad_data, "{}: optimizer.safetensors lacks the momentum of '{}'", run_->path(),
                        s.name);
      }
      session_->write_state("momentum/" + s.name, found->second);
    }
    initial_.clear();
    initial_momenta_.clear();
  }

  void announce() {
    if (!observer_.on_plan) return;
    const Program& program = *programs_[0].program;
    TrainObserver::Planned p;
    p.model = config_.model;
    p.backend = config_.backend;
    p.output = run_->path();
    for (const StateSpec& s : states_) p.parameters += s.trainable ? s.type.shape.elements() : 0;
    p.steps = total_steps_;
    p.start_step = state_.step;
    p.train_images = images_per_epoch_;
    p.test_images = test_set_.count;
    p.threads = threads_;
    p.gflop_per_step = program.flops() / 1e9;
    p.arena_bytes = session_->arena_bytes();
    p.state_bytes = session_->state_bytes();
    p.program = &program;
    observer_.on_plan(p);
  }

  int stop_signal() const { return request_.stop_signal ? request_.stop_signal->load() : 0; }

  void loop() {
    last_mark_ = Clock::now();
    if (state_.evaluation_pending) {
      end_epoch();
      stopped_by_ = stop_signal();
    }
    if (state_.step >= total_steps_ || stopped_by_) return;
    Loader loader(train_set_, {.batch_size = config_.batch_size,
                               .shuffle = config_.shuffle,
                               .seed = static_cast<uint64_t>(config_.seed),
                               .limit = config_.limit,
                               .dtype = config_.dtype(),
                               .workers = static_cast<int>(config_.workers),
                               .preprocessing = description_.preprocessing,
                               .start = {state_.epoch, state_.sample},
                               .epochs = config_.epochs});
    last_mark_ = Clock::now();
    while (state_.step < total_steps_) {
      const Batch* batch = loader.next();
      check(batch != nullptr, "trainer: the loader ended before the last step");
      step(*batch);
      if (batch->last_of_epoch) end_epoch();
      const bool due = config_.checkpoint_every > 0 && state_.step % config_.checkpoint_every == 0;
      const bool last = state_.step >= total_steps_;
      stopped_by_ = stop_signal();
      if ((due || last || stopped_by_) && !batch->last_of_epoch) save();
      if (stopped_by_) return;
    }
  }

  void step(const Batch& batch) {
    Program& program = step_program(batch.size());
    feed(program, batch);
    const auto start = Clock::now();
    program.run();
    const double loss = program.scalar("loss");
    const double correct = program.scalar("correct");
    step_seconds_ += seconds_since(start);
    step_images_ += batch.size();
    const double lr = learning_rate(config_, state_.step, schedule_steps());
    ++state_.step;
    state_.epoch = batch.next.epoch;
    state_.sample = batch.next.sample;
    if (!request_.dump_gradients.empty() && !dumped_) dump_gradients(program);
    if (std::isfinite(loss)) {
      non_finite_ = 0;
      state_.epoch_loss_sum += loss * static_cast<double>(batch.size());
      state_.epoch_correct += static_cast<int64_t>(correct);
      state_.epoch_images += batch.size();
    } else {
      diverging(loss, batch.epoch);
    }
    const double elapsed = seconds_since(last_mark_);
    last_mark_ = Clock::now();
    state_.epoch_seconds += elapsed;
    // A smoothed rate of whole steps, loading included, for the time left.
    seconds_per_image_ = seconds_per_image_ == 0
                             ? elapsed / static_cast<double>(batch.size())
                             : 0.9 * seconds_per_image_ + 0.1 * elapsed / static_cast<double>(batch.size());
    const double rate = 1 / seconds_per_image_;
    if (state_.step % config_.log_every == 0 || state_.step == total_steps_) {
      run_->append_event(json{
          {"step", state_.step},
          {"epoch", batch.epoch + 1},
          {"split", "train"},
          {"loss", finite(loss)},
          {"top1", correct / static_cast<double>(batch.size())},
          {"lr", lr},
          {"images_per_second",
           rate}}.dump());
    }
    if (observer_.on_step) {
      const auto images = static_cast<double>(std::max<int64_t>(state_.epoch_images, 1));
      const double left = static_cast<double>(total_steps_ - state_.step) * static_cast<double>(config_.batch_size) *
                          seconds_per_image_;
      observer_.on_step({.step = state_.step,
                         .steps = total_steps_,
                         .epoch = batch.epoch + 1,
                         .epochs = config_.epochs,
                         .loss = loss,
                         .mean_loss = state_.epoch_loss_sum / images,
                         .top1 = static_cast<double>(state_.epoch_correct) / images,
                         .lr = lr,
                         .images_per_second = rate,
                         .seconds_left = left});
    }
  }

  int64_t schedule_steps() const { return config_.epochs * steps_per_epoch_; }

  void feed(Program& program, const Batch& batch) {
    const double lr = learning_rate(config_, state_.step, schedule_steps());
    Tensor rate(config_.dtype(), Shape{});
    with_float(config_.dtype(), [&](auto tag) {
      using T = decltype(tag);
      rate.as<T>()[0] = static_cast<T>(lr);
    });
    Tensor labels(DType::i32, Shape{batch.size()});
    std::copy(batch.labels.begin(), batch.labels.end(), labels.as<int32_t>().begin());
    program.set_input("images", batch.images);
    program.set_input("labels", labels);
    program.set_input("lr", rate);
  }

  void diverging(double loss, int64_t epoch) {
    ++non_finite_;
    run_->append_event(
        json{{"step", state_.step}, {"epoch", epoch + 1}, {"split", "train"}, {"loss", nullptr}, {"skipped", true}}
            .dump());
    if (observer_.on_warning) {
      observer_.on_warning(fmt::format("step {}: the loss is {}; the step was not applied ({} in a row)", state_.step,
                                       loss, non_finite_));
    }
    constexpr int kGiveUp = 3;
    if (non_finite_ >= kGiveUp) {
      throw UserError(
          ExitCode::diverged,
          "{}: training diverged: the loss was not finite {} steps in a row (step {}); the last checkpoint is kept; "
          "resume from it with a smaller --lr in a new run (--weights)",
          run_->path(), kGiveUp, state_.step);
    }
  }

  void dump_gradients(Program& program) {
    ModelFile file;
    for (const StateSpec& s : states_) {
      if (s.trainable) file.tensors[s.name] = program.output("gradient:" + s.name);
    }
    write_safetensors(request_.dump_gradients, file);
    dumped_ = true;
  }

  /// Evaluates, records the epoch, keeps the best, saves. When a signal cuts the evaluation short the epoch stays
  /// open and is evaluated again on resume.
  void end_epoch() {
    InferenceProgram& program = inference_program();
    program.refresh();
    const Evaluation e = evaluate(program, test_set_, description_.preprocessing, static_cast<int>(config_.workers), 0,
                                  [&](int64_t done, int64_t total) {
                                    if (observer_.on_evaluate) observer_.on_evaluate(done, total);
                                    return done == total || !stop_signal();
                                  });
    state_.evaluation_pending = e.images < test_set_.count;
    if (state_.evaluation_pending) return save();
    const double evaluation_seconds = seconds_since(last_mark_);
    last_mark_ = Clock::now();
    const auto images = static_cast<double>(std::max<int64_t>(state_.epoch_images, 1));
    EpochMetrics m{.epoch = state_.epoch,
                   .train_loss = state_.epoch_loss_sum / images,
                   .train_top1 = static_cast<double>(state_.epoch_correct) / images,
                   .eval_loss = e.loss,
                   .eval_top1 = e.top1,
                   .eval_top5 = e.top5,
                   .lr = learning_rate(config_, state_.step - 1, schedule_steps()),
                   .images_per_second = images / state_.epoch_seconds,
                   .seconds = state_.epoch_seconds + evaluation_seconds};
    state_.metrics.push_back(m);
    state_.epoch_loss_sum = state_.epoch_seconds = 0;
    state_.epoch_correct = state_.epoch_images = 0;
    const bool is_best = e.top1 > state_.best_top1;
    if (is_best) {
      state_.best_top1 = e.top1;
      write_safetensors(run_->path() + "/best.safetensors", model_file());
    }
    run_->append_event(json{
        {"step", state_.step},
        {"epoch", m.epoch},
        {"split", "test"},
        {"loss", finite(e.loss)},
        {"top1", e.top1},
        {"top5", e.top5}}.dump());
    run_->write_metrics(state_.metrics);
    if (observer_.on_epoch) observer_.on_epoch(m, is_best);
    save();
  }

  ModelFile model_file() const { return {to_metadata(description_), read_states(*session_, states_)}; }

  /// Commits a checkpoint of the state after the last step. Never of weights that are not finite.
  void save() {
    const ModelFile model = model_file();
    for (const auto& [name, tensor] : model.tensors) {
      with_float(tensor.dtype(), [&](auto tag) {
        for (auto v : tensor.as<decltype(tag)>()) {
          if (!std::isfinite(v)) {
            throw UserError(ExitCode::diverged,
                            "{}: training diverged: '{}' is no longer finite at step {}; the last checkpoint is kept; "
                            "start again with a smaller --lr",
                            run_->path(), name, state_.step);
          }
        }
      });
    }
    state_.choices = session_->backend().choices();
    CheckpointContent content;
    content.step = state_.step;
    content.files["model.safetensors"] = [&](ByteSink& sink) { write_safetensors(sink, model); };
    const std::string state = to_json(state_);
    content.files["state.json"] = [&](ByteSink& sink) { sink.write(state); };
    const std::string config = to_toml(config_);
    content.files["config.toml"] = [&](ByteSink& sink) { sink.write(config); };
    ModelFile optimizer;
    if (config_.momentum != 0) {
      for (const StateSpec& s : states_) {
        if (s.trainable) optimizer.tensors[s.name] = session_->read_state("momentum/" + s.name);
      }
      content.files["optimizer.safetensors"] = [&](ByteSink& sink) { write_safetensors(sink, optimizer); };
    }
    run_->sync_events();
    commit_checkpoint(run_->path(), content);
    last_mark_ = Clock::now();
    if (observer_.on_checkpoint) observer_.on_checkpoint(fmt::format("{}/step-{}", run_->path(), state_.step));
  }

  TrainResult finish() {
    TrainResult r;
    r.output = run_->path();
    r.steps = state_.step;
    if (state_.best_top1 >= 0) r.best_top1 = state_.best_top1;
    r.stopped_by = stopped_by_;
    r.images_per_second = step_seconds_ > 0 ? static_cast<double>(step_images_) / step_seconds_ : 0;
    r.peak_bytes = session_->arena_bytes() + session_->state_bytes() + session_->held_bytes();
    if (state_.epoch_images > 0) {
      r.train_loss = state_.epoch_loss_sum / static_cast<double>(state_.epoch_images);
      r.train_top1 = static_cast<double>(state_.epoch_correct) / static_cast<double>(state_.epoch_images);
    } else if (!state_.metrics.empty()) {
      r.train_loss = state_.metrics.back().train_loss;
      r.train_top1 = state_.metrics.back().train_top1;
    }
    if (!state_.metrics.empty()) {
      r.eval_loss = state_.metrics.back().eval_loss;
      r.eval_top1 = state_.metrics.back().eval_top1;
      if (!stopped_by_) r.samples = predict_samples();
    }
    return r;
  }

  std::vector<SamplePrediction> predict_samples() {
    constexpr int64_t kSamples = 8;
    InferenceProgram& program = inference_program();
    program.refresh();
    Loader loader(test_set_, {.batch_size = program.batch_size(),
                              .shuffle = false,
                              .limit = std::min(program.batch_size(), kSamples),
                              .dtype = config_.dtype(),
                              .workers = 0,
                              .preprocessing = description_.preprocessing});
    const Batch& batch = *loader.next();
    const Tensor logits = convert(program.run(batch.images), DType::f64);
    std::vector<SamplePrediction> samples;
    for (int64_t n = 0; n < batch.size(); ++n) {
      const auto classes = static_cast<size_t>(logits.shape()[1]);
      const std::vector<double> p = softmax(logits.as<double>().subspan(static_cast<size_t>(n) * classes, classes));
      const auto best = static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin());
      samples.push_back({n, test_set_.class_names[static_cast<size_t>(batch.labels[static_cast<size_t>(n)])],
                         test_set_.class_names[best], p[best]});
    }
    return samples;
  }

  const TrainRequest& request_;
  TrainConfig config_;
  const TrainObserver& observer_;
  ModelSpec spec_;
  ModelDescription description_;
  Dataset train_set_, test_set_;
  int64_t images_per_epoch_ = 0, steps_per_epoch_ = 0, total_steps_ = 0, threads_ = 1;
  std::unique_ptr<Session> session_;
  std::optional<RunDirectory> run_;
  std::vector<StateSpec> states_;
  std::map<std::string, Tensor> initial_, initial_momenta_;
  std::vector<StepProgram> programs_;
  std::optional<InferenceProgram> inference_;
  TrainState state_;
  Clock::time_point last_mark_;
  double step_seconds_ = 0, seconds_per_image_ = 0;
  int64_t step_images_ = 0;
  int non_finite_ = 0;
  int stopped_by_ = 0;
  bool dumped_ = false;
  bool restored_ = false;
};

}  // namespace

TrainResult train(const TrainRequest& request, const TrainObserver& observer) {
  return Trainer(request, observer).run();
}

TrainConfig config_of_run(const std::string& path) {
  TrainConfig config;
  const std::string file = path + "/config.toml";
  apply_toml(file, read_whole_file(file, 1 << 20), config);
  return config;
}

}  // namespace resnet
