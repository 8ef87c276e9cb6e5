#include "formats/safetensors.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "formats/temporary_directory.h"

namespace resnet {
namespace {

std::string file_bytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

template <class T>
Tensor tensor_of(DType dtype, Shape shape, const std::vector<T>& values) {
  Tensor tensor(dtype, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.as<T>().begin());
  return tensor;
}

/// What tools made tests/formats/data/official.safetensors from: safetensors 0.8.0 for Python,
/// `safetensors.numpy.save(tensors, metadata={"format": "pt"})`.
ModelFile official_content() {
  ModelFile model;
  model.metadata["format"] = "pt";
  model.tensors["layer.weight"] = tensor_of<float>(DType::f32, {1, 3}, {1.5f, -2.0f, 0.25f});
  model.tensors["layer.bias"] = Tensor(DType::f32, {0, 4});
  model.tensors["scalar"] = tensor_of<float>(DType::f32, {}, {4.0f});
  model.tensors["z"] = tensor_of<double>(DType::f64, {1}, {0.1});
  model.tensors["b"] = tensor_of<int32_t>(DType::i32, {1}, {3});
  model.tensors["a\u00e9\"\\\n"] = tensor_of<uint8_t>(DType::u8, {3}, {7, 8, 9});
  return model;
}

void expect_same(const ModelFile& a, const ModelFile& b) {
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    ASSERT_TRUE(b.tensors.contains(name)) << name;
    const Tensor& other = b.tensors.at(name);
    EXPECT_EQ(tensor.type(), other.type()) << name;
    ASSERT_EQ(tensor.size_bytes(), other.size_bytes()) << name;
    if (tensor.size_bytes() > 0) {
      EXPECT_EQ(std::memcmp(tensor.data(), other.data(), tensor.size_bytes()), 0) << name;
    }
  }
}

std::string bytes_of(const ModelFile& model) {
  StringSink sink;
  write_safetensors(sink, model);
  return sink.text();
}

std::string official_path() { return RESNET_SOURCE_DIR "/tests/formats/data/official.safetensors"; }

TEST(Safetensors, the_writer_gives_the_official_writers_bytes) {
  const std::string official = content_of(official_path());
  ASSERT_EQ(official.size(), 431u);
  EXPECT_EQ(bytes_of(official_content()), official);
}

TEST(Safetensors, the_official_writers_file_is_read) {
  expect_same(read_safetensors(official_path()), official_content());
}

TEST(Safetensors, a_file_written_is_the_file_read_and_the_header_ends_aligned) {
  const TemporaryDirectory directory;
  ModelFile model = official_content();
  for (int names = 1; names < 12; ++names) {  // each length of the header modulo 8
    model.metadata[std::string(static_cast<size_t>(names), 'k')] = "v\x01\u20ac\"";
    write_safetensors(directory / "m.safetensors", model);
    expect_same(read_safetensors(directory / "m.safetensors"), model);
    uint64_t length = 0;
    std::memcpy(&length, content_of(directory / "m.safetensors").data(), 8);
    EXPECT_EQ(length % 8, 0u);
  }
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"m.safetensors"});
}

TEST(Safetensors, a_model_without_tensors_is_a_file_too) {
  expect_same(read_safetensors_bytes("empty", bytes_of({})), {});
}

TEST(Safetensors, python_reads_the_written_file_by_the_formats_definition) {
  const TemporaryDirectory directory;
  write_safetensors(directory / "m.safetensors", official_content());
  put(directory / "read.py", R"py(
import json, struct, sys
raw = open(sys.argv[1], 'rb').read()
length, = struct.unpack('<Q', raw[:8])
header = json.loads(raw[8:8 + length].decode('utf-8'))
assert header.pop('__metadata__') == {'format': 'pt'}
data = raw[8 + length:]
codes = {'F32': 'f', 'F64': 'd', 'I32': 'i', 'U8': 'B'}
out, cursor = {}, 0
for name, info in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
    begin, end = info['data_offsets']
    assert begin == cursor, name
    cursor = end
    count = 1
    for d in info['shape']: count *= d
    out[name] = [info['shape'], list(struct.unpack('<%d%s' % (count, codes[info['dtype']]), data[begin:end]))]
assert cursor == len(data)
print(json.dumps(out))
)py");
  const std::string command = "/usr/bin/python3 " + (directory / "read.py") + " " + (directory / "m.safetensors") +
                              " > " + (directory / "out.json");
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto got = nlohmann::json::parse(content_of(directory / "out.json"));
  const auto expected =
      nlohmann::json::parse(R"js({"layer.weight": [[1, 3], [1.5, -2.0, 0.25]], "layer.bias": [[0, 4], []],
    "scalar": [[], [4.0]], "z": [[1], [0.1]], "b": [[1], [3]], "a\u00e9\"\\\n": [[3], [7, 8, 9]]})js");
  EXPECT_EQ(got, expected);
}

TEST(Safetensors, every_half_is_its_exact_value_as_a_float) {
  std::string data(2 * 65536, '\0');
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(data.data() + 2 * i, &bits, 2);
  }
  const ModelFile model = read_safetensors_bytes(
      "halves", file_bytes(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", data));
  const auto values = model.tensors.at("h").as<float>();
  for (uint32_t i = 0; i < 65536; ++i) {
    // IEEE 754 binary16 by its definition.
    const int exponent = static_cast<int>((i >> 10) & 31);
    const int mantissa = static_cast<int>(i & 1023);
    const double sign = (i >> 15) ? -1.0 : 1.0;
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(values[i])) << i;
      continue;
    }
    const double magnitude = exponent == 31  ? std::numeric_limits<double>::infinity()
                             : exponent == 0 ? std::ldexp(mantissa, -24)
                                             : std::ldexp(1024 + mantissa, exponent - 25);
    EXPECT_EQ(static_cast<double>(values[i]), sign * magnitude) << i;
    EXPECT_EQ(std::signbit(values[i]), sign < 0) << i;
  }
}

TEST(Safetensors, bfloat16_is_the_upper_half_of_a_float) {
  const float expected[] = {1.0f, -0.0f, -3.140625f, std::numeric_limits<float>::infinity(), 1e-40f};
  std::string data;
  for (const float value : expected) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    data += static_cast<char>(bits >> 16);
    data += static_cast<char>(bits >> 24);
  }
  const ModelFile model =
      read_safetensors_bytes("bf16", file_bytes(R"({"h":{"dtype":"BF16","shape":[5],"data_offsets":[0,10]}})", data));
  const auto values = model.tensors.at("h").as<float>();
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(values[i], expected[i]) << i;
  EXPECT_GT(values[4], 0.0f);
}

TEST(Safetensors, wider_integers_become_i32_when_they_fit) {
  const std::string header =
      R"({"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"b":{"dtype":"U64","shape":[],"data_offsets":[16,24]},)"
      R"("c":{"dtype":"U32","shape":[],"data_offsets":[24,28]},"d":{"dtype":"I16","shape":[],"data_offsets":[28,30]},)"
      R"("e":{"dtype":"U16","shape":[],"data_offsets":[30,32]},"f":{"dtype":"I8","shape":[],"data_offsets":[32,33]},)"
      R"("g":{"dtype":"BOOL","shape":[],"data_offsets":[33,34]}})";
  std::string data;
  const auto append = [&](auto value) { data.append(reinterpret_cast<const char*>(&value), sizeof value); };
  append(int64_t{-2147483648});
  append(int64_t{2147483647});
  append(uint64_t{5});
  append(uint32_t{6});
  append(int16_t{-7});
  append(uint16_t{65535});
  append(int8_t{-8});
  append(uint8_t{1});
  const ModelFile model = read_safetensors_bytes("ints", file_bytes(header, data));
  EXPECT_EQ(model.tensors.at("a").as<int32_t>()[0], std::numeric_limits<int32_t>::min());
  EXPECT_EQ(model.tensors.at("a").as<int32_t>()[1], std::numeric_limits<int32_t>::max());
  EXPECT_EQ(model.tensors.at("b").as<int32_t>()[0], 5);
  EXPECT_EQ(model.tensors.at("c").as<int32_t>()[0], 6);
  EXPECT_EQ(model.tensors.at("d").as<int32_t>()[0], -7);
  EXPECT_EQ(model.tensors.at("e").as<int32_t>()[0], 65535);
  EXPECT_EQ(model.tensors.at("f").as<int8_t>()[0], -8);
  EXPECT_EQ(model.tensors.at("g").as<uint8_t>()[0], 1);

  const int64_t big = 2147483648;
  std::memcpy(data.data() + 8, &big, 8);
  try {
    read_safetensors_bytes("ints", file_bytes(header, data));
    ADD_FAILURE() << "2^31 was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_EQ(std::string(error.what()),
              fmt::format("ints: byte {} (a): I64 value 2147483648 does not fit 32 bits", 8 + header.size() + 8));
  }
}

TEST(Safetensors, tensors_load_one_by_one_and_a_file_cut_after_opening_is_an_error) {
  const TemporaryDirectory directory;
  write_safetensors(directory / "m.safetensors", official_content());
  const SafetensorsFile file(directory / "m.safetensors");
  EXPECT_EQ(file.path(), directory / "m.safetensors");
  EXPECT_EQ(file.entries().at("layer.weight").shape, (Shape{1, 3}));
  for (const auto& [name, tensor] : official_content().tensors)
    EXPECT_EQ(file.entries().at(name).dtype, tensor.dtype());
  const auto two = file.load_all({"layer.weight", "a\u00e9\"\\\n"});
  EXPECT_EQ(two.size(), 2u);
  EXPECT_EQ(two.at("layer.weight").as<float>()[0], 1.5f);
  EXPECT_EQ(file.load("layer.weight").as<float>()[2], 0.25f);
  ASSERT_EQ(truncate((directory / "m.safetensors").c_str(), 410), 0);
  EXPECT_EQ(file.load("z").as<double>()[0], 0.1);
  EXPECT_THROW(file.load("b"), UserError);
  EXPECT_THROW(file.load("no such name"), InternalError);
}

TEST(Safetensors, a_sparse_file_larger_than_memory_is_a_limit_not_an_allocation) {
  const TemporaryDirectory directory;
  const std::string path = directory / "sparse.safetensors";
  const uint64_t claimed = uint64_t{1} << 43;  // 8 TiB
  put(path,
      file_bytes(fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}}}})", claimed, claimed), ""));
  if (truncate(path.c_str(), static_cast<off_t>(std::filesystem::file_size(path) + claimed)) != 0) {
    GTEST_SKIP() << "this file system has no files of 8 TiB";
  }
  try {
    read_safetensors(path);
    ADD_FAILURE() << "8 TiB were read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::limit) << error.what();
  }
}

TEST(Safetensors, tensors_that_fit_one_by_one_but_not_together_are_a_limit_before_any_is_read) {
  const auto memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t half = memory / 2 + 1;
  const std::string header = fmt::format(
      R"({{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}},)"
      R"("b":{{"dtype":"U8","shape":[{0}],"data_offsets":[{0},{1}]}},"c":{{"dtype":"U8","shape":[2],"data_offsets":[{1},{2}]}}}})",
      half, 2 * half, 2 * half + 2);
  const TemporaryDirectory directory;
  const std::string path = directory / "sparse.safetensors";
  put(path, file_bytes(header, ""));
  if (truncate(path.c_str(), static_cast<off_t>(std::filesystem::file_size(path) + 2 * half + 2)) != 0) {
    GTEST_SKIP() << "this file system has no files larger than the memory";
  }
  const SafetensorsFile file(path);
  // Cut, so that reading anything at all would be another error.
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(8 + header.size())), 0);
  try {
    file.load_all({"c", "a", "b"});
    ADD_FAILURE() << "more than the memory was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::limit) << error.what();
    EXPECT_NE(std::string(error.what()).find("the tensors up to 'b' need"), std::string::npos) << error.what();
  }
}

struct HostileFile {
  const char* what;
  std::string bytes;
  const char* message;  // after "bad: "
};

const std::string kOne = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";

std::string with_tensor(const std::string& body) { return "{\"a\":{" + body + "}}"; }

std::vector<HostileFile> hostile_files() {
  const std::string deep_arrays = R"({"a":{"dtype":"U8","shape":)" + std::string(100000, '[');
  std::string deep_objects;
  for (int i = 0; i < 100000; ++i) deep_objects += "{\"a\":";
  std::string many_dims = "1";
  for (int i = 0; i < 64; ++i) many_dims += ",1";
  return {
      {"empty file", "", "byte 0 (header length): the file ends here; expected 8 bytes of length"},
      {"seven bytes", std::string(7, '\0'), "byte 7 (header length): the file ends here"},
      {"huge header length", std::string(8, '\xff'),
       "byte 0 (header length): 18446744073709551615 bytes; expected at most 100000000"},
      {"header length just past the limit", std::string("\x01\xe1\xf5\x05\0\0\0\0", 8),
       "byte 0 (header length): 100000001 bytes; expected at most 100000000"},
      {"header past the end", std::string("\x09\0\0\0\0\0\0\0{}", 10),
       "byte 0 (header length): 9 bytes; the file has 2 after it"},
      {"empty header", std::string(8, '\0'), "byte 0 (header length): 0 bytes; expected at least 2"},
      {"space first", file_bytes(" {}", ""), "byte 8 (header): expected '{', found 0x20"},
      {"byte order mark", file_bytes("\xef\xbb\xbf{}", ""), "byte 8 (header): expected '{', found 0xef"},
      {"an array", file_bytes("[]", ""), "byte 8 (header): expected '{', found 0x5b"},
      {"a pickle", std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j", 11), "byte 0 (header length): "},
      {"two documents", file_bytes("{}{}", ""), "byte 10 (header): invalid JSON"},
      {"NUL after the JSON", file_bytes(std::string("{}\0\0", 4), ""), "byte 10 (header): a NUL byte; expected JSON"},
      {"NUL hiding data", file_bytes(std::string("{}\0{\"a\":1}", 10), ""), "byte 10 (header): a NUL byte"},
      {"unfinished JSON", file_bytes(R"({"a":{"dtype":"U8")", ""), "(header): the JSON is not complete"},
      {"trailing comma", file_bytes(R"({"a":{"dtype":"U8",}})", ""), "byte 27 (header): invalid JSON"},
      {"a comment", file_bytes("{/* */}", ""), "byte 9 (header): invalid JSON"},
      {"a word", file_bytes("{\"a\": nothing }", ""), "(header): invalid JSON"},
      {"name not UTF-8", file_bytes("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", ""),
       "byte 10 (header): invalid JSON or UTF-8"},
      {"overlong UTF-8", file_bytes("{\"\xc0\xaf\":{}}", ""), "byte 10 (header): invalid JSON or UTF-8"},
      {"lone surrogate", file_bytes(R"({"\ud800":{}})", ""), "(header): invalid JSON or UTF-8"},
      {"control character in a name", file_bytes("{\"a\nb\":{}}", ""), "byte 11 (header): invalid JSON"},
      {"tensor is a number", file_bytes(R"({"a":7})", ""), "byte 13 (a): a number; expected an object"},
      {"tensor is an array", file_bytes(R"({"a":[]})", ""), "byte 13 (a): an array; expected an object"},
      {"tensor is null", file_bytes(R"({"a": null})", ""), "byte 14 (a): null; expected an object"},
      {"deep arrays", file_bytes(deep_arrays, ""), "byte 36 (a.shape): an array; expected an integer"},
      {"deep objects", file_bytes(deep_objects, ""), "byte 14 (a): unknown field 'a'"},
      {"metadata is a string", file_bytes(R"({"__metadata__":"x"})", ""),
       "byte 24 (__metadata__): a string; expected an object"},
      {"metadata holds a number", file_bytes(R"({"__metadata__":{"k":1}})", ""),
       "byte 29 (__metadata__.k): a number; expected a string"},
      {"metadata holds an object", file_bytes(R"({"__metadata__":{"k":{}}})", ""),
       "(__metadata__.k): an object; expected a string"},
      {"metadata twice", file_bytes(R"({"__metadata__":{},"__metadata__":{}})", ""),
       "byte 27 (header): name '__metadata__' appears twice"},
      {"metadata key twice", file_bytes(R"({"__metadata__":{"k":"1","k":"2"}})", ""),
       "byte 33 (__metadata__): key 'k' appears twice"},
      {"name twice",
       file_bytes(
           R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
           ""),
       "byte 61 (header): name 'a' appears twice"},
      {"name twice, once escaped",
       file_bytes(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{}})", ""),
       "byte 61 (header): name 'a' appears twice"},
      {"dtype twice", file_bytes(with_tensor(R"("dtype":"U8","dtype":"U8")"), ""),
       "byte 27 (a): repeated field 'dtype'"},
      {"shape twice", file_bytes(with_tensor(R"("shape":[],"shape":[])"), ""), "(a): repeated field 'shape'"},
      {"offsets twice", file_bytes(with_tensor(R"("data_offsets":[0,0],"data_offsets":[0,0])"), ""),
       "(a): repeated field 'data_offsets'"},
      {"unknown field", file_bytes(with_tensor(R"("type":"U8")"), ""),
       "byte 14 (a): unknown field 'type'; expected dtype, shape"},
      {"no dtype", file_bytes(with_tensor(R"("shape":[],"data_offsets":[0,1])"), "x"), "byte 9 (a): has no dtype"},
      {"no shape", file_bytes(with_tensor(R"("dtype":"U8","data_offsets":[0,1])"), "x"), "byte 9 (a): has no shape"},
      {"no offsets", file_bytes(with_tensor(R"("dtype":"U8","shape":[])"), "x"), "byte 9 (a): has no data_offsets"},
      {"unknown dtype", file_bytes(with_tensor(R"("dtype":"F4","shape":[],"data_offsets":[0,1])"), "x"),
       "byte 22 (a.dtype): 'F4'; expected one of BOOL, U8"},
      {"dtype is a number", file_bytes(with_tensor(R"("dtype":1)"), ""),
       "byte 22 (a.dtype): a number; expected a string"},
      {"dtype is an array", file_bytes(with_tensor(R"("dtype":["U8"])"), ""),
       "byte 22 (a.dtype): an array; expected a string"},
      {"shape is a string", file_bytes(with_tensor(R"("shape":"2")"), ""),
       "byte 22 (a.shape): a string; expected an array of integers"},
      {"negative dimension", file_bytes(with_tensor(R"("dtype":"U8","shape":[2,-1],"data_offsets":[0,2])"), "xx"),
       "byte 38 (a.shape): a negative number; expected an integer from 0"},
      {"fractional dimension", file_bytes(with_tensor(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])"), "xx"),
       "byte 36 (a.shape): a number that is no integer"},
      {"dimension past 63 bits",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,2])"), "xx"),
       "byte 36 (a.shape): a number past 2^63 - 1"},
      {"dimension past 64 bits",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,2])"), "xx"),
       "byte 36 (a.shape): a number that is no integer"},
      {"product overflows",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), ""),
       "byte 9 (a.shape): [4294967296, 4294967296] of U8 has more than 2^63 - 1 bytes"},
      {"bytes overflow",
       file_bytes(with_tensor(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"), "xxxx"),
       "byte 9 (a.shape): [4611686018427387905] of F32 has more than"},
      {"overflow behind a zero",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[0,4611686018427387904,4],"data_offsets":[0,0])"), ""),
       "byte 9 (a.shape): [0, 4611686018427387904, 4] of U8 has more than"},
      {"65 dimensions",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[)" + many_dims + R"(],"data_offsets":[0,1])"), "x"),
       "(a.shape): more than 64 numbers"},
      {"one offset", file_bytes(with_tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1])"), "x"),
       "(a.data_offsets): 1 numbers; expected two"},
      {"three offsets", file_bytes(with_tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,2])"), "x"),
       "(a.data_offsets): more than 2 numbers"},
      {"negative offset", file_bytes(with_tensor(R"("dtype":"U8","shape":[1],"data_offsets":[-1,0])"), "x"),
       "(a.data_offsets): a negative number"},
      {"reversed offsets", file_bytes(with_tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), "x"),
       "byte 9 (a.data_offsets): [1, 0]; expected begin <= end <= 1"},
      {"offsets past the end", file_bytes(with_tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])"), "xx"),
       "byte 9 (a.data_offsets): [0, 3]; expected begin <= end <= 2"},
      {"offsets at 2^63 - 1",
       file_bytes(with_tensor(R"("dtype":"U8","shape":[0],"data_offsets":[9223372036854775807,9223372036854775807])"),
                  ""),
       "byte 9 (a.data_offsets): [9223372036854775807, 9223372036854775807]; expected begin <= end <= 0"},
      {"size and shape differ", file_bytes(with_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "xxxx"),
       "byte 9 (a.data_offsets): [0, 4] are 4 bytes; shape [2] of F32 needs 8"},
      {"overlap",
       file_bytes(
           R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
           "xxxx"),
       "(b): overlaps 'a', which ends at byte"},
      {"same bytes twice",
       file_bytes(
           R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
           "xxx"),
       "(b): overlaps 'a'"},
      {"hole before", file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xx"),
       "byte 61 (data): 1 bytes between the header and 'a' belong to no tensor"},
      {"hole between",
       file_bytes(
           R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
           "xxx"),
       "(data): 1 bytes between 'b' and 'a' belong to no tensor"},
      {"bytes after the last tensor", file_bytes(kOne, "xxy"), "byte 63 (data): 1 bytes after 'a' belong to no tensor"},
      {"bytes without tensors", file_bytes("{}", "x"), "byte 10 (data): 1 bytes after the header belong to no tensor"},
      {"control characters in an error's name", file_bytes("{\"\\u001b[31m\":1}", ""),
       "(\\x1b[31m): a number; expected an object"},
  };
}

TEST(Safetensors, hostile_files_are_refused_with_byte_and_field) {
  const TemporaryDirectory directory;
  for (const HostileFile& file : hostile_files()) {
    put(directory / "bad", file.bytes);
    for (const bool from_memory : {false, true}) {
      const std::string path = from_memory ? "bad" : directory / "bad";
      try {
        if (from_memory) {
          read_safetensors_bytes("bad", file.bytes);
        } else {
          read_safetensors(path);
        }
        ADD_FAILURE() << file.what << " was accepted";
      } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_EQ(error.code(), ExitCode::bad_data) << file.what << ": " << message;
        EXPECT_TRUE(message.starts_with(path + ": byte ")) << file.what << ": " << message;
        EXPECT_NE(message.find(file.message), std::string::npos) << file.what << ": " << message;
        EXPECT_LT(message.size(), path.size() + 400) << file.what;
      }
    }
  }
}

TEST(Safetensors, the_smallest_changes_make_the_hostile_files_valid) {
  // Guards the table above against refusing everything.
  EXPECT_EQ(read_safetensors_bytes("ok", file_bytes(kOne, "xy")).tensors.at("a").as<uint8_t>()[1], 'y');
  EXPECT_EQ(read_safetensors_bytes("ok", file_bytes(kOne + "  \n\t ", "xy")).tensors.size(), 1u);
  EXPECT_EQ(read_safetensors_bytes("ok", file_bytes("{}", "")).tensors.size(), 0u);
  EXPECT_EQ(read_safetensors_bytes("ok", file_bytes(R"({"__metadata__":{"k":"1","l":"2"}})", "")).metadata.at("l"),
            "2");
  // Tensors in any order of names and bytes, an empty one in between.
  const std::string header =
      R"({"b":{"data_offsets":[1,2],"shape":[1],"dtype":"U8"},"e":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1]},)"
      R"("a":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}})";
  const ModelFile model = read_safetensors_bytes("ok", file_bytes(header, "xy"));
  EXPECT_EQ(model.tensors.at("a").as<uint8_t>()[0], 'x');
  EXPECT_EQ(model.tensors.at("b").as<uint8_t>()[0], 'y');
  EXPECT_EQ(model.tensors.at("e").shape(), (Shape{3, 0}));
}

TEST(Safetensors, a_file_cut_at_any_byte_is_refused) {
  const TemporaryDirectory directory;
  const std::string whole = content_of(official_path());
  ASSERT_FALSE(whole.empty());
  for (size_t size = 0; size < whole.size(); ++size) {
    put(directory / "cut", whole.substr(0, size));
    try {
      read_safetensors(directory / "cut");
      ADD_FAILURE() << "cut at " << size << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << size << ": " << error.what();
    }
  }
}

TEST(Safetensors, any_changed_byte_is_read_or_refused_and_never_kills) {
  const std::string whole = content_of(official_path());
  size_t refused = 0;
  size_t read = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int value = 0; value < 256; value += 5) {
      std::string changed = whole;
      changed[at] = static_cast<char>(value);
      try {
        read_safetensors_bytes("changed", changed);
        ++read;
      } catch (const UserError& error) {
        ASSERT_EQ(error.code(), ExitCode::bad_data) << error.what();
        ++refused;
      }
    }
  }
  EXPECT_GT(read, whole.size());
  EXPECT_GT(refused, whole.size());
}

TEST(Safetensors, the_writer_refuses_what_readers_would_refuse) {
  StringSink sink;
  ModelFile model;
  model.metadata["name"] = "\xff\xfe";
  EXPECT_THROW(write_safetensors(sink, model), UserError);
  model.metadata.clear();
  model.tensors["__metadata__"] = Tensor(DType::f32, {1});
  EXPECT_THROW(write_safetensors(sink, model), UserError);
  model.tensors.clear();
  model.tensors["no bytes"] = Tensor();
  EXPECT_THROW(write_safetensors(sink, model), InternalError);
  EXPECT_EQ(sink.text(), "");
}

}  // namespace
}  // namespace resnet
