#include "data/file_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <new>

#include "base/error.h"

namespace resnet {

namespace {

struct OpenFile {
  explicit OpenFile(int number) : fd(number) {}
  ~OpenFile() {
    if (fd >= 0) close(fd);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  const int fd;
};

enum class Beyond : uint8_t { refuse, leave };
using Look = std::function<void(std::span<const std::byte>)>;

bool is_of_the_path(int error) {
  return error == ENOENT || error == ENOTDIR || error == EACCES || error == ELOOP || error == ENAMETOOLONG;
}

/// Fills `out` from the file as far as that goes; returns how many bytes there were.
size_t read_some(const OpenFile& file, std::span<std::byte> out, const std::string& shown) {
  size_t have = 0;
  while (have < out.size()) {
    const ssize_t got = read(file.fd, out.data() + have, out.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw io_error(shown, "read", errno);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  return have;
}

void read_into(const std::string& path, size_t most, Beyond beyond, std::vector<std::byte>& out, const Look& look) try {
  const std::string shown = escape_control(path);
  // Without O_NONBLOCK, opening a FIFO would wait for a writer that may never come.
  const OpenFile file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (file.fd < 0) {
    const int error = errno;
    const ResourceError told = io_error(shown, "open", error);
    if (is_of_the_path(error)) throw NoFileError(told.code(), "{}", told.what());
    throw told;
  }
  struct stat status {};
  if (fstat(file.fd, &status) != 0) throw io_error(shown, "inspect", errno);
  if (!S_ISREG(status.st_mode)) {
    throw NoFileError(ExitCode::io, "{}: is {}; expected a regular file", shown,
                      S_ISDIR(status.st_mode) ? "a folder" : "a pipe, a socket or a device");
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > most && beyond == Beyond::refuse) {
    throw ResourceError(ExitCode::limit, "{}: holds {} bytes; at most {} are read", shown, size, most);
  }
  const size_t wanted = std::min<uint64_t>(size, most);
  constexpr size_t kFirstBytes = 64, kKeptBytes = size_t{32} << 20;
  if (out.capacity() > kKeptBytes && out.capacity() / 4 > wanted) std::vector<std::byte>().swap(out);
  out.resize(std::min(wanted, kFirstBytes));
  size_t have = read_some(file, out, shown);
  if (look) look(std::span(out).first(have));
  if (have == out.size()) {
    out.resize(wanted);
    have += read_some(file, std::span(out).subspan(have), shown);
  }
  out.resize(have);
} catch (const std::bad_alloc&) {
  throw ResourceError(ExitCode::limit, "{}: not enough memory to read it", escape_control(path));
}

}  // namespace

void read_file_bytes(const std::string& path, size_t max_bytes, std::vector<std::byte>& out, const Look& look) {
  read_into(path, max_bytes, Beyond::refuse, out, look);
}

void read_file_start(const std::string& path, size_t most, std::vector<std::byte>& out) {
  read_into(path, most, Beyond::leave, out, {});
}

}  // namespace resnet
