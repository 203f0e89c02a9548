// The projection of rows on the CPU, included once per version of the code.
#include "cpu_row.h"

#include <array>
#include <utility>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// Returns a row in the compute type, with `fill` at masked tokens: the row itself, or a copy in `scratch`.
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

// Buffers of a row that is not projected in place.
template <typename T>
struct RowScratch {
  std::vector<T> values;
  std::vector<T> projected;
};

template <int kRows, typename Element>
MULTIFUSE_INLINE void project_together(const Projection<Element>& p, int64_t first, RowScratch<Compute<Element>>* scratch) {
  using T = Compute<Element>;
  constexpr bool kInPlace = std::is_same_v<Element, T>;
  const auto row_of = [&](int index) {
    const int64_t offset = (first + index) * p.length;
    RowScratch<T>& buffers = scratch[index];
    const T* z = row_values(p.z + offset, p.mask ? p.mask + offset : nullptr, -kInfinity<T>, p.length, buffers.values);
    if constexpr (kInPlace) {
      return HostRow<T>(z, p.alpha + offset, p.length, &buffers.values);
    } else {
      buffers.projected.resize(p.length);
      return HostRow<T>(z, buffers.projected.data(), p.length, &buffers.values);
    }
  };
  auto rows = [&]<size_t... index>(std::index_sequence<index...>) {
    return std::array{row_of(index)...};
  }(std::make_index_sequence<kRows>());
  T guesses[kRows];
  guess_together<kRows>(rows.data(), p.budget + first, guesses);
  for (int index = 0; index < kRows; ++index) {
    const int64_t r = first + index;
    const bool* mask = p.mask ? p.mask + r * p.length : nullptr;
    p.threshold[r] = project_from(rows[index], mask, p.budget[r], guesses[index]);
    if constexpr (!kInPlace) {
      const std::vector<T>& projected = scratch[index].projected;
      std::transform(projected.begin(), projected.end(), p.alpha + r * p.length,
                     [](T value) { return static_cast<Element>(value); });
    }
  }
}

template <typename Element>
MULTIFUSE_INLINE void project_rows(const Projection<Element>& p, int64_t begin, int64_t end) {
  RowScratch<Compute<Element>> scratch[2];
  int64_t r = begin;
  for (; r + 2 <= end; r += 2) {
    project_together<2>(p, r, scratch);
  }
  if (r < end) {
    project_together<1>(p, r, scratch);
  }
}

template <typename Element>
MULTIFUSE_INLINE void backward_rows(const Backward<Element>& b, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  std::vector<T> z_scratch;
  std::vector<T> grad_scratch;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t offset = r * b.length;
    const bool* mask = b.mask ? b.mask + offset : nullptr;
    const T threshold = b.threshold[r];
    if (threshold != threshold) {
      fill_valid(b.grad_z + offset, mask, threshold, b.length);
      b.grad_budget[r] = threshold;
    } else {
      const T* z = row_values(b.z + offset, mask, -kInfinity<T>, b.length, z_scratch);
      const T* grad = row_values(b.grad + offset, nullptr, T(0), b.length, grad_scratch);
      b.grad_budget[r] = backward_row(z, grad, threshold, b.length, b.grad_z + offset);
    }
  }
}

MULTIFUSE_RUN(Projection, project_rows)
MULTIFUSE_RUN(Backward, backward_rows)

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
