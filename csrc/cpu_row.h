// One row of the projection in memory, in the compute type; included once per version of the code.
#include "capped_simplex.h"
#include "cpu_vectors.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// The sums over the tokens of a row at a threshold, lane by lane.
template <typename T>
struct LaneSums {
  Values<T> sum = {};  // of unsaturated tokens
  Count<T> below;      // unsaturated tokens
  Count<T> zeros;      // terms of the sum that are 0

  // Adds a vector of tokens and returns their projection. NaN is kept.
  MULTIFUSE_INLINE Values<T> add(const T* z, T threshold) {
    const Values<T> one = Values<T>{} + T(1);
    const Values<T> shifted = load(z) - threshold;
    const Selection<T> is_unsaturated = is_below(shifted, one);
    const Values<T> kept = positive_part(is_unsaturated, shifted);
    sum += kept;
    below.add(is_unsaturated);
    zeros.add(equal(kept, Values<T>{}));
    return select(is_unsaturated, kept, one);
  }
};

// The same for a guess, less exactly: saturated tokens are summed instead of counted, which rounds, and NaN is clipped.
template <typename T>
struct QuickSums {
  Values<T> sum = {};
  Count<T> inside;

  MULTIFUSE_INLINE void add(const T* z, T threshold) {
    const Values<T> shifted = load(z) - threshold;
    const Values<T> clipped = clip_lanes(shifted);
    sum += clipped;
    inside.add(equal(clipped, shifted));
  }
};

// A row in memory and the destination of its projection; `scratch` holds a copy of the row if it has to be changed.
template <typename T>
struct HostRow {
  static constexpr int64_t kLanes = Vector<T>::kLanes;
  const T* z;
  T* alpha;
  int64_t length;
  std::vector<T>* scratch;
  T tail[kLanes];  // the rest of the row after its full vectors, padded with -inf

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

  MULTIFUSE_INLINE Piece<T> at(T threshold, T budget) const {
    int64_t saturated = 0;
    int64_t inside = 0;
    double below = 0;
    for (int64_t start = 0; start < length; start += kChunk) {
      const int64_t end = start + kChunk < length ? start + kChunk : length;
      LaneSums<T> sums;
      LaneSums<T> others;  // a second chain of additions, so that consecutive ones do not wait for each other
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
        t += kLanes;
      }
      saturated += t - start - sums.below.total() - others.below.total();
      inside += t - start - sums.zeros.total() - others.zeros.total();
      below += sum_of_lanes<T>(sums.sum + others.sum);
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

// Calls a function with the number of each row, a constant. With that, and if the function is inlined early, GCC keeps the
// sums of the rows in registers.
template <int kRows, typename F>
MULTIFUSE_INLINE void each_row(F&& f) {
  [&]<int... row>(std::integer_sequence<int, row...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, row>()), ...);
  }(std::make_integer_sequence<int, kRows>());
}

// Makes one Newton step for several rows of one length, estimated from every `stride`-th of their vectors. A threshold that
// becomes negative or not finite is set to 0. The rows are interleaved, so that the processor works on one while it waits
// for another.
template <int kRows, typename T>
MULTIFUSE_INLINE void step_together(const HostRow<T>* rows, const T* budgets, int64_t stride, T* thresholds) {
  constexpr int64_t kLanes = Vector<T>::kLanes;
  const int64_t length = rows[0].length;
  const int64_t vectors = length / (stride * kLanes);
  QuickSums<T> sums[kRows];
  for (int64_t vector = 0; vector < vectors; ++vector) {
    const int64_t start = vector * stride * kLanes;
    each_row<kRows>([&](auto row) __attribute__((always_inline)) {
      sums[row].add(rows[row].z + start, thresholds[row]);
    });
  }
  if (stride == 1 && length > vectors * kLanes) {
    each_row<kRows>([&](auto row) __attribute__((always_inline)) {
      sums[row].add(rows[row].tail, thresholds[row]);
    });
  }
  const T fraction = stride == 1 ? T(1) : static_cast<T>(vectors * kLanes) / static_cast<T>(length);
  each_row<kRows>([&](auto row) __attribute__((always_inline)) {
    const T excess = sum_of_lanes<T>(sums[row].sum) - budgets[row] * fraction;
    const T next = thresholds[row] + excess / static_cast<T>(sums[row].inside.total());
    thresholds[row] = next > T(0) && next < kInfinity<T> ? next : T(0);
  });
}

// Approximates the thresholds of several rows of one length: a step from 0 on a quarter of a long row, then two steps on
// all of it, after which one exact sweep usually confirms the result.
template <int kRows, typename T>
MULTIFUSE_INLINE void guess_together(const HostRow<T>* rows, const T* budgets, T* thresholds) {
  constexpr int64_t kStride = 4;
  constexpr int64_t kLongRow = kStride * 4 * Vector<T>::kLanes;
  std::fill_n(thresholds, kRows, T(0));
  if (rows[0].length >= kLongRow) {
    step_together<kRows>(rows, budgets, kStride, thresholds);
  }
  step_together<kRows>(rows, budgets, 1, thresholds);
  step_together<kRows>(rows, budgets, 1, thresholds);
}

// Writes `value` to the real tokens of a row and 0 to the others.
template <typename Element, typename T>
MULTIFUSE_INLINE void fill_valid(Element* to, const bool* mask, T value, int64_t length) {
  for (int64_t t = 0; t < length; ++t) {
    to[t] = static_cast<Element>(mask && !mask[t] ? T(0) : value);
  }
}

// Projects a row from a guess of its threshold, and returns the threshold.
template <typename T>
MULTIFUSE_INLINE T project_from(HostRow<T>& row, const bool* mask, T budget, T guess) {
  const T threshold = row_threshold(row, budget, guess);
  if (threshold != threshold || threshold == kInfinity<T>) {
    fill_valid(row.alpha, mask, threshold != threshold ? threshold : T(0), row.length);
  }
  return threshold;
}

// Computes the backward of a projected row in the compute type; returns `[binds] mean_A grad`.
template <typename Element, typename T>
MULTIFUSE_INLINE T backward_row(const T* z, const T* grad, T threshold, int64_t length, Element* grad_z) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t start = 0; start < length; start += kChunk) {
    const int64_t stop = start + kChunk < length ? start + kChunk : length;
    T chunk_sum = 0;
    Integer<T> chunk_count = 0;
#pragma omp simd reduction(+ : chunk_sum, chunk_count)
    for (int64_t t = start; t < stop; ++t) {
      const bool active = is_inside(z[t] - threshold);
      const T value = grad[t];
      chunk_sum += active ? value : T(0);
      chunk_count += active;
    }
    sum += chunk_sum;
    count += chunk_count;
  }
  const T mean = count > 0 && threshold > 0 ? static_cast<T>(sum / static_cast<double>(count)) : T(0);
#pragma omp simd
  for (int64_t t = 0; t < length; ++t) {
    const T shifted = grad[t] - mean;
    grad_z[t] = static_cast<Element>(is_inside(z[t] - threshold) ? shifted : T(0));
  }
  return mean;
}

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
