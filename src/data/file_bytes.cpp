#include "data/file_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
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

}  // namespace

void read_file_bytes(const std::string& path, size_t max_bytes, std::vector<std::byte>& out) try {
  const std::string shown = escape_control(path);
  // Without O_NONBLOCK, opening a FIFO would wait for a writer that may never come.
  const OpenFile file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (file.fd < 0) throw io_error(shown, "open", errno);
  struct stat status {};
  if (fstat(file.fd, &status) != 0) throw io_error(shown, "inspect", errno);
  if (!S_ISREG(status.st_mode)) {
    throw ResourceError(ExitCode::io, "{}: is {}; expected a regular file", shown,
                        S_ISDIR(status.st_mode) ? "a folder" : "a pipe, a socket or a device");
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > max_bytes) {
    throw ResourceError(ExitCode::limit, "{}: holds {} bytes; at most {} are read", shown, size, max_bytes);
  }
  out.resize(size);
  size_t have = 0;
  while (have < out.size()) {
    const ssize_t got = read(file.fd, out.data() + have, out.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw io_error(shown, "read", errno);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  out.resize(have);
} catch (const std::bad_alloc&) {
  throw ResourceError(ExitCode::limit, "{}: not enough memory to read it", escape_control(path));
}

}  // namespace resnet
