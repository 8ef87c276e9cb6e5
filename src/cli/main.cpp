#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>

#include "base/error.h"
#include "cli/commands.h"

namespace {

using resnet::ExitCode;

int fail(ExitCode code, const std::string& message) {
  // One line, whatever a name or an errno text brought along.
  std::fprintf(stderr, "resnet: error: %s\n", resnet::escape_control(message).c_str());
  return static_cast<int>(code);
}

/// Whether stdout is a pipe that nobody reads any longer: `resnet summary --list | head -1`.
bool reader_is_gone() {
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

/// The exit code, unless results could not be written.
int finish(int code) {
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) || !std::cout) {
    // Whoever closes a pipe has read enough: no message, and the code that a shell gives to a tool that SIGPIPE ends.
    if (reader_is_gone()) return 128 + SIGPIPE;
    return fail(ExitCode::io, "stdout: cannot write the result; expected an open file or pipe");
  }
  return code;
}

/// The long flags of the verb that was given, and of the program.
std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands()) {
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

/// The parser's own numbers are cut to 64 bits without a word, and 010 is 8.
void accept_whole_numbers_only(CLI::App& app) {
  const auto check = [](const std::string& text) -> std::string {
    const char* end = text.data() + text.size();
    const char* digits = text.data() + (text.starts_with('+') ? 1 : 0);
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(digits, end, value);
    return error == std::errc() && stop == end ? "" : "'" + text + "' is not a whole number of at most 64 bits";
  };
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    for (CLI::Option* option : verb->get_options()) {
      if (option->get_type_name() == "INT") option->check(check, "");
    }
  }
}

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

int parse_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (error.get_exit_code() == 0) {  // --help, --version
    app.exit(error, std::cout, std::cerr);
    return finish(0);
  }
  const bool unknown = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  const bool no_verb = app.get_subcommands().empty();
  if (unknown || no_verb) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (no_verb && word.rfind('-', 0) != 0) {
        return fail(ExitCode::usage, "command line: unknown verb '" + word + "'; nearest: " +
                                         resnet::nearest_names(word, verbs_of(app)) + "; see resnet --help");
      }
      if (no_verb) {
        return fail(ExitCode::usage,
                    "command line: unknown flag '" + word + "'; expected a verb first; see resnet --help");
      }
      const std::string name = word.substr(0, word.find('='));
      const auto flags = flags_of(app);
      if (!no_verb && name.rfind("--", 0) == 0 && std::find(flags.begin(), flags.end(), name) == flags.end()) {
        return fail(ExitCode::usage, "command line: unknown flag '" + name +
                                         "'; nearest: " + resnet::nearest_names(name, flags) + "; see resnet " +
                                         app.get_subcommands()[0]->get_name() + " --help");
      }
    }
  }
  return fail(ExitCode::usage, "command line: " + std::string(error.what()) + "; see resnet " +
                                   (no_verb ? "" : app.get_subcommands()[0]->get_name() + " ") + "--help");
}

std::atomic<int> stop_signal{0};
std::atomic<bool> stops_cleanly{false};

extern "C" void on_stop(int signal) {
  // Nobody looks at the flag yet, or it is the second signal, which does not wait: everything saved stays saved.
  if (!stops_cleanly || stop_signal.exchange(signal) != 0) _exit(128 + signal);
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // What the caller has us ignore stays so: nohup, a script's background job.
    struct sigaction inherited {};
    sigaction(signal, nullptr, &inherited);
    if (inherited.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

/// A standard stream that came closed would be the number of the first file opened, and results would go into a
/// checkpoint. What stands in for it can only be read, so that writing to it is still an error.
void occupy_standard_streams() {
  while (true) {
    const int fd = ::open("/dev/null", O_RDONLY);
    if (fd < 0 || fd > STDERR_FILENO) {
      if (fd >= 0) ::close(fd);
      return;
    }
  }
}

}  // namespace

namespace resnet::cli {

const std::atomic<int>& install_stop_signals() {
  stops_cleanly = true;
  return stop_signal;
}

}  // namespace resnet::cli

int main(int argc, char** argv) {
  occupy_standard_streams();
  catch_stop_signals();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a write error, not a death
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app{"Residual networks on a CPU: train, evaluate, predict, inspect, measure."};
  app.set_version_flag("--version", "resnet " RESNET_VERSION);
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.get_formatter()->column_width(34);
  std::vector<std::pair<std::string, resnet::cli::Command>> commands;
  commands.emplace_back("train", resnet::cli::add_train(app));
  commands.emplace_back("evaluate", resnet::cli::add_evaluate(app));
  commands.emplace_back("predict", resnet::cli::add_predict(app));
  commands.emplace_back("verify", resnet::cli::add_verify(app));
  commands.emplace_back("summary", resnet::cli::add_summary(app));
  commands.emplace_back("convert", resnet::cli::add_convert(app));
  commands.emplace_back("export", resnet::cli::add_export(app));
  commands.emplace_back("quantize", resnet::cli::add_quantize(app));
  commands.emplace_back("benchmark", resnet::cli::add_benchmark(app));
  commands.emplace_back("data", resnet::cli::add_data(app));
  commands.emplace_back("lab", resnet::cli::add_lab(app));
  app.footer(
      "Example: resnet train --output runs/first\n         resnet predict runs/first/best.safetensors photo.png\n"
      "Each verb's flags, with an example: resnet VERB --help. Environment: OMP_NUM_THREADS, XDG_CACHE_HOME,\n"
      "RESNET_WEIGHTS_CACHE_MIB, RESNET_CONV_ALGORITHM, RESNET_CONV_WITHOUT, RESNET_MAX_ISA, RESNET_F16: see the "
      "README.");
  accept_whole_numbers_only(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return parse_error(app, error, argc, argv);
  }
  try {
    int code = 0;
    for (const auto& [name, run] : commands) {
      if (app.got_subcommand(name)) code = run();
    }
    return finish(code);
  } catch (const resnet::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    const std::string path = error.path1().string();
    return fail(ExitCode::io, (path.empty() ? "file system" : path) + ": " + error.code().message() +
                                  "; expected a path that can be used");
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::limit, "memory: not enough; try a smaller batch or image size");
  } catch (const std::exception& error) {
    return fail(ExitCode::internal, std::string("internal: ") + error.what());
  }
}
