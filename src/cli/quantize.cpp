#include "train/quantize.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/labelled_data.h"
#include "formats/safetensors.h"
#include "runtime/backends.h"
#include "train/evaluation.h"
#include "train/model_file.h"

namespace resnet::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model, data, output, split = "test", calibration_split, method = "minimum-error";
  std::optional<double> percentile;
  double max_drop = 0.5, min_sqnr = 10;
  int64_t calibration_images = 256, limit = 0, batch_size = 32, threads = 0, workers = 1;
  bool force = false, json = false;
};

/// What a program over the data showed.
struct Trial {
  double top1 = 0, images_per_second = 0;
  int64_t images = 0, file_bytes = 0;
};

/// Ended by a signal.
struct Stopped {};

Split parse_split(const char* flag, const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (name == name_of(split)) return split;
  }
  throw UserError("{}: '{}'; expected test, validation or train", flag, escape_control(name));
}

void check_arguments(const Arguments& a) {
  if (!a.output.ends_with(".safetensors"))
    throw UserError("--output: '{}'; expected a name that ends in .safetensors", escape_control(a.output));
  if (a.method != "minimum-error" && a.method != "percentile")
    throw UserError("--method: '{}'; expected minimum-error or percentile", escape_control(a.method));
  if (a.percentile && !(*a.percentile > 50 && *a.percentile <= 100))
    throw UserError("--percentile: {}; expected a number above 50, to 100", *a.percentile);
  if (a.percentile && a.method != "percentile")
    throw UserError("--percentile: {} with --method {}; expected --method percentile", *a.percentile, a.method);
  if (a.calibration_images < 1) throw UserError("--calibration-images: {}; expected 1 or more", a.calibration_images);
  if (!std::isfinite(a.max_drop)) throw UserError("--max-drop: {}; expected a number of percentage points", a.max_drop);
  if (!std::isfinite(a.min_sqnr)) throw UserError("--min-sqnr: {}; expected a number of decibels", a.min_sqnr);
  if (a.batch_size < 1 || a.batch_size > 65536)
    throw UserError("--batch-size: {}; expected 1 to 65536 images", a.batch_size);
  if (a.limit < 0) throw UserError("--limit: {}; expected 0 (all) or more", a.limit);
  require_thread_count(a.threads);
  if (a.workers < 0 || a.workers > 64) throw UserError("--workers: {}; expected 0 to 64", a.workers);
}

Dataset load(const Arguments& a, Split split, const ModelDescription& d, Progress& progress) {
  Dataset data = load_dataset(a.data, split,
                              {.channels = d.channels,
                               .exif_orientation = d.preprocessing.exif_orientation,
                               .class_names = d.class_names,
                               .progress = [&](int64_t files) {
                                 progress.update(fmt::format("reading {}: {} files", a.data, grouped(files)));
                               }});
  require_data_for(a.model, d, a.data, data);
  return data;
}

/// The images that scales are found with: of --calibration-split, or of the training images where the data has some.
Dataset load_calibration(const Arguments& a, const ModelDescription& d, Progress& progress) {
  if (!a.calibration_split.empty())
    return load(a, parse_split("--calibration-split", a.calibration_split), d, progress);
  try {
    return load(a, Split::train, d, progress);
  } catch (const ResourceError& error) {
    if (error.code() != ExitCode::io || a.split == name_of(Split::train)) throw;
    progress.print(
        fmt::format("resnet: note: {}: has no training images; calibrated with the {} images", a.data, a.split));
    return load(a, parse_split("--split", a.split), d, progress);
  }
}

/// Images a second of a program on noise: the median of runs for about a second.
double speed_of(InferenceProgram& program) {
  const TensorType& type =
      program.program().plan().buffers[static_cast<size_t>(program.program().plan().inputs.at("images"))].value.type;
  Tensor images(type);
  Rng rng(hash_text("images"));
  for (float& v : images.as<float>()) v = static_cast<float>(rng.normal());
  program.program().set_input("images", images);
  program.program().run();
  std::vector<double> seconds;
  const auto start = Clock::now();
  while (seconds.size() < 3 || std::chrono::duration<double>(Clock::now() - start).count() < 1) {
    const auto begin = Clock::now();
    program.program().run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  return static_cast<double>(program.batch_size()) / seconds[seconds.size() / 2];
}

Trial try_model(const LoadedModel& model, const Dataset& data, const Arguments& a, int threads, const char* what,
                Progress& progress) {
  const ModelDescription& d = model.description;
  const int64_t images = a.limit > 0 ? a.limit : data.count;
  const int64_t side = d.preprocessing.image_size;
  Session session(make_backend("cpu", threads));
  InferenceProgram program(session, find_model(d.architecture),
                           {.model = d.options,
                            .images = {std::min(a.batch_size, images), d.channels, side, side},
                            .passes = {},
                            .keep_model_states = false,
                            .quantization = model.quantization ? &*model.quantization : nullptr},
                           [&](const std::string& step, int done, int total) {
                             progress.update(fmt::format("{}: {} {}/{}", what, step, done, total));
                           });
  program.load(model.values);
  const std::atomic<int>& stop = install_stop_signals();
  const Evaluation e =
      evaluate(program, data, d.preprocessing,
               {.workers = static_cast<int>(a.workers), .limit = images, .progress = [&](int64_t done, int64_t total) {
                  progress.update(fmt::format("{}: evaluating {}/{}", what, done, total));
                  return stop == 0;
                }});
  if (stop != 0) throw Stopped();
  return {.top1 = e.top1, .images_per_second = speed_of(program), .images = e.images};
}

void print_json(const Arguments& a, const QuantizedModel& q, const Trial& before, const Trial& after) {
  json layers = json::array();
  for (const LayerError& layer : q.layers)  // an infinite one is written as null
    layers.push_back({{"name", layer.name}, {"sqnr_db", layer.sqnr_db}, {"quantized", layer.quantized}});
  std::printf("%s\n",
              json{{"model", a.model},
                   {"output", a.output},
                   {"method", q.quantization.method},
                   {"calibration_images", q.quantization.images},
                   {"images", after.images},
                   {"top1", {{"before", before.top1}, {"after", after.top1}}},
                   {"drop_points", 100 * (before.top1 - after.top1)},
                   {"bytes", {{"before", before.file_bytes}, {"after", after.file_bytes}}},
                   {"images_per_second", {{"before", before.images_per_second}, {"after", after.images_per_second}}},
                   {"batch_size", std::min(a.batch_size, after.images)},
                   {"layers", layers}}
                  .dump(-1, ' ', false, json::error_handler_t::replace)
                  .c_str());
}

void print_text(const Arguments& a, const QuantizedModel& q, const Trial& before, const Trial& after) {
  const auto size = [](int64_t count) { return bytes(static_cast<size_t>(count)); };
  std::printf(
      "%s",
      table(
          {{"", "f32", "int8", ""},
           {fmt::format("top-1 of {} images", grouped(after.images)), fmt::format("{:.2f} %", 100 * before.top1),
            fmt::format("{:.2f} %", 100 * after.top1), fmt::format("{:+.2f} points", 100 * (after.top1 - before.top1))},
           {"size", size(before.file_bytes), size(after.file_bytes),
            fmt::format("{:.2f} x", static_cast<double>(before.file_bytes) / static_cast<double>(after.file_bytes))},
           {fmt::format("speed at batch {}", std::min(a.batch_size, after.images)),
            fmt::format("{:.1f} img/s", before.images_per_second), fmt::format("{:.1f} img/s", after.images_per_second),
            fmt::format("{:.2f} x", after.images_per_second / before.images_per_second)}})
          .c_str());
  const auto kept = std::count_if(q.layers.begin(), q.layers.end(), [](const LayerError& l) { return !l.quantized; });
  const auto worst = std::min_element(q.layers.begin(), q.layers.end(),
                                      [](const LayerError& x, const LayerError& y) { return x.sqnr_db < y.sqnr_db; });
  std::printf("\n%zu convolutions in int8, %td kept in f32; the largest error of one: %s, %.1f dB below its result\n",
              q.layers.size() - static_cast<size_t>(kept), kept, escape_control(worst->name).c_str(), worst->sqnr_db);
  if (kept > 0) {
    std::vector<std::vector<std::string>> rows = {{"kept in f32", "result over error, dB"}};
    for (const LayerError& layer : q.layers) {
      if (!layer.quantized) rows.push_back({layer.name, fmt::format("{:.1f}", layer.sqnr_db)});
    }
    std::printf("%s", table(rows).c_str());
  }
  std::printf("%s: calibrated with %s %s (%s)\n", escape_control(a.output).c_str(),
              grouped(q.quantization.images).c_str(), q.quantization.images == 1 ? "image" : "images",
              q.quantization.method.c_str());
}

int run_quantize(const Arguments& a) {
  check_arguments(a);
  const Split split = parse_split("--split", a.split);
  require_free(a.output, a.force);
  std::error_code neither;
  if (std::filesystem::equivalent(a.model, a.output, neither))
    throw UserError(ExitCode::refused,
                    "{}: is the model itself; expected another name: what 8 bits leave out cannot be had back",
                    escape_control(a.output));
  const WeightsFile file(a.model);
  LoadedModel model = load_model(file, file.metadata());
  if (model.quantization)
    throw UserError(ExitCode::refused, "{}: is quantised already; expected a model in f32", escape_control(a.model));
  if (model.dtype != DType::f32)
    throw UserError("{}: f64 weights; expected f32; train writes those by default", escape_control(a.model));
  Progress progress;
  const Dataset data = load(a, split, model.description, progress);
  warn_of_names(model.description, a.data, data, progress);
  if (a.limit > data.count) throw UserError("--limit: {}; expected 0 (all) to {} images", a.limit, data.count);
  const int threads = compute_threads(a.threads);
  const std::atomic<int>& stop = install_stop_signals();
  try {
    const Dataset calibration = load_calibration(a, model.description, progress);
    const QuantizedModel quantized =
        quantize_model(model, calibration,
                       {.method = a.method == "percentile" ? ClipMethod::percentile : ClipMethod::minimum_error,
                        .percentile = a.percentile.value_or(QuantizeOptions().percentile),
                        .images = a.calibration_images,
                        .min_sqnr = a.min_sqnr,
                        .threads = threads,
                        .workers = static_cast<int>(a.workers),
                        .progress = [&](const std::string& what, int64_t done, int64_t total) {
                          if (stop != 0) throw Stopped();
                          progress.update(fmt::format("calibrating, {} {}/{}", what, done, total));
                        }});
    if (quantized.unreadable > 0) {
      progress.print(fmt::format("resnet: warning: {} calibration {} cannot be read, others were taken: {}",
                                 quantized.unreadable, quantized.unreadable == 1 ? "image" : "images",
                                 quantized.first_unreadable));
    }
    Trial before = try_model(model, data, a, threads, "f32", progress);
    LoadedModel int8;
    int8.description = model.description;
    int8.values = quantized.tensors;
    int8.quantization = quantized.quantization;
    Trial after = try_model(int8, data, a, threads, "int8", progress);
    progress.clear();
    const double drop = 100 * (before.top1 - after.top1);
    if (!(drop <= a.max_drop) && !a.force) {
      throw UserError(
          ExitCode::refused,
          "{}: top-1 falls by {:.2f} points in 8 bits, from {:.2f} to {:.2f} %; expected at most --max-drop "
          "{}; try more --calibration-images, --method {}, a higher --min-sqnr, or --force",
          escape_control(a.model), drop, 100 * before.top1, 100 * after.top1, a.max_drop,
          a.method == "percentile" ? "minimum-error" : "percentile");
    }
    if (!(drop <= a.max_drop)) {
      progress.print(
          fmt::format("resnet: warning: {}: top-1 falls by {:.2f} points in 8 bits, more than --max-drop {}; written "
                      "because of --force",
                      a.model, drop, a.max_drop));
    }
    std::map<std::string, std::string> metadata = file.metadata();
    metadata[kQuantizationKey] = to_json(quantized.quantization);
    const ModelFile written{std::move(metadata), quantized.tensors};
    const ContentWriter write = [&](ByteSink& sink) { write_safetensors(sink, written); };
    if (const int stopped = write_unless_stopped(a.output, write)) return stopped;
    before.file_bytes = static_cast<int64_t>(std::filesystem::file_size(a.model));
    after.file_bytes = static_cast<int64_t>(std::filesystem::file_size(a.output));
    a.json ? print_json(a, quantized, before, after) : print_text(a, quantized, before, after);
    return 0;
  } catch (const Stopped&) {
    return 128 + stop;
  }
}

}  // namespace

Command add_quantize(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("quantize", "A model file in 8 bits: a quarter of the size, and faster");
  verb->add_option("MODEL", a->model, "model file in f32 (.safetensors)")->required();
  verb->add_option("--data", a->data,
                   "labelled images: fashion-mnist, a folder of idx or CIFAR files or of images, or a list")
      ->required();
  verb->add_option("--output", a->output, "the file to write, .safetensors")->type_name("FILE")->required();
  verb->add_option("--split", a->split, "images that accuracy is measured on: test, validation or train")
      ->capture_default_str();
  verb->add_option("--limit", a->limit, "the first N of them; 0: all")->capture_default_str();
  verb->add_option("--calibration-split", a->calibration_split,
                   "images that ranges are found with; default train, or --split where there are none");
  verb->add_option("--calibration-images", a->calibration_images, "N of them at most, drawn from all")
      ->capture_default_str();
  verb->add_option("--method", a->method, "how a range is cut: minimum-error (squared) or percentile")
      ->capture_default_str();
  verb->add_option("--percentile", a->percentile, "per cent of the values inside, with --method percentile")
      ->default_str(fmt::format("{}", QuantizeOptions().percentile));
  verb->add_option("--min-sqnr", a->min_sqnr, "a layer with less signal over error stays in f32, dB")
      ->capture_default_str();
  verb->add_option("--max-drop", a->max_drop, "refuse when top-1 falls by more, percentage points")
      ->capture_default_str();
  verb->add_option("-b,--batch-size", a->batch_size, "images at a time, for accuracy and speed")->capture_default_str();
  verb->add_option("--threads", a->threads, "compute threads; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("-j,--workers", a->workers, "threads that prepare batches ahead")->capture_default_str();
  verb->add_flag("--force", a->force, "write in spite of --max-drop, and replace FILE if it is there");
  verb->add_flag("--json", a->json, "print the result as JSON");
  verb->footer(
      "predict, evaluate, benchmark, summary, verify, export and the library take the file as they take any other.\n"
      "Example: resnet quantize runs/first/best.safetensors --data fashion-mnist --output best.int8.safetensors");
  return [a] { return run_quantize(*a); };
}

}  // namespace resnet::cli
