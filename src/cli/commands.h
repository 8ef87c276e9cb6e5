#pragma once
// One function a verb: adds its flags to the command line and returns what runs it.

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>

namespace resnet::cli {

/// Runs the verb; returns the exit code.
using Command = std::function<int()>;

Command add_train(CLI::App& app);
Command add_evaluate(CLI::App& app);
Command add_summary(CLI::App& app);
Command add_benchmark(CLI::App& app);

/// Set to the signal's number by SIGINT and SIGTERM; a second signal ends the process at once.
const std::atomic<int>& install_stop_signals();

}  // namespace resnet::cli
