#pragma once
// Errors by blame: the user's input, the machine's resources, our own bug. The command line maps
// ExitCode to the process's status; the library only throws and never prints.

#include <stdexcept>
#include <string>
#include <vector>

#include "base/format.h"

namespace resnet {

/// Exit codes of the program, which scripts rely on: 0 ok, 1 a check found something, 2 usage (flag, environment,
/// config), 3 bad data (file content), 4 input/output (missing, permission, disk full), 5 a limit (memory, pixels,
/// size), 6 training diverged, 7 a peer was lost, 8 refused (would overwrite, locked, mismatch with what is there), 70
/// our own bug, 130 and 143 after a clean SIGINT and SIGTERM.
enum class ExitCode : int {
  ok = 0,
  check_failed = 1,
  usage = 2,
  bad_data = 3,
  io = 4,
  limit = 5,
  diverged = 6,
  peer_lost = 7,
  refused = 8,
  internal = 70,
  interrupted = 130,
  terminated = 143,
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// The input is wrong: a flag, a shape, a file's content, or a state we refuse to overwrite.
class UserError : public Error {
 public:
  template <class... Args>
  explicit UserError(fmt::format_string<Args...> text, Args&&... args)
      : Error(ExitCode::usage, fmt::format(text, std::forward<Args>(args)...)) {}
  template <class... Args>
  UserError(ExitCode code, fmt::format_string<Args...> text, Args&&... args)
      : Error(code, fmt::format(text, std::forward<Args>(args)...)) {}
};

/// The machine could not: memory, disk, permissions (ExitCode::io or ::limit).
class ResourceError : public Error {
 public:
  template <class... Args>
  ResourceError(ExitCode code, fmt::format_string<Args...> text, Args&&... args)
      : Error(code, fmt::format(text, std::forward<Args>(args)...)) {}
};

/// A bug of ours; never reachable by input.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message) : Error(ExitCode::internal, message) {}
};

/// Bad file content: `PATH: byte OFFSET (FIELD): what came; what was expected`. Exit code 3.
template <class... Args>
UserError bad_data(const std::string& path, uint64_t offset, const char* field, fmt::format_string<Args...> text,
                   Args&&... args) {
  return UserError(ExitCode::bad_data, "{}: byte {} ({}): {}", path, offset, field,
                   fmt::format(text, std::forward<Args>(args)...));
}

/// An input/output failure with errno's text: `PATH: WHAT: strerror`. Exit code 4.
ResourceError io_error(const std::string& path, const char* what, int error_number);

/// Internal invariant; on in release too.
inline void check(bool condition, const char* why) {
  if (!condition) throw InternalError(why);
}

/// Escapes control characters (and DEL) so that a hostile name cannot write to the terminal.
std::string escape_control(const std::string& text);

/// The closest of `candidates` to `name` by edit distance, for "did you mean"; at most `most`.
std::string nearest_names(const std::string& name, const std::vector<std::string>& candidates, int most = 3);

}  // namespace resnet
