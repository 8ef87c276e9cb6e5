#include "formats/file_io.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "formats/temporary_directory.h"

namespace resnet {
namespace {

/// The exit code of the Error that `call` throws; -1 and a failure when it throws none.
template <class Call>
int code_of(Call&& call, std::string* message = nullptr) {
  try {
    call();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return static_cast<int>(error.code());
  }
  ADD_FAILURE() << "no Error was thrown";
  return -1;
}

TEST(FileIo, sha256_is_that_of_the_standards_examples) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(FileIo, sha256_of_a_file_is_that_of_its_bytes_over_chunk_borders) {
  const TemporaryDirectory directory;
  for (const size_t size : {size_t{0}, size_t{1}, (size_t{1} << 20) - 1, size_t{1} << 20, (size_t{1} << 20) + 7}) {
    std::string bytes(size, 'x');
    if (size > 0) bytes.back() = 'y';
    put(directory / "file", bytes);
    EXPECT_EQ(sha256_hex_of_file(directory / "file"), sha256_hex(bytes)) << size << " bytes";
  }
}

TEST(FileIo, what_is_written_atomically_is_read_back_and_nothing_else_is_left) {
  const TemporaryDirectory directory;
  atomic_write_file(directory / "file", "old");
  atomic_write_file(directory / "file", std::string_view("new\0bytes", 9));
  EXPECT_EQ(read_whole_file(directory / "file", 9), std::string("new\0bytes", 9));
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"file"});
}

TEST(FileIo, a_writer_that_throws_leaves_the_old_content_and_no_temporary_file) {
  const TemporaryDirectory directory;
  atomic_write_file(directory / "file", "old");
  EXPECT_THROW(atomic_write_file(directory / "file",
                                 [](ByteSink& sink) {
                                   sink.write("half");
                                   throw std::runtime_error("stopped");
                                 }),
               std::runtime_error);
  EXPECT_EQ(content_of(directory / "file"), "old");
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"file"});
}

TEST(FileIo, an_atomic_write_goes_through_a_symlink_and_refuses_a_directory_and_a_fifo) {
  const TemporaryDirectory directory;
  put(directory / "target", "old");
  std::filesystem::create_symlink("target", directory / "link");
  atomic_write_file(directory / "link", "new");
  EXPECT_EQ(content_of(directory / "target"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));

  std::filesystem::create_directory(directory / "folder");
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  std::string message;
  EXPECT_EQ(code_of([&] { atomic_write_file(directory / "folder", "x"); }, &message), 4);
  EXPECT_NE(message.find("is a directory; expected a regular file"), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { atomic_write_file(directory / "pipe", "x"); }), 4);
  EXPECT_EQ(names_in(directory.path()), (std::vector<std::string>{"folder", "link", "pipe", "target"}));
}

TEST(FileIo, reading_a_missing_file_a_directory_and_a_fifo_is_an_input_error_and_does_not_block) {
  const TemporaryDirectory directory;
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  std::string message;
  EXPECT_EQ(code_of([&] { read_whole_file(directory / "missing", 10); }, &message), 4);
  EXPECT_NE(message.find("No such file or directory"), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { read_whole_file(directory.path(), 10); }, &message), 4);
  EXPECT_NE(message.find("is a directory"), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { read_whole_file(directory / "pipe", 10); }, &message), 4);
  EXPECT_NE(message.find("is a FIFO"), std::string::npos) << message;
}

TEST(FileIo, a_file_above_the_limit_is_not_read) {
  const TemporaryDirectory directory;
  put(directory / "file", "12345");
  EXPECT_EQ(read_whole_file(directory / "file", 5), "12345");
  std::string message;
  EXPECT_EQ(code_of([&] { read_whole_file(directory / "file", 4); }, &message), 5);
  EXPECT_NE(message.find("holds 5 bytes; at most 4"), std::string::npos) << message;
}

TEST(FileIo, a_file_that_shrinks_after_opening_gives_an_error_at_its_new_end) {
  const TemporaryDirectory directory;
  put(directory / "file", "0123456789");
  const InputFile file(directory / "file");
  ASSERT_EQ(truncate((directory / "file").c_str(), 6), 0);
  std::vector<std::byte> bytes(8);
  std::string message;
  EXPECT_EQ(code_of([&] { file.read_at(2, bytes); }, &message), 3);
  EXPECT_NE(message.find("byte 6 (content): the file ends here; expected 4 more bytes"), std::string::npos) << message;
}

TEST(FileIo, an_output_file_never_overwrites) {
  const TemporaryDirectory directory;
  put(directory / "file", "old");
  EXPECT_EQ(code_of([&] { OutputFile file(directory / "file"); }), 4);
  EXPECT_EQ(content_of(directory / "file"), "old");
}

TEST(FileIo, the_file_size_limit_is_an_error_not_a_signal_and_leaves_nothing) {
  const TemporaryDirectory directory;
  atomic_write_file(directory / "file", "old");
  const pid_t child = fork();  // the limit is the process's
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      atomic_write_file(directory / "file", std::string(10000, 'x'));
    } catch (const Error& error) {
      const std::string message = error.what();  // of the file asked for, not of the one it is written as at first
      const bool says_so = message.find("File too large") != std::string::npos &&
                           message.starts_with(directory / "file") && message.find(".tmp-") == std::string::npos;
      _exit(says_so ? static_cast<int>(error.code()) : 99);
    }
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 4);
  EXPECT_EQ(content_of(directory / "file"), "old");
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"file"});
}

TEST(FileIo, the_directory_of_a_path_is_what_dirname_says) {
  EXPECT_EQ(directory_of("a/b/c"), "a/b");
  EXPECT_EQ(directory_of("c"), ".");
  EXPECT_EQ(directory_of("/c"), "/");
}

}  // namespace
}  // namespace resnet
