// What the CPU's kernels share.
#pragma once

#include "library.h"

#include <type_traits>

#define MULTIFUSE_INLINE inline __attribute__((always_inline))

namespace multifuse {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// The type that rows are computed in.
template <typename Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

// Sums of a row run in the compute type over chunks of this length, and in double over the chunks.
constexpr int64_t kChunk = 1024;

}  // namespace multifuse
