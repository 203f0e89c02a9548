// Stands in for CUDA's header of this name, with torch's type.
#pragma once

#include <torch/headeronly/util/Half.h>

using __half = torch::headeronly::Half;

inline float __half2float(__half value) {
  return value;
}

inline __half __float2half(float value) {
  return value;
}
