// Stands in for CUDA's header of this name, with torch's type.
#pragma once

#include <torch/headeronly/util/BFloat16.h>

using __nv_bfloat16 = torch::headeronly::BFloat16;

inline float __bfloat162float(__nv_bfloat16 value) {
  return value;
}

inline __nv_bfloat16 __float2bfloat16(float value) {
  return value;
}
