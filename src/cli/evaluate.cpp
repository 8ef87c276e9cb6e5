#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/labelled_data.h"
#include "data/turned_images.h"
#include "formats/safetensors.h"
#include "runtime/backends.h"
#include "train/evaluation.h"
#include "train/model_file.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string model, data = "fashion-mnist", split = "test", backend = "cpu", dump_logits, tta = "none", plots,
                     on_bad_sample = "stop";
  std::optional<std::string> precision;
  int64_t batch_size = 256, threads = 0, workers = 1, limit = 0;
  bool json = false;
};

const std::vector<std::pair<std::string, Views>> kViews = {
    {"none", Views::one}, {"flip", Views::flip}, {"ten-crop", Views::ten_crop}};

Views parse_views(const std::string& name) {
  for (const auto& [known, views] : kViews) {
    if (name == known) return views;
  }
  throw UserError("--tta: '{}'; expected none, flip or ten-crop", escape_control(name));
}

Split parse_split(const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (name == name_of(split)) return split;
  }
  throw UserError("--split: '{}'; expected test, validation or train", escape_control(name));
}

void print_json(const Evaluation& e, Split split, const std::string& tta, const std::string& precision) {
  json per_class = json::array();
  for (const ClassScore& s : e.per_class) {
    per_class.push_back(
        {{"name", s.name}, {"precision", s.precision}, {"recall", s.recall}, {"f1", s.f1}, {"support", s.support}});
  }
  json calibration = json::array();
  for (const CalibrationBin& bin : e.calibration) {
    calibration.push_back({{"low", bin.low},
                           {"high", bin.high},
                           {"images", bin.images},
                           {"confidence", bin.confidence},
                           {"accuracy", bin.accuracy}});
  }
  json object = {
      {"images", e.images}, {"split", name_of(split)}, {"skipped", e.skipped},   {"loss", e.loss},
      {"top1", e.top1},     {"top5", e.top5},          {"ece", e.ece},           {"calibration", calibration},
      {"tta", tta},         {"precision", precision},  {"per_class", per_class}, {"confusion", e.confusion}};
  if (e.agreement) {
    object["agreement"] = {{"images", e.agreement->images},
                           {"same_best", e.agreement->same_best},
                           {"error", e.agreement->error},
                           {"worst_error", e.agreement->worst_error}};
  }
  // What is not finite is written as null, what is no UTF-8 as U+FFFD.
  std::printf("%s\n", object.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
}

void print_text(const Evaluation& e, Split split, const std::string& precision) {
  std::printf("%s %s images: loss %.4f, top-1 %.2f %%, top-5 %.2f %%, calibration error %.2f %%\n\n",
              grouped(e.images).c_str(), split == Split::train ? "training" : name_of(split), e.loss, 100 * e.top1,
              100 * e.top5, 100 * e.ece);
  if (e.skipped > 0) std::printf("%s images could not be read and are left out\n\n", grouped(e.skipped).c_str());
  if (e.agreement) {
    std::printf("%s beside f32: the same class for %s of %s (%.2f %%); logits differ by %.2e (rms), %.2e (worst)\n\n",
                precision.c_str(), grouped(e.agreement->same_best).c_str(), grouped(e.agreement->images).c_str(),
                100 * static_cast<double>(e.agreement->same_best) / static_cast<double>(e.agreement->images),
                e.agreement->error, e.agreement->worst_error);
  }
  std::vector<std::vector<std::string>> scores = {{"class", "precision", "recall", "F1", "images"}};
  for (const ClassScore& s : e.per_class) {
    scores.push_back({s.name, fmt::format("{:.3f}", s.precision), fmt::format("{:.3f}", s.recall),
                      fmt::format("{:.3f}", s.f1), std::to_string(s.support)});
  }
  std::printf("%s", table(scores).c_str());
  constexpr size_t kLargestMatrix = 20;
  if (e.confusion.size() > kLargestMatrix) return;
  std::vector<std::vector<std::string>> matrix = {{"true \\ predicted"}};
  for (size_t k = 0; k < e.confusion.size(); ++k) matrix[0].push_back(std::to_string(k));
  for (size_t k = 0; k < e.confusion.size(); ++k) {
    std::vector<std::string> row = {fmt::format("{} {}", k, e.per_class[k].name)};
    for (int64_t count : e.confusion[k]) row.push_back(std::to_string(count));
    matrix.push_back(row);
  }
  std::printf("\n%s", table(matrix).c_str());
}

/// The logits [images, classes] as a safetensors file, to be held against another program's.
void write_logits(const std::string& path, InferenceProgram& program, const Dataset& data,
                  const Preprocessing& preprocessing, int64_t images) {
  Loader loader(data, {.batch_size = program.batch_size(),
                       .shuffle = false,
                       .limit = images,
                       .dtype = program.dtype(),
                       .preprocessing = preprocessing});
  Tensor all(program.dtype(), Shape{images, data.classes()});
  size_t written = 0;
  while (const Batch* batch = loader.next()) {
    const Tensor logits = program.run(batch->images);
    check(written + logits.size_bytes() <= all.size_bytes(), "write_logits: more images than were asked for");
    std::memcpy(all.data() + written, logits.data(), logits.size_bytes());
    written += logits.size_bytes();
  }
  check(written == all.size_bytes(), "write_logits: fewer images than were asked for");
  write_safetensors(path, {.metadata = {}, .tensors = {{"logits", std::move(all)}}});
}

void warn_of_turned_images(const Dataset& data, Progress& progress) {
  constexpr int64_t kLookAt = 256;
  if (data.exif_orientation) return;
  const TurnedImages found = look_for_turned_images(data, kLookAt);
  if (found.turned == 0) return;
  progress.print(
      fmt::format("resnet: warning: {}: {} of the {} images looked at carry an EXIF orientation, which the model was "
                  "trained without looking at; they are taken as stored",
                  data.name, found.turned, found.looked_at));
}

int run_evaluate(const Arguments& a) {
  if (a.batch_size < 1 || a.batch_size > 65536)
    throw UserError("--batch-size: {}; expected 1 to 65536 images", a.batch_size);
  require_thread_count(a.threads);
  if (a.workers < 0 || a.workers > 64) throw UserError("--workers: {}; expected 0 to 64", a.workers);
  const Split split = parse_split(a.split);
  if (a.on_bad_sample != "stop" && a.on_bad_sample != "skip")
    throw UserError("--on-bad-sample: '{}'; expected stop or skip", escape_control(a.on_bad_sample));
  const bool skips = a.on_bad_sample == "skip";
  const std::optional<Precision> asked = parse_precision(a.precision);
  const Views views = parse_views(a.tta);
  const LoadedModel model = load_model(a.model);
  const Precision precision = precision_of(asked, model.quantization.has_value());
  const ModelDescription& d = model.description;
  Progress progress;
  const Dataset data = load_dataset(a.data, split,
                                    {.channels = d.channels,
                                     .exif_orientation = d.preprocessing.exif_orientation,
                                     .missing_files = skips,
                                     .class_names = d.class_names,
                                     .progress = [&](int64_t files) {
                                       progress.update(fmt::format("reading {}: {} files", a.data, grouped(files)));
                                     }});
  require_data_for(a.model, d, a.data, data);
  warn_of_names(d, a.data, data, progress);
  if (a.limit < 0 || a.limit > data.count)
    throw UserError("--limit: {}; expected 0 (all) to {} images", a.limit, data.count);
  if (model.dtype == DType::f64 && a.backend == "cpu")
    throw UserError("{}: f64 weights; the cpu backend computes in f32; use --backend reference", a.model);
  validate(views, d.preprocessing);
  const ModelSpec spec = find_model(d.architecture);
  const int threads = compute_threads(a.threads);
  Session session(make_backend(a.backend, threads, AlgorithmChoice::measured, precision));
  const int64_t images = a.limit > 0 ? a.limit : data.count;
  // The batch is of what the network sees: an image's views count each, and are never torn apart.
  const auto views_of_one = static_cast<int64_t>(list_of(views).size());
  const int64_t batch = std::clamp<int64_t>(a.batch_size / views_of_one, 1, images) * views_of_one;
  const int64_t side = d.preprocessing.image_size;
  InferenceProgram program(session, spec,
                           {.model = d.options,
                            .dtype = model.dtype,
                            .images = {batch, d.channels, side, side},
                            .passes = {},
                            .keep_model_states = false,
                            .quantization = model.quantization ? &*model.quantization : nullptr},
                           preparing(progress));
  program.load(model.values);
  // A lower precision is judged beside f32, on the same batches.
  std::optional<Session> full_session;
  std::optional<InferenceProgram> full;
  if (precision == Precision::f16) {
    full_session.emplace(make_backend(a.backend, threads));
    full.emplace(
        *full_session, spec,
        InferenceOptions{
            .model = d.options, .images = {batch, d.channels, side, side}, .passes = {}, .keep_model_states = false},
        preparing(progress));
    full->load(model.values);
  }
  for (const std::string& text : session.backend().take_warnings()) progress.print("resnet: warning: " + text);
  const auto start = std::chrono::steady_clock::now();
  const std::atomic<int>& stop = install_stop_signals();
  const auto report = [&](int64_t done, int64_t total) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double rate = static_cast<double>(done) / seconds;
    progress.update(fmt::format("evaluating {}/{}  {:.0f} img/s  {} left", done, total, rate,
                                duration(static_cast<double>(total - done) / rate)));
    return stop == 0;
  };
  if (!a.plots.empty()) make_plots_folder(a.plots);  // now, not when the work is done
  warn_of_turned_images(data, progress);
  const Evaluation e = evaluate(program, data, d.preprocessing,
                                {.workers = static_cast<int>(a.workers),
                                 .limit = a.limit,
                                 .views = views,
                                 .on_bad_sample = skips ? BadSample::leave_out : BadSample::stop,
                                 .progress = report,
                                 .reference = full ? &*full : nullptr});
  progress.clear();
  if (stop != 0 && e.images + e.skipped < images) return 128 + stop;
  if (e.images == 0)
    throw UserError(ExitCode::bad_data, "{}: none of its {} images can be read; expected at least one", a.data, images);
  if (!a.dump_logits.empty()) write_logits(a.dump_logits, program, data, d.preprocessing, images);
  if (!a.plots.empty()) write_plots(e, a.plots);
  a.json ? print_json(e, data.split, a.tta, name_of(precision)) : print_text(e, data.split, name_of(precision));
  return 0;
}

}  // namespace

Command add_evaluate(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("evaluate", "Accuracy of a model file on labelled images");
  verb->add_option("MODEL", a->model, "model file (.safetensors)")->required();
  verb->add_option("--data", a->data, "fashion-mnist, a folder of idx or CIFAR files or of images, or a list")
      ->capture_default_str();
  verb->add_option("--split", a->split, "test, validation or train")->capture_default_str();
  verb->add_option("--on-bad-sample", a->on_bad_sample, "an image that cannot be read: stop, or skip and count it")
      ->capture_default_str();
  verb->add_option("-b,--batch-size", a->batch_size, "images at a time")->capture_default_str();
  verb->add_option("--limit", a->limit, "the first N images; 0: all")->capture_default_str();
  verb->add_option("--threads", a->threads, "compute threads; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("-j,--workers", a->workers, "threads that prepare batches ahead")->capture_default_str();
  verb->add_option("--backend", a->backend, "cpu or reference")->capture_default_str();
  verb->add_option(
      "--precision", a->precision,
      "f32, or f16: products in half precision, on a processor with AVX512-FP16; prints how far its logits "
      "and classes agree with f32's, too; default f32, or int8 for a file that `resnet quantize` wrote, which computes "
      "in nothing else");
  verb->add_option("--tta", a->tta,
                   "test-time augmentation, probabilities averaged: none, flip (and its mirror image) or ten-crop")
      ->capture_default_str();
  verb->add_option("--plots", a->plots, "write confusion.svg and reliability.svg here")->type_name("DIR");
  verb->add_flag("--json", a->json, "print as JSON");
  verb->add_option("--dump-logits", a->dump_logits, "write the logits of all images here")
      ->type_name("FILE")
      ->group("");
  verb->footer(
      "Example: resnet evaluate runs/first/best.safetensors --data fashion-mnist\n"
      "         resnet evaluate runs/first/best.safetensors --precision f16");
  return [a] { return run_evaluate(*a); };
}

}  // namespace resnet::cli
