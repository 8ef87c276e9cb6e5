#include "data/idx.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "data/idx_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;
using Kind = IdxFile::Kind;

struct Hostile {
  const char* what;
  Bytes content;
  ExitCode code;
  std::vector<std::string> message;  // parts
  Kind kind = Kind::images;
  uint64_t max_bytes = uint64_t{4} << 30;
};

Bytes flipped(Bytes bytes, size_t index) {
  bytes.at(index) ^= 0xff;
  return bytes;
}

std::vector<Hostile> hostile_files() {
  const Bytes good = image_file(3, 4, 5);  // 16 + 60 bytes
  const Bytes packed = gzip(good);
  const Bytes bomb = gzip(idx_header(0x803, {2, 4, 5}) + Bytes(size_t{8} << 20));
  const auto bad = ExitCode::bad_data;
  return {
      {"empty", {}, bad, {"byte 0 (header)", "ends after 0 bytes", "header of 16 bytes"}},
      {"ends in the magic", cut(good, 3), bad, {"byte 3 (header)", "header of 16 bytes"}},
      {"ends in the header", cut(good, 15), bad, {"byte 15 (header)", "ends after 15 bytes", "header of 16 bytes"}},
      {"ends in a label header", cut(label_file({1}), 7), bad, {"byte 7 (header)", "of 8 bytes"}, Kind::labels},
      {"labels for images",
       label_file({1, 2}),
       bad,
       {"byte 0 (magic)", "found 0x00000801 (an idx file of labels)", "expected 0x00000803"}},
      {"images for labels", good, bad, {"byte 0 (magic)", "found 0x00000803", "expected 0x00000801"}, Kind::labels},
      {"floats",
       idx_header(0xd03, {1, 1, 1}) + Bytes(4),
       bad,
       {"found 0x00000d03", "not an idx file of unsigned bytes"}},
      {"another format", {'P', 'K', 3, 4, 0}, bad, {"byte 0 (magic)", "found 0x504b0304", "expected 0x00000803"}},
      {"no images", idx_header(0x803, {0, 4, 5}), bad, {"byte 4 (count)", "found 0", "at least 1"}},
      {"no height", idx_header(0x803, {3, 0, 5}), bad, {"byte 8 (height)", "found 0"}},
      {"no width", idx_header(0x803, {3, 4, 0}), bad, {"byte 12 (width)", "found 0"}},
      {"truncated", cut(good, 75), bad, {"byte 4 (count)", "3 x 4 x 5", "at most 59", "75 bytes"}},
      {"only a header", cut(good, 16), bad, {"3 x 4 x 5", "at most 0"}},
      {"oversized count", idx_header(0x803, {0xffffffff, 4, 5}) + Bytes(60), bad, {"4294967295 x 4 x 5", "at most 60"}},
      {"overflowing counts",
       idx_header(0x803, {0xffffffff, 0xffffffff, 0xffffffff}) + Bytes(60),
       bad,
       {"byte 4 (count)", "4294967295 x 4294967295 x 4294967295", "at most 60"}},
      {"trailing bytes", good + Bytes(7), bad, {"byte 76 (end)", "found 7 more bytes", "after 3 x 4 x 5 elements"}},
      {"gzip: oversized count",
       gzip(idx_header(0x803, {0xffffffff, 28, 28}) + Bytes(60)),
       bad,
       {"byte 4 (count)", "4294967295 x 28 x 28", "gzip file"}},
      {"gzip: overflowing counts",
       gzip(idx_header(0x803, {0xffffffff, 0xffffffff, 0xffffffff})),
       bad,
       {"byte 4 (count)", "gzip file"}},
      {"gzip: content truncated", gzip(cut(good, 75)), bad, {"byte 75 (elements)", "59 of 60", "3 x 4 x 5"}},
      {"gzip: content has trailing bytes", gzip(good + Bytes(1)), bad, {"byte 76 (end)", "found more bytes"}},
      {"gzip: bomb", bomb, bad, {"byte 56 (end)", "found more bytes", "2 x 4 x 5"}},
      {"gzip: only its magic", {0x1f, 0x8b}, bad, {"byte 2 (gzip stream)", "ends in the middle"}},
      {"gzip: truncated in the data", cut(packed, packed.size() / 2), bad, {"(gzip stream)", "ends in the middle"}},
      {"gzip: truncated in the trailer", cut(packed, packed.size() - 1), bad, {"(gzip stream)", "ends in the middle"}},
      {"gzip: bad method", flipped(packed, 2), bad, {"(gzip stream)", "damaged", "unknown compression method"}},
      {"gzip: bad block", flipped(packed, 10), bad, {"(gzip stream)", "damaged"}},
      {"gzip: bad CRC", flipped(packed, packed.size() - 8), bad, {"(gzip stream)", "incorrect data check"}},
      {"gzip: bad length", flipped(packed, packed.size() - 1), bad, {"(gzip stream)", "incorrect length check"}},
      {"gzip: trailing garbage",
       packed + Bytes{1, 2, 3},
       bad,
       {"(gzip stream)", "found bytes after the compressed data", "another gzip member"}},
      {"gzip: trailing zeros", packed + Bytes(512), bad, {"found bytes after the compressed data"}},
      {"gzip: second member truncated", packed + cut(packed, 10), bad, {"(gzip stream)", "ends in the middle"}},
      {"gzip: second member too much", packed + packed, bad, {"byte 76 (end)", "found more bytes"}},
      {"above the limit", good, ExitCode::limit, {"3 x 4 x 5", "76 bytes", "at most 59 bytes"}, Kind::images, 59},
      {"gzip: above the limit", packed, ExitCode::limit, {"3 x 4 x 5", "at most 59 bytes"}, Kind::images, 59},
  };
}

TEST(Idx, rejects_every_hostile_file_with_the_right_code_and_one_line_that_names_the_fault) {
  const TempFolder folder;
  for (const Hostile& hostile : hostile_files()) {
    SCOPED_TRACE(hostile.what);
    const std::string path = folder.write("file", hostile.content);
    try {
      IdxFile(path, hostile.kind, hostile.max_bytes).read();
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), hostile.code) << message;
      EXPECT_EQ(message.rfind(path + ": ", 0), 0u) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      for (const std::string& part : hostile.message) {
        EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
      }
    }
  }
}

TEST(Idx, rejects_every_prefix_of_a_plain_and_a_gzip_file) {
  const TempFolder folder;
  const Bytes good = image_file(2, 3, 3);
  for (const Bytes& whole : {good, gzip(good)}) {
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::string path = folder.write("file", cut(whole, size));
      EXPECT_THROW(IdxFile(path, Kind::images).read(), UserError) << size << " of " << whole.size() << " bytes";
    }
    EXPECT_EQ(IdxFile(folder.write("file", whole), Kind::images).read(), ramp(18));
  }
}

TEST(Idx, notices_any_flipped_byte_of_gzip_content) {
  const TempFolder folder;
  const Bytes packed = gzip(image_file(2, 3, 3));
  for (size_t i = 10; i < packed.size(); ++i) {  // the first ten bytes hold a time and a system, which change nothing
    const std::string path = folder.write("file", flipped(packed, i));
    EXPECT_THROW(IdxFile(path, Kind::images).read(), UserError) << "byte " << i;
  }
}

void expect_io_error(const std::string& path, const std::string& part) {
  try {
    IdxFile(path, Kind::images).read();
    ADD_FAILURE() << path << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Idx, reports_what_is_no_regular_file_without_waiting_for_it) {
  const TempFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_io_error(folder / "pipe", "is a pipe; expected a regular file");
  expect_io_error(folder.path(), "is a folder; expected a regular file");
  expect_io_error("/dev/zero", "is a device; expected a regular file");
  expect_io_error(folder / "missing", "No such file or directory");
  ASSERT_EQ(symlink((folder / "loop").c_str(), (folder / "loop").c_str()), 0);
  expect_io_error(folder / "loop", "symbolic links");
}

TEST(Idx, reports_a_file_it_may_not_read) {
  const TempFolder folder;
  const std::string path = folder.write("secret", image_file(1, 2, 2));
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  ASSERT_EQ(chmod(folder.path().c_str(), 0755), 0);
  const bool was_root = geteuid() == 0;  // root reads everything, so be nobody for a moment
  if (was_root) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  expect_io_error(path, "cannot open: Permission denied");
  if (was_root) {
    ASSERT_EQ(seteuid(0), 0);
  }
}

TEST(Idx, escapes_control_characters_of_a_path) {
  expect_io_error("/nowhere/\x1b[31m\n", "/nowhere/\\x1b[31m\\x0a: cannot open");
}

TEST(Idx, reads_what_a_file_under_proc_holds_only_if_its_size_says_so) {
  EXPECT_THROW(IdxFile("/proc/self/status", Kind::images), UserError);
}

TEST(Idx, reads_plain_and_gzip_files_whatever_their_name) {
  const TempFolder folder;
  const Bytes images = image_file(3, 4, 5);
  for (const std::string& path : {folder.write("plain.gz", images), folder.write("packed", gzip(images))}) {
    IdxFile file(path, Kind::images);
    EXPECT_EQ(file.count(), 3);
    EXPECT_EQ(file.height(), 4);
    EXPECT_EQ(file.width(), 5);
    EXPECT_EQ(file.body_offset(), 16u);
    EXPECT_EQ(file.read(), ramp(60));
  }
  IdxFile labels(folder.write("labels", gzip(label_file({7, 0, 255}))), Kind::labels);
  EXPECT_EQ(labels.count(), 3);
  EXPECT_EQ(labels.body_offset(), 8u);
  EXPECT_EQ(labels.read(), (Bytes{7, 0, 255}));
}

TEST(Idx, reads_a_file_of_many_gzip_members_cut_anywhere) {
  const TempFolder folder;
  const Bytes images = image_file(3, 4, 5);
  Bytes packed;
  for (size_t begin = 0; begin < images.size(); begin += 7) {
    const size_t end = std::min(images.size(), begin + 7);
    packed = packed + gzip({images.begin() + static_cast<long>(begin), images.begin() + static_cast<long>(end)});
  }
  packed = packed + gzip({});
  EXPECT_EQ(IdxFile(folder.write("file", packed), Kind::images).read(), ramp(60));
}

TEST(Idx, reads_content_larger_than_all_its_buffers) {
  const TempFolder folder;
  const Bytes images = image_file(68, 1000, 1000);  // past the first reserve of 64 MiB
  const Bytes pixels(images.begin() + 16, images.end());
  EXPECT_TRUE(IdxFile(folder.write("plain", images), Kind::images).read() == pixels);
  EXPECT_TRUE(IdxFile(folder.write("packed", gzip(images)), Kind::images).read() == pixels);
}

TEST(Idx, limits_a_file_to_four_gigabytes_at_most) {
  EXPECT_GE(idx_max_bytes(), uint64_t{1} << 24);
  EXPECT_LE(idx_max_bytes(), uint64_t{4} << 30);
}

}  // namespace
}  // namespace resnet
