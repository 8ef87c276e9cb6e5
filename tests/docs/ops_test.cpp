// docs/ops.md: which op runs on which backend, as the backends themselves answer. The file is compared with what they
// say.
//   RESNET_UPDATE_DOCS=1 build/release/tests/test_docs    writes it anew

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "ops/all.h"
#include "runtime/backends.h"

namespace resnet {
namespace {

constexpr DType kFloating[] = {DType::f32, DType::f64};
const char* const kBackends[] = {"reference", "cpu"};

/// A representative call of an op: what is asked is the kind of call, so sizes are small and nothing is special.
struct Call {
  std::string values;  ///< the rank or kind of what it is about, in words
  Attributes attributes;
  std::vector<Shape> in;
  std::set<size_t> states = {};               ///< inputs that are states; the others are fed
  std::map<size_t, DType> other_dtypes = {};  ///< of inputs that are not floats
  bool only_f32 = false;                      ///< beside 8 bits
};

const Shape kMap{2, 16, 6, 6}, kHalf{2, 16, 3, 3}, kPixel{2, 16, 1, 1}, kChannels{16}, kRows{4, 16}, kScalar{};
const Shape kKernel{16, 16, 3, 3}, kMatrix{8, 16}, kClasses{4, 8}, kBatch{4}, kImages{2}, kTaps{1, 1, 3}, kOne{1};
constexpr PoolAttrs kBlur{.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}};
constexpr PoolAttrs kPool{.kernel = {2, 2}, .stride = {2, 2}};
constexpr Conv2dAttrs kConv{.pad = {1, 1}};
constexpr SgdAttrs kSgd{.momentum = 0.9};

std::vector<Call> calls_of(std::string_view op) {
  const std::string map = "[N,C,H,W]", rows = "[N,C]";
  const auto both = [&](const Attributes& attributes, size_t like_x, size_t channels) {
    std::vector<Call> calls;
    for (const auto& [values, x] : {std::pair{map, kMap}, std::pair{rows, kRows}}) {
      std::vector<Shape> in(like_x, x);
      in.insert(in.end(), channels, kChannels);
      calls.push_back({values, attributes, in});
    }
    return calls;
  };
  const auto bytes = [](Call call, std::map<size_t, DType> dtypes) {
    call.other_dtypes = std::move(dtypes);
    call.only_f32 = true;
    return call;
  };
  const BatchNormAttrs inference{.training = false};
  const std::map<std::string_view, std::vector<Call>> all = {
      {"add", both({}, 2, 0)},
      {"avg_pool", {{map, kPool, {kMap}}}},
      {"avg_pool_grad", {{map, PoolGradAttrs{kPool, kMap}, {kHalf}}}},
      {"batch_norm", both(BatchNormAttrs{}, 1, 2)},
      {"batch_norm_grad", both(BatchNormAttrs{}, 2, 3)},
      {"batch_norm_inference", both(inference, 1, 4)},
      {"blur_pool", {{map, kBlur, {kMap}}}},
      {"blur_pool_grad", {{map, PoolGradAttrs{kBlur, kMap}, {kHalf}}}},
      {"channel_conv", {{"[N,C,1,1]", ChannelConvAttrs{}, {kPixel, kTaps}, {1}}}},
      {"channel_conv_weight_grad", {{"[N,C,1,1]", ShapeAttrs{kTaps}, {kPixel, kPixel}}}},
      {"channel_sum", both({}, 1, 0)},
      {"conv2d", {{map, kConv, {kMap, kKernel}, {1}}}},
      {"conv2d_input_grad", {{map, Conv2dGradAttrs{kConv, kMap}, {kMap, kKernel}, {1}}}},
      {"conv2d_max_pool", {{map, ConvPoolAttrs{kConv, kPool}, {kMap, kKernel}, {1}}}},
      {"conv2d_weight_grad", {{map, Conv2dGradAttrs{kConv, kKernel}, {kMap, kMap}}}},
      {"dequantize", {bytes({"u8 [N,C,H,W]", {}, {kMap, kOne, kOne}, {1, 2}}, {{0, DType::u8}})}},
      {"fill", {{map, FillAttrs{{DType::f32, kMap}, 0}, {}}}},
      {"global_avg_pool", {{map, {}, {kMap}}}},
      {"global_avg_pool_grad", {{map, ShapeAttrs{kMap}, {kPixel}}}},
      {"l2_norm", {{"[K,C,R,S]", {}, {kKernel}, {0}}, {"[O,I]", {}, {kMatrix}, {0}}}},
      {"linear", {{rows, LinearAttrs{}, {kRows, kMatrix}, {1}}}},
      {"linear_input_grad", {{rows, {}, {kClasses, kMatrix}, {1}}}},
      {"linear_weight_grad", {{rows, {}, {kRows, kClasses}}}},
      {"max_pool", {{map, kPool, {kMap}}}},
      {"max_pool_grad", {{map, PoolGradAttrs{kPool, kMap}, {kHalf, kHalf}, {}, {{1, DType::u8}}}}},
      {"pad_channels", both(ChannelPadAttrs{4, 4}, 1, 0)},
      {"quantize", {bytes({"[N,C,H,W] to u8", QuantizeAttrs{}, {kMap, kChannels, kChannels}, {1, 2}}, {})}},
      {"quantized_conv2d",
       {bytes({"u8 [N,C,H,W]",
               QuantizedConv2dAttrs{kConv},
               {kMap, kKernel, kChannels, kChannels, kChannels},
               {1, 2, 3, 4}},
              {{0, DType::u8}, {1, DType::i8}, {4, DType::u8}})}},
      {"quantized_global_avg_pool", {bytes({"u8 [N,C,H,W]", {}, {kMap, kOne}, {1}}, {{0, DType::u8}})}},
      {"quantized_max_pool", {bytes({"u8 [N,C,H,W]", kPool, {kMap}}, {{0, DType::u8}})}},
      {"relu", both({}, 1, 0)},
      {"relu_grad", both({}, 2, 0)},
      {"reshape",
       {{"[N,C,1,1] to [N,C]", ShapeAttrs{{2, 16}}, {kPixel}},
        {"[N,C] to [N,C,1,1]", ShapeAttrs{{4, 16, 1, 1}}, {kRows}},
        {"[N,C,H,W] to [N,H,W,C]", ShapeAttrs{{2, 6, 6, 16}}, {kMap}}}},
      {"running_average", {{"[C]", RunningAverageAttrs{}, {kChannels, kChannels, kScalar}, {0}}}},
      {"scale", {{"[N,C,H,W] by [N,C,1,1]", {}, {kMap, kPixel}}, {"[N,C,H,W] by [N]", {}, {kMap, kImages}}}},
      {"scale_grad",
       {{"[N,C,H,W] to [N,C,1,1]", ShapeAttrs{kPixel}, {kMap, kMap}},
        {"[N,C,H,W] to [N]", ShapeAttrs{kImages}, {kMap, kMap}}}},
      {"sgd_update",
       {{"[K,C,R,S]", kSgd, {kKernel, kKernel, kScalar, kScalar, kKernel}, {0, 1, 4}},
        {"[O,I]", kSgd, {kMatrix, kMatrix, kScalar, kScalar, kMatrix}, {0, 4}}}},
      {"sigmoid", both({}, 1, 0)},
      {"sigmoid_grad", both({}, 2, 0)},
      {"slice_channels", both(ChannelPadAttrs{4, 4}, 1, 0)},
      {"softmax_cross_entropy", {{"[N,K]", LossAttrs{}, {kClasses, kBatch}, {}, {{1, DType::i32}}}}},
      {"softmax_cross_entropy_grad", {{"[N,K]", LossAttrs{}, {kClasses, kBatch, kScalar}, {}, {{1, DType::i32}}}}},
  };
  const auto found = all.find(op);
  return found == all.end() ? std::vector<Call>{} : found->second;
}

/// The backend's answer, with the layouts it would choose itself: "yes", or why not.
std::string answer(const Backend& backend, const OpDef& op, const Call& call, const Attributes& attributes,
                   DType dtype) {
  const OpDef* const reader = &op;
  std::vector<TensorType> types;
  std::vector<ValueInfo> in, out;
  for (size_t i = 0; i < call.in.size(); ++i) {
    const auto other = call.other_dtypes.find(i);
    types.push_back({other == call.other_dtypes.end() ? dtype : other->second, call.in[i]});
    const NodeKind kind = call.states.contains(i) ? NodeKind::state : NodeKind::input;
    in.push_back({types[i], backend.layout(types[i], {kind, nullptr, {&reader, 1}})});
  }
  for (const TensorType& type : op.infer(InferCall{attributes, types, call.values})) {
    Layout layout = backend.layout(type, {NodeKind::op, &op, {}});
    for (const InPlace& pair : op.in_place) {
      const auto input = static_cast<size_t>(pair.input);
      if (pair.takes_layout && static_cast<size_t>(pair.output) == out.size() && input < in.size() &&
          types[input] == type)
        layout = in[input].layout;
    }
    out.push_back({type, layout});
  }
  const std::vector<char> constant(in.size(), 0), used(out.size(), 1);
  const Support support = backend.supports(
      {.op = op, .attributes = attributes, .in = in, .out = out, .constant = constant, .used = used, .name = "docs"});
  return support.ok ? "yes" : "no: " + support.reason;
}

std::string page() {
  std::string text =
      "# Which op runs where\n"
      "\n"
      "Asked of the backends themselves and compared by a test; `RESNET_UPDATE_DOCS=1 build/release/tests/test_docs`\n"
      "writes this file anew. A plan with a node that its backend cannot run is refused with the reason given here.\n"
      "The reference backend runs every op's own loops, which define it, and so runs everything.\n"
      "\n"
      "| Op | Values |";
  std::string rule = "|---|---|";
  for (const char* name : kBackends) {
    for (const DType dtype : kFloating) {
      text += fmt::format(" {}, {} |", name, name_of(dtype));
      rule += "---|";
    }
  }
  text += "\n" + rule + "\n";
  std::vector<std::unique_ptr<Backend>> backends;
  for (const char* name : kBackends) backends.push_back(make_backend(name, 1));
  for (const OpDef* op : all_ops()) {
    const std::vector<Call> calls = calls_of(op->name);
    EXPECT_FALSE(calls.empty()) << op->name << " has no representative call: add one above";
    for (const Call& call : calls) {
      text += fmt::format("| `{}` | {} |", op->name, call.values);
      for (const auto& backend : backends) {
        for (const DType dtype : kFloating) {
          if (call.only_f32 && dtype == DType::f64) {
            text += " has no such form |";
            continue;
          }
          Attributes attributes = call.attributes;
          if (auto* fill = std::get_if<FillAttrs>(&attributes)) fill->type.dtype = dtype;  // it has no input to tell
          text += fmt::format(" {} |", answer(*backend, *op, call, attributes, dtype));
        }
      }
      text += "\n";
    }
  }
  return text;
}

TEST(Docs, TheTableOfOpsIsWhatTheBackendsAnswer) {
  const std::string expected = page(), path = RESNET_SOURCE_DIR "/docs/ops.md";
  if (std::getenv("RESNET_UPDATE_DOCS") != nullptr) std::ofstream(path, std::ios::binary) << expected;
  std::ifstream file(path, std::ios::binary);
  const std::string actual{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(actual, expected) << "docs/ops.md is out of date; run RESNET_UPDATE_DOCS=1 build/release/tests/test_docs";
}

}  // namespace
}  // namespace resnet
