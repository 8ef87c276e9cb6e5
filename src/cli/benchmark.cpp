#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "plan/plan.h"
#include "runtime/backends.h"
#include "train/inference.h"
#include "train/model_file.h"
#include "train/training_step.h"

namespace resnet::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model, mode = "inference", backend = "cpu";
  std::optional<std::string> precision;
  int64_t batch_size = 32, micro_batch = 0, streams = 0, threads = 0, runs = 0, image_size = 0;
  double seconds = 10;
  bool json = false, profile = false, dump_plan = false;
};

/// Standard-normal images, random labels and weights: what is computed does not depend on them.
void fill(Tensor& tensor, const std::string& name, int64_t classes) {
  Rng rng(hash_text(name));
  if (tensor.dtype() == DType::i32) {
    for (int32_t& label : tensor.as<int32_t>()) label = static_cast<int32_t>(rng.below(static_cast<uint64_t>(classes)));
  } else if (tensor.shape().rank() == 0) {
    tensor.as<float>()[0] = 0.01f;
  } else {
    for (float& value : tensor.as<float>()) value = static_cast<float>(rng.normal());
  }
}

void fill_inputs(Program& program, int64_t classes) {
  for (const auto& [name, index] : program.plan().inputs) {
    Tensor tensor(program.plan().buffers[static_cast<size_t>(index)].value.type);
    fill(tensor, name, classes);
    program.set_input(name, tensor);
  }
}

/// A net of linear layers has weights for each pixel of one image size.
bool fits(const std::vector<StateSpec>& stored, const std::vector<StateSpec>& wanted) {
  std::map<std::string, TensorType> types;
  for (const StateSpec& state : stored) types.emplace(state.name, state.type);
  return std::all_of(wanted.begin(), wanted.end(), [&](const StateSpec& state) {
    const auto found = types.find(state.name);
    return found != types.end() && found->second == state.type;
  });
}

/// A step of the plan: what it moves and does, how long it should take by the machine's two limits, and how long it
/// took.
struct StepReport {
  std::string op, name, algorithm, layout;
  double flops = 0;  ///< that the algorithm does
  size_t bytes = 0, offset = 0;
  double predicted_ms = 0, measured_ms = 0;
};

struct Limits {
  double peak = 0;       ///< multiply-adds, FLOP/s
  double bandwidth = 0;  ///< of memory, bytes/s
};

/// The roofline (Williams et al. 2009): the longer of the algorithm's FLOPs at the peak rate and its bytes at the
/// memory's. What lies in a cache comes faster than that, so a step may beat its prediction.
std::vector<StepReport> report_steps(const Program& program, const Limits& limits) {
  std::vector<StepReport> reports;
  const Plan& plan = program.plan();
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const Node& node = program.graph().node(step.node);
    StepReport r{.op = std::string(node.op->name),
                 .name = node.name,
                 .algorithm = step.kernel->algorithm(),
                 .flops = step.kernel->flops().value_or(step.cost.flops),
                 .bytes = bytes_moved(plan, step)};
    const Buffer& out = plan.buffers[static_cast<size_t>(step.out[0])];
    r.layout = out.value.layout.str();
    r.offset = out.offset;
    r.predicted_ms = 1e3 * std::max(r.flops / limits.peak, static_cast<double>(r.bytes) / limits.bandwidth);
    r.measured_ms = 1e3 * program.step_seconds()[i] / static_cast<double>(program.profiled_runs());
    reports.push_back(std::move(r));
  }
  return reports;
}

std::string in_words(const MicroBatch& together) {
  return together.streams == 1
             ? fmt::format("{} images at a time", together.images)
             : fmt::format("{} images at a time, in {} streams of one thread each", together.images, together.streams);
}

void print_plan(const std::vector<StepReport>& steps, const Plan& plan, const MicroBatch& together,
                const Limits& limits) {
  std::vector<std::vector<std::string>> rows = {
      {"op", "name", "algorithm", "result", "MFLOP", "KiB moved", "offset", "predicted ms", "measured ms"}};
  double predicted = 0, measured = 0;
  for (const StepReport& r : steps) {
    rows.push_back({r.op, r.name, r.algorithm, r.layout, fmt::format("{:.2f}", r.flops / 1e6),
                    std::to_string(r.bytes / 1024), std::to_string(r.offset), fmt::format("{:.3f}", r.predicted_ms),
                    fmt::format("{:.3f}", r.measured_ms)});
    predicted += r.predicted_ms;
    measured += r.measured_ms;
  }
  std::fputs(table(rows, 4).c_str(), stderr);
  const std::string of = together.streams == 1 ? "" : fmt::format(" in one of {} streams", together.streams);
  std::fputs(fmt::format("{} steps for {} images{}, predicted {:.2f} ms, measured {:.2f} ms; predicted: the longer of "
                         "FLOPs at {:.0f} GFLOP/s and bytes at {:.1f} GB/s\narena: {} bytes ({:.1f} MiB)\n",
                         steps.size(), together.program_images(), of, predicted, measured, limits.peak / 1e9,
                         limits.bandwidth / 1e9, plan.arena_bytes, static_cast<double>(plan.arena_bytes) / (1 << 20))
                 .c_str(),
             stderr);
}

json to_json(const std::vector<StepReport>& steps) {
  json list = json::array();
  for (const StepReport& r : steps) {
    list.push_back({{"op", r.op},
                    {"name", r.name},
                    {"algorithm", r.algorithm},
                    {"layout", r.layout},
                    {"flops", r.flops},
                    {"bytes", r.bytes},
                    {"offset", r.offset},
                    {"predicted_ms", r.predicted_ms},
                    {"measured_ms", r.measured_ms}});
  }
  return list;
}

/// Times and rates of a batch, one of `batches` that the program, or the first stream's, was run for.
void print_profile(const Program& program, int64_t batches, double peak) {
  const double parts = static_cast<double>(program.profiled_runs()) / static_cast<double>(batches);
  struct Line {
    double seconds = 0, flops = 0;
    int64_t steps = 0;
  };
  std::map<std::string, Line> by_kernel;
  const auto& steps = program.plan().steps;
  std::vector<std::vector<std::string>> rows = {{"op", "name", "algorithm", "ms", "GFLOP/s", "of peak"}};
  for (size_t i = 0; i < steps.size(); ++i) {
    const Node& node = program.graph().node(steps[i].node);
    const double seconds = program.step_seconds()[i] / static_cast<double>(batches);
    Line& line = by_kernel[fmt::format("{} ({})", node.op->name, steps[i].kernel->algorithm())];
    line.seconds += seconds;
    const double flops = steps[i].cost.flops * parts;
    line.flops += flops;
    ++line.steps;
    rows.push_back({std::string(node.op->name), node.name, steps[i].kernel->algorithm(),
                    fmt::format("{:.3f}", 1e3 * seconds), fmt::format("{:.0f}", flops / seconds / 1e9),
                    fmt::format("{:.0f} %", 100 * flops / seconds / peak)});
  }
  std::fputs(table(rows, 3).c_str(), stderr);
  std::vector<std::pair<double, std::string>> order;
  double total = 0;
  for (const auto& [name, line] : by_kernel) {
    order.emplace_back(-line.seconds, name);
    total += line.seconds;
  }
  std::sort(order.begin(), order.end());
  rows = {{"kernel", "steps", "ms", "share", "GFLOP/s"}};
  for (const auto& [negative, name] : order) {
    const Line& line = by_kernel[name];
    rows.push_back({name, std::to_string(line.steps), fmt::format("{:.2f}", 1e3 * line.seconds),
                    fmt::format("{:.1f} %", 100 * line.seconds / total),
                    fmt::format("{:.0f}", line.flops / line.seconds / 1e9)});
  }
  std::fputs(("\n" + table(rows)).c_str(), stderr);
}

int run_benchmark(const Arguments& a) {
  if (a.mode != "inference" && a.mode != "training")
    throw UserError("--mode: '{}'; expected inference or training", escape_control(a.mode));
  const std::optional<Precision> asked = parse_precision(a.precision);
  if (asked.value_or(Precision::f32) != Precision::f32 && a.mode == "training")
    throw UserError("--precision: {} with --mode training; expected f32, which is what training computes in",
                    name_of(*asked));
  if (a.batch_size < 1 || a.batch_size > 65536)
    throw UserError("--batch-size: {}; expected 1 to 65536 images", a.batch_size);
  require_thread_count(a.threads);
  if (a.runs < 0) throw UserError("--runs: {}; expected 0 (by --seconds) or more", a.runs);
  if (!(a.seconds > 0 && a.seconds <= 3600))
    throw UserError("--seconds: {}; expected a number in (0, 3600]", a.seconds);
  if (a.micro_batch < 0 || a.micro_batch > a.batch_size)
    throw UserError("--micro-batch: {}; expected 0 (the fastest) to the batch size, {}", a.micro_batch, a.batch_size);
  if (a.micro_batch > 0 && a.mode == "training")
    throw UserError("--micro-batch: {} with --mode training; expected --mode inference: a step takes the batch whole",
                    a.micro_batch);
  if (a.streams > 0 && a.mode == "training")
    throw UserError("--streams: {} with --mode training; expected --mode inference", a.streams);
  if (a.image_size < 0 || a.image_size > 8192)
    throw UserError("--image-size: {}; expected 1 to 8192 pixels", a.image_size);
  ModelOptions options;
  ModelSpec model;
  std::shared_ptr<const OpenModel> file;
  if (is_model_file(a.model)) {
    file = std::make_shared<const OpenModel>(a.model);
    const ModelDescription& d = file->description();
    model = find_model(d.architecture);
    options = d.options;
    model.input = {d.channels, d.preprocessing.image_size, d.preprocessing.image_size};
    if (file->dtype() != DType::f32) throw UserError("{}: f64 weights; expected f32", a.model);
  } else {
    model = find_model(a.model);
  }
  if (a.image_size > 0) model.input = {model.input[0], a.image_size, a.image_size};
  const bool quantized = file && file->quantization();
  if (quantized && a.mode == "training")
    throw UserError(ExitCode::refused,
                    "{}: holds 8-bit weights; expected --mode inference, or the f32 model it was made from",
                    escape_control(a.model));
  const Precision precision = precision_of(asked, quantized);
  if (file && !quantized && !fits(file->states(), model_states(model, options, DType::f32))) {
    throw UserError("--image-size: {}; the weights of {} are for images of {} pixels; leave it out", a.image_size,
                    escape_control(a.model), file->description().preprocessing.image_size);
  }
  const int threads = compute_threads(a.threads);
  Session session(make_backend(a.backend, threads, AlgorithmChoice::measured, precision));
  const int streams = session.backend().streams();
  if (a.streams < 0 || (a.streams > 1 && (a.streams != streams || a.streams > a.batch_size)))
    throw UserError("--streams: {}; expected 0, 1{}", a.streams,
                    streams == 1
                        ? ", or with the backend cpu and several threads their number"
                        : fmt::format(", or the number of threads, {}, of a batch with as many images", streams));
  if (a.micro_batch > 0 && a.micro_batch < a.streams)
    throw UserError("--micro-batch: {}; expected 0, or an image for each of {} streams", a.micro_batch, a.streams);
  const double peak = fma_peak(threads);
  const Shape images{a.batch_size, model.input[0], model.input[1], model.input[2]};
  Progress progress;
  const PlanProgress prepare = preparing(progress);
  const auto random_values = [&] {
    std::map<std::string, Tensor> values;
    for (const StateSpec& s : model_states(model, options, DType::f32)) values[s.name] = initial_value(s, 0);
    return values;
  };
  Program* program = nullptr;
  std::optional<InferenceProgram> inference;
  const int64_t classes = options.num_classes > 0 ? options.num_classes : model.num_classes;
  if (a.mode == "training") {
    program = &session.compile(make_training_step(model, {.model = options, .images = images}), prepare);
    write_states(session, file ? file->values() : random_values());
  } else {
    if (quantized) file->values();  // what a damaged file holds is said before kernels are measured
    inference.emplace(session, model,
                      InferenceOptions{.model = options,
                                       .images = images,
                                       .micro_batch = a.micro_batch > 0 ? a.micro_batch : kMeasuredMicroBatch,
                                       .streams = static_cast<int>(a.streams),
                                       .passes = {},
                                       .keep_model_states = false,
                                       .quantization = quantized ? &*file->quantization() : nullptr},
                      prepare);
    program = &inference->program();
    if (file) {
      inference->load(file, WeightsCache::from_environment(threads), KeepStates::unpacked);
    } else {
      inference->load(random_values(), KeepStates::unpacked);
    }
  }
  Tensor batch;
  if (inference) {
    batch = Tensor(DType::f32, images);
    fill(batch, "images", classes);
  } else {
    fill_inputs(*program, classes);
  }
  const auto run = [&] {
    if (inference) {
      inference->run(batch);
    } else {
      program->run();
    }
  };
  run();  // code and caches warm, weights packed
  if (inference) inference->keep_for_next_start();
  for (const std::string& text : session.backend().take_warnings()) progress.print("resnet: warning: " + text);
  program->profile(a.profile || a.dump_plan);
  std::vector<double> rates, run_seconds;
  const auto start = Clock::now();
  while (a.runs > 0 ? static_cast<int64_t>(rates.size()) < a.runs
                    : std::chrono::duration<double>(Clock::now() - start).count() < a.seconds || rates.size() < 3) {
    const auto begin = Clock::now();
    run();
    run_seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    rates.push_back(static_cast<double>(a.batch_size) / run_seconds.back());
    progress.update(fmt::format("run {}  {:.1f} img/s", rates.size(), rates.back()));
  }
  progress.clear();
  const MicroBatch together = inference ? inference->micro_batch() : MicroBatch{.images = a.batch_size};
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto resident = static_cast<size_t>(usage.ru_maxrss) * 1024;
  std::vector<StepReport> steps;
  if (a.dump_plan) {
    const Limits limits{.peak = peak / together.streams, .bandwidth = memory_bandwidth(threads) / together.streams};
    steps = report_steps(*program, limits);
    if (!a.json) {
      print_plan(steps, program->plan(), together, limits);
      if (inference) {
        std::fputs(fmt::format("weights: from {}; {} adopted, {} packed at this start\n",
                               escape_control(inference->weights_origin()), bytes(session.adopted_bytes()),
                               session.packed_states())
                       .c_str(),
                   stderr);
      }
    }
  }
  if (a.profile) print_profile(*program, static_cast<int64_t>(rates.size()), peak / together.streams);
  std::sort(rates.begin(), rates.end());
  const double median =
      rates.size() % 2 ? rates[rates.size() / 2] : (rates[rates.size() / 2 - 1] + rates[rates.size() / 2]) / 2;
  // Above 1 is possible: FLOPs are counted as a direct convolution's, and Winograd does fewer.
  const double share = program->flops() * median / static_cast<double>(together.program_images()) / peak;
  const std::string computed_in = name_of(precision);
  const size_t planned = session.arena_bytes() + session.state_bytes() + session.held_bytes();
  if (a.json) {
    json result = {{"model", a.model},
                   {"mode", a.mode},
                   {"batch_size", a.batch_size},
                   {"micro_batch", together.images},
                   {"streams", together.streams},
                   {"input_size", model.input.str()},
                   {"precision", computed_in},
                   {"backend", a.backend},
                   {"threads", threads},
                   {"instruction_set", instruction_set()},
                   {"runs", rates.size()},
                   {"seconds", run_seconds},
                   {"images_per_second", {{"median", median}, {"min", rates.front()}, {"max", rates.back()}}},
                   {"fma_peak_gflops", peak / 1e9},
                   {"peak_share", share},
                   {"peak_bytes", planned},
                   {"arena_bytes", session.arena_bytes()},
                   {"state_bytes", session.state_bytes()},
                   {"packed_bytes", session.held_bytes()},
                   {"resident_bytes", resident}};
    if (inference) {
      result["weights"] = {{"from", inference->weights_origin()},
                           {"adopted_bytes", session.adopted_bytes()},
                           {"packed_states", session.packed_states()}};
    }
    if (a.dump_plan) result["plan"] = to_json(steps);
    std::printf("%s\n", result.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
    return 0;
  }
  std::printf(
      "%s",
      table({{"model",
              fmt::format("{}, {}{}, {} at batch {}, {} {}", a.model, computed_in == "f32" ? "" : computed_in + " ",
                          a.mode, model.input.str(), a.batch_size, threads, threads == 1 ? "thread" : "threads")},
             {"speed", fmt::format("{:.1f} img/s (median of {}; {:.1f} to {:.1f})", median, rates.size(), rates.front(),
                                   rates.back())},
             {"FLOPs",
              fmt::format("{:.0f} GFLOP/s, {:.0f} % of the measured FMA peak of {:.0f} (direct convolution's count)",
                          share * peak / 1e9, 100 * share, peak / 1e9)},
             {"micro-batch", in_words(together)},
             {"memory", fmt::format("{} planned, {} resident", bytes(planned), bytes(resident))}},
            2)
          .c_str());
  return 0;
}

}  // namespace

Command add_benchmark(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("benchmark", "Images a second, and the share of the machine's peak");
  verb->add_option("MODEL", a->model, "name of an architecture, or a model file")->required();
  verb->add_option("--mode", a->mode, "inference or training")->capture_default_str();
  verb->add_option("-b,--batch-size", a->batch_size, "images at a time")->capture_default_str();
  verb->add_option("--micro-batch", a->micro_batch,
                   "images that go through the network together; 0: what is best for speed and memory, measured once")
      ->capture_default_str();
  verb->add_option("--streams", a->streams,
                   "parts of a micro-batch that one thread each computes at once, instead of all threads together: 1, "
                   "or as many as threads; 0: as was measured with the micro-batch, 1 where that is given. A measured "
                   "micro-batch is the best of the way that was measured to be as good, so give --micro-batch, too")
      ->capture_default_str();
  verb->add_option("--image-size", a->image_size, "side of the input, pixels; 0: the model's own")
      ->capture_default_str();
  verb->add_option("--precision", a->precision,
                   "f32, or f16: inference with products in half precision, on a processor with AVX512-FP16; default "
                   "f32, or int8 for a file that `resnet quantize` wrote, which computes in nothing else");
  verb->add_option("--threads", a->threads, "compute threads; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("--seconds", a->seconds, "how long to measure")->capture_default_str();
  verb->add_option("--runs", a->runs, "measure N runs instead; 0: by --seconds")->capture_default_str();
  verb->add_option("--backend", a->backend, "cpu or reference")->capture_default_str();
  verb->add_flag("--profile", a->profile, "time each kernel (on stderr)");
  verb->add_flag("--dump-plan", a->dump_plan,
                 "print each step's algorithm, bytes, place, predicted and measured time (on stderr, or in the JSON)");
  verb->add_flag("--json", a->json, "print as JSON");
  verb->footer("Example: resnet benchmark lecture_resnet18 --mode training --batch-size 256");
  return [a] { return run_benchmark(*a); };
}

}  // namespace resnet::cli
