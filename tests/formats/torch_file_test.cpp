#include "formats/torch_file.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "base/error.h"
#include "formats/pickle.h"
#include "formats/temporary_directory.h"
#include "formats/weights.h"

namespace resnet {
namespace {

std::string read_file(const std::string& path) { return read_whole_file(path, uint64_t{1} << 30); }

/// Runs `read` and returns the error's code and message; fails when there is none.
template <class Read>
std::pair<ExitCode, std::string> error_of(Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  ADD_FAILURE() << "no error";
  return {ExitCode::ok, ""};
}

/// A state dict of f32, f16 and i64 tensors, one of them a scalar and one without elements.
class TorchFiles : public testing::Test {
 protected:
  StoredModel model() {
    const auto tensor = [&](const char* name, const char* dtype, Shape shape) {
      StoredTensor t{name, find_stored_dtype(dtype), std::move(shape), {}};
      std::string bytes(static_cast<size_t>(t.size()), '\0');
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + 1);
      t.write = [bytes](ByteSink& sink) { sink.write(bytes); };
      return t;
    };
    return {{},
            {tensor("bn.num_batches_tracked", "I64", {}), tensor("empty", "F32", {0, 3}),
             tensor("half", "F16", {2, 3, 1}), tensor("layer.weight", "F32", {300, 2, 3, 3})}};
  }
  std::string write(const std::string& bytes) {
    atomic_write_file(path_, bytes);
    return path_;
  }
  std::string whole() {
    StringSink sink;
    write_torch(sink, model());
    return sink.text();
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "weights.pth";
};

TEST_F(TorchFiles, WhatIsWrittenIsReadAgainByteForByte) {
  write_torch(path_, model());
  const TorchFile file(path_);
  const StoredModel expected = model();
  ASSERT_EQ(file.entries().size(), expected.tensors.size());
  for (const StoredTensor& tensor : expected.tensors) {
    const TorchEntry& entry = file.entries().at(tensor.name);
    EXPECT_EQ(entry.shape, tensor.shape) << tensor.name;
    EXPECT_STREQ(entry.dtype->name, tensor.dtype->name);
    StringSink bytes;
    tensor.write(bytes);
    const std::vector<std::byte> read = file.stored_bytes(tensor.name);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(read.data()), read.size()), bytes.text()) << tensor.name;
  }
  EXPECT_EQ(file.load("half").dtype(), DType::f32);
  EXPECT_EQ(file.load("layer.weight").shape(), (Shape{300, 2, 3, 3}));
}

TEST_F(TorchFiles, EveryContentLiesAtAMultipleOf64) {
  const ZipFile zip(write(whole()));
  ASSERT_EQ(zip.entries().size(), 7u);
  for (const auto& [name, entry] : zip.entries()) EXPECT_EQ(entry.begin % 64, 0u) << name;
}

TEST_F(TorchFiles, SafetensorsAndBackKeepsEveryByte) {
  write_torch(path_, model());
  const std::string safetensors = directory_ / "w.safetensors", back = directory_ / "back.pth";
  const WeightsFile torch(path_);
  write_safetensors(safetensors, stored_model(torch));
  const WeightsFile middle(safetensors);
  EXPECT_STREQ(torch.format(), "torch");
  EXPECT_STREQ(middle.format(), "safetensors");
  write_torch(back, stored_model(middle));
  EXPECT_EQ(read_file(back), read_file(path_));
  for (const auto& [name, entry] : torch.entries())
    EXPECT_EQ(torch.stored_bytes(name), middle.stored_bytes(name)) << name;
}

TEST_F(TorchFiles, CutAnywhereIsRefusedWithThePlace) {
  const std::string bytes = whole();
  ASSERT_GT(bytes.size(), 20'000u);
  for (size_t length = 0; length < bytes.size(); length += length < 64 ? 1 : 1024) {
    const auto [code, message] = error_of([&] { WeightsFile file(write(bytes.substr(0, length))); });
    EXPECT_EQ(code, ExitCode::bad_data) << length << ": " << message;
    EXPECT_NE(message.find("weights.pth: byte "), std::string::npos) << message;
  }
}

TEST_F(TorchFiles, ADamagedByteOfATensorIsFoundBeforeItIsUsed) {
  std::string bytes = whole();
  const uint64_t at = ZipFile(write(bytes)).entries().at("archive/data/3").begin + 1000;
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  const TorchFile file(write(bytes));
  EXPECT_NO_THROW(file.load("half"));
  const auto [code, message] = error_of([&] { file.load("layer.weight"); });
  EXPECT_EQ(code, ExitCode::bad_data);
  EXPECT_NE(message.find("CRC-32"), std::string::npos) << message;
}

TEST_F(TorchFiles, WhatWrappersPutBeforeEveryNameIsLeftOut) {
  const auto names = [](const WeightsFile& file) {
    std::vector<std::string> all;
    for (const auto& [name, entry] : file.entries()) all.push_back(name);
    return all;
  };
  const std::string safetensors = directory_ / "w.safetensors";
  for (const std::string prefix : {"module.", "_orig_mod.", "_orig_mod.module.", "module.module._orig_mod."}) {
    StoredModel wrapped = model();
    for (StoredTensor& tensor : wrapped.tensors) tensor.name = prefix + tensor.name;
    write_torch(path_, wrapped);
    write_safetensors(safetensors, wrapped);
    for (const std::string& path : {path_, safetensors}) {
      const WeightsFile file(path);
      EXPECT_EQ(names(file), (std::vector<std::string>{"bn.num_batches_tracked", "empty", "half", "layer.weight"}));
      EXPECT_EQ(file.prefix(), prefix);
      StringSink bytes;
      model().tensors[2].write(bytes);
      const std::vector<std::byte> half = file.stored_bytes("half");
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(half.data()), half.size()), bytes.text());
      EXPECT_EQ(file.load_all({"half"}).at("half").shape(), file.load("half").shape());
    }
  }
  StoredModel some = model();
  some.tensors[3].name = "module.weight";
  write_torch(path_, some);
  EXPECT_EQ(WeightsFile(path_).prefix(), "");  // not before every name
  const WeightsFile chosen(path_, "module.");
  EXPECT_EQ(names(chosen), std::vector<std::string>{"weight"});
  EXPECT_EQ(chosen.left_out(), 3u);
  EXPECT_EQ(error_of([&] { WeightsFile(path_, "net."); }).first, ExitCode::usage);
}

TEST_F(TorchFiles, AStorageOfManyTensorsIsReadWholeOnce) {
  // Two halves of one storage, as views: half of a damaged storage is damaged, whichever half is asked for first.
  const uint64_t elements = 1 << 10;
  std::string pickle("\x80\x02}(", 4);
  const auto text = [&](std::string_view t) {
    pickle += std::string("X") + static_cast<char>(t.size()) + std::string(3, '\0') + std::string(t);
  };
  for (const int half : {0, 1}) {
    text(half == 0 ? "a" : "b");
    pickle += "ctorch._utils\n_rebuild_tensor_v2\n((";
    text("storage");
    pickle += "ctorch\nByteStorage\n";
    text("0");
    text("cpu");
    pickle += std::string("M\x00\x04tQM", 6) + '\0' + (half == 0 ? '\0' : '\x02') +
              std::string("M\x00\x02\x85K\x01\x85\x89}tR", 11);
  }
  pickle += "u.";
  std::string content(elements, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 >> 3);
  StringSink sink;
  ZipWriter zip(sink);
  zip.add("m/data.pkl", pickle.size(), [&](ByteSink& to) { to.write(pickle); });
  zip.add("m/data/0", content.size(), [&](ByteSink& to) { to.write(content); });
  zip.finish();
  const TorchFile file(write(sink.text()));
  for (const std::string name : {"b", "a", "b"}) {
    const std::vector<std::byte> bytes = file.stored_bytes(name);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
              content.substr(name == "a" ? 0 : elements / 2, elements / 2));
  }
  std::string damaged = sink.text();
  damaged[sink.text().find(content)] ^= 1;
  const TorchFile wrong(write(damaged));
  for (const std::string name : {"b", "a", "b"}) {
    const auto [code, message] = error_of([&] { wrong.stored_bytes(name); });
    EXPECT_EQ(code, ExitCode::bad_data);
    EXPECT_NE(message.find("CRC-32"), std::string::npos) << message;
  }
}

TEST_F(TorchFiles, TypesThatPyTorchHasNoStorageOfAreNotWritten) {
  StoredModel unsigned_model = model();
  unsigned_model.tensors[0].dtype = find_stored_dtype("U64");
  StringSink sink;
  const auto [code, message] = error_of([&] { write_torch(sink, unsigned_model); });
  EXPECT_EQ(code, ExitCode::bad_data);
  EXPECT_NE(message.find("'bn.num_batches_tracked' is U64"), std::string::npos) << message;
}

TEST_F(TorchFiles, OldFormatsAreNamedWithTheWayOut) {
  std::string tar(600, '\0');
  tar.replace(0, 8, "pickle/x");
  tar.replace(257, 5, "ustar");
  for (const std::string& bytes : {tar, std::string("\x80\x02}q\x00.", 6)}) {
    const auto [code, message] = error_of([&] { WeightsFile file(write(bytes)); });
    EXPECT_EQ(code, ExitCode::bad_data);
    EXPECT_NE(message.find("torch.save("), std::string::npos) << message;
  }
}

// What a pickle may hold, and what a pickle may cost.

constexpr PickleGlobal kAllowed[] = {{"a.b", PickleGlobal::Use::call}, {"a.name", PickleGlobal::Use::name}};

std::pair<ExitCode, std::string> pickle_error(const std::string& body) {
  return error_of([&] { Pickle("w.pth", "\x80\x02" + body, 100, kAllowed); });
}

TEST(Pickles, NothingIsCalled) {
  // Each would run a program if it were unpickled by Python.
  const std::string argument("X\x02\x00\x00\x00id\x85R.", 10);
  for (const std::string name :
       {"posix\nsystem", "os\nsystem", "builtins\neval", "__builtin__\nexec", "subprocess\nPopen", "a\nc"}) {
    const auto [code, message] = pickle_error("c" + name + "\n" + argument);
    EXPECT_EQ(code, ExitCode::bad_data) << message;
    EXPECT_NE(message.find("w.pth: byte 102 (pickle GLOBAL)"), std::string::npos) << message;
    EXPECT_NE(message.find("torch.save(model.state_dict(), FILE)"), std::string::npos) << message;
  }
  EXPECT_NE(pickle_error("ctorchvision.models.resnet\nResNet\n)\x81}b.").second.find("a whole model was pickled"),
            std::string::npos);
  EXPECT_NE(pickle_error("ca\nname\n)R.").second.find("expected it to stand for itself"), std::string::npos);
  const Pickle call("w.pth",
                    "\x80\x02"
                    "ca\nb\nK\x05\x85R.",
                    0, kAllowed);
  ASSERT_EQ(call.root().kind, PickleKind::call);
  ASSERT_EQ(call.items(call.root()).size(), 2u);
  EXPECT_EQ(call.name(call.items(call.root())[0]), "a.b");
  EXPECT_EQ(call.items(call.root())[1].integer, 5);
}

TEST(Pickles, IntegersOfAnyLengthAreReadAndLongOnesAreNoSizes) {
  const auto read = [](const std::string& body) { return Pickle("w", "\x80\x02" + body + ".", 0, kAllowed).root(); };
  EXPECT_EQ(read(std::string("\x8a\x02\xff\x00", 4)).integer, 255);
  EXPECT_EQ(read(std::string("\x8b\x01\x00\x00\x00\xff", 6)).integer, -1);
  EXPECT_EQ(read("\x8a\x09" + std::string(9, 'x')).kind, PickleKind::long_integer);
  EXPECT_EQ(read(std::string("\x8b\x00\x01\x00\x00", 5) + std::string(256, 'x')).kind, PickleKind::long_integer);
  EXPECT_EQ(pickle_error("\x8b\xff\xff\xff\xff.").first, ExitCode::bad_data);
}

TEST(Pickles, BombsAreRefusedInProportionToTheirOwnSize) {
  // A list of ten times the list before it, a hundred times over: 10^100 values for whoever unfolds it.
  std::string laughs("]q\0", 3);
  for (int i = 0; i < 100; ++i) {
    laughs += "](";
    for (int k = 0; k < 10; ++k) laughs += std::string("h") + static_cast<char>(i);
    laughs += std::string("eq") + static_cast<char>(i + 1);
  }
  const auto shared = error_of([&] { Pickle("w", "\x80\x02" + laughs + ".", 0, kAllowed); });
  EXPECT_NE(shared.second.find("101 values"), std::string::npos) << shared.second;  // the lists, left on the stack
  EXPECT_EQ(pickle_error(std::string(1'000'000, 'N') + ".").first, ExitCode::limit);
  EXPECT_EQ(pickle_error(std::string(1'000'000, ']') + ".").first, ExitCode::limit);
  EXPECT_EQ(pickle_error(std::string(1'000'000, '(') + ".").first, ExitCode::limit);
  EXPECT_EQ(pickle_error("N" + std::string(190'000, '\x85')).first, ExitCode::bad_data);  // deep, and no end
  EXPECT_EQ(pickle_error(std::string(9'000'000, 'N')).first, ExitCode::limit);
  const auto [code, message] = pickle_error("N" + std::string("r\xff\xff\xff\x7f.", 6));
  EXPECT_EQ(code, ExitCode::bad_data);
  EXPECT_NE(message.find("byte 103 (pickle LONG_BINPUT)"), std::string::npos) << message;
}

}  // namespace
}  // namespace resnet
