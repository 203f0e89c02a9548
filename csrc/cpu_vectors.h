// Vectors in CPU registers, included once per version of the code: MULTIFUSE_VERSION is its namespace and
// MULTIFUSE_VECTOR_BYTES the width of a vector. They are explicit because compilers vary in how they vectorise reductions.
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// An integer as wide as T: a comparison of vectors gives -1 in every lane in which it holds.
template <typename T>
using Integer = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;

template <typename T>
struct Vector {
  static constexpr int64_t kLanes = MULTIFUSE_VECTOR_BYTES / sizeof(T);
  typedef T Values __attribute__((vector_size(MULTIFUSE_VECTOR_BYTES)));
  typedef Integer<T> Lanes __attribute__((vector_size(MULTIFUSE_VECTOR_BYTES)));
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

// Sums the lanes of a vector as a tree.
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

// The lanes in which a comparison holds, and a count of them. AVX-512 has mask registers, whose ones an instruction counts;
// elsewhere, a selection is the vector that a comparison gives, and is counted lane by lane.
// `is_below` holds for NaN; `positive_part` is max(0, x) in the lanes of `where`, with NaN for NaN, and 0 in the others.
// `clip_lanes` clips to [0, 1], NaN too; with AVX-512 by comparing integers, as the bits of numbers >= 0 are ordered like the
// numbers, which leaves the units that add free.
#if MULTIFUSE_VECTOR_BYTES == 64
template <typename T>
using Selection = std::conditional_t<sizeof(T) == sizeof(float), __mmask16, __mmask8>;

MULTIFUSE_INLINE Selection<float> equal(const Values<float>& a, const Values<float>& b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

MULTIFUSE_INLINE Selection<double> equal(const Values<double>& a, const Values<double>& b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ);
}

MULTIFUSE_INLINE Selection<float> is_below(const Values<float>& a, const Values<float>& b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_NGE_UQ);
}

MULTIFUSE_INLINE Selection<double> is_below(const Values<double>& a, const Values<double>& b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_NGE_UQ);
}

MULTIFUSE_INLINE Values<float> positive_part(Selection<float> where, const Values<float>& x) {
  return _mm512_maskz_max_ps(where, Values<float>{}, x);
}

MULTIFUSE_INLINE Values<double> positive_part(Selection<double> where, const Values<double>& x) {
  return _mm512_maskz_max_pd(where, Values<double>{}, x);
}

MULTIFUSE_INLINE Values<float> clip_lanes(const Values<float>& x) {
  const __m512i positive = _mm512_maskz_max_epi32(-1, __m512i{}, (__m512i)x);
  return (Values<float>)_mm512_maskz_min_epi32(-1, positive, (__m512i)(Values<float>{} + 1.0f));
}

MULTIFUSE_INLINE Values<double> clip_lanes(const Values<double>& x) {
  const __m512i positive = _mm512_maskz_max_epi64(-1, __m512i{}, (__m512i)x);
  return (Values<double>)_mm512_maskz_min_epi64(-1, positive, (__m512i)(Values<double>{} + 1.0));
}

MULTIFUSE_INLINE Values<float> select(Selection<float> where, const Values<float>& a, const Values<float>& b) {
  return _mm512_mask_mov_ps(b, where, a);
}

MULTIFUSE_INLINE Values<double> select(Selection<double> where, const Values<double>& a, const Values<double>& b) {
  return _mm512_mask_mov_pd(b, where, a);
}

template <typename T>
struct Count {
  int64_t ones = 0;

  MULTIFUSE_INLINE void add(Selection<T> where) {
    ones += __builtin_popcount(where);
  }

  MULTIFUSE_INLINE int64_t total() const {
    return ones;
  }
};
#else
template <typename T>
using Selection = Lanes<T>;

template <typename V>
MULTIFUSE_INLINE auto equal(const V& a, const V& b) {
  return a == b;
}

// `largest` and `smallest` return b where one of the two is NaN. For AVX2 they are named as instructions, because GCC would
// compare and blend; so are the comparison and the selection, which it would join into several blends.
#if MULTIFUSE_VECTOR_BYTES == 32
MULTIFUSE_INLINE Lanes<float> is_below(const Values<float>& a, const Values<float>& b) {
  return (Lanes<float>)_mm256_cmp_ps(a, b, _CMP_NGE_UQ);
}

MULTIFUSE_INLINE Lanes<double> is_below(const Values<double>& a, const Values<double>& b) {
  return (Lanes<double>)_mm256_cmp_pd(a, b, _CMP_NGE_UQ);
}

MULTIFUSE_INLINE Values<float> select(const Lanes<float>& where, const Values<float>& a, const Values<float>& b) {
  return _mm256_blendv_ps(b, a, (Values<float>)where);
}

MULTIFUSE_INLINE Values<double> select(const Lanes<double>& where, const Values<double>& a, const Values<double>& b) {
  return _mm256_blendv_pd(b, a, (Values<double>)where);
}

MULTIFUSE_INLINE Values<float> largest(const Values<float>& a, const Values<float>& b) {
  return _mm256_max_ps(a, b);
}

MULTIFUSE_INLINE Values<double> largest(const Values<double>& a, const Values<double>& b) {
  return _mm256_max_pd(a, b);
}

MULTIFUSE_INLINE Values<float> smallest(const Values<float>& a, const Values<float>& b) {
  return _mm256_min_ps(a, b);
}

MULTIFUSE_INLINE Values<double> smallest(const Values<double>& a, const Values<double>& b) {
  return _mm256_min_pd(a, b);
}
#else
template <typename V>
MULTIFUSE_INLINE auto is_below(const V& a, const V& b) {
  return ~(a >= b);
}

template <typename L, typename V>
MULTIFUSE_INLINE V select(const L& where, const V& a, const V& b) {
  return (V)(((L)a & where) | ((L)b & ~where));
}

template <typename V>
MULTIFUSE_INLINE V largest(const V& a, const V& b) {
  return a > b ? a : b;
}

template <typename V>
MULTIFUSE_INLINE V smallest(const V& a, const V& b) {
  return a < b ? a : b;
}
#endif

template <typename L, typename V>
MULTIFUSE_INLINE V positive_part(const L& where, const V& x) {
  return (V)((L)largest(V{}, x) & where);
}

template <typename V>
MULTIFUSE_INLINE V clip_lanes(const V& x) {
  return smallest(largest(x, V{}), V{} + 1);
}

template <typename T>
struct Count {
  Lanes<T> lanes = {};

  MULTIFUSE_INLINE void add(const Selection<T>& where) {
    lanes -= where;
  }

  MULTIFUSE_INLINE int64_t total() const {
    return sum_of_lanes<Integer<T>>(lanes);
  }
};
#endif

// Powers of two of x <= 0 (or above it by a rounding error), accurate to float's rounding (Cephes' polynomial); NaN is kept.
// For float, they are at least 2^-126.
template <typename T>
MULTIFUSE_INLINE Values<T> power_of_two(Values<T> x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding to it rounds to an integer
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
