#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "passes/pipeline.h"
#include "plan/plan.h"
#include "train/trainer.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  TrainConfig config;
  std::string output, config_file, dump_gradients;
  std::string resume;
  std::vector<std::string> settings, disabled_passes;
  bool json = false;
  bool no_shuffle = false;
  bool reset_head = false;
  bool dump_plan = false;
  bool dump_graph = false;
};

/// The flag's value if it was given, over what a file or an earlier run says.
template <class T>
void override_with(const CLI::App& verb, const char* flag, const T& given, T& setting) {
  if (verb.count(flag) > 0) setting = given;
}

/// What the user says, over `config`: the file's settings (`toml` is its text), over them the flags, over them --set.
TrainConfig effective_config(const CLI::App& verb, const Arguments& a, const std::string& toml, TrainConfig config) {
  const TrainConfig& g = a.config;
  if (!a.config_file.empty()) reset_the_resize_not_given(apply_toml(a.config_file, toml, config), config);
  override_with(verb, "--model", g.model, config.model);
  override_with(verb, "--data", g.data, config.data);
  override_with(verb, "--channels", g.channels, config.channels);
  override_with(verb, "--on-bad-sample", g.on_bad_sample, config.on_bad_sample);
  override_with(verb, "--image-size", g.image_size, config.image_size);
  override_with(verb, "--resize", g.resize, config.resize);
  override_with(verb, "--resize-size", g.resize_size, config.resize_size);
  override_with(verb, "--crop-pct", g.crop_pct, config.crop_pct);
  override_with(verb, "--interpolation", g.interpolation, config.interpolation);
  override_with(verb, "--mean", g.mean, config.mean);
  override_with(verb, "--std", g.std, config.std);
  override_with(verb, "--exif-orientation", g.exif_orientation, config.exif_orientation);
  override_with(verb, "--epochs", g.epochs, config.epochs);
  override_with(verb, "--batch-size", g.batch_size, config.batch_size);
  override_with(verb, "--lr", g.lr, config.lr);
  override_with(verb, "--lr-scheduler", g.lr_scheduler, config.lr_scheduler);
  override_with(verb, "--lr-step-size", g.lr_step_size, config.lr_step_size);
  override_with(verb, "--lr-gamma", g.lr_gamma, config.lr_gamma);
  override_with(verb, "--lr-milestones", g.lr_milestones, config.lr_milestones);
  override_with(verb, "--lr-warmup-epochs", g.lr_warmup_epochs, config.lr_warmup_epochs);
  override_with(verb, "--lr-warmup-method", g.lr_warmup_method, config.lr_warmup_method);
  override_with(verb, "--lr-warmup-decay", g.lr_warmup_decay, config.lr_warmup_decay);
  override_with(verb, "--momentum", g.momentum, config.momentum);
  override_with(verb, "--nesterov", g.nesterov, config.nesterov);
  override_with(verb, "--weight-decay", g.weight_decay, config.weight_decay);
  override_with(verb, "--label-smoothing", g.label_smoothing, config.label_smoothing);
  override_with(verb, "--random-crop-padding", g.random_crop_padding, config.random_crop_padding);
  override_with(verb, "--hflip-prob", g.hflip_prob, config.hflip_prob);
  override_with(verb, "--seed", g.seed, config.seed);
  override_with(verb, "--threads", g.threads, config.threads);
  override_with(verb, "--workers", g.workers, config.workers);
  override_with(verb, "--limit", g.limit, config.limit);
  override_with(verb, "--max-steps", g.max_steps, config.max_steps);
  override_with(verb, "--log-every", g.log_every, config.log_every);
  override_with(verb, "--checkpoint-every", g.checkpoint_every, config.checkpoint_every);
  override_with(verb, "--backend", g.backend, config.backend);
  override_with(verb, "--precision", g.precision, config.precision);
  override_with(verb, "--weights", g.weights, config.weights);
  if (a.reset_head) config.reset_head = true;
  if (a.no_shuffle) config.shuffle = false;
  if (!a.disabled_passes.empty()) config.disabled_passes = fmt::format("{}", fmt::join(a.disabled_passes, ","));
  std::set<std::string> given;
  if (verb.count("--resize-size") > 0) given.insert("resize_size");
  if (verb.count("--crop-pct") > 0) given.insert("crop_pct");
  for (const std::string& setting : a.settings) given.insert(apply_setting(setting, config));
  reset_the_resize_not_given(given, config);
  return config;
}

/// The preprocessing of a model file as settings: an --image-size of the user's own keeps the share that is cropped.
void apply_preprocessing(const ModelDescription& model, TrainConfig& config) {
  const Preprocessing& p = model.preprocessing;
  config.channels = model.channels == 3 ? 3 : 1;
  config.image_size = p.image_size;
  config.resize = name_of(p.resize);
  Preprocessing by_share = p;
  by_share.resize_size = 0;
  const bool share_says_it = resized_side(by_share) == resized_side(p);
  config.crop_pct = share_says_it ? p.crop_pct : 1;
  config.resize_size = share_says_it ? 0 : p.resize_size;
  config.interpolation = name_of(p.interpolation);
  config.mean.assign(p.mean.begin(), p.mean.end());
  config.std.assign(p.std.begin(), p.std.end());
  config.exif_orientation = p.exif_orientation;
}

/// Where settings start that nothing else gives: a model file among the weights says which architecture they are of,
/// and what they were trained to see. `model` is the user's own, or empty: weights of another one say nothing.
TrainConfig usual_config(const std::string& weights, const std::string& model) {
  TrainConfig config;
  if (weights.empty()) return config;
  const WeightsFile file(weights);
  if (!file.metadata().contains("architecture")) return config;
  const ModelDescription of_file = from_metadata(weights, file.metadata());
  if (!model.empty() && find_model(model).name != of_file.architecture) return config;
  config.model = of_file.architecture;
  apply_preprocessing(of_file, config);
  for (const auto& [name, value] : changed_options(of_file.options))
    apply_setting("model." + name + "=" + value, config);
  return config;
}

/// Every setting of a new run. The user's are looked at once for the weights and the model, wherever they are given
/// (file, flags or --set), and again over what those weights bring along.
TrainConfig config_of_new_run(const CLI::App& verb, const Arguments& a, const std::string& toml) {
  TrainConfig nothing;
  nothing.model.clear();
  const TrainConfig said = effective_config(verb, a, toml, nothing);
  return effective_config(verb, a, toml, usual_config(said.weights, said.model));
}

/// Weights of a net for photos that do not say what they were trained to see, as PyTorch's own files, are trained on
/// what the flags say: without any on other pixels than theirs.
void warn_of_unknown_preprocessing(const TrainConfig& config, Progress& progress) {
  if (config.weights.empty() || !config.mean.empty() || !find_model(config.model).photos) return;
  if (WeightsFile(config.weights).metadata().contains("mean")) return;
  progress.print(fmt::format(
      "resnet: warning: {}: does not say how its photos were prepared; they are taken with --resize {}, no mean and no "
      "deviation; `resnet convert {} MODEL.safetensors --architecture {}` makes a file that brings all of it along",
      escape_control(config.weights), config.resize, escape_control(config.weights), config.model));
}

/// The run to resume: --resume PATH, --resume --output PATH, or the newest under runs/. A PATH that is a checkpoint
/// inside a run stands for the run, from there.
void find_run(const Arguments& a, TrainRequest& request) {
  std::string path = !a.resume.empty() ? a.resume : !a.output.empty() ? a.output : RunDirectory::newest("runs");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::error_code error;
  if (std::filesystem::exists(path + "/manifest.json", error)) {
    request.checkpoint = path;
    const size_t slash = path.find_last_of('/');
    path = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  }
  request.output = path;
}

std::string step_line(const TrainObserver::Stepped& s) {
  return fmt::format("epoch {}/{}  step {}/{}  loss {:.4f}  top-1 {:.2f} %  {:.0f} img/s  {} left", s.epoch, s.epochs,
                     s.step, s.steps, s.mean_loss, 100 * s.top1, s.images_per_second, duration(s.seconds_left));
}

TrainObserver make_observer(Progress& progress, const Arguments& arguments) {
  TrainObserver o;
  o.on_prepare = [&](const std::string& what, int done, int total) {
    progress.update(total > 0 ? fmt::format("{} {}/{}", what, done, total) : what);
  };
  o.on_plan = [&](const TrainObserver::Planned& p) {
    if (arguments.dump_graph) std::fputs(print(p.program->graph()).c_str(), stderr);
    if (arguments.dump_plan) std::fputs(print(p.program->graph(), p.program->plan()).c_str(), stderr);
    progress.print(fmt::format("{}: {} parameters, {} backend, {} {}; {} training and {} evaluation images", p.model,
                               grouped(p.parameters), p.backend, p.threads, p.threads == 1 ? "thread" : "threads",
                               grouped(p.train_images), grouped(p.test_images)));
    progress.print(fmt::format("one step: {:.1f} GFLOP; memory: arena {} + states {} = {}; steps {} to {}; run in {}",
                               p.gflop_per_step, bytes(p.arena_bytes), bytes(p.state_bytes),
                               bytes(p.arena_bytes + p.state_bytes), p.start_step, p.steps, p.output));
    if (p.start_step == p.steps) {
      progress.print("resnet: the run is complete already; a larger --epochs or --max-steps goes on");
    }
  };
  o.on_step = [&](const TrainObserver::Stepped& s) { progress.update(step_line(s)); };
  o.on_evaluate = [&](int64_t done, int64_t total) { progress.update(fmt::format("evaluating {}/{}", done, total)); };
  o.on_epoch = [&](const EpochMetrics& m, bool is_best) {
    progress.print(fmt::format(
        "epoch {:>3}  train loss {:.4f} top-1 {:.2f} %   evaluation loss {:.4f} top-1 {:.2f} %   {:.0f} img/s  {}{}",
        m.epoch, m.train_loss, 100 * m.train_top1, m.eval_loss, 100 * m.eval_top1, m.images_per_second,
        duration(m.seconds), is_best ? "  best" : ""));
  };
  o.on_warning = [&](const std::string& text) { progress.print("resnet: warning: " + text); };
  return o;
}

void print_result(const TrainResult& r, double seconds) {
  auto percent = [](double share) {
    return std::isfinite(share) ? fmt::format("{:.2f} %", 100 * share) : std::string("not measured");
  };
  if (!r.samples.empty()) {
    std::vector<std::vector<std::string>> rows = {{"test image", "truth", "prediction", "probability"}};
    for (const SamplePrediction& s : r.samples) {
      rows.push_back({std::to_string(s.image), s.truth, s.predicted + (s.predicted == s.truth ? "" : "  (wrong)"),
                      fmt::format("{:.1f} %", 100 * s.probability)});
    }
    std::printf("%s\n", table(rows, 3).c_str());
  }
  std::vector<std::vector<std::string>> rows = {
      {"steps", std::to_string(r.steps)},
      {"train loss", std::isfinite(r.train_loss) ? fmt::format("{:.4f}", r.train_loss) : "not measured"},
      {"train top-1", percent(r.train_top1)},
      {"test top-1", percent(r.eval_top1)},
      {"best evaluation top-1", percent(r.best_top1)},
      {"training speed", r.images_per_second > 0 ? fmt::format("{:.1f} img/s", r.images_per_second) : "not measured"},
      {"time in all", duration(seconds)},
      {"memory", bytes(r.peak_bytes)},
      {"run", r.output}};
  if (r.skipped_samples > 0) rows.insert(rows.begin() + 1, {"samples skipped", grouped(r.skipped_samples)});
  if (std::isfinite(r.eval_top1)) {
    rows.push_back({"learning curve", r.output + "/plots/learning_curve.svg"});
    rows.push_back({"best model", r.output + "/best.safetensors"});
  }
  std::printf("%s", table(rows, 2).c_str());
}

int run_train(const CLI::App& verb, const Arguments& arguments) {
  TrainRequest request;
  request.resume = verb.count("--resume") > 0;
  if (request.resume) {
    if (!arguments.resume.empty() && !arguments.output.empty()) {
      throw UserError("--output: '{}' beside --resume '{}'; expected one of them: a run goes on where it is",
                      escape_control(arguments.output), escape_control(arguments.resume));
    }
    find_run(arguments, request);
  } else {
    request.output = arguments.output;
  }
  // Read once: it may be a pipe.
  const std::string& file = arguments.config_file;
  const std::string toml = file.empty() ? "" : read_whole_file(file, 1 << 20);
  request.config = request.resume ? effective_config(verb, arguments, toml, config_of_run(request.output))
                                  : config_of_new_run(verb, arguments, toml);
  request.dump_gradients = arguments.dump_gradients;
  request.stop_signal = &install_stop_signals();

  Progress progress;
  if (!request.resume) warn_of_unknown_preprocessing(request.config, progress);
  const auto start = std::chrono::steady_clock::now();
  const TrainResult r = train(request, make_observer(progress, arguments));
  progress.clear();
  if (r.stopped_by) {
    progress.print(fmt::format("resnet: stopped at step {} of {}, saved; continue with: resnet train --resume {}",
                               r.steps, r.total_steps, r.output));
  }
  if (arguments.json) {
    // What is not finite is written as null.
    std::printf("%s\n", json{{"train_loss", r.train_loss},
                             {"train_top1", r.train_top1},
                             {"eval_loss", r.eval_loss},
                             {"eval_top1", r.eval_top1},
                             {"best_top1", r.best_top1},
                             {"steps", r.steps},
                             {"images_per_second", r.images_per_second},
                             {"peak_bytes", r.peak_bytes},
                             {"skipped_samples", r.skipped_samples},
                             {"output", r.output}}
                            .dump(-1, ' ', false, json::error_handler_t::replace)
                            .c_str());
  } else {
    print_result(r, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return r.stopped_by ? 128 + r.stopped_by : 0;
}

}  // namespace

Command add_train(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  TrainConfig& c = a.config;
  CLI::App* verb = app.add_subcommand("train", "Train a network; without flags the lecture's, on Fashion-MNIST");
  verb->add_option("--model", c.model, "architecture, see resnet summary --list")->capture_default_str();
  verb->add_option("--data", c.data, "fashion-mnist, a folder of idx or CIFAR files or of images, or a list")
      ->capture_default_str();
  verb->add_option("--image-size", c.image_size, "side of the input, pixels")->capture_default_str();
  verb->add_option("--channels", c.channels, "1 grey, 3 RGB; 0: the data's own")->capture_default_str();
  verb->add_option("--on-bad-sample", c.on_bad_sample, "an image that cannot be read: stop, or skip and count it")
      ->capture_default_str();
  verb->add_option("--resize", c.resize,
                   "squash (all of the image to the square), or shortest (its side, then the centre)")
      ->capture_default_str();
  verb->add_option("--resize-size", c.resize_size,
                   "pixels of the (shorter) side before the crop; 0: as --crop-pct says")
      ->capture_default_str();
  verb->add_option("--crop-pct", c.crop_pct, "--image-size over the side before the crop, e.g. 0.875")
      ->capture_default_str();
  verb->add_option("--interpolation", c.interpolation, interpolation_names())->capture_default_str();
  verb->add_option("--mean", c.mean, "of each channel, of the scale 0..1, e.g. 0.485,0.456,0.406; default 0")
      ->delimiter(',');
  verb->add_option("--std", c.std, "of each channel, e.g. 0.229,0.224,0.225; default 1")->delimiter(',');
  verb->add_flag("--exif-orientation", c.exif_orientation, "turn photos upright as their EXIF says; kept in the model");
  verb->add_option("--epochs", c.epochs, "passes over the training images")->capture_default_str();
  verb->add_option("-b,--batch-size", c.batch_size, "images a step")->capture_default_str();
  verb->add_option("--lr", c.lr, "learning rate")->capture_default_str();
  verb->add_option("--lr-scheduler", c.lr_scheduler, "constant, cosineannealinglr (to 0), steplr or multisteplr")
      ->capture_default_str();
  verb->add_option("--lr-step-size", c.lr_step_size, "of steplr: epochs between decays")->capture_default_str();
  verb->add_option("--lr-gamma", c.lr_gamma, "of steplr and multisteplr: factor of each decay")->capture_default_str();
  verb->add_option("--lr-milestones", c.lr_milestones, "of multisteplr: epochs after the warm-up, e.g. 82,123")
      ->delimiter(',');
  verb->add_option("--lr-warmup-epochs", c.lr_warmup_epochs, "epochs at a lower rate before the schedule, e.g. 0.5")
      ->capture_default_str();
  verb->add_option("--lr-warmup-method", c.lr_warmup_method, "constant, or linear up to --lr, per step")
      ->capture_default_str();
  verb->add_option("--lr-warmup-decay", c.lr_warmup_decay, "factor of --lr that the warm-up starts from")
      ->capture_default_str();
  verb->add_option("--momentum", c.momentum, "of SGD")->capture_default_str();
  verb->add_flag("--nesterov", c.nesterov, "Nesterov momentum");
  verb->add_option("--wd,--weight-decay", c.weight_decay, "L2 penalty added to the gradient")->capture_default_str();
  verb->add_option("--label-smoothing", c.label_smoothing, "share spread over all classes")->capture_default_str();
  verb->add_option("--random-crop-padding", c.random_crop_padding, "pixels of zeros a side before a random crop")
      ->capture_default_str();
  verb->add_option("--hflip-prob", c.hflip_prob, "probability of mirroring an image left to right")
      ->capture_default_str();
  verb->add_option("--seed", c.seed, "of initial weights, shuffling, crops and flips")->capture_default_str();
  verb->add_option("--threads", c.threads, "threads that compute; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("-j,--workers", c.workers, "threads beside them that prepare batches ahead")->capture_default_str();
  verb->add_option("--output", a.output, "run directory; default runs/MODEL-N");
  verb->add_option("--resume", a.resume, "continue a run exactly: PATH, or --output's, or the newest in runs/")
      ->expected(0, 1)
      ->type_name("[PATH]");
  verb->add_option("--weights", c.weights,
                   "initial weights, safetensors or .pth; a model file also gives --model and its preprocessing");
  verb->add_flag("--reset-head", a.reset_head,
                 "all of --weights but the classifier, which starts anew for these classes");
  verb->add_flag("--no-shuffle", a.no_shuffle, "take the images in the order of the file");
  verb->add_option("--max-steps", c.max_steps, "stop after N steps; 0: after the last epoch")->capture_default_str();
  verb->add_option("--limit", c.limit, "use the first N training images; 0: all")->capture_default_str();
  verb->add_option("--log-every", c.log_every, "steps between lines of events.jsonl")->capture_default_str();
  verb->add_option("--checkpoint-every", c.checkpoint_every, "steps between checkpoints; 0: each epoch")
      ->capture_default_str();
  verb->add_option("--backend", c.backend, "cpu or reference")->capture_default_str();
  verb->add_option("--precision", c.precision, "f32, or f64 with --backend reference")->capture_default_str();
  verb->add_option("--set", a.settings, "any setting, as KEY=VALUE, e.g. model.stem_padding=0")->type_name("KEY=VALUE");
  verb->add_option("--config", a.config_file, "settings from a TOML file; flags win")->type_name("FILE");
  verb->add_flag("--json", a.json, "print the result as JSON");
  verb->add_flag("--dump-graph", a.dump_graph, "print the training graph");
  verb->add_flag("--dump-plan", a.dump_plan, "print each step's kernel, bytes and place");
  verb->add_option("--disable-pass", a.disabled_passes, "leave out a pass, by name")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_option("--dump-gradients", a.dump_gradients, "write the first step's gradients here")
      ->type_name("FILE")
      ->group("");
  verb->footer(
      "Example: resnet train --epochs 2 --image-size 48 --momentum 0.9 --output runs/first\n"
      "Continue it: resnet train --resume runs/first --epochs 4");
  return [verb, arguments] { return run_train(*verb, *arguments); };
}

}  // namespace resnet::cli
