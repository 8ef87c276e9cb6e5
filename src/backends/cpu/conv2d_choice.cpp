#include "backends/cpu/conv2d_choice.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include "base/aligned_memory.h"

namespace resnet::cpu {
namespace {

/// Memory as a session's tensors have it: large ones on large pages, which decide how fast weights are read. Filled
/// with small values of both signs, so that no kernel meets denormals.
AlignedMemory test_tensor(size_t bytes) {
  AlignedMemory memory(bytes);
  float* values = reinterpret_cast<float*>(memory.data());
  for (size_t i = 0; i < bytes / sizeof(float); ++i)
    values[i] = static_cast<float>(static_cast<int>(static_cast<uint32_t>(i) * 2654435761u >> 24) - 128) / 256.0f;
  return memory;
}

/// Leaves nothing of what was read before in the caches, but the image, which in a net comes from the layer before.
/// A net's weights are as a rule more than a cache holds: a kernel that reads four times as many must be seen to.
class ColdCaches {
 public:
  ColdCaches(const AlignedMemory& image, int threads) : image_(image), other_(test_tensor(kBytes)), threads_(threads) {}
  void cool() {
    write(other_, other_.size());
    write(image_, std::min(image_.size(), kBytes / 8));
  }

 private:
  static constexpr size_t kBytes = size_t{48} << 20;  ///< a last-level cache's

  void write(const AlignedMemory& buffer, size_t bytes) const {
    auto* lines = reinterpret_cast<volatile float*>(buffer.data());
    constexpr int64_t kLine = 64 / sizeof(float);
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t i = 0; i < static_cast<int64_t>(bytes / sizeof(float)); i += kLine) lines[i] = lines[i];
  }

  const AlignedMemory& image_;
  AlignedMemory other_;
  int threads_;
};

/// The indices of `kernels` in the order of by_cost: each runs in turn, and the smallest of a few timings counts.
std::vector<size_t> by_measured_cost(const std::vector<std::unique_ptr<Kernel>>& kernels, const ConvProblem& p,
                                     const ConvAim& aim) {
  if (kernels.size() < 2) return std::vector<size_t>(kernels.size(), 0);
  const AlignedMemory x = test_tensor(storage_bytes(p.x_info.type, p.x_info.layout));
  const AlignedMemory w = test_tensor(storage_bytes(p.w_info.type, p.w_info.layout));
  const AlignedMemory y = test_tensor(storage_bytes(p.y_info.type, p.y_info.layout));
  const AlignedMemory bias = test_tensor(static_cast<size_t>(p.w[0]) * sizeof(float));
  const AlignedMemory residual = test_tensor(p.plain_residual ? storage_bytes(p.y_info.type, Layout{}) : 0);
  size_t scratch_bytes = 0;
  for (const auto& kernel : kernels) scratch_bytes = std::max(scratch_bytes, kernel->scratch_bytes());
  const AlignedMemory scratch(scratch_bytes);
  std::vector<const void*> in;
  std::vector<void*> out;
  switch (p.pass) {
    case ConvPass::forward:
      in = {x.data(), w.data()};
      if (p.attrs.bias) in.push_back(bias.data());
      if (p.attrs.residual) in.push_back(p.plain_residual ? residual.data() : y.data());
      out = {y.data()};
      break;
    case ConvPass::input_grad:
      in = {y.data(), w.data()};
      out = {x.data()};
      break;
    case ConvPass::weight_grad:
      in = {x.data(), y.data()};
      out = {w.data()};
      break;
  }
  std::vector<AlignedMemory> packed(kernels.size());  // weights in each kernel's own form
  for (size_t i = 0; i < kernels.size(); ++i) {
    const auto packing = kernels[i]->packing();
    if (!packing) continue;
    packed[i] = AlignedMemory(packing->bytes);
    kernels[i]->pack(in[packing->input], packed[i].data());
  }
  std::vector<double> best(kernels.size(), std::numeric_limits<double>::infinity());
  ColdCaches caches(p.pass == ConvPass::input_grad ? y : x, aim.threads);
  constexpr int kRounds = 4;  // the first makes code and touches pages
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kernels.size(); ++i) {
      const KernelCall call{in, out, scratch.data(), packed[i].data()};
      caches.cool();
      const auto start = std::chrono::steady_clock::now();
      kernels[i]->run(call);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (round > 0) best[i] = std::min(best[i], took.count());
    }
  }
  std::vector<size_t> weight_bytes;
  for (const auto& kernel : kernels) {
    const auto packing = kernel->packing();
    weight_bytes.push_back(packing ? packing->bytes : storage_bytes(p.w_info.type, p.w_info.layout));
  }
  return by_cost(best, weight_bytes, p.x[0], aim);
}

/// The most scratch that a kernel may want, where one is there that makes do with `least`. The greediest win little,
/// and one of oneDNN's (its Winograd weight gradient keeps a copy of the sums for each thread) wants gigabytes.
size_t scratch_limit(const ConvProblem& p, size_t least) {
  size_t tensors = 0;
  for (const ValueInfo* info : {&p.x_info, &p.w_info, &p.y_info}) tensors += storage_bytes(info->type, info->layout);
  return least + std::max(size_t{256} << 20, tensors);
}

/// The same problem with at most `batch` images: large batches behave alike and measure slowly.
ConvProblem with_batch(ConvProblem p, int64_t batch) {
  if (p.x[0] <= batch) return p;
  for (Shape* shape : {&p.x, &p.y, &p.x_info.type.shape, &p.y_info.type.shape}) (*shape)[0] = batch;
  return p;
}

}  // namespace

std::vector<size_t> by_cost(std::span<const double> seconds, std::span<const size_t> weight_bytes, int64_t images,
                            const ConvAim& aim) {
  std::vector<size_t> order(seconds.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return seconds[a] < seconds[b]; });
  // Transformed weights are up to four times the plain ones. What a megabyte is worth, among those about as fast as the
  // fastest, is little for a layer that takes 20 ms of a core with many images, much for one that takes six. A single
  // image is asked for to be answered soon, and the nets that have small weights alone have no memory to save.
  const double as_fast = aim.save_memory ? 1.5 : images == 1 ? 1.08 : 1.3;
  const double seconds_per_byte = aim.save_memory ? 3e-10 : 1e-10;
  constexpr double kFreeBytes = 2e6;
  const auto cost = [&](size_t i) {
    return seconds[i] + seconds_per_byte / aim.threads * std::max(static_cast<double>(weight_bytes[i]), kFreeBytes);
  };
  const auto slower =
      std::find_if(order.begin(), order.end(), [&](size_t i) { return seconds[i] > as_fast * seconds[order[0]]; });
  std::stable_sort(order.begin(), slower, [&](size_t a, size_t b) { return cost(a) < cost(b); });
  return order;
}

std::unique_ptr<Kernel> choose_convolution(const ConvProblem& problem, const std::string& key,
                                           const std::vector<ConvCandidate>& candidates, TuningCache& tuning,
                                           const ConvAim& aim) {
  std::string shortage;  // of memory, as a candidate told it
  auto make = [&](const ConvCandidate& candidate, const ConvProblem& p) -> std::unique_ptr<Kernel> {
    try {
      return candidate.make(p);
    } catch (const ResourceError& error) {
      shortage = error.what();
      return nullptr;
    }
  };
  const auto known = aim.measure ? tuning.find(key) : std::nullopt;
  if (known) {
    for (const ConvCandidate& candidate : candidates) {
      if (candidate.name != *known) continue;
      if (auto kernel = make(candidate, problem)) return kernel;
    }
  }
  auto none = [&]() -> std::unique_ptr<Kernel> {
    if (!shortage.empty()) throw ResourceError(ExitCode::limit, "{}", shortage);
    throw InternalError(fmt::format("conv2d: no algorithm for {}", key));
  };
  if (!aim.measure) {
    for (const ConvCandidate& candidate : candidates) {
      if (auto kernel = make(candidate, problem)) return kernel;
    }
    return none();
  }
  constexpr int64_t kMeasuredBatch = 64;
  const ConvProblem measured = with_batch(problem, kMeasuredBatch);
  std::vector<std::unique_ptr<Kernel>> kernels;
  std::vector<const ConvCandidate*> made;
  for (const ConvCandidate& candidate : candidates) {
    if (auto kernel = make(candidate, measured)) {
      kernels.push_back(std::move(kernel));
      made.push_back(&candidate);
    }
  }
  size_t least = std::numeric_limits<size_t>::max();
  for (const auto& kernel : kernels) least = std::min(least, kernel->scratch_bytes());
  for (size_t i = kernels.size(); i-- > 0;) {
    if (kernels[i]->scratch_bytes() <= scratch_limit(measured, least)) continue;
    kernels.erase(kernels.begin() + static_cast<std::ptrdiff_t>(i));
    made.erase(made.begin() + static_cast<std::ptrdiff_t>(i));
  }
  const std::vector<size_t> order = by_measured_cost(kernels, measured, aim);
  kernels.clear();
  for (size_t i : order) {
    // What works on fewer images may still be refused for all of them.
    auto kernel = make(*made[i], problem);
    if (!kernel) continue;
    tuning.remember(key, made[i]->name);
    return kernel;
  }
  return none();
}

}  // namespace resnet::cpu
