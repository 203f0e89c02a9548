// The row algorithm of the projection onto the capped simplex, shared by the CPU and CUDA kernels.
//
// The projection of a row is alpha = clip(z - threshold, 0, 1), where the threshold is 0 if sum clip(z, 0, 1) is within the
// budget, and otherwise the root of sum clip(z - threshold, 0, 1) = budget. That sum decreases with the threshold and is
// linear between the breakpoints z and z - 1, so a Newton step from the linear piece that contains the root is exact.
//
// Included once per version of the code, in the namespace MULTIFUSE_VERSION.
#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define MULTIFUSE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MULTIFUSE_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace multifuse {
namespace MULTIFUSE_VERSION {

// Constants, because device code cannot call the functions of numeric_limits.
template <typename T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <typename T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
template <typename T>
constexpr T kEpsilon = std::numeric_limits<T>::epsilon();

// A row at one threshold: by how much sum clip(z - threshold, 0, 1) exceeds the budget, and how many tokens are strictly
// inside (0, 1). Saturated tokens are counted, not summed, so that a small excess has no rounding error of a large sum.
template <typename T>
struct Piece {
  T excess;
  T inside;
};

template <typename T>
MULTIFUSE_HOST_DEVICE bool is_saturated(T x) {
  return x >= T(1);
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

// Solves for the threshold of a row by Newton steps from a guess. It is 0 if the budget is slack, +inf if the budget is not
// positive, and NaN if the row or the budget has one. The root is bracketed by `low`, whose sum is above the budget, and
// `high`, whose sum is within it. The bracket is halved instead of a step that leaves it, and in every second step if
// convergence is slow, so the loop always ends.
//
// The guess must be >= 0 and finite. `Row::at(threshold, budget)` sums the row and may write its projection: if the result is
// finite, it is the threshold of the last call. `Row::make_finite()` replaces +inf by 1 above the maximum of 1 and the finite
// tokens, and returns whether there was any; `Row::maximum()` returns a threshold at which the sum of the row is 0. On a GPU,
// all threads of a row's group call these together and get the same results.
template <typename T, typename Row>
MULTIFUSE_HOST_DEVICE T row_threshold(Row& row, T budget, T guess) {
  constexpr int kPatience = 12;
  constexpr T epsilon = 2 * kEpsilon<T>;
  if (!(budget > T(0))) {
    const T excess = row.at(T(0), budget).excess;
    return excess != excess ? kNaN<T> : kInfinity<T>;
  }
  T low = -1;  // -1 until the sum is known to be above the budget at a threshold >= 0
  T high = kInfinity<T>;
  bool bounded = false;
  T threshold = guess;
  for (int step = 0;; ++step) {
    const Piece<T> piece = row.at(threshold, budget);
    if (piece.excess > T(0)) {
      low = threshold;
    } else if (piece.excess != piece.excess) {
      return kNaN<T>;
    } else if (threshold == T(0)) {
      return 0;
    } else {
      high = threshold;
    }
    const T correction = piece.excess / piece.inside;
    const T scale = threshold > T(1) ? threshold : T(1);
    const bool is_close = piece.inside > T(0) && correction <= epsilon * scale && correction >= -epsilon * scale;
    if (piece.excess == T(0) || (is_close && threshold > T(0))) {  // 0 is reserved for slack budgets
      return threshold;
    }
    T next = threshold + correction;
    if (low < T(0) && !(next > T(0) && next < high)) {
      next = 0;  // the budget may be slack
    } else if (!(next > low && next < high) || (step > kPatience && step % 2)) {
      if (!bounded) {
        bounded = true;
        const bool changed = row.make_finite();
        const T maximum = row.maximum();
        high = changed || maximum < high ? maximum : high;
        low = changed || low < T(0) ? T(0) : low;  // bounds beyond the finite tokens no longer hold
      }
      next = low + (high - low) / 2;
      if (!(next > low && next < high)) {
        row.at(high, budget);
        return high;  // no number in between: the bracket has closed
      }
    }
    threshold = next;
  }
}

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
