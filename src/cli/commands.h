#pragma once
// One function a verb: adds its flags to the command line and returns what runs it.

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>

namespace resnet {
struct KnownOfWeights;
}

namespace resnet::cli {

/// Runs the verb; returns the exit code.
using Command = std::function<int()>;

Command add_train(CLI::App& app);
Command add_evaluate(CLI::App& app);
Command add_predict(CLI::App& app);
Command add_verify(CLI::App& app);
Command add_summary(CLI::App& app);
Command add_benchmark(CLI::App& app);
Command add_data(CLI::App& app);
Command add_lab(CLI::App& app);
Command add_convert(CLI::App& app);
Command add_export(CLI::App& app);

/// Throws UserError (refused) when `out` is there and may not be replaced.
void require_free(const std::string& out, bool force);
/// A line on stderr that a user should know and need not act on.
void note(const std::string& text);

/// The flags with which a user tells what a file of weights does not: --architecture, --class-names, --metadata.
void add_known_of_weights(CLI::App& verb, std::string& architecture, std::string& class_names,
                          std::vector<std::string>& metadata);
/// What they tell. Throws UserError for an unknown architecture, a class name that is empty, a setting without `=`.
KnownOfWeights known_of_weights(const std::string& architecture, const std::string& class_names,
                                const std::vector<std::string>& metadata);

/// From here on SIGINT and SIGTERM set what is returned to their number, and a second one ends the process at once;
/// before, the first one does.
const std::atomic<int>& install_stop_signals();

}  // namespace resnet::cli
