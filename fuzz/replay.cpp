// Runs every file of a corpus once through a fuzzer's entry point, without libFuzzer:  replay_NAME FOLDER...
// An input that breaks the reader ends the program as it would end the fuzzer; its name is the last one printed.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

size_t replay(const char* folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const std::filesystem::path& file : files) {
    std::printf("%s\n", file.c_str());
    std::fflush(stdout);
    std::ifstream stream(file, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(content.data()), content.size());
  }
  return files.size();
}

}  // namespace

int main(int argc, char** argv) {
  size_t files = 0;
  try {
    for (int i = 1; i < argc; ++i) files += replay(argv[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "replay: error: %s\n", error.what());
    return 1;
  }
  if (files == 0) std::fprintf(stderr, "replay: error: no files; usage: %s FOLDER...\n", argv[0]);
  return files == 0 ? 1 : 0;
}
