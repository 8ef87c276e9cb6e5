#include "train/inference.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "base/align.h"
#include "base/build_id.h"
#include "base/memory.h"
#include "base/rng.h"
#include "train/quantized_model.h"

namespace resnet {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Weights of the size that keeps activations as they are (He et al. 2015, arXiv:1502.01852, eq. 10), no biases: what
/// is timed must meet neither denormals nor the kernel's one page of zeros, which no cache would miss. Kept as load()
/// keeps them where memory counts.
void fill_states(Session& session, const Program& program) {
  for (const int index : program.plan().states) {
    const Buffer& state = program.plan().buffers[static_cast<size_t>(index)];
    const Shape& shape = state.value.type.shape;
    if (shape.rank() < 2) continue;
    const double bound = std::sqrt(6.0 * static_cast<double>(shape[0]) / static_cast<double>(shape.elements()));
    Tensor values(state.value.type);
    Rng rng(hash_text(state.state));
    if (values.dtype() == DType::i8) {
      for (int8_t& value : values.as<int8_t>()) value = static_cast<int8_t>(rng.uniform(-127, 128));
      session.write_state(state.state, values);
      session.keep_packed_only(state.state);
      continue;
    }
    with_float(values.dtype(), [&](auto tag) {
      using T = decltype(tag);
      for (T& value : values.as<T>()) value = static_cast<T>(rng.uniform(-bound, bound));
    });
    session.write_state(state.state, values);
    session.keep_packed_only(state.state);
  }
}

Shape with_images(Shape shape, int64_t count) {
  shape[0] = count;
  return shape;
}

/// What is prepared in its scope saves memory, if asked to; what is prepared after it does not.
class SavingMemory {
 public:
  SavingMemory(Backend& backend, bool on) : backend_(backend) { backend_.save_memory(on); }
  ~SavingMemory() { backend_.save_memory(false); }
  SavingMemory(const SavingMemory&) = delete;
  SavingMemory& operator=(const SavingMemory&) = delete;

 private:
  Backend& backend_;
};

/// A micro-batch compiled with random weights in a session of its own.
class Candidate {
 public:
  Candidate(Session& like, const ModelSpec& model, const InferenceOptions& options, const MicroBatch& together,
            const PlanProgress& progress)
      : session_(like.shared_backend()),
        program_(session_, model, with_micro_batch(options, together), progress),
        images_(options.dtype, with_images(options.images, together.images)) {
    fill_states(session_, program_.program());
    Rng rng(1);
    with_float(images_.dtype(), [&](auto tag) {
      using T = decltype(tag);
      for (T& value : images_.as<T>()) value = static_cast<T>(rng.normal());
    });
    program_.run(images_);  // code and caches warm, weights packed
    const Plan& plan = program_.program().plan();
    bytes_ = static_cast<double>(session_.arena_bytes());
    for (const int index : plan.states) {
      const ValueInfo& state = plan.buffers[static_cast<size_t>(index)].value;
      bytes_ += static_cast<double>(storage_bytes(state.type, state.layout));
    }
  }

  std::string str() const { return ::resnet::str(program_.micro_batch()); }
  /// Of activations and plain weights: which of them are packed hangs on the chance of what was measured.
  double bytes() const { return bytes_; }

  /// The mean over a window of time that is the same for every number of images, or over one run where that is longer.
  double seconds_per_image() {
    constexpr double kWindow = 0.12;
    const auto start = Clock::now();
    int64_t runs = 0;
    for (; runs == 0 || seconds_since(start) < kWindow; ++runs) program_.run(images_);
    return seconds_since(start) / static_cast<double>(runs * images_.shape()[0]);
  }

 private:
  static InferenceOptions with_micro_batch(InferenceOptions options, const MicroBatch& together) {
    options.keep_model_states = false;
    options.micro_batch = together.images;
    options.streams = together.streams;
    return options;
  }

  Session session_;
  InferenceProgram program_;
  Tensor images_;
  double bytes_;
};

/// How much longer `b` takes for an image than `a`: the median of pairs. The rest of the machine makes both slower, and
/// for seconds on end: only what is measured side by side can be compared.
double paired_ratio(Candidate& a, Candidate& b, const PlanProgress& progress) {
  constexpr size_t kFewest = 7, kMost = 41;
  constexpr double kEnough = 6;  // seconds
  std::vector<double> ratios;
  const auto start = Clock::now();
  while (ratios.size() < kFewest || (ratios.size() < kMost && seconds_since(start) < kEnough)) {
    const bool a_first = ratios.size() % 2 == 0;
    const double first = (a_first ? a : b).seconds_per_image();
    const double second = (a_first ? b : a).seconds_per_image();
    ratios.push_back(a_first ? second / first : first / second);
    if (!progress) continue;
    const auto done = static_cast<double>(ratios.size());
    const double pairs = std::clamp(std::ceil(kEnough / seconds_since(start) * done), double{kFewest}, double{kMost});
    progress(fmt::format("comparing micro-batches of {} and {}", a.str(), b.str()), static_cast<int>(done),
             static_cast<int>(std::max(pairs, done)));
  }
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  return *middle;
}

MicroBatch micro_batch_of(Session& session, const ModelSpec& model, const InferenceOptions& options,
                          const PlanProgress& progress) {
  const int64_t all = options.images[0];
  double bytes = static_cast<double>(size_of(options.dtype));
  for (const int64_t dim : options.images.dims()) bytes *= static_cast<double>(dim);
  require_memory(bytes, available_memory());  // before hours are spent on measuring
  MicroBatch together;
  if (options.micro_batch == kMeasuredMicroBatch) {
    together = measure_micro_batch(session, model, options, progress);
  } else {
    check(options.micro_batch >= 0, "InferenceProgram: a negative micro-batch");
    together.images = options.micro_batch == 0 ? all : std::min(options.micro_batch, all);
  }
  if (options.streams > 0) together.streams = options.streams;
  check(together.streams == 1 || together.streams == session.backend().streams(),
        "InferenceProgram: other than one stream or all of the backend's");
  check(together.streams <= all, "InferenceProgram: more streams than images");
  together.images = std::max<int64_t>(together.images, together.streams);
  return together;
}

constexpr int64_t kFewImages = 8;
constexpr double kFreeBytes = 160e6;

}  // namespace

std::string str(const MicroBatch& together) {
  return together.streams == 1 ? fmt::format("{}", together.images)
                               : fmt::format("{} in {} streams", together.images, together.streams);
}

std::optional<MicroBatch> parse_micro_batch(std::string_view text) {
  MicroBatch together;
  const auto number = [&](auto& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return error == std::errc() && value >= 1;
  };
  if (!number(together.images)) return std::nullopt;
  constexpr std::string_view kIn = " in ", kStreams = " streams";
  if (text.empty()) return together;
  if (!text.starts_with(kIn)) return std::nullopt;
  text.remove_prefix(kIn.size());
  if (!number(together.streams) || text != kStreams || together.streams > together.images) return std::nullopt;
  return together;
}

bool saves_memory(int64_t together, int64_t batch) { return together < batch && together <= kFewImages; }

int64_t best_micro_batch(std::span<const MicroBatchTrial> trials) {
  constexpr double kAsFast = 1.15;
  constexpr double kAlike = 1.01;  // what is closer than that is chance
  double fastest = std::numeric_limits<double>::infinity();
  for (const MicroBatchTrial& trial : trials) fastest = std::min(fastest, trial.seconds);
  const auto cost = [&](const MicroBatchTrial& trial) {
    if (trial.seconds > kAsFast * fastest) return std::numeric_limits<double>::infinity();
    return trial.seconds * std::sqrt(std::max(trial.bytes, kFreeBytes));
  };
  double least = std::numeric_limits<double>::infinity();
  for (const MicroBatchTrial& trial : trials) least = std::min(least, cost(trial));
  const auto best = std::find_if(trials.begin(), trials.end(),
                                 [&](const MicroBatchTrial& trial) { return cost(trial) <= kAlike * least; });
  check(best != trials.end(), "best_micro_batch: nothing was tried");
  return best->count;
}

int64_t confirmed_micro_batch(std::span<const MicroBatchTrial> trials,
                              const std::function<double(int64_t leaner, int64_t chosen)>& compare_again) {
  const int64_t first_choice = best_micro_batch(trials);
  auto chosen = std::find_if(trials.begin(), trials.end(),
                             [&](const MicroBatchTrial& trial) { return trial.count == first_choice; });
  for (; chosen != trials.begin() && chosen->bytes > kFreeBytes; --chosen) {
    MicroBatchTrial leaner = *std::prev(chosen), again = *chosen;
    leaner.seconds = 1;
    again.seconds = compare_again(leaner.count, again.count);
    if (best_micro_batch(std::array{leaner, again}) == again.count) break;
  }
  return chosen->count;
}

bool streams_are_as_good(int streams, int64_t all,
                         const std::function<double(MicroBatch by_team, MicroBatch in_streams)>& compare) {
  constexpr int64_t kForEach = 8;
  constexpr double kAsGood = 1.05;
  const int64_t several = std::min(all, kForEach * streams);
  if (streams == 1 || several < streams) return false;
  try {
    return compare({.images = several}, {.images = several, .streams = streams}) <= kAsGood;
  } catch (const ResourceError&) {
    return false;
  }
}

std::string micro_batch_problem(const ModelSpec& model, const InferenceOptions& options) {
  return fmt::format("micro-batch {:016x} of {}{}", hash_text(print(*make_inference_graph(model, options))),
                     options.images[0],
                     options.quantization ? fmt::format(" int8 {}", options.quantization->layers.size()) : "");
}

MicroBatch measure_micro_batch(Session& session, const ModelSpec& model, const InferenceOptions& options,
                               const PlanProgress& progress) {
  const int64_t all = options.images[0];
  Backend& backend = session.backend();
  if (all == 1 || !backend.measures()) return {.images = all};
  const std::string problem = micro_batch_problem(model, options);
  if (const auto text = backend.recall(problem)) {
    const auto known = parse_micro_batch(*text);
    if (known && known->images <= all && (known->streams == 1 || known->streams == backend.streams())) return *known;
  }
  const auto candidate = [&](MicroBatch together) {
    return std::make_unique<Candidate>(session, model, options, together, progress);
  };
  const auto compare = [&](const MicroBatch& one, const MicroBatch& other) {
    const auto a = candidate(one), b = candidate(other);
    return paired_ratio(*a, *b, progress);
  };
  const int streams = streams_are_as_good(backend.streams(), all, compare) ? backend.streams() : 1;
  std::vector<int64_t> counts;
  for (int64_t count = streams; count < all; count *= 2) counts.push_back(count);
  counts.push_back(all);
  auto last = candidate({.images = counts[0], .streams = streams});
  std::vector<MicroBatchTrial> trials = {{.count = counts[0], .seconds = 1, .bytes = last->bytes()}};
  double fastest = 1;
  // What a larger number gains is less and less, once its kernels are the fastest: three that gain nothing end it. Two
  // did by chance, before the number that is fastest in 8 bits, the whole batch of 32.
  for (int without_gain = 0;
       trials.size() < counts.size() && (without_gain < 3 || saves_memory(trials.back().count, all));) {
    const int64_t count = counts[trials.size()];
    std::unique_ptr<Candidate> next;
    try {
      next = candidate({.images = count, .streams = streams});
    } catch (const ResourceError&) {
      break;  // what fits has been tried
    }
    const double seconds = trials.back().seconds * paired_ratio(*last, *next, progress);
    trials.push_back({.count = count, .seconds = seconds, .bytes = next->bytes()});
    last = std::move(next);
    without_gain = seconds < fastest ? 0 : without_gain + 1;
    fastest = std::min(fastest, seconds);
  }
  last.reset();
  bool short_of_memory = false;
  MicroBatch best{.images = 0, .streams = streams};
  best.images = confirmed_micro_batch(trials, [&](int64_t leaner, int64_t chosen) {
    try {
      return compare({.images = leaner, .streams = streams}, {.images = chosen, .streams = streams});
    } catch (const ResourceError&) {
      short_of_memory = true;  // for now, as both fitted before: the next start looks again
      return std::numeric_limits<double>::infinity();
    }
  });
  if (!short_of_memory) backend.remember(problem, str(best));
  return best;
}

std::unique_ptr<Graph> make_inference_graph(const ModelSpec& model, const InferenceOptions& options) {
  auto graph = std::make_unique<Graph>();
  const Value images = graph->input("images", {options.dtype, options.images});
  ModelBuilder builder{*graph, options.dtype, false, {}};
  graph->set_output("logits", build_model(model, Scope(builder), images, options.model));
  return graph;
}

double inference_flops(const ModelSpec& model, const InferenceOptions& options) {
  const auto graph = make_inference_graph(model, options);
  double flops = 0;
  for (const int32_t id : graph->live_nodes()) {
    const Node& node = graph->node(id);
    if (node.kind != NodeKind::op) continue;
    std::vector<TensorType> inputs;
    for (const Value& input : node.inputs) inputs.push_back(input.type());
    flops += node.op->cost(node.attributes, inputs, node.outputs).flops;
  }
  return flops;
}

InferenceProgram::InferenceProgram(Session& session, const ModelSpec& model, const InferenceOptions& options,
                                   const PlanProgress& progress)
    : session_(session),
      images_(options.images),
      dtype_(options.dtype),
      micro_batch_(micro_batch_of(session, model, options, progress)),
      quantization_(options.quantization) {
  try {
    compile(model, options, progress);
  } catch (...) {
    for (const Part& part : parts_) session_.release(*part.program);
    throw;
  }
}

void InferenceProgram::compile(const ModelSpec& model, const InferenceOptions& options, const PlanProgress& progress) {
  InferenceOptions together = options;
  together.images = with_images(options.images, micro_batch_.program_images());
  const SavingMemory saving(session_.backend(), options.save_memory || saves_memory(micro_batch_.images, images_[0]));
  for (int stream = 0; stream < micro_batch_.streams; ++stream) {
    auto graph = make_inference_graph(model, together);
    folded_ = run_inference_passes(*graph, quantization_ ? before_quantization(options.passes) : options.passes);
    if (quantization_) {
      QuantizedGraph quantized = quantize_graph(*graph, quantization_->layers);
      graph = std::move(quantized.graph);
      derived_ = std::move(quantized.derived);
      folded_.clear();
    }
    // The folded states follow from the model's own, which the graph no longer reads.
    for (const auto& [name, id] : graph->leaves()) {
      if (options.keep_model_states && !quantization_ && graph->node(id).kind == NodeKind::state)
        session_.add_state(name, graph->node(id).outputs[0]);
    }
    const auto place = micro_batch_.streams == 1 ? std::nullopt : std::optional(stream);
    parts_.push_back({.program = &session_.compile(std::move(graph), progress, place), .partial = {}});
  }
  const Plan& plan = parts_[0].program->plan();
  const Buffer& input = plan.buffers[static_cast<size_t>(plan.inputs.at("images"))];
  reads_in_place_ = input.value.layout.kind == Layout::Kind::plain;
}

void InferenceProgram::refresh() {
  check(!quantization_, "InferenceProgram::refresh: a quantised model has no states to follow");
  auto read = [&](const std::string& name) { return session_.read_state(name); };
  for (const FoldedConvolution& f : folded_) {
    write_folded(f, {.weight = read(f.weight),
                     .bias = f.bias.empty() ? Tensor() : read(f.bias),
                     .gamma = read(f.gamma),
                     .beta = read(f.beta),
                     .mean = read(f.mean),
                     .variance = read(f.variance)});
  }
}

void InferenceProgram::load(std::map<std::string, Tensor> values, KeepStates keep) {
  // Of a folded convolution nothing but the result is needed: its memory goes back before the next one's is taken.
  auto take = [&](const std::string& name) {
    const auto found = values.find(name);
    check(found != values.end(), "InferenceProgram::load: a state without a value");
    return std::move(values.extract(found).mapped());
  };
  std::set<std::string> written;
  for (const DerivedState& state : derived_) {
    session_.write_state(state.state, derive(state, values, *quantization_));
    written.insert(state.state);
  }
  for (const FoldedConvolution& f : folded_) {
    write_folded(f, {.weight = take(f.weight),
                     .bias = f.bias.empty() ? Tensor() : take(f.bias),
                     .gamma = take(f.gamma),
                     .beta = take(f.beta),
                     .mean = take(f.mean),
                     .variance = take(f.variance)});
    if (keep == KeepStates::unpacked) session_.keep_packed_only(f.folded_weight);
    written.insert({f.folded_weight, f.folded_bias});
  }
  for (const int state : program().plan().states) {
    const std::string& name = program().plan().buffers[static_cast<size_t>(state)].state;
    if (written.contains(name)) continue;
    session_.write_state(name, take(name));
    if (keep == KeepStates::unpacked) session_.keep_packed_only(name);
  }
}

void InferenceProgram::load(std::shared_ptr<const OpenModel> model, const WeightsCache& cache, KeepStates keep) {
  // Below this the file is read and folded in less time than it takes to find another: there is nothing to gain.
  constexpr size_t kWorthKeeping = size_t{4} << 20;
  const bool packed_only = keep == KeepStates::unpacked;
  const std::vector<Constant> constants = session_.constants(packed_only);
  const std::string build = build_id();
  std::string why_not = !cache.enabled() ? "the cache is off" : build.empty() ? "the build has no id" : "";
  std::vector<size_t> bytes;
  for (const Constant& constant : constants) bytes.push_back(constant.bytes);
  if (why_not.empty() && std::accumulate(bytes.begin(), bytes.end(), size_t{0}) < kWorthKeeping) why_not = "small";
  const std::optional<ContentHash> content = why_not.empty() ? model->content(cache.threads()) : std::nullopt;
  if (why_not.empty() && !content) why_not = "no safetensors file";
  weights_origin_ = fmt::format("file ({})", why_not);
  if (!why_not.empty()) return load(model->values(), keep);

  std::string description =
      fmt::format("weights 1\nbuild {}\nbackend {}: {}\nmodel {}\ngraph {:016x}\n", build, session_.backend().name(),
                  session_.backend().identity(), content->hex(), hash_text(print(program().graph())));
  for (const Constant& constant : constants) description += constant.str() + '\n';
  if (auto found = cache.find(description, bytes)) {
    const std::vector<const std::byte*> parts = found->parts();
    session_.adopt_constants(constants, parts, std::move(found));
    weights_origin_ = "cache";
    return;
  }
  load(model->values(), keep);
  unkept_.emplace(Unkept{.model = std::move(model),
                         .content = *content,
                         .cache = cache,
                         .description = std::move(description),
                         .constants = constants,
                         .version = session_.version()});
  weights_origin_ = "file (not kept yet)";
}

/// Empty, or why it was not kept.
std::string InferenceProgram::keep(const Unkept& unkept) {
  if (session_.version() != unkept.version) return "the weights have changed since";
  // What was read belongs to a hash that was taken before: true only if the file was left alone meanwhile.
  if (unkept.model->content(unkept.cache.threads()) != unkept.content) return "the file has changed meanwhile";
  std::vector<size_t> sizes;
  for (const Constant& constant : unkept.constants) sizes.push_back(constant.bytes);
  if (unkept.cache.find(unkept.description, sizes)) return "kept by another meanwhile";
  std::vector<std::span<const std::byte>> parts;
  for (const Constant& constant : unkept.constants) parts.push_back(session_.constant_bytes(constant));
  return unkept.cache.store(unkept.description, parts);
}

void InferenceProgram::keep_for_next_start() {
  if (!unkept_) return;
  const Unkept unkept = *std::exchange(unkept_, std::nullopt);
  const auto why_not = [&]() -> std::string {
    try {
      return keep(unkept);
    } catch (const std::exception& error) {  // nobody waits for the file: without it the next start takes longer
      return error.what();
    }
  }();
  weights_origin_ = why_not.empty() ? "file (kept for the next start)" : fmt::format("file ({})", why_not);
}

void InferenceProgram::write_folded(const FoldedConvolution& f, Unfolded from) {
  const auto channels = static_cast<size_t>(from.weight.shape()[0]);
  const size_t per_channel = static_cast<size_t>(from.weight.elements()) / channels;
  Tensor bias(from.beta.type());
  with_float(from.weight.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto number = [](const Tensor& tensor, size_t k) { return static_cast<double>(tensor.as<T>()[k]); };
    T* weight = from.weight.as<T>().data();
    for (size_t k = 0; k < channels; ++k) {
      const double scale = number(from.gamma, k) / std::sqrt(number(from.variance, k) + f.epsilon);
      for (size_t i = 0; i < per_channel; ++i, ++weight) *weight = static_cast<T>(static_cast<double>(*weight) * scale);
      const double before = f.bias.empty() ? 0 : number(from.bias, k);
      bias.as<T>()[k] = static_cast<T>((before - number(from.mean, k)) * scale + number(from.beta, k));
    }
  });
  session_.write_state(f.folded_weight, from.weight);
  session_.write_state(f.folded_bias, bias);
}

void InferenceProgram::feed(Part& part, const std::byte* images, int64_t count) {
  const int64_t room = micro_batch_.program_images();
  const TensorType type{dtype_, with_images(images_, room)};
  if (count == room && reads_in_place_ && reinterpret_cast<uintptr_t>(images) % kAlignment == 0) {
    part.program->read_input_at("images", images);
    return;
  }
  if (part.partial.shape() != type.shape) part.partial = Tensor(type);  // a default tensor is a scalar
  const size_t given = part.partial.size_bytes() / static_cast<size_t>(room) * static_cast<size_t>(count);
  std::memcpy(part.partial.data(), images, given);
  // Half precision's scales may be those of neighbouring images: whichever came before must not show.
  std::memset(part.partial.data() + given, 0, part.partial.size_bytes() - given);
  if (reads_in_place_) {
    part.program->read_input_at("images", part.partial.data());
  } else {
    part.program->set_input("images", part.partial);
  }
}

void InferenceProgram::run(Part& part, const Tensor& images, int64_t first, int64_t count, Tensor& logits) {
  const size_t image_bytes = images.size_bytes() / static_cast<size_t>(images.shape()[0]);
  const size_t row_bytes = logits.size_bytes() / static_cast<size_t>(logits.shape()[0]);
  feed(part, images.data() + static_cast<size_t>(first) * image_bytes, count);
  part.program->run();
  const Tensor all = part.program->output("logits");
  std::memcpy(logits.data() + static_cast<size_t>(first) * row_bytes, all.data(),
              static_cast<size_t>(count) * row_bytes);
}

Tensor InferenceProgram::run(const Tensor& images) {
  const int64_t n = images.shape()[0];
  check(images.dtype() == dtype_ && n >= 1 && n <= images_[0] && images.shape() == with_images(images_, n),
        "InferenceProgram::run: images of another type, or more than the batch");
  const Buffer& output = program().plan().buffers[static_cast<size_t>(program().plan().outputs.at("logits"))];
  Tensor logits(output.value.type.dtype, Shape{n, output.value.type.shape[1]});
  const auto streams = static_cast<int64_t>(parts_.size());
  // Where all fit at once they are shared out evenly.
  const int64_t together = std::min(micro_batch_.program_images(), (n + streams - 1) / streams);
  // Each stream begins with images of its own, and who is free takes the next: whichever computes an image, its kernels
  // are the same.
  std::atomic<int64_t> next = streams * together;
  const auto run_part = [&](int stream) {
    for (int64_t first = stream * together; first < n; first = next.fetch_add(together))
      run(parts_[static_cast<size_t>(stream)], images, first, std::min(together, n - first), logits);
  };
  if (streams == 1) {
    run_part(0);
  } else {
    std::vector<Program*> programs;
    for (const Part& part : parts_) programs.push_back(part.program);
    session_.run_streams(programs, run_part);
  }
  if (reads_in_place_) {  // the images are the caller's
    for (const Part& part : parts_) part.program->read_input_at("images", nullptr);
  }
  return logits;
}

}  // namespace resnet
