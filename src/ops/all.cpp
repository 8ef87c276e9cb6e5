#include "ops/all.h"

#include "ops/add.h"
#include "ops/avg_pool.h"
#include "ops/batch_norm.h"
#include "ops/blur_pool.h"
#include "ops/channel_conv.h"
#include "ops/channel_sum.h"
#include "ops/conv2d.h"
#include "ops/conv2d_max_pool.h"
#include "ops/fill.h"
#include "ops/global_avg_pool.h"
#include "ops/l2_norm.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/pad_channels.h"
#include "ops/quantize.h"
#include "ops/quantized_conv2d.h"
#include "ops/quantized_pool.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/running_average.h"
#include "ops/scale.h"
#include "ops/sgd_update.h"
#include "ops/sigmoid.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {

std::span<const OpDef* const> all_ops() {
  static constexpr const OpDef* kAll[] = {
      &kAdd,
      &kAvgPool,
      &kAvgPoolGrad,
      &kBatchNorm,
      &kBatchNormGrad,
      &kBatchNormInference,
      &kBlurPool,
      &kBlurPoolGrad,
      &kChannelConv,
      &kChannelConvWeightGrad,
      &kChannelSum,
      &kConv2d,
      &kConv2dInputGrad,
      &kConv2dMaxPool,
      &kConv2dWeightGrad,
      &kDequantize,
      &kFill,
      &kGlobalAvgPool,
      &kGlobalAvgPoolGrad,
      &kL2Norm,
      &kLinear,
      &kLinearInputGrad,
      &kLinearWeightGrad,
      &kMaxPool,
      &kMaxPoolGrad,
      &kPadChannels,
      &kQuantize,
      &kQuantizedConv2d,
      &kQuantizedGlobalAvgPool,
      &kQuantizedMaxPool,
      &kRelu,
      &kReluGrad,
      &kReshape,
      &kRunningAverage,
      &kScale,
      &kScaleGrad,
      &kSgdUpdate,
      &kSigmoid,
      &kSigmoidGrad,
      &kSliceChannels,
      &kSoftmaxCrossEntropy,
      &kSoftmaxCrossEntropyGrad,
  };
  return kAll;
}

}  // namespace resnet
