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
Command add_predict(CLI::App& app);
Command add_verify(CLI::App& app);
Command add_summary(CLI::App& app);
Command add_benchmark(CLI::App& app);
Command add_lab(CLI::App& app);

/// From here on SIGINT and SIGTERM set what is returned to their number, and a second one ends the process at once;
/// before, the first one does.
const std::atomic<int>& install_stop_signals();

}  // namespace resnet::cli
