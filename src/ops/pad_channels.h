#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x [N,C,...] -> [N, before + C + after, ...]: channels of zeros around x's own. With a subsampling it is the
/// parameter-free shortcut of residual networks (He et al. 2015, arXiv:1512.03385, Sec. 3.3, option A).
/// Throws UserError: before or after < 0, x without a channel axis.
extern const OpDef kPadChannels;
/// x [N,C,...] -> [N, C - before - after, ...]: without the first `before` and the last `after` channels.
/// Each of the two ops is the other's gradient. Throws UserError: as above, or no channel is left.
extern const OpDef kSliceChannels;

Value pad_channels(Value x, ChannelPadAttrs attrs, std::string name = {});
Value slice_channels(Value x, ChannelPadAttrs attrs, std::string name = {});

}  // namespace resnet
