#include "formats/checkpoint_directory.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"

namespace resnet {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kFormat = "resnet-checkpoint";
constexpr int kVersion = 1;
constexpr uint64_t kMaxManifestBytes = uint64_t{1} << 20;

std::string join(const std::string& directory, const std::string& name) {
  return fmt::format("{}/{}", directory, name);
}

std::optional<int64_t> number_of(std::string_view digits) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
  return value;
}

std::string step_name(int64_t step) { return fmt::format("step-{}", step); }

/// N of "step-N"; nothing for any other name, "step-007" included.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-")) return std::nullopt;
  const auto step = number_of(std::string_view(name).substr(5));
  return step && step_name(*step) == name ? step : std::nullopt;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) throw io_error(directory, "list", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

/// Steps of the step-* directories, newest first.
std::vector<int64_t> steps_in(const std::string& directory) {
  std::vector<int64_t> steps;
  for (const std::string& name : names_in(directory)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

/// Whether there is anything of that name, a symlink to nothing included. What cannot be looked at counts as there:
/// opening it gives the reason.
bool exists(const std::string& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

void rename_over(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw io_error(to, "rename into place", errno);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw io_error(path, "remove", error.value());
}

/// Moves RUN/last to `directory`, which lies in RUN, by one rename.
void point_last_to(const std::string& run, const std::string& directory) {
  const std::string last = join(run, "last");
  const std::string link = join(run, fmt::format(".tmp-{}-last", ::getpid()));
  const std::string target = directory.substr(directory.find_last_of('/') + 1);
  ::unlink(link.c_str());
  if (::symlink(target.c_str(), link.c_str()) != 0) throw io_error(link, "create symlink", errno);
  if (::rename(link.c_str(), last.c_str()) != 0) {
    const int error = errno;
    ::unlink(link.c_str());
    throw io_error(last, "rename into place", error);
  }
  sync_directory(run);
}

/// Writes to the file and hashes what it writes.
class HashingFile final : public ByteSink {
 public:
  explicit HashingFile(const std::string& path) : file_(path) {}
  using ByteSink::write;
  void write(std::span<const std::byte> bytes) override {
    file_.write(bytes);
    hash_.write(bytes);
    size_ += bytes.size();
  }
  CheckpointFile commit(const std::string& name) {
    file_.commit();
    return {.name = name, .size = size_, .sha256 = hash_.hex()};
  }

 private:
  OutputFile file_;
  Sha256Sink hash_;
  uint64_t size_ = 0;
};

/// One run directory while a checkpoint is being committed.
class Committer {
 public:
  Committer(const std::string& run, const CheckpointContent& content)
      : run_(run), content_(content), last_(join(run, "last")), step_(join(run, step_name(content.step))) {
    check(content.step >= 0 && content.keep >= 1, "commit_checkpoint: negative step or nothing to keep");
    for (const auto& [name, writer] : content.files) {
      check(is_plain_name(name) && name != kManifest, "commit_checkpoint: not a plain file name");
    }
    refuse_foreign(last_, fs::file_type::symlink, "a symlink");
    refuse_foreign(step_, fs::file_type::directory, "a directory");
  }

  void commit() {
    const std::string written = write_directory();
    try {
      place(written);
    } catch (...) {
      discard(written);
      throw;
    }
    prune();
  }

 private:
  static void refuse_foreign(const std::string& path, fs::file_type ours, const char* expected) {
    std::error_code error;
    const fs::file_type type = fs::symlink_status(path, error).type();
    if (type != fs::file_type::not_found && type != ours) {
      throw UserError(ExitCode::refused,
                      "{}: is not {}, so no checkpoint made it; expected {} or nothing, move it away", path, expected,
                      expected);
    }
  }

  bool is_last(const std::string& path) const {
    std::error_code error;
    return fs::equivalent(last_, path, error) && !error;
  }

  void discard(const std::string& path) const noexcept {
    if (is_last(path)) return;
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }

  /// A new, empty .tmp-PID-N. Its name may be taken by what a killed process of our number left, and `last` may
  /// point there: then the next free name.
  std::string fresh_directory() const {
    for (int attempt = 0;; ++attempt) {
      const std::string path = join(
          run_, fmt::format(".tmp-{}-{}{}", ::getpid(), content_.step, attempt ? fmt::format("-{}", attempt) : ""));
      if (::mkdir(path.c_str(), 0777) == 0) return path;
      if (errno != EEXIST || attempt == 1000) throw io_error(path, "create directory", errno);
    }
  }

  /// The whole checkpoint under a temporary name, on the disk.
  std::string write_directory() {
    const std::string directory = fresh_directory();
    try {
      json files = json::array();
      for (const auto& [name, write] : content_.files) {
        HashingFile file(join(directory, name));
        write(file);
        const CheckpointFile done = file.commit(name);
        files.push_back({{"name", done.name}, {"size", done.size}, {"sha256", done.sha256}});
      }
      const json manifest = {{"format", kFormat}, {"version", kVersion}, {"step", content_.step}, {"files", files}};
      manifest_ = manifest.dump(2) + "\n";
      OutputFile file(join(directory, kManifest));
      file.write(manifest_);
      file.commit();
      sync_directory(directory);
    } catch (...) {
      discard(directory);
      throw;
    }
    return directory;
  }

  /// Gives `written` its name and moves `last` to it.
  void place(const std::string& written) {
    std::error_code error;
    if (!fs::exists(step_, error)) {
      rename_over(written, step_);
      sync_directory(run_);
    } else if (same_as_existing()) {
      sync_directory(run_);  // whoever renamed it may have been killed before its own sync
    } else if (is_last(step_)) {
      // No rename replaces a full directory. `last` moves to the temporary name first, so that step-N is free to
      // go, and a second copy takes its place.
      sync_directory(run_);
      point_last_to(run_, written);
      const std::string again = write_directory();
      try {
        replace_step_by(again);
      } catch (...) {
        discard(again);
        throw;
      }
    } else {
      replace_step_by(written);
    }
    point_last_to(run_, step_);
    discard(written);
  }

  bool same_as_existing() const;

  void replace_step_by(const std::string& written) {
    set_aside_and_remove(step_);
    rename_over(written, step_);
    sync_directory(run_);
  }

  /// Out of the step-* names by one rename, so that no half-removed checkpoint is ever listed.
  void set_aside_and_remove(const std::string& path) const {
    const std::string aside = fresh_directory();
    try {
      rename_over(path, aside);  // onto an empty directory
      remove_tree(aside);
    } catch (...) {
      discard(aside);
      throw;
    }
  }

  void prune() const {
    int kept = 0;
    for (const int64_t step : steps_in(run_)) {
      if (step > content_.step || ++kept <= content_.keep) continue;
      const std::string path = join(run_, step_name(step));
      if (!is_last(path)) set_aside_and_remove(path);
    }
    for (const std::string& name : names_in(run_)) {
      if (is_stale(name) && !is_last(join(run_, name))) remove_tree(join(run_, name));
    }
    prune_plots();
  }

  /// The run's plots are written by atomic_write_file, which leaves its temporary file when it is killed.
  void prune_plots() const {
    const std::string plots = join(run_, "plots");
    std::error_code error;
    if (!fs::is_directory(fs::symlink_status(plots, error))) return;  // a symlink leads to files that are not the run's
    for (const std::string& name : names_in(plots)) {
      if (is_stale(name) && name.find("-write-") != std::string::npos) remove_tree(join(plots, name));
    }
  }

  /// .tmp-PID-... of this process (whose commit is over; files of atomic_write_file are not ours to judge) or of one
  /// that is gone.
  static bool is_stale(const std::string& name) {
    constexpr std::string_view kPrefix = ".tmp-";
    if (!name.starts_with(kPrefix)) return false;
    const size_t dash = name.find('-', kPrefix.size());
    if (dash == std::string::npos) return false;
    const auto pid = number_of(std::string_view(name).substr(kPrefix.size(), dash - kPrefix.size()));
    if (!pid || *pid <= 0 || !std::in_range<pid_t>(*pid)) return false;
    if (*pid == ::getpid()) return !name.substr(dash).starts_with("-write-");
    return ::kill(static_cast<pid_t>(*pid), 0) != 0 && errno == ESRCH;
  }

  const std::string& run_;
  const CheckpointContent& content_;
  std::string last_;
  std::string step_;
  std::string manifest_;
};

/// The value of a manifest field, or bad_data.
template <class T>
T field(const json& object, const char* name, const std::string& path) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  const bool fits =
      found != object.end() && (std::is_same_v<T, std::string> ? found->is_string() : found->is_number_unsigned());
  if (!fits) {
    throw bad_data(path, 0, name, "missing or of another type; expected {}",
                   std::is_same_v<T, std::string> ? "a string" : "a whole number");
  }
  return found->get<T>();
}

Checkpoint read_manifest(const std::string& directory) {
  const std::string path = join(directory, kManifest);
  if (!exists(path)) {
    throw bad_data(path, 0, "manifest", "missing; expected one in every checkpoint");
  }
  const std::string text = read_whole_file(path, kMaxManifestBytes);
  json manifest;
  try {
    manifest = json::parse(text);
  } catch (const json::parse_error& failure) {
    throw bad_data(path, failure.byte == 0 ? 0 : failure.byte - 1, "manifest", "not valid JSON");
  }
  if (field<std::string>(manifest, "format", path) != kFormat ||
      field<uint64_t>(manifest, "version", path) != kVersion) {
    throw bad_data(path, 0, "format", "another format or version; expected '{}', version {}", kFormat, kVersion);
  }
  const uint64_t step = field<uint64_t>(manifest, "step", path);
  const std::string name = fs::path(directory).filename().string();
  if (!std::in_range<int64_t>(step) || (step_of(name) && step_name(static_cast<int64_t>(step)) != name)) {
    throw bad_data(path, 0, "step", "{}; the directory is named {}", step, escape_control(name));
  }
  Checkpoint checkpoint{.directory = directory, .step = static_cast<int64_t>(step), .files = {}};
  const auto files = manifest.find("files");
  if (files == manifest.end() || !files->is_array()) throw bad_data(path, 0, "files", "missing; expected an array");
  std::set<std::string> seen;
  for (const json& item : *files) {
    CheckpointFile file{.name = field<std::string>(item, "name", path),
                        .size = field<uint64_t>(item, "size", path),
                        .sha256 = field<std::string>(item, "sha256", path)};
    if (!is_plain_name(file.name) || !seen.insert(file.name).second) {
      throw bad_data(path, 0, "name", "'{}'; expected plain file names, each once", escape_control(file.name));
    }
    checkpoint.files.push_back(std::move(file));
  }
  return checkpoint;
}

/// Throws unless every file is what the manifest says.
Checkpoint verified(const std::string& directory) {
  Checkpoint checkpoint = read_manifest(directory);
  for (const CheckpointFile& file : checkpoint.files) {
    const std::string path = escape_control(checkpoint.path_of(file.name));
    if (!exists(checkpoint.path_of(file.name))) {
      throw bad_data(path, 0, "file", "missing; the manifest lists it with {} bytes", file.size);
    }
    const uint64_t size = InputFile(checkpoint.path_of(file.name)).size();
    if (size != file.size) {
      throw bad_data(path, std::min(size, file.size), "size", "{} bytes; the manifest says {}", size, file.size);
    }
    const std::string sha256 = sha256_hex_of_file(checkpoint.path_of(file.name));
    if (sha256 != file.sha256) {
      throw bad_data(path, 0, "SHA-256", "{}; the manifest says {}: the content has changed", sha256,
                     escape_control(file.sha256));
    }
  }
  return checkpoint;
}

bool Committer::same_as_existing() const {
  try {
    return read_whole_file(join(step_, kManifest), kMaxManifestBytes) == manifest_ &&
           !verified(step_).directory.empty();
  } catch (const Error&) {
    return false;  // damaged: to be replaced
  }
}

/// "; intact beside it: step-8, step-4", for messages.
std::string intact_in(const std::string& directory, const std::string& except) {
  std::vector<std::string> intact;
  std::error_code error;
  if (!fs::is_directory(directory, error)) return "";
  for (const int64_t step : steps_in(directory)) {
    const std::string path = join(directory, step_name(step));
    if (fs::equivalent(path, except, error)) continue;
    try {
      verified(path);
      intact.push_back(path);
    } catch (const Error&) {  // not intact: not named
    }
  }
  if (intact.empty()) return "; no other intact checkpoint beside it";
  return fmt::format("; intact beside it: {}; name one to use it", fmt::join(intact, ", "));
}

/// The newest step-* of a run directory that verifies; nothing when there is no step-* at all. When none verifies,
/// throws what is wrong with the newest.
std::optional<Checkpoint> newest_in(const std::string& directory) {
  std::error_code error;
  const fs::path run = fs::canonical(directory, error);
  if (error || !fs::is_directory(run, error)) return std::nullopt;
  std::exception_ptr newest_failure;
  for (const int64_t step : steps_in(run.string())) {
    try {
      return verified(join(run.string(), step_name(step)));
    } catch (const UserError&) {  // damaged; a read that fails is no reason to go back to an older one
      if (!newest_failure) newest_failure = std::current_exception();
    }
  }
  if (newest_failure) std::rethrow_exception(newest_failure);
  return std::nullopt;
}

}  // namespace

void commit_checkpoint(const std::string& run_directory, const CheckpointContent& content) {
  Committer(run_directory, content).commit();
}

bool holds_checkpoint(const std::string& run_directory) {
  std::error_code error;
  const fs::file_type last = fs::symlink_status(join(run_directory, "last"), error).type();
  if (last == fs::file_type::none) throw io_error(run_directory, "look for a checkpoint", error.value());
  if (last != fs::file_type::not_found) return true;
  if (!fs::is_directory(run_directory, error)) return false;
  const std::vector<int64_t> steps = steps_in(run_directory);
  return std::any_of(steps.begin(), steps.end(), [&](int64_t step) {
    std::error_code ignored;
    return fs::is_directory(join(run_directory, step_name(step)), ignored);
  });
}

void make_last(const std::string& run_directory, const Checkpoint& checkpoint) {
  std::error_code error;
  const bool inside = fs::equivalent(directory_of(checkpoint.directory), run_directory, error);
  if (!inside || error) {
    throw UserError(ExitCode::refused, "{}: is not a checkpoint of {}; expected one in it", checkpoint.directory,
                    run_directory);
  }
  if (!fs::equivalent(join(run_directory, "last"), checkpoint.directory, error)) {
    point_last_to(run_directory, checkpoint.directory);
  }
}

Checkpoint open_checkpoint(const std::string& path) {
  // A run directory stands for its `last`; before the first save has made it, for the newest step-*.
  const bool has_manifest = exists(join(path, kManifest));
  const bool has_last = exists(join(path, "last"));
  if (!has_manifest && !has_last) {
    if (std::optional<Checkpoint> newest = newest_in(path)) return *std::move(newest);
  }
  const std::string chosen = !has_manifest && has_last ? join(path, "last") : path;
  std::string trimmed = chosen;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const std::string beside = directory_of(trimmed);

  std::error_code error;
  const fs::path resolved = fs::canonical(chosen, error);
  if (error) {
    throw ResourceError(ExitCode::io, "{}: no checkpoint: {}{}", chosen, error.message(), intact_in(beside, chosen));
  }
  const std::string name = resolved.filename().string();
  if (!exists(join(resolved.string(), kManifest)) && !step_of(name) && !name.starts_with(".tmp-")) {
    throw ResourceError(ExitCode::io,
                        "{}: no checkpoint: expected a run directory with 'last' or a directory with {}{}", chosen,
                        kManifest, intact_in(resolved.string(), chosen));
  }
  try {
    return verified(resolved.string());
  } catch (const Error& failure) {
    const std::string message = failure.what() + intact_in(beside, chosen);
    if (failure.code() == ExitCode::io) throw ResourceError(ExitCode::io, "{}", message);
    throw UserError(failure.code(), "{}", message);
  }
}

}  // namespace resnet
