#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/rng.h"
#include "data/turned_images.h"
#include "formats/checkpoint_directory.h"
#include "runtime/backends.h"
#include "train/training_step.h"

namespace resnet {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Trainer {
 public:
  Trainer(const TrainRequest& request, const TrainObserver& observer)
      : request_(request), config_(request.config), observer_(observer), spec_(find_model(config_.model)) {}

  TrainResult run() {
    validate(config_);
    check_options(spec_, model_options(config_));
    if (request_.resume) {
      run_.emplace(RunDirectory::open(request_.output));
      check_settings();
    } else if (!request_.output.empty()) {
      RunDirectory::require_free(request_.output);  // before the data is read
    }
    load_data();
    prepare_session();
    request_.resume ? find_start() : begin_run();
    try {
      first_values();
    } catch (...) {  // no memory for it, say
      run_->withdraw();
      throw;
    }
    if (request_.resume) rewind_run();
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
    const DatasetOptions options{.channels = config_.channels,
                                 .exif_orientation = config_.exif_orientation,
                                 .missing_files = skips_bad_samples(),
                                 .progress = [&](int64_t files) {
                                   if (!observer_.on_prepare) return;
                                   observer_.on_prepare(fmt::format("reading {}: {} files", config_.data, files), 0, 0);
                                 }};
    train_set_ = load_dataset(config_.data, Split::train, options);
    test_set_ = load_dataset(config_.data, Split::validation, options);
    warn_of_turned_images();
    if (config_.limit > train_set_.count) {
      throw UserError("--limit: {} images, but {} has {}; expected no more than that", config_.limit, config_.data,
                      train_set_.count);
    }
    warn_of_classes_beyond_the_limit();
    description_.architecture = spec_.name;
    description_.options = model_options(config_);
    description_.options.num_classes = train_set_.classes();
    description_.channels = train_set_.channels;
    description_.class_names = train_set_.class_names;
    description_.preprocessing = preprocessing(config_);
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
    drop_paths_ = drop_paths(spec_, description_.options);
  }

  void begin_run() {
    begin();
    if (!request_.output.empty()) {
      run_.emplace(RunDirectory::create(request_.output, config_));
      return;
    }
    // Another process may take a name between our look and our making it: then the next one is ours.
    std::string path = RunDirectory::fresh_name("runs/" + config_.model);
    while (!run_) {
      try {
        run_.emplace(RunDirectory::create(path, config_));
      } catch (const UserError&) {
        const std::string next = RunDirectory::fresh_name("runs/" + config_.model);
        if (next == path) throw;
        path = next;
      }
    }
  }

  /// Where the run that is open goes on.
  void find_start() {
    if (!request_.checkpoint.empty() || !run_->before_first_checkpoint()) return restore();
    if (observer_.on_warning) observer_.on_warning(run_->path() + ": no checkpoint yet; starting from the first step");
    begin();
  }

  /// Makes the run what it was at the start that was found; nothing can refuse it any more.
  void rewind_run() {
    // From here on the events after it are dropped, so a run that is killed must not go on from a later one.
    if (!request_.checkpoint.empty()) make_last(run_->path(), open_checkpoint(request_.checkpoint));
    atomic_write_file(run_->path() + "/config.toml", to_toml(config_));
    run_->write_metrics(state_.metrics);
    run_->rewind_events(state_.step, state_.evaluation_pending);
  }

  /// What step 0 starts from. Throws before there is a directory when the weights or the shapes do not fit.
  void begin() {
    make_step(std::min(config_.batch_size, images_per_epoch_));
    if (smaller_last_batch() > 0) make_step(smaller_last_batch());
    if (!config_.weights.empty()) {
      const auto fresh = config_.reset_head ? head_states(spec_, description_.options) : std::vector<std::string>{};
      initial_ = match_weights(WeightsFile(config_.weights), states_, fresh);
    }
    for (const StateSpec& s : states_) {
      if (!initial_.contains(s.name)) initial_[s.name] = initial_value(s, static_cast<uint64_t>(config_.seed));
    }
    state_.data_fingerprint = data_fingerprint();
    describe_machine();
  }

  void warn_of_turned_images() const {
    constexpr int64_t kLookAt = 256;
    if (!observer_.on_warning || train_set_.exif_orientation) return;
    TurnedImages found;
    for (const Dataset* data : {&train_set_, &test_set_}) {
      const TurnedImages part = look_for_turned_images(*data, kLookAt);
      found.looked_at += part.looked_at;
      found.turned += part.turned;
    }
    if (found.turned == 0) return;
    observer_.on_warning(fmt::format(
        "{}: {} of the {} images looked at carry an EXIF orientation; they are taken as they are stored, as PIL and "
        "torchvision do; --exif-orientation turns them upright",
        config_.data, found.turned, found.looked_at));
  }

  /// Folders and many lists come class by class: their first images are of the first classes.
  void warn_of_classes_beyond_the_limit() const {
    if (!observer_.on_warning || config_.limit == 0 || train_set_.in_memory()) return;
    const std::set<int32_t> seen(train_set_.labels.begin(), train_set_.labels.begin() + config_.limit);
    const int64_t missing = train_set_.classes() - static_cast<int64_t>(seen.size());
    if (missing == 0) return;
    observer_.on_warning(fmt::format("--limit: the first {} images of {} lack {} of its {} classes", config_.limit,
                                     config_.data, missing, train_set_.classes()));
  }

  bool skips_bad_samples() const { return config_.on_bad_sample == "skip"; }

  /// Of both splits: other test images would give other accuracies and another best model.
  uint64_t data_fingerprint() const { return hash_combine(train_set_.fingerprint(), test_set_.fingerprint()); }

  void describe_machine() {
    state_.threads = threads_;
    state_.instruction_set = instruction_set();
    state_.machine = session_->backend().identity();
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
                                      .passes = {.disabled = disabled_passes(config_), .observer = {}}});
  }

  /// Images of an epoch's last batch where it is smaller than the others, or 0.
  int64_t smaller_last_batch() const {
    return total_steps_ >= steps_per_epoch_ && steps_per_epoch_ > 1 ? images_per_epoch_ % config_.batch_size : 0;
  }

  /// All programs of the run, before its first step: what does not fit is found at once, the arena has its final size,
  /// and a checkpoint holds every choice of algorithm.
  void compile() {
    for (const int64_t batch : {std::min(config_.batch_size, images_per_epoch_), smaller_last_batch()}) {
      if (batch > 0) programs_.push_back({&session_->compile(make_step(batch), observer_.on_prepare), batch});
    }
    const bool evaluates = total_steps_ >= steps_per_epoch_ || !state_.metrics.empty() || state_.evaluation_pending;
    if (evaluates) {
      inference_.emplace(*session_, spec_,
                         InferenceOptions{.model = description_.options,
                                          .dtype = config_.dtype(),
                                          .images = {std::min(config_.batch_size, test_set_.count),
                                                     description_.channels, config_.image_size, config_.image_size},
                                          .passes = {.disabled = disabled_passes(config_), .observer = {}}},
                         observer_.on_prepare);
    }
    for (const std::string& text : session_->backend().take_warnings()) {
      if (observer_.on_warning) observer_.on_warning(text);
    }
  }

  Program& step_program(int64_t batch) {
    for (const StepProgram& p : programs_) {
      if (p.batch == batch) return *p.program;
    }
    throw InternalError("trainer: a batch of another size than the schedule's");
  }

  /// Throws unless the settings that shape the result are those of the run.
  void check_settings() const {
    const TrainConfig before = run_->config();
    // What shapes the result must be what it was; how long, how often and with what helpers may change.
    TrainConfig free = config_;
    // A cosine ends with the last epoch: with more of them every rate would have been another.
    if (config_.lr_scheduler != "cosineannealinglr") free.epochs = before.epochs;
    free.max_steps = before.max_steps;
    free.workers = before.workers;
    free.on_bad_sample = before.on_bad_sample;  // a run that a bad image stopped may go on without it
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
    if (state_.data_fingerprint != data_fingerprint()) {
      throw UserError(ExitCode::refused,
                      "{}: the data is not what the run was started on (fingerprint {:016x}, was {:016x})",
                      config_.data, data_fingerprint(), state_.data_fingerprint);
    }
    const std::string was = fmt::format("resnet {} on {}", state_.version, state_.machine);
    describe_machine();
    const std::string is = fmt::format("resnet {} on {}", state_.version, state_.machine);
    if (is != was && observer_.on_warning) {
      observer_.on_warning(fmt::format("resuming with {}, the run had {}: results may differ by rounding", is, was));
    }
    session_->backend().adopt(state_.choices);
    initial_ = match_weights(WeightsFile(checkpoint.path_of("model.safetensors")), states_);
    if (config_.momentum != 0) {
      const std::string optimizer = checkpoint.path_of("optimizer.safetensors");
      for (auto& [name, tensor] : read_safetensors(optimizer).tensors)
        initial_momenta_[name] = convert(tensor, config_.dtype());
    }
    if (total_steps_ < state_.step) {
      throw UserError(
          ExitCode::refused,
          "{}: {} steps are done, --epochs or --max-steps would end the run at {}; expected no earlier end; "
          "leave them out, or begin a new run",
          run_->path(), state_.step, total_steps_);
    }
  }

  void first_values() {
    compile();
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
                               .augmentation = {.random_crop_padding = config_.random_crop_padding,
                                                .hflip_prob = config_.hflip_prob},
                               .on_bad_sample = skips_bad_samples() ? BadSample::replace : BadSample::stop,
                               .start = {state_.epoch, state_.sample},
                               .epochs = config_.epochs});
    last_mark_ = Clock::now();
    while (state_.step < total_steps_) {
      const Batch* batch = loader.next();
      check(batch != nullptr, "trainer: the loader ended before the last step");
      step(*batch);
      if (batch->last_of_epoch) end_epoch();
      // Weights whose loss is not finite must not push out the last good ones.
      const bool due =
          config_.checkpoint_every > 0 && state_.step % config_.checkpoint_every == 0 && state_.non_finite_steps == 0;
      const bool last = state_.step >= total_steps_;
      stopped_by_ = stop_signal();
      if ((due || last || stopped_by_) && !batch->last_of_epoch) save();
      if (stopped_by_) return;
    }
  }

  void step(const Batch& batch) {
    Program& program = step_program(batch.size());
    const double lr = learning_rate(config_, state_.step, steps_per_epoch_);
    set_step_inputs(program, batch, lr);
    set_drop_paths(program, drop_paths_, batch, static_cast<uint64_t>(config_.seed));
    const auto start = Clock::now();
    program.run();
    const double loss = program.scalar("loss");
    const double correct = program.scalar("correct");
    step_seconds_ += seconds_since(start);
    step_images_ += batch.size();
    ++state_.step;
    state_.epoch = batch.next.epoch;
    state_.sample = batch.next.sample;
    note_bad_samples(batch);
    if (!request_.dump_gradients.empty() && !dumped_) dump_gradients(program);
    if (std::isfinite(loss)) {
      state_.non_finite_steps = 0;
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
    if (std::isfinite(loss) && (state_.step % config_.log_every == 0 || state_.step == total_steps_)) {
      run_->append_event(json{
          {"step", state_.step},
          {"epoch", batch.epoch + 1},
          {"split", "train"},
          {"loss", loss},
          {"top1", correct / static_cast<double>(batch.size())},
          {"lr", lr},
          {"images_per_second",
           rate}}.dump());
    }
    if (observer_.on_step) {
      const auto images = static_cast<double>(state_.epoch_images);  // 0, and a mean that is NaN, if none was applied
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

  /// Every time in events.jsonl and the count, once for each image to the observer.
  void note_bad_samples(const Batch& batch) {
    for (const Batch::Bad& bad : batch.bad) {
      ++state_.skipped_samples;
      run_->append_event(json{
          {"step", state_.step},
          {"epoch", batch.epoch + 1},
          {"split", "train"},
          {"skipped_sample", bad.sample},
          {"reason",
           bad.reason}}.dump(-1, ' ', false, json::error_handler_t::replace));
      if (warned_samples_.insert(bad.sample).second && observer_.on_warning) {
        observer_.on_warning(bad.reason + "; skipped: the next image that can be read stands in");
      }
    }
  }

  void diverging(double loss, int64_t epoch) {
    ++state_.non_finite_steps;
    run_->append_event(
        json{{"step", state_.step}, {"epoch", epoch + 1}, {"split", "train"}, {"loss", nullptr}, {"skipped", true}}
            .dump());
    if (observer_.on_warning) {
      observer_.on_warning(fmt::format("step {}: the loss is {}; the step was not applied ({} in a row)", state_.step,
                                       loss, state_.non_finite_steps));
    }
    constexpr int kGiveUp = 3;
    if (state_.non_finite_steps >= kGiveUp) {
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
    const ModelFile model = model_file();
    inference_->refresh();
    const Evaluation e = evaluate(*inference_, test_set_, description_.preprocessing,
                                  {.workers = static_cast<int>(config_.workers),
                                   .on_bad_sample = skips_bad_samples() ? BadSample::leave_out : BadSample::stop,
                                   .progress = [&](int64_t done, int64_t total) {
                                     if (observer_.on_evaluate) observer_.on_evaluate(done, total);
                                     return done == total || !stop_signal();
                                   }});
    state_.evaluation_pending = e.images + e.skipped < test_set_.count;
    if (state_.evaluation_pending) return save();
    if (e.images == 0) {
      throw UserError(ExitCode::bad_data, "{}: none of its {} test images can be read; expected at least one",
                      config_.data, test_set_.count);
    }
    if (e.skipped > 0 && !warned_skipped_tests_ && observer_.on_warning) {
      observer_.on_warning(
          fmt::format("{} of {} test images cannot be read; accuracies are of the others", e.skipped, test_set_.count));
      warned_skipped_tests_ = true;
    }
    const double evaluation_seconds = seconds_since(last_mark_);
    last_mark_ = Clock::now();
    const auto images = static_cast<double>(state_.epoch_images);  // 0, and means that are NaN, if no step was applied
    EpochMetrics m{.epoch = state_.epoch,
                   .train_loss = state_.epoch_loss_sum / images,
                   .train_top1 = static_cast<double>(state_.epoch_correct) / images,
                   .eval_loss = e.loss,
                   .eval_top1 = e.top1,
                   .eval_top5 = e.top5,
                   .lr = learning_rate(config_, state_.step - 1, steps_per_epoch_),
                   .images_per_second = images / state_.epoch_seconds,
                   .seconds = state_.epoch_seconds + evaluation_seconds};
    state_.metrics.push_back(m);
    state_.epoch_loss_sum = state_.epoch_seconds = 0;
    state_.epoch_correct = state_.epoch_images = 0;
    const bool is_best = e.top1 > state_.best_top1;
    if (is_best) {
      state_.best_top1 = e.top1;
      write_safetensors(run_->path() + "/best.safetensors", model);
    }
    run_->append_event(json{
        {"step", state_.step},
        {"epoch", m.epoch},
        {"split", name_of(test_set_.split)},
        {"loss", e.loss},
        {"top1", e.top1},
        {"top5", e.top5},
        {"images", e.images},
        {"skipped_samples",
         e.skipped}}.dump());
    run_->write_metrics(state_.metrics);
    if (observer_.on_epoch) observer_.on_epoch(m, is_best);
    save();
  }

  /// The model after the last step, as it goes into a file. Throws when a weight is not finite.
  ModelFile model_file() const {
    ModelFile model{to_metadata(description_), read_states(*session_, states_)};
    for (const auto& entry : model.tensors) {  // clang 14 lets no lambda capture a structured binding
      with_float(entry.second.dtype(), [&](auto tag) {
        for (auto v : entry.second.as<decltype(tag)>()) {
          if (!std::isfinite(v)) {
            throw UserError(ExitCode::diverged,
                            "{}: training diverged: '{}' is no longer finite at step {}; the last checkpoint is kept; "
                            "start again with a smaller --lr",
                            run_->path(), entry.first, state_.step);
          }
        }
      });
    }
    return model;
  }

  /// Commits a checkpoint of the state after the last step.
  void save() {
    const ModelFile model = model_file();
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
    r.total_steps = total_steps_;
    r.skipped_samples = state_.skipped_samples;
    if (state_.best_top1 >= 0) r.best_top1 = state_.best_top1;
    r.stopped_by = stopped_by_;
    r.metrics = state_.metrics;
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
    inference_->refresh();
    Loader loader(test_set_, {.batch_size = inference_->batch_size(),
                              .shuffle = false,
                              .limit = std::min(inference_->batch_size(), kSamples),
                              .dtype = config_.dtype(),
                              .workers = 0,
                              .preprocessing = description_.preprocessing,
                              .on_bad_sample = skips_bad_samples() ? BadSample::leave_out : BadSample::stop});
    const Batch& batch = *loader.next();
    std::vector<SamplePrediction> samples;
    if (batch.size() == 0) return samples;
    const Tensor logits = convert(inference_->run(batch.images), DType::f64);
    for (int64_t n = 0; n < batch.size(); ++n) {
      const auto classes = static_cast<size_t>(logits.shape()[1]);
      const std::vector<double> p = softmax(logits.as<double>().subspan(static_cast<size_t>(n) * classes, classes));
      const auto best = static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin());
      samples.push_back({batch.samples[static_cast<size_t>(n)],
                         test_set_.class_names[static_cast<size_t>(batch.labels[static_cast<size_t>(n)])],
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
  std::vector<DropPath> drop_paths_;  ///< branches of stochastic depth
  std::optional<InferenceProgram> inference_;
  TrainState state_;
  Clock::time_point last_mark_;
  double step_seconds_ = 0, seconds_per_image_ = 0;
  int64_t step_images_ = 0;
  int stopped_by_ = 0;
  std::set<int64_t> warned_samples_;
  bool warned_skipped_tests_ = false;
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
