#pragma once
// One function a verb: adds its flags to the command line and returns what runs it.

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>

#include "formats/file_io.h"

namespace resnet {
class WeightsFile;
struct KnownOfWeights;
}  // namespace resnet

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
Command add_quantize(CLI::App& app);

/// Before the work is done: throws UserError (refused) when `out` is there and may not be replaced, ResourceError (io)
/// when it is a folder or its folder cannot be written to.
void require_free(const std::string& out, bool force);
/// A line on stderr that a user should know and need not act on.
void note(const std::string& text);
/// Notes which preprocessing was taken for granted, when neither the file nor the user said it. `metadata`:
/// completed_metadata's.
void note_preprocessing(const WeightsFile& file, const KnownOfWeights& known,
                        const std::map<std::string, std::string>& metadata);
/// atomic_write_file; SIGINT and SIGTERM end it between two pieces of content, leave what was there and no temporary
/// file. Returns the exit code: 0, or 128 and the signal.
int write_unless_stopped(const std::string& path, const ContentWriter& content);

/// The flags with which a user tells what a file of weights does not: --architecture, --class-names, --metadata.
void add_known_of_weights(CLI::App& verb, std::string& architecture, std::string& class_names,
                          std::vector<std::string>& metadata);
/// What they tell; architecture=NAME among the metadata is the flag. Throws UserError for an unknown architecture or
/// key, a setting without `=`, bad_data for a class name that is empty or not UTF-8. Keys of the user's own begin with
/// "x.".
KnownOfWeights known_of_weights(const std::string& architecture, const std::string& class_names,
                                const std::vector<std::string>& metadata);

/// From here on SIGINT and SIGTERM set what is returned to their number, and a second one ends the process at once;
/// before, the first one does.
const std::atomic<int>& install_stop_signals();

}  // namespace resnet::cli
