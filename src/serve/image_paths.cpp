#include "serve/image_paths.h"

#include <fcntl.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <span>

#include "base/error.h"
#include "data/decode.h"
#include "formats/file_io.h"

namespace resnet {

namespace {

namespace fs = std::filesystem;

bool has_image_name(const fs::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp";
}

/// What cannot be opened is no image here: a README without permission is nobody's concern.
bool has_image_content(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  std::array<std::byte, 16> head{};
  const ssize_t got = file.value() < 0 ? -1 : ::read(file.value(), head.data(), head.size());
  return got > 0 && looks_like_image(std::span(head).first(static_cast<size_t>(got)));
}

[[noreturn]] void no_folder(const std::string& folder, const std::error_code& error) {
  throw io_error(escape_control(folder), "read the folder", error.value());
}

std::vector<std::string> images_below(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, error);
  if (error) no_folder(folder, error);
  while (at != fs::recursive_directory_iterator()) {
    std::error_code unknown;  // a link to nothing is no file
    if (at->is_regular_file(unknown)) {
      const std::string path = at->path().string();
      if (has_image_name(at->path()) || has_image_content(path)) found.push_back(path);
    }
    at.increment(error);
    if (error) no_folder(folder, error);
  }
  if (found.empty()) {
    throw ResourceError(ExitCode::io, "{}: no image in this folder or below; expected JPEG, PNG or WebP files",
                        escape_control(folder));
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t matches{};
  const std::unique_ptr<glob_t, decltype(&globfree)> owner(&matches, &globfree);
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches);
  if (result == GLOB_NOMATCH) {
    throw ResourceError(ExitCode::io, "{}: no file matches; expected a file, a folder or a pattern of files",
                        escape_control(pattern));
  }
  if (result != 0) throw ResourceError(ExitCode::limit, "{}: cannot be matched", escape_control(pattern));
  std::vector<std::string> paths(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  std::sort(paths.begin(), paths.end());  // by bytes, not by the locale's rules
  return paths;
}

}  // namespace

std::vector<std::string> image_paths(const std::string& argument) {
  std::error_code unknown;
  const fs::file_status status = fs::status(argument, unknown);
  if (fs::is_directory(status)) return images_below(argument);
  if (fs::exists(status) || argument.find_first_of("*?[") == std::string::npos) return {argument};
  std::vector<std::string> paths;
  for (const std::string& match : matches_of(argument)) {
    if (!fs::is_directory(match, unknown)) {
      paths.push_back(match);
      continue;
    }
    const std::vector<std::string> below = images_below(match);
    paths.insert(paths.end(), below.begin(), below.end());
  }
  return paths;
}

}  // namespace resnet
