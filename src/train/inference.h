#pragma once
// A model compiled for inference: batch norm folded, sums and activations fused.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/weights_cache.h"
#include "models/registry.h"
#include "passes/pipeline.h"
#include "passes/quantize_graph.h"
#include "runtime/session.h"
#include "train/model_file.h"

namespace resnet {

/// InferenceOptions::micro_batch: as many images as are best for speed and memory.
inline constexpr int64_t kMeasuredMicroBatch = -1;

/// How images of a batch go through the network together: by all threads, or in streams, where each thread computes
/// images of its own.
struct MicroBatch {
  int64_t images = 1;  ///< of all streams together
  int streams = 1;     ///< 1, or as many as the backend has
  /// Of one program: a stream's share, or all.
  int64_t program_images() const { return (images + streams - 1) / streams; }
  bool operator==(const MicroBatch&) const = default;
};
/// "16", or "16 in 2 streams".
std::string str(const MicroBatch& together);
/// What str() writes; none for anything else.
std::optional<MicroBatch> parse_micro_batch(std::string_view text);

struct InferenceOptions {
  ModelOptions model;
  DType dtype = DType::f32;
  Shape images;  ///< [N,C,H,W]; N is the most of one run
  /// Images that go through the network together, the arena's measure; 0: all N. kMeasuredMicroBatch: what the
  /// machine's cache knows for this network, else measured (seconds) and remembered; all N where the backend does not
  /// measure.
  int64_t micro_batch = 0;
  /// Of the micro-batch: 1, or as many as the backend has and no more than images; 0: as was measured with it, or 1.
  int streams = 0;
  /// Kernels with small weights where they cost little time, as saves_memory() has it of a micro-batch.
  bool save_memory = false;
  PassOptions passes;
  /// The session keeps the weights that others are folded from, for refresh(); without them it holds what it computes
  /// with and no more, and is filled by load().
  bool keep_model_states = true;
  /// Of a model in 8 bits, whose program is filled by load() alone; must outlive the program.
  const Quantization* quantization = nullptr;
};

/// What is kept of the states that load() writes.
enum class KeepStates {
  all,
  /// Those alone that a kernel reads as they lie; the others only in the forms in which they are read. No program that
  /// may want another form can be compiled on the session afterwards.
  unpacked,
};

/// A program [N,C,H,W] -> logits [N,K] over the session's states. Call refresh() after states changed.
///
/// Large batches go through the network a few images at a time where that is asked for: activations then stay in the
/// caches and the arena is small. In streams no thread waits for another within the network. Between two numbers that
/// go together logits agree to rounding, as another algorithm may be chosen; for one they are the same bytes each time.
class InferenceProgram {
 public:
  InferenceProgram(Session& session, const ModelSpec& model, const InferenceOptions& options,
                   const PlanProgress& progress = {});

  /// Recomputes the folded weights from the session's states (in double, then rounded).
  void refresh();
  /// Sets what the program reads from a model's own values, folded as refresh() does. The session's other programs of
  /// this model need no load of their own: states are shared by name.
  void load(std::map<std::string, Tensor> values, KeepStates keep = KeepStates::all);
  /// The same of a file's values, for all the session's programs so far: from `cache`, where an earlier start of the
  /// same build on the same machine with the same programs left what they read, else from the file. The session must
  /// hold no model states (InferenceOptions::keep_model_states).
  void load(std::shared_ptr<const OpenModel> model, const WeightsCache& cache, KeepStates keep = KeepStates::all);
  /// Leaves what load() read from the file in its cache, for the next start. Once, and best when the first answer is
  /// out; a second call does nothing. What keeps it from being written needs nobody's care: weights_origin() tells it.
  void keep_for_next_start();
  /// Where the weights came from, and whether the next start will find them: "cache" or "file (...)".
  const std::string& weights_origin() const { return weights_origin_; }
  /// Row-major images [n,C,H,W] of the program's dtype, n <= N (the rest of the batch is zero) -> logits
  /// [n,K].
  Tensor run(const Tensor& images);
  /// The program itself, or the first stream's, for benchmarks and dumps: it takes micro_batch().program_images().
  Program& program() { return *parts_[0].program; }
  int64_t batch_size() const { return images_[0]; }
  const MicroBatch& micro_batch() const { return micro_batch_; }
  DType dtype() const { return dtype_; }

 private:
  /// A convolution and the batch norm behind it, as the model has them. `bias` is a scalar where there is none.
  struct Unfolded {
    Tensor weight, bias, gamma, beta, mean, variance;
  };
  void write_folded(const FoldedConvolution& f, Unfolded from);
  /// A compiled program, the only one or a stream's.
  struct Part {
    Program* program;
    Tensor partial;  ///< all its images, where those it is given are fewer
  };
  void compile(const ModelSpec& model, const InferenceOptions& options, const PlanProgress& progress);
  /// `count` images, as many as the part's program takes at most, into it.
  void feed(Part& part, const std::byte* images, int64_t count);
  /// Images from `first` on through one part, their logits into `logits`.
  void run(Part& part, const Tensor& images, int64_t first, int64_t count, Tensor& logits);

  Session& session_;
  Shape images_;
  DType dtype_;
  MicroBatch micro_batch_;
  std::vector<Part> parts_;
  bool reads_in_place_ = false;  ///< a program can read row-major images wherever they lie
  std::vector<FoldedConvolution> folded_;
  const Quantization* quantization_;
  std::vector<DerivedState> derived_;  ///< of a quantised model

  /// What load() read from a file and the cache lacks.
  struct Unkept {
    std::shared_ptr<const OpenModel> model;
    ContentHash content;  ///< of the file, before it was read
    WeightsCache cache;
    std::string description;
    std::vector<Constant> constants;
    uint64_t version = 0;  ///< the session's, when they had been loaded
  };
  std::string keep(const Unkept& unkept);

  std::optional<Unkept> unkept_;
  std::string weights_origin_ = "memory";
};

/// What a number of images at a time costs.
struct MicroBatchTrial {
  int64_t count = 0;
  double seconds = 0;  ///< for an image, in any unit
  double bytes = 0;    ///< of activations and plain weights
};

/// The count of least cost: seconds times the square root of the bytes, so that a quarter less memory is worth 15 %
/// more time, which is the most beside the fastest. What is below 160 MB is small, and time alone decides. Of those
/// within 1 % of the least cost the first, so give ascending counts.
int64_t best_micro_batch(std::span<const MicroBatchTrial> trials);

/// The same, but memory beyond those 160 MB is spent only on a gain that shows twice: `compare_again` gives the time
/// for an image with `chosen` by that with `leaner`, the count before it, measured once more in programs of their own
/// (infinity: there was no room for them); the leaner of the two is taken where it is the better one this time, and has
/// to stand the same. One program can be up to a tenth slower than another of its kind for as long as it lives, which
/// no pair shows.
int64_t confirmed_micro_batch(std::span<const MicroBatchTrial> trials,
                              const std::function<double(int64_t leaner, int64_t chosen)>& compare_again);

/// Whether a few images for each thread are computed about as fast in `streams` as by the team: `compare` gives the
/// time for an image in streams by that of the team. The team where there is one stream, or an image too few, or no
/// room for both beside one another (ResourceError). In streams no thread reads what another has just written, whose
/// pace can change from one minute to the next where the cores are a host's that has other guests: what is a little
/// slower in a good minute is preferred, as it is so in all (docs/decisions/0029-streams.md).
bool streams_are_as_good(int streams, int64_t all,
                         const std::function<double(MicroBatch by_team, MicroBatch in_streams)>& compare);

/// Whether `together` images of a batch go together to save memory: few, as larger parts are faster.
bool saves_memory(int64_t together, int64_t batch);

/// The confirmed_micro_batch of 1, 2, 4, ... and all `options.images`, or of as many in each of the backend's streams,
/// where these are as good. Measured with random weights, each number beside the one before it, by the way choosing the
/// algorithms for each, and remembered by the backend, unless there was no room for the second look.
MicroBatch measure_micro_batch(Session& session, const ModelSpec& model, const InferenceOptions& options,
                               const PlanProgress& progress = {});

/// What the backend remembers a measured micro-batch by.
std::string micro_batch_problem(const ModelSpec& model, const InferenceOptions& options);

/// The forward graph alone, input "images", output "logits"; inference statistics.
std::unique_ptr<Graph> make_inference_graph(const ModelSpec& model, const InferenceOptions& options);

/// Of that graph: floating-point operations, a multiply-add counting two.
double inference_flops(const ModelSpec& model, const InferenceOptions& options);

}  // namespace resnet
