#include "formats/file_io.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "base/error.h"

namespace resnet {

namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

/// Retries a system call that a signal interrupted.
template <class Call>
auto retry(Call&& call) {
  while (true) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

/// A write past RLIMIT_FSIZE raises SIGXFSZ, which kills by default. Held back here, it leaves EFBIG, an
/// ordinary error. The signal goes to the writing thread, so that masking this thread is enough.
class FileSizeSignalBlock {
 public:
  FileSizeSignalBlock() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGXFSZ);
    sigset_t old;
    pthread_sigmask(SIG_BLOCK, &signal_, &old);
    was_blocked_ = sigismember(&old, SIGXFSZ) == 1;
  }
  ~FileSizeSignalBlock() {
    if (was_blocked_) return;
    const int saved = errno;
    const timespec now{};
    while (raised_ && sigtimedwait(&signal_, nullptr, &now) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_UNBLOCK, &signal_, nullptr);
    errno = saved;
  }
  FileSizeSignalBlock(const FileSizeSignalBlock&) = delete;
  FileSizeSignalBlock& operator=(const FileSizeSignalBlock&) = delete;
  void note(int error_number) { raised_ = raised_ || error_number == EFBIG; }

 private:
  sigset_t signal_{};
  bool was_blocked_ = false;
  bool raised_ = false;
};

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

Sha256Sink::Sha256Sink() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr || EVP_DigestInit_ex(context_of(context_), EVP_sha256(), nullptr) != 1) {
    EVP_MD_CTX_free(context_of(context_));
    throw ResourceError(ExitCode::limit, "SHA-256: OpenSSL gives no context");
  }
}

Sha256Sink::~Sha256Sink() { EVP_MD_CTX_free(context_of(context_)); }

void Sha256Sink::write(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_of(context_), bytes.data(), bytes.size()) == 1, "Sha256Sink: update failed");
}

std::string Sha256Sink::hex() {
  unsigned char digest[32];
  check(EVP_DigestFinal_ex(context_of(context_), digest, nullptr) == 1, "Sha256Sink: final failed");
  std::string out;
  for (unsigned char byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256Sink hash;
  hash.write(bytes);
  return hash.hex();
}

std::string sha256_hex_of_file(const std::string& path) {
  const InputFile file(path);
  Sha256Sink hash;
  std::vector<std::byte> chunk(static_cast<size_t>(std::min<uint64_t>(file.size(), kChunkBytes)));
  for (uint64_t offset = 0; offset < file.size(); offset += chunk.size()) {
    const auto part =
        std::span(chunk).first(static_cast<size_t>(std::min<uint64_t>(chunk.size(), file.size() - offset)));
    file.read_at(offset, part);
    hash.write(part);
  }
  return hash.hex();
}

void FileDescriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK: opening a FIFO without a writer must not hang; it changes nothing for regular files.
  fd_ = FileDescriptor(retry([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  if (fd_.value() < 0) throw io_error(path_, "open for reading", errno);
  struct stat status {};
  if (::fstat(fd_.value(), &status) != 0) throw io_error(path_, "stat", errno);
  if (!S_ISREG(status.st_mode)) {
    throw ResourceError(ExitCode::io, "{}: is {}; expected a regular file", path_, kind_of(status.st_mode));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> target) const {
  while (!target.empty()) {
    const ssize_t got =
        retry([&] { return ::pread(fd_.value(), target.data(), target.size(), static_cast<off_t>(offset)); });
    if (got < 0) throw io_error(path_, "read", errno);
    if (got == 0) throw bad_data(path_, offset, "content", "the file ends here; expected {} more bytes", target.size());
    offset += static_cast<uint64_t>(got);
    target = target.subspan(static_cast<size_t>(got));
  }
}

ContentHash content_hash(const InputFile& file, int threads) {
  return content_hash(file.size(), threads,
                      [&](uint64_t offset, std::span<std::byte> target) { file.read_at(offset, target); });
}

std::string read_whole_file(const std::string& path, uint64_t limit) {
  const InputFile file(path);
  if (file.size() > limit) {
    throw ResourceError(ExitCode::limit, "{}: holds {} bytes; at most {} are accepted here", path, file.size(), limit);
  }
  std::string out(static_cast<size_t>(file.size()), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(out)));
  return out;
}

OutputFile::OutputFile(const std::string& path, std::string shown, unsigned permissions)
    : shown_(shown.empty() ? path : std::move(shown)) {
  fd_ =
      FileDescriptor(retry([&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions); }));
  if (fd_.value() < 0) throw io_error(shown_, "create", errno);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  FileSizeSignalBlock block;
  while (!bytes.empty()) {
    const ssize_t put = retry([&] { return ::write(fd_.value(), bytes.data(), bytes.size()); });
    if (put < 0) {
      block.note(errno);
      throw io_error(shown_, "write", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
}

void OutputFile::commit() {
  if (retry([&] { return ::fsync(fd_.value()); }) != 0) throw io_error(shown_, "fsync", errno);
  // After fsync nothing is left to lose; NFS and quotas may still report here.
  close();
}

void OutputFile::close() {
  // EINTR on Linux means closed.
  if (::close(fd_.release()) != 0 && errno != EINTR) throw io_error(shown_, "close", errno);
}

void sync_directory(const std::string& path) {
  const FileDescriptor fd(retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (fd.value() < 0) throw io_error(path, "open directory", errno);
  // EINVAL: a file system that keeps no directory metadata to sync.
  if (retry([&] { return ::fsync(fd.value()); }) != 0 && errno != EINVAL)
    throw io_error(path, "fsync directory", errno);
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void atomic_write_file(const std::string& path, const ContentWriter& content) {
  std::string target = path;
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) {
    const auto resolved = std::filesystem::canonical(path, error);
    if (error) throw io_error(path, "follow symlink", error.value());
    target = resolved.string();
  }
  struct stat status {};
  if (::stat(target.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw ResourceError(ExitCode::io, "{}: is {}; expected a regular file or a new name", path,
                        kind_of(status.st_mode));
  }

  static std::atomic<uint64_t> counter{0};
  const std::string directory = directory_of(target);
  const std::string temporary = fmt::format("{}/.tmp-{}-write-{}", directory, ::getpid(), counter.fetch_add(1));
  ::unlink(temporary.c_str());  // left by a killed process that had our number
  try {
    OutputFile file(temporary, target);
    content(file);
    file.commit();
    if (::rename(temporary.c_str(), target.c_str()) != 0) throw io_error(target, "rename into place", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(directory);
}

void atomic_write_file(const std::string& path, std::string_view bytes) {
  atomic_write_file(path, [&](ByteSink& sink) { sink.write(bytes); });
}

}  // namespace resnet
