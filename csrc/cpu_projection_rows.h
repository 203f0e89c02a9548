// The CPU's rows of the projection, included once for every version of the code.
#include "cpu_row.h"

namespace multifuse {
namespace MULTIFUSE_VERSION {

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

template <typename Element>
MULTIFUSE_INLINE void project_rows(const Projection<Element>& p, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  std::vector<T> scratch;
  std::vector<T> projected(std::is_same_v<Element, T> ? 0 : p.length);
  for (int64_t r = begin; r < end; ++r) {
    const bool* mask = p.mask ? p.mask + r * p.length : nullptr;
    Element* alpha = p.alpha + r * p.length;
    const T* z = row_values(p.z + r * p.length, mask, -kInfinity<T>, p.length, scratch);
    if constexpr (std::is_same_v<Element, T>) {
      p.threshold[r] = project_row(z, mask, p.budget[r], p.length, alpha, scratch);
    } else {
      p.threshold[r] = project_row(z, mask, p.budget[r], p.length, projected.data(), scratch);
      std::transform(projected.begin(), projected.end(), alpha, [](T value) { return static_cast<Element>(value); });
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
    T mean = d.threshold[r];
    if (mean != mean) {
      fill_valid(d.out + offset, mask, mean, d.length);
    } else {
      const T* z = row_values(d.z + offset, mask, -kInfinity<T>, d.length, z_scratch);
      const T* g = row_values(d.g + offset, nullptr, T(0), d.length, g_scratch);
      mean = derivative_row(z, g, mean, d.push ? d.push[r] : T(0), d.length, d.out + offset);
    }
    if (d.mean) {
      d.mean[r] = mean;
    }
  }
}

MULTIFUSE_RUN(Projection, project_rows)
MULTIFUSE_RUN(Derivative, derivative_rows)

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
