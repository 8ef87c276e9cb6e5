// Our Winograd kernels against oneDNN's direct convolution, shape by shape and pass by pass, on one
// machine in one interleaved run. Effective GFLOP/s count the direct convolution's operations.
//
//   winograd_bench [--threads N] [--rounds N] [--isa generic|avx2|avx512] [--shapes lecture|inference|strided|late|all]
//                  [--pass fwd|fly|bwd_d|bwd_w] [--cold 1]
//
// fwd is a forward pass with weights transformed beforehand, fly one with plain weights, transformed in every run:
// large ones piece by piece, where the products use them. --cold 1 writes 48 MB before each run, as the other layers of
// a network do.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dnnl.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/winograd.h"

namespace resnet {
namespace {

struct Shape {
  const char* set;
  int64_t n, channels, size;
  int64_t inputs = channels;  ///< channels of x
  int stride = 1;
};
const Shape kShapes[] = {
    {"lecture", 256, 64, 24},
    {"lecture", 256, 128, 12},
    {"lecture", 256, 256, 6},
    {"lecture", 256, 512, 3},
    {"inference", 32, 64, 56},
    {"inference", 32, 128, 28},
    {"inference", 32, 256, 14},
    {"inference", 32, 512, 7},
    // The first of a stage: ResNet-18's, then ResNet-50's.
    {"strided", 32, 128, 56, 64, 2},
    {"strided", 32, 256, 28, 128, 2},
    {"strided", 32, 512, 14, 256, 2},
    {"strided", 32, 128, 56, 128, 2},
    {"strided", 32, 256, 28, 256, 2},
    {"strided", 32, 512, 14, 512, 2},
    {"strided", 1, 128, 56, 64, 2},
    {"strided", 1, 256, 28, 128, 2},
    {"strided", 1, 512, 14, 256, 2},
    // Those with the largest weights, with a few images at a time.
    {"late", 1, 256, 14},
    {"late", 1, 512, 7},
    {"late", 4, 256, 14},
    {"late", 4, 512, 7},
    {"late", 16, 256, 14},
    {"late", 16, 512, 7},
    {"late", 32, 256, 14},
    {"late", 32, 512, 7},
};

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

using Buffer = std::unique_ptr<float, void (*)(void*)>;
Buffer random_buffer(size_t bytes) {
  Buffer b(static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), &std::free);
  uint32_t state = 12345;
  for (size_t i = 0; i < bytes / sizeof(float); ++i) {
    state = state * 1664525 + 1013904223;
    b.get()[i] = static_cast<float>(static_cast<int32_t>(state)) * 4e-10f;
  }
  return b;
}

/// oneDNN's direct convolution of one pass, with blocked layouts of its own choice.
class Direct {
 public:
  Direct(const WinogradProblem& p, WinogradPass pass, const dnnl::engine& engine) : stream_(engine) {
    using namespace dnnl;
    using tag = memory::format_tag;
    const auto any = [](memory::dims d) { return memory::desc(d, memory::data_type::f32, tag::any); };
    const int64_t ho = (p.h + 2 * p.pad - 3) / p.stride + 1, wo = (p.w + 2 * p.pad - 3) / p.stride + 1;
    const auto x = any({p.n, p.c, p.h, p.w}), w = any({p.k, p.c, 3, 3}), y = any({p.n, p.k, ho, wo});
    const memory::dims one = {p.stride, p.stride}, pads = {p.pad, p.pad};
    const bool inference = pass == WinogradPass::forward;
    const convolution_forward::desc forward(inference ? prop_kind::forward_inference : prop_kind::forward_training,
                                            algorithm::convolution_direct, x, w, y, one, pads, pads);
    const convolution_forward::primitive_desc hint(forward, engine);
    const auto use = [&](const auto& pd, auto primitive_of, memory::desc a, memory::desc b, memory::desc c, int ia,
                         int ib, int ic) {
      name_ = pd.impl_info_str();
      primitive_ = primitive_of;
      for (const auto& [index, md] : {std::pair{ia, a}, std::pair{ib, b}, std::pair{ic, c}}) {
        buffers_.push_back(random_buffer(md.get_size()));
        arguments_.insert({index, memory(md, engine, buffers_.back().get())});
      }
    };
    if (pass == WinogradPass::forward) {
      use(hint, convolution_forward(hint), hint.src_desc(), hint.weights_desc(), hint.dst_desc(), DNNL_ARG_SRC,
          DNNL_ARG_WEIGHTS, DNNL_ARG_DST);
    } else if (pass == WinogradPass::backward_data) {
      const convolution_backward_data::primitive_desc pd({algorithm::convolution_direct, x, w, y, one, pads, pads},
                                                         engine, hint);
      use(pd, convolution_backward_data(pd), pd.diff_src_desc(), pd.weights_desc(), pd.diff_dst_desc(),
          DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST);
    } else {
      const convolution_backward_weights::primitive_desc pd({algorithm::convolution_direct, x, w, y, one, pads, pads},
                                                            engine, hint);
      use(pd, convolution_backward_weights(pd), pd.src_desc(), pd.diff_weights_desc(), pd.diff_dst_desc(), DNNL_ARG_SRC,
          DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST);
    }
  }
  void run() {
    primitive_.execute(stream_, arguments_);
    stream_.wait();
  }
  const std::string& name() const { return name_; }

 private:
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  std::string name_;
  std::vector<Buffer> buffers_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

class Ours {
 public:
  Ours(const WinogradProblem& p, WinogradPass pass, bool packed, const WinogradKernels& kernels)
      : p_(p), pass_(pass), kernels_(kernels) {
    const int64_t b = kernels.block, c = (p.c + b - 1) / b * b, k = (p.k + b - 1) / b * b;
    x_ = random_buffer(static_cast<size_t>(p.n * c * p.h * p.w) * 4);
    y_ = random_buffer(static_cast<size_t>(p.n * k * p.h * p.w) * 4);
    w_ = random_buffer(static_cast<size_t>(k * c * 9) * 4);
    scratch_ = random_buffer(kernels.scratch_bytes(p, pass, packed));
    if (packed) {
      packed_ = random_buffer(kernels.packed_weight_bytes(p, pass));
      kernels.pack_weights(p, pass, w_.get(), packed_.get());
    }
  }
  void run() {
    if (pass_ == WinogradPass::forward) {
      WinogradForward a;
      a.x = x_.get(), a.w = w_.get(), a.packed = packed_.get(), a.y = y_.get(), a.scratch = scratch_.get();
      kernels_.forward(p_, a);
    } else if (pass_ == WinogradPass::backward_data) {
      kernels_.backward_data(p_, {y_.get(), w_.get(), nullptr, x_.get(), scratch_.get()});
    } else {
      kernels_.backward_weights(p_, {x_.get(), y_.get(), w_.get(), scratch_.get()});
    }
  }

 private:
  WinogradProblem p_;
  WinogradPass pass_;
  const WinogradKernels& kernels_;
  Buffer x_{nullptr, &std::free}, y_{nullptr, &std::free}, w_{nullptr, &std::free}, packed_{nullptr, &std::free},
      scratch_{nullptr, &std::free};
};

struct Times {
  std::vector<double> ms;
  void time(const std::function<void()>& run) {
    const double start = now_ms();
    run();
    ms.push_back(now_ms() - start);
  }
  double median() const {
    std::vector<double> sorted = ms;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  double least() const { return *std::min_element(ms.begin(), ms.end()); }
};

int run(int threads, int rounds, bool cold, Isa isa, const std::string& set, const std::string& only) {
  omp_set_num_threads(threads);
  const double peak = measure_fma_peak(threads) * 1e-9;
  std::printf("%s kernels, %d thread(s), FMA peak measured here: %.0f GFLOP/s; times are medians (least) of %d\n",
              isa_name(isa), threads, peak, rounds);
  std::printf("%-18s %-6s %4s %18s %18s %-22s %6s %8s %6s\n", "shape", "pass", "tile", "ours ms", "oneDNN direct ms",
              "its kernel", "ratio", "GFLOP/s", "% peak");
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const std::pair<WinogradPass, std::string> passes[] = {{WinogradPass::forward, "fwd"},
                                                         {WinogradPass::forward, "fly"},
                                                         {WinogradPass::backward_data, "bwd_d"},
                                                         {WinogradPass::backward_weights, "bwd_w"}};
  const size_t other_floats = cold ? size_t{12} << 20 : 0;
  std::vector<float> other(other_floats);
  const auto cool = [&] {
    for (size_t i = 0; i < other_floats; i += 16) other[i] += 1;
  };
  for (const Shape& shape : kShapes) {
    if (set != "all" && set != shape.set) continue;
    for (const auto& [pass, pass_name] : passes) {
      if (!only.empty() && only != pass_name) continue;
      if (shape.stride != 1 && pass != WinogradPass::forward) continue;
      WinogradProblem p{shape.n, shape.inputs, shape.channels, shape.size, shape.size, 1, 4, threads, shape.stride};
      Direct direct(p, pass, engine);
      std::vector<std::unique_ptr<Ours>> ours;
      for (const int tile : {2, 3, 4}) {
        p.tile = tile;
        ours.push_back(std::make_unique<Ours>(p, pass, pass_name == "fwd", winograd_kernels(isa)));
        ours.back()->run();
      }
      direct.run();
      Times direct_times, our_times[3];
      for (int round = 0; round < rounds; ++round) {
        cool();
        direct_times.time([&] { direct.run(); });
        for (size_t i = 0; i < ours.size(); ++i) {
          cool();
          our_times[i].time([&] { ours[i]->run(); });
        }
      }
      const double gflop = 2e-9 * 9 * static_cast<double>(p.n * p.c * p.k * p.h * p.w / (p.stride * p.stride));
      for (size_t i = 0; i < ours.size(); ++i) {
        const double ms = our_times[i].median();
        char name[64];
        std::snprintf(name, sizeof name, "%ldx%ldx%ldx%ld", static_cast<long>(p.n), static_cast<long>(p.c),
                      static_cast<long>(p.h), static_cast<long>(p.w));
        std::printf("%-18s %-6s %4zu %8.2f (%7.2f) %8.2f (%7.2f) %-22s %6.2f %8.0f %6.0f\n", name, pass_name.c_str(),
                    i + 2, ms, our_times[i].least(), direct_times.median(), direct_times.least(), direct.name().c_str(),
                    direct_times.median() / ms, gflop / ms * 1e3, 100 * gflop / ms * 1e3 / peak);
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace resnet

int main(int argc, char** argv) {
  int threads = 1, rounds = 15;
  bool cold = false;
  resnet::Isa isa = resnet::detected_isa();
  std::string set = "all", pass;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--threads") threads = std::atoi(value.c_str());
    if (flag == "--rounds") rounds = std::atoi(value.c_str());
    if (flag == "--cold") cold = value == "1";
    if (flag == "--shapes") set = value;
    if (flag == "--pass") pass = value;
    if (flag == "--isa") {
      for (const resnet::Isa each : {resnet::Isa::generic, resnet::Isa::avx2, resnet::Isa::avx512}) {
        if (value == resnet::isa_name(each) && each <= resnet::detected_isa()) isa = each;
      }
    }
  }
  return resnet::run(threads, rounds, cold, isa, set, pass);
}
