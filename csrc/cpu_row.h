// One row of the projection in memory, in the compute type; included once for every version of the code.
#include "capped_simplex.h"
#include "cpu_vectors.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// The sums of a row's tokens at a threshold, lane by lane.
template <typename T>
struct LaneSums {
  Values<T> below = {};
  Lanes<T> saturated = {};
  Lanes<T> inside = {};

  // Adds a vector of tokens, and gives their projection. NaN, which is within no bound, stays.
  MULTIFUSE_INLINE Values<T> add(const T* z, T threshold) {
    const Values<T> shifted = load(z) - threshold;
    const Values<T> zero = {};
    if constexpr (sizeof(shifted) == 64) {  // comparisons are masks of their own there, and select for free
      const Values<T> kept = ((shifted >= T(1)) | (shifted <= T(0))) ? zero : shifted;
      below += kept;
      saturated = (shifted >= T(1)) ? saturated + 1 : saturated;
      inside = ((shifted >= T(1)) | (shifted <= T(0))) ? inside : inside + 1;
      return (shifted >= T(1)) ? zero + T(1) : kept;
    } else {
      const Lanes<T> over = shifted >= T(1);
      const Lanes<T> inner = ~(over | (shifted <= T(0)));
      const Lanes<T> kept = (Lanes<T>)shifted & inner;
      below += (Values<T>)kept;
      saturated -= over;
      inside -= inner;
      return (Values<T>)(kept | (over & (Lanes<T>)(zero + T(1))));
    }
  }
};

// A row in memory, and where its projection goes; `scratch` takes a copy of it where it has to be changed.
template <typename T>
struct HostRow {
  static constexpr int64_t kLanes = Vector<T>::kLanes;
  const T* z;
  T* alpha;
  int64_t length;
  std::vector<T>* scratch;
  T tail[kLanes];  // what is left of the row after its full vectors, and -inf

  MULTIFUSE_INLINE HostRow(const T* z, T* alpha, int64_t length, std::vector<T>* scratch)
      : z(z), alpha(alpha), length(length), scratch(scratch) {
    load_tail();
  }

  MULTIFUSE_INLINE void load_tail() {
    const int64_t full = length / kLanes * kLanes;
    store<T>(tail, Values<T>{} - kInfinity<T>);
    if (length > full) {
      std::memcpy(tail, z + full, (length - full) * sizeof(T));
    }
  }

  // A threshold that is near: one of Newton's steps on every eighth vector of a long row, as if the others were alike, then
  // one on all of it, with sums that round. There is no branch, so that a processor works on the next row meanwhile.
  MULTIFUSE_INLINE T guess(T budget) const {
    constexpr int64_t kStride = 8;
    constexpr int64_t kSampledVectors = 4;
    if (length < kStride * kSampledVectors * kLanes) {
      return T(0);
    }
    const int64_t sampled = length / (kStride * kLanes);
    const T share = budget * static_cast<T>(sampled * kLanes) / static_cast<T>(length);
    T threshold = 0;
    threshold += correction(threshold, share, sampled, kStride);
    threshold += correction(threshold, budget, length / kLanes, 1);
    return threshold > T(0) && threshold < kInfinity<T> ? threshold : T(0);
  }

  // Newton's correction of a threshold, from `count` vectors that lie `stride` apart.
  MULTIFUSE_INLINE T correction(T threshold, T budget, int64_t count, int64_t stride) const {
    Values<T> sum[2] = {};
    Lanes<T> inside[2] = {};
    for (int64_t vector = 0; vector + 2 <= count; vector += 2) {
      for (int64_t half = 0; half < 2; ++half) {
        const Values<T> shifted = load(z + (vector + half) * stride * kLanes) - threshold;
        const Values<T> zero = {};
        Values<T> clipped = zero > shifted ? zero : shifted;
        clipped = zero + T(1) < clipped ? zero + T(1) : clipped;
        sum[half] += clipped;
        inside[half] -= clipped == shifted;
      }
    }
    const T excess = sum_of_lanes<T>(sum[0] + sum[1]) - budget;
    return excess / static_cast<T>(sum_of_lanes<Count<T>>(inside[0] + inside[1]));
  }

  MULTIFUSE_INLINE Piece<T> at(T threshold, T budget) const {
    int64_t saturated = 0;
    int64_t inside = 0;
    double below = 0;
    for (int64_t start = 0; start < length; start += kChunk) {
      const int64_t end = start + kChunk < length ? start + kChunk : length;
      LaneSums<T> sums;
      LaneSums<T> others;  // two chains of additions, so that none waits for the one before
      int64_t t = start;
      for (; t + 2 * kLanes <= end; t += 2 * kLanes) {
        write(t, kLanes, sums.add(z + t, threshold));
        write(t + kLanes, kLanes, others.add(z + t + kLanes, threshold));
      }
      if (t + kLanes <= end) {
        write(t, kLanes, sums.add(z + t, threshold));
        t += kLanes;
      }
      if (t < end) {
        write(t, end - t, sums.add(tail, threshold));
      }
      saturated += sum_of_lanes<Count<T>>(sums.saturated + others.saturated);
      inside += sum_of_lanes<Count<T>>(sums.inside + others.inside);
      below += sum_of_lanes<T>(sums.below + others.below);
    }
    return {static_cast<T>(static_cast<double>(saturated) - budget + below), static_cast<T>(inside)};
  }

  MULTIFUSE_INLINE void write(int64_t t, int64_t lanes, const Values<T>& projected) const {
    if (lanes == kLanes) {
      store<T>(alpha + t, projected);
    } else {
      std::memcpy(alpha + t, &projected, lanes * sizeof(T));
    }
  }

  MULTIFUSE_INLINE T maximum() const {
    T top = -kInfinity<T>;
#pragma omp simd reduction(max : top)
    for (int64_t t = 0; t < length; ++t) {
      top = z[t] > top ? z[t] : top;
    }
    return top;
  }

  bool make_finite() {
    T top = 1;
    for (int64_t t = 0; t < length; ++t) {
      top = z[t] < kInfinity<T> && z[t] > top ? z[t] : top;
    }
    if (maximum() < kInfinity<T>) {
      return false;
    }
    if (z != scratch->data()) {
      scratch->assign(z, z + length);
      z = scratch->data();
    }
    for (T& value : *scratch) {
      value = value == kInfinity<T> ? top + 1 : value;
    }
    load_tail();
    return true;
  }
};

// Writes `value` to the real tokens of a row, and 0 to the others.
template <typename Element, typename T>
MULTIFUSE_INLINE void fill_valid(Element* to, const bool* mask, T value, int64_t length) {
  for (int64_t t = 0; t < length; ++t) {
    to[t] = static_cast<Element>(mask && !mask[t] ? T(0) : value);
  }
}

// Projects a row z in the compute type, -inf where it is masked, and gives its threshold.
template <typename T>
MULTIFUSE_INLINE T project_row(const T* z, const bool* mask, T budget, int64_t length, T* alpha, std::vector<T>& scratch) {
  HostRow<T> row(z, alpha, length, &scratch);
  const T threshold = row_threshold(row, budget);
  if (threshold != threshold || threshold == kInfinity<T>) {
    fill_valid(alpha, mask, threshold != threshold ? threshold : T(0), length);
  }
  return threshold;
}

// The derivative of a projected row in the compute type; gives `[binds] mean_A g`. `push` is 0 for the vjp.
template <typename Element, typename T>
MULTIFUSE_INLINE T derivative_row(const T* z, const T* g, T threshold, T push, int64_t length, Element* out) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t start = 0; start < length; start += kChunk) {
    const int64_t stop = start + kChunk < length ? start + kChunk : length;
    T chunk_sum = 0;
    Count<T> chunk_count = 0;
#pragma omp simd reduction(+ : chunk_sum, chunk_count)
    for (int64_t t = start; t < stop; ++t) {
      const bool active = is_inside(z[t] - threshold);
      const T pulled = g[t];
      chunk_sum += active ? pulled : T(0);
      chunk_count += active;
    }
    sum += chunk_sum;
    count += chunk_count;
  }
  const T share = count > 0 && threshold > 0 ? static_cast<T>(1.0 / static_cast<double>(count)) : T(0);
  const T mean = static_cast<T>(sum) * share;
  const T shift = mean - push * share;
#pragma omp simd
  for (int64_t t = 0; t < length; ++t) {
    const T shifted = g[t] - shift;
    out[t] = static_cast<Element>(is_inside(z[t] - threshold) ? shifted : T(0));
  }
  return mean;
}

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
