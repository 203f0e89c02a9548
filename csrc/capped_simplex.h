// The row algorithm of the projection onto the capped simplex, shared by the CPU and the CUDA kernels.
//
// A row is projected by its threshold: alpha = clip(z - threshold, 0, 1), where the threshold is 0 if sum clip(z, 0, 1)
// is within the budget, and else the root of sum clip(z - threshold, 0, 1) = budget. That sum falls with the threshold
// and is linear between the breakpoints z and z - 1, so that a Newton step from the root's own piece is exact.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MULTIFUSE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MULTIFUSE_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace multifuse {

// The row at one threshold: by how much sum clip(z - threshold, 0, 1) exceeds the budget, and how many tokens lie strictly
// inside (0, 1). Saturated tokens are counted, not summed, so that no rounding of a large sum is left in a small excess.
template <typename T>
struct Piece {
  T excess;
  T inside;
};

template <typename T>
MULTIFUSE_HOST_DEVICE bool is_saturated(T x) {
  return x >= T(1);
}

// What a token that is not saturated adds. NaN passes through, so that a row's sum tells whether it holds one.
template <typename T>
MULTIFUSE_HOST_DEVICE T below_saturation(T x) {
  return is_saturated(x) ? T(0) : (x < T(0) ? T(0) : x);
}

template <typename T>
MULTIFUSE_HOST_DEVICE T clip(T x) {
  x = x < T(0) ? T(0) : x;
  return x > T(1) ? T(1) : x;
}

template <typename T>
MULTIFUSE_HOST_DEVICE bool is_inside(T x) {
  return x > T(0) && x < T(1);
}

// Solves for the threshold of a row whose budget binds (its excess at 0 is positive) and whose values are finite.
// A Newton iteration inside a bracket: `low` has a sum above the budget, `high` one within it. Every Newton step that
// leaves the bracket, and every second step once convergence is slow, bisects it instead, so that it always ends.
// `Row::at(threshold, budget)` sums the row; on a GPU all threads of the row's group call it together and get the same result.
template <typename T, typename Row>
MULTIFUSE_HOST_DEVICE T solve_threshold(const Row& row, Piece<T> piece, T budget, T maximum, T epsilon) {
  constexpr int kPatience = 12;
  T low = 0;
  T high = maximum;
  T threshold = 0;
  for (int step = 0;; ++step) {
    T next = threshold + piece.excess / piece.inside;
    const bool bisect = !(next > low && next < high) || (step > kPatience && step % 2);
    if (bisect) {
      next = low + (high - low) / 2;
      if (!(next > low && next < high)) {
        return high;  // no number lies between: the bracket has closed
      }
    }
    threshold = next;
    piece = row.at(threshold, budget);
    if (piece.excess > T(0)) {
      low = threshold;
    } else {
      high = threshold;
    }
    const T correction = piece.excess / piece.inside;
    const T scale = threshold > T(1) ? threshold : T(1);
    if (piece.inside > T(0) && correction <= epsilon * scale && correction >= -epsilon * scale) {
      const T corrected = threshold + correction;
      return corrected > T(0) ? corrected : T(0);
    }
  }
}

}  // namespace multifuse
