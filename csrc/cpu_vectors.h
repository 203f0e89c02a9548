// Vectors of the CPU's registers, included once for every version of the code: MULTIFUSE_VERSION is its namespace,
// MULTIFUSE_VECTOR_BYTES their width. They are spelled out, because what a compiler makes of a reduction in a loop varies.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

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

template <typename T>
using Values = typename Vector<T>::Values;
template <typename T>
using Lanes = typename Vector<T>::Lanes;

template <typename T>
MULTIFUSE_INLINE Values<T> load(const T* from) {
  Values<T> values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <typename T>
MULTIFUSE_INLINE void store(T* to, const Values<T>& values) {
  std::memcpy(to, &values, sizeof(values));
}

// The sum of a vector's lanes, as a tree.
template <typename T, typename V>
MULTIFUSE_INLINE T sum_of_lanes(const V& values) {
  if constexpr (sizeof(V) == 2 * sizeof(T)) {
    return values[0] + values[1];
  } else {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &values, sizeof(halves));
    return sum_of_lanes<T>(halves[0] + halves[1]);
  }
}

// Powers of two of x <= 0, or a rounding above it, to float's rounding (Cephes' polynomial); NaN stays. Below 2^-126 they
// stop falling.
template <typename T>
MULTIFUSE_INLINE Values<T> power_of_two(Values<T> x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
    const Lanes<T> tiny = x < -126.0f;
    x = (Values<T>)(((Lanes<T>)x & ~tiny) | ((Lanes<T>)(Values<T>{} - 126.0f) & tiny));
    const Values<T> rounded = x + kRounder;
    const Values<T> rest = x - (rounded - kRounder);
    Values<T> power = 1.535336188319500e-4f * rest + 1.339887440266574e-3f;
    power = power * rest + 9.618437357674640e-3f;
    power = power * rest + 5.550332471162809e-2f;
    power = power * rest + 2.402264791363012e-1f;
    power = power * rest + 6.931472028550421e-1f;
    power = power * rest + 1.0f;
    return power * (Values<T>)(((Lanes<T>)rounded << 23) + 0x3f800000);
  } else {
    for (int64_t lane = 0; lane < Vector<T>::kLanes; ++lane) {
      x[lane] = std::exp2(x[lane]);
    }
    return x;
  }
}

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
