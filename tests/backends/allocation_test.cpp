// A step allocates nothing: every operator new of the process, on any thread, is counted between two marks. oneDNN
// makes a table of the arguments in each dnnl_primitive_execute; what is allocated inside that call is counted apart.

#include <dlfcn.h>
#include <dnnl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "runtime/on_backend.h"
#include "train/inference.h"
#include "train/training_step.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<bool> inside_onednn{false};
std::atomic<int64_t> allocations{0}, onednn_allocations{0}, onednn_calls{0};

void* counted(std::size_t size) noexcept {
  if (counting.load(std::memory_order_relaxed)) ++(inside_onednn ? onednn_allocations : allocations);
  return std::malloc(size == 0 ? 1 : size);
}

void* counted_or_throw(std::size_t size) {
  if (void* p = counted(size)) return p;
  throw std::bad_alloc();
}

}  // namespace

// Where it inlines one of a pair and not the other, GCC 12 takes malloc() and delete, or new and free(), for a
// mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted_or_throw(size); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return counted_or_throw(size); }
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

/// Found before the library's, which it calls.
extern "C" dnnl_status_t dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream, int count,
                                                const dnnl_exec_arg_t* arguments) {
  static const auto real =
      reinterpret_cast<decltype(&dnnl_primitive_execute)>(dlsym(RTLD_NEXT, "dnnl_primitive_execute"));
  if (counting) ++onednn_calls;
  inside_onednn = true;
  const dnnl_status_t status = real(primitive, stream, count, arguments);
  inside_onednn = false;
  return status;
}

namespace resnet {
namespace {

using namespace testing;

void expect_no_allocation(Program& program) {
  program.run();  // starts threads, packs constant weights
  allocations = onednn_allocations = onednn_calls = 0;
  counting = true;
  program.run();
  program.run();
  counting = false;
  EXPECT_EQ(allocations.load(), 0);
  EXPECT_GT(onednn_calls.load(), 0);
  EXPECT_LE(onednn_allocations.load(), 20 * onednn_calls.load());
}

TEST(Allocation, AStepAllocatesNothing) {
  PrivateTuningCache cache;
  const ModelSpec& model = find_model("lecture_resnet18");
  const Shape images{2, 1, 32, 32};
  for (const char* algorithms : {"direct", "winograd", "auto"}) {
    SCOPED_TRACE(algorithms);
    ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithms);
    Session session(make_backend("cpu", 2));
    expect_no_allocation(
        session.compile(make_training_step(model, {.model = {}, .images = images, .momentum = 0.9, .passes = {}})));
    InferenceProgram inference(session, model, {.model = {}, .images = images, .passes = {}});
    expect_no_allocation(inference.program());
  }
}

TEST(Allocation, TheCountSeesAnAllocation) {
  allocations = 0;
  counting = true;
  std::vector<int> something(100, 1);
  counting = false;
  EXPECT_GE(allocations.load(), 1) << something[99];
}

}  // namespace
}  // namespace resnet
