// The CPU's rows, included once for every version of the code: MULTIFUSE_VERSION is its namespace, MULTIFUSE_VECTOR_BYTES
// the width of its vector registers. Vectors are spelled out, because what a compiler makes of a reduction in a loop varies.
#include "capped_simplex.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// Integers as wide as T: what a comparison of vectors gives, -1 in every lane where it holds.
template <typename T>
using Count = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;

template <typename T>
struct Vector {
  static constexpr int64_t kLanes = MULTIFUSE_VECTOR_BYTES / sizeof(T);
  typedef T Values __attribute__((vector_size(MULTIFUSE_VECTOR_BYTES)));
  typedef Count<T> Lanes __attribute__((vector_size(MULTIFUSE_VECTOR_BYTES)));
};

// The sum of a vector's lanes, as a tree.
template <typename T, typename Values>
MULTIFUSE_INLINE T sum_of_lanes(const Values& values) {
  if constexpr (sizeof(Values) == 2 * sizeof(T)) {
    return values[0] + values[1];
  } else {
    typedef T Half __attribute__((vector_size(sizeof(Values) / 2)));
    Half halves[2];
    std::memcpy(halves, &values, sizeof(halves));
    return sum_of_lanes<T>(halves[0] + halves[1]);
  }
}

// The sums of a row's tokens at a threshold, lane by lane.
template <typename T>
struct LaneSums {
  using Values = typename Vector<T>::Values;
  using Lanes = typename Vector<T>::Lanes;
  Values below = {};
  Lanes saturated = {};  // counted downwards
  Lanes outside = {};

  // Adds a vector of tokens, and writes their projection.
  MULTIFUSE_INLINE void add(const T* z, T threshold, T* alpha) {
    Values shifted;
    std::memcpy(&shifted, z, sizeof(shifted));
    shifted -= threshold;
    const Lanes over = shifted >= T(1);
    const Lanes out = over | (shifted <= T(0));
    const Lanes inner = (Lanes)shifted & ~out;  // the bits of NaN, which is within no bound, stay
    const Lanes clipped = inner | (over & (Lanes)(Values{} + T(1)));
    below += (Values)inner;
    saturated += over;
    outside += out;
    std::memcpy(alpha, &clipped, sizeof(clipped));
  }
};

// A row in memory, and where its projection goes; `scratch` takes a copy of it where it has to be changed.
template <typename T>
struct HostRow {
  const T* z;
  T* alpha;
  int64_t length;
  std::vector<T>* scratch;

  MULTIFUSE_INLINE Piece<T> at(T threshold, T budget) const {
    constexpr int64_t kLanes = Vector<T>::kLanes;
    int64_t saturated = 0;
    int64_t outside = 0;
    double below = 0;
    for (int64_t start = 0; start < length; start += kChunk) {
      const int64_t end = start + kChunk < length ? start + kChunk : length;
      LaneSums<T> sums;
      LaneSums<T> others;  // two chains of additions, so that none waits for the one before
      int64_t t = start;
      for (; t + 2 * kLanes <= end; t += 2 * kLanes) {
        sums.add(z + t, threshold, alpha + t);
        others.add(z + t + kLanes, threshold, alpha + t + kLanes);
      }
      if (t + kLanes <= end) {
        sums.add(z + t, threshold, alpha + t);
        t += kLanes;
      }
      if (t < end) {
        T rest[kLanes];
        T projected[kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          rest[lane] = t + lane < end ? z[t + lane] : -kInfinity<T>;
        }
        sums.add(rest, threshold, projected);
        std::copy(projected, projected + (end - t), alpha + t);
        outside -= kLanes - (end - t);
      }
      saturated -= sum_of_lanes<Count<T>>(sums.saturated + others.saturated);
      outside -= sum_of_lanes<Count<T>>(sums.outside + others.outside);
      below += sum_of_lanes<T>(sums.below + others.below);
    }
    return {static_cast<T>(static_cast<double>(saturated) - budget + below), static_cast<T>(length - outside)};
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
    return true;
  }
};

// A row in the compute type, `fill` where it is masked: the row itself, or a copy in `scratch`.
template <typename Element, typename T>
MULTIFUSE_INLINE const T* row_values(const Element* from, const bool* mask, T fill, int64_t length, std::vector<T>& scratch) {
  if constexpr (std::is_same_v<Element, T>) {
    if (!mask) {
      return from;
    }
  }
  scratch.resize(length);
  T* to = scratch.data();
  if (mask) {
    for (int64_t t = 0; t < length; ++t) {
      const T value = static_cast<T>(from[t]);
      to[t] = mask[t] ? value : fill;
    }
  } else {
    for (int64_t t = 0; t < length; ++t) {
      to[t] = static_cast<T>(from[t]);
    }
  }
  return to;
}

// Writes `value` to the real tokens of a row, and 0 to the others.
template <typename Element, typename T>
MULTIFUSE_INLINE void fill_valid(Element* to, const bool* mask, T value, int64_t length) {
  for (int64_t t = 0; t < length; ++t) {
    to[t] = static_cast<Element>(mask && !mask[t] ? T(0) : value);
  }
}

template <typename Element>
MULTIFUSE_INLINE void project_rows(const Projection<Element>& p, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  constexpr bool kConverts = !std::is_same_v<Element, T>;
  std::vector<T> scratch;
  std::vector<T> projected(kConverts ? p.length : 0);
  for (int64_t r = begin; r < end; ++r) {
    const bool* mask = p.mask ? p.mask + r * p.length : nullptr;
    Element* alpha = p.alpha + r * p.length;
    HostRow<T> row{row_values(p.z + r * p.length, mask, -kInfinity<T>, p.length, scratch), projected.data(), p.length, &scratch};
    if constexpr (!kConverts) {
      row.alpha = alpha;
    }
    const T threshold = row_threshold(row, p.budget[r]);
    p.threshold[r] = threshold;
    if (threshold != threshold || threshold == kInfinity<T>) {
      fill_valid(alpha, mask, threshold != threshold ? threshold : T(0), p.length);
    } else if constexpr (kConverts) {
      for (int64_t t = 0; t < p.length; ++t) {
        alpha[t] = static_cast<Element>(projected[t]);
      }
    }
  }
}

template <typename Element>
MULTIFUSE_INLINE void derivative_rows(const Derivative<Element>& d, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  std::vector<T> z_scratch;
  std::vector<T> g_scratch;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t offset = r * d.length;
    const bool* mask = d.mask ? d.mask + offset : nullptr;
    Element* out = d.out + offset;
    const T threshold = d.threshold[r];
    if (threshold != threshold) {
      fill_valid(out, mask, threshold, d.length);
      if (d.mean) {
        d.mean[r] = threshold;
      }
      continue;
    }
    const T* z = row_values(d.z + offset, mask, -kInfinity<T>, d.length, z_scratch);
    const T* g = row_values(d.g + offset, nullptr, T(0), d.length, g_scratch);
    double sum = 0;
    int64_t count = 0;
    for (int64_t start = 0; start < d.length; start += kChunk) {
      const int64_t stop = start + kChunk < d.length ? start + kChunk : d.length;
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
    if (d.mean) {
      d.mean[r] = mean;
    }
    const T shift = d.push ? mean - d.push[r] * share : mean;
#pragma omp simd
    for (int64_t t = 0; t < d.length; ++t) {
      const T shifted = g[t] - shift;
      out[t] = static_cast<Element>(is_inside(z[t] - threshold) ? shifted : T(0));
    }
  }
}

#define MULTIFUSE_INSTANTIATE(Element)                                               \
  inline void run(const Projection<Element>& p, int64_t begin, int64_t end) {        \
    project_rows(p, begin, end);                                                     \
  }                                                                                  \
  inline void run(const Derivative<Element>& d, int64_t begin, int64_t end) {        \
    derivative_rows(d, begin, end);                                                  \
  }
MULTIFUSE_INSTANTIATE(float)
MULTIFUSE_INSTANTIATE(double)
MULTIFUSE_INSTANTIATE(Half)
MULTIFUSE_INSTANTIATE(BFloat16)
#undef MULTIFUSE_INSTANTIATE

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse

#undef MULTIFUSE_VERSION
#undef MULTIFUSE_VECTOR_BYTES
