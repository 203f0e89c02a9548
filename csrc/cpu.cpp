// CPU kernels of the projection onto the capped simplex and of its derivatives, parallel over rows.
#include "capped_simplex.h"
#include "library.h"

#include <limits>
#include <type_traits>
#include <vector>

// One binary for every x86-64 processor: the loader picks the widest version that it has.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define MULTIFUSE_MULTIVERSIONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIFUSE_MULTIVERSIONED
#endif
#define MULTIFUSE_INLINE inline __attribute__((always_inline))

namespace multifuse {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template <typename Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

constexpr int64_t kElementsPerTask = 16384;
// Sums run in the compute type over chunks of this length, and in double over the chunks.
constexpr int64_t kChunk = 1024;

template <typename T>
struct HostRow {
  const T* z;
  int64_t length;

  MULTIFUSE_INLINE Piece<T> at(T threshold, T budget) const {
    double saturated = 0;
    double below = 0;
    double inside = 0;
    for (int64_t start = 0; start < length; start += kChunk) {
      const int64_t end = start + kChunk < length ? start + kChunk : length;
      T chunk_saturated = 0;
      T chunk_below = 0;
      T chunk_inside = 0;
#pragma omp simd reduction(+ : chunk_saturated, chunk_below, chunk_inside)
      for (int64_t t = start; t < end; ++t) {
        const T shifted = z[t] - threshold;
        chunk_saturated += is_saturated(shifted) ? T(1) : T(0);
        chunk_below += below_saturation(shifted);
        chunk_inside += is_inside(shifted) ? T(1) : T(0);
      }
      saturated += chunk_saturated;
      below += chunk_below;
      inside += chunk_inside;
    }
    return {static_cast<T>(saturated - budget + below), static_cast<T>(inside)};
  }

  MULTIFUSE_INLINE T maximum() const {
    T top = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : top)
    for (int64_t t = 0; t < length; ++t) {
      top = z[t] > top ? z[t] : top;
    }
    return top;
  }
};

// Replaces +inf by a value one above all finite ones, which takes part in the same way.
template <typename T>
void make_finite(std::vector<T>& row) {
  const T infinity = std::numeric_limits<T>::infinity();
  T top = 1;
  for (T value : row) {
    top = value < infinity && value > top ? value : top;
  }
  for (T& value : row) {
    value = value == infinity ? top + 1 : value;
  }
}

template <typename Element>
struct Projection {
  using T = Compute<Element>;
  const Element* z;
  const T* budget;
  const bool* mask;
  Element* alpha;
  T* threshold;
  int64_t length;
};

// The row's threshold: 0 where the budget is slack, +inf where it is not positive, NaN where the row or budget has one.
// `row` is replaced by the finite copy in `scratch` where the row holds +inf.
template <typename T>
MULTIFUSE_INLINE T row_threshold(HostRow<T>& row, T budget, std::vector<T>& scratch) {
  const Piece<T> start = row.at(T(0), budget);
  if (start.excess != start.excess) {
    return std::numeric_limits<T>::quiet_NaN();
  }
  if (budget <= 0) {
    return std::numeric_limits<T>::infinity();
  }
  if (!(start.excess > 0)) {
    return 0;
  }
  T maximum = row.maximum();
  if (maximum == std::numeric_limits<T>::infinity()) {
    if (row.z != scratch.data()) {
      scratch.assign(row.z, row.z + row.length);
    }
    make_finite(scratch);
    row.z = scratch.data();
    maximum = row.maximum();
  }
  return solve_threshold(row, start, budget, maximum, 2 * std::numeric_limits<T>::epsilon());
}

template <typename Element>
MULTIFUSE_INLINE void project_rows(const Projection<Element>& p, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  std::vector<T> scratch;
  for (int64_t r = begin; r < end; ++r) {
    const Element* z = p.z + r * p.length;
    const bool* mask = p.mask ? p.mask + r * p.length : nullptr;
    HostRow<T> row{nullptr, p.length};
    if constexpr (std::is_same_v<Element, T>) {
      row.z = z;
    }
    if (mask || !row.z) {
      scratch.resize(p.length);
      for (int64_t t = 0; t < p.length; ++t) {
        scratch[t] = mask && !mask[t] ? T(0) : static_cast<T>(z[t]);
      }
      row.z = scratch.data();
    }
    const T threshold = row_threshold(row, p.budget[r], scratch);
    p.threshold[r] = threshold;
    Element* alpha = p.alpha + r * p.length;
    const T zero_at = std::numeric_limits<T>::infinity();
    if (threshold == zero_at) {  // also where z is +inf
      for (int64_t t = 0; t < p.length; ++t) {
        alpha[t] = static_cast<Element>(T(0));
      }
      continue;
    }
    const T* values = row.z;
#pragma omp simd
    for (int64_t t = 0; t < p.length; ++t) {
      alpha[t] = static_cast<Element>(clip(values[t] - threshold));
    }
    if (mask) {
      for (int64_t t = 0; t < p.length; ++t) {
        alpha[t] = mask[t] ? alpha[t] : static_cast<Element>(T(0));
      }
    }
  }
}

// Both derivatives in one: `grad_z = 1_A (g - [binds] (mean_A g - push / |A|))`, `grad_budget = [binds] mean_A g`.
template <typename Element>
struct Derivative {
  using T = Compute<Element>;
  const Element* g;
  const T* push;  // null for the vjp
  const Element* z;
  const T* threshold;
  const bool* mask;
  Element* out;
  T* mean;  // null for the jvp
  int64_t length;
};

template <typename Element>
MULTIFUSE_INLINE void derivative_rows(const Derivative<Element>& d, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  for (int64_t r = begin; r < end; ++r) {
    const Element* z = d.z + r * d.length;
    const Element* g = d.g + r * d.length;
    const bool* mask = d.mask ? d.mask + r * d.length : nullptr;
    Element* out = d.out + r * d.length;
    const T threshold = d.threshold[r];
    double sum = 0;
    double count = 0;
    for (int64_t start = 0; start < d.length; start += kChunk) {
      const int64_t stop = start + kChunk < d.length ? start + kChunk : d.length;
      T chunk_sum = 0;
      T chunk_count = 0;
#pragma omp simd reduction(+ : chunk_sum, chunk_count)
      for (int64_t t = start; t < stop; ++t) {
        const bool active = is_inside(static_cast<T>(z[t]) - threshold) && (!mask || mask[t]);
        chunk_sum += active ? static_cast<T>(g[t]) : T(0);
        chunk_count += active ? T(1) : T(0);
      }
      sum += chunk_sum;
      count += chunk_count;
    }
    const bool binds = threshold > 0;
    const bool invalid = threshold != threshold;
    const T share = count > 0 && binds ? static_cast<T>(1 / count) : T(0);
    const T mean = invalid ? threshold : static_cast<T>(sum) * share;
    if (d.mean) {
      d.mean[r] = mean;
    }
    const T shift = d.push ? mean - d.push[r] * share : mean;
#pragma omp simd
    for (int64_t t = 0; t < d.length; ++t) {
      const bool valid = !mask || mask[t];
      const bool active = is_inside(static_cast<T>(z[t]) - threshold) && valid;
      const T value = active ? static_cast<T>(g[t]) - shift : T(0);
      out[t] = static_cast<Element>(invalid && valid ? threshold : value);
    }
  }
}

#define MULTIFUSE_INSTANTIATE(Element)                                                                        \
  MULTIFUSE_MULTIVERSIONED void run(const Projection<Element>& p, int64_t begin, int64_t end) {              \
    project_rows(p, begin, end);                                                                              \
  }                                                                                                           \
  MULTIFUSE_MULTIVERSIONED void run(const Derivative<Element>& d, int64_t begin, int64_t end) {              \
    derivative_rows(d, begin, end);                                                                           \
  }
MULTIFUSE_INSTANTIATE(float)
MULTIFUSE_INSTANTIATE(double)
MULTIFUSE_INSTANTIATE(Half)
MULTIFUSE_INSTANTIATE(BFloat16)
#undef MULTIFUSE_INSTANTIATE

template <typename Task>
void run_parallel(const Task& task, int64_t rows) {
  const int64_t grain = task.length > 0 ? (kElementsPerTask + task.length - 1) / task.length : rows + 1;
  if (rows <= grain) {
    run(task, 0, rows);
    return;
  }
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { run(task, begin, end); });
}

std::tuple<Tensor, Tensor> project(const Tensor& z, const Tensor& budget, const OptionalTensor& mask) {
  const Rows rows = make_rows(z, budget, mask);
  Tensor alpha = torch::stable::empty_like(rows.z);
  Tensor threshold = torch::stable::empty_like(rows.per_row);
  with_element_type(z, [&](auto element) {
    using Element = decltype(element);
    using T = Compute<Element>;
    run_parallel(
        Projection<Element>{static_cast<const Element*>(rows.z.data_ptr()), static_cast<const T*>(rows.per_row.data_ptr()),
                            rows.mask_data(), static_cast<Element*>(alpha.data_ptr()),
                            static_cast<T*>(threshold.data_ptr()), rows.length},
        rows.rows);
  });
  return {alpha, threshold};
}

void differentiate(const Tensor& g, const Tensor* push, const Rows& rows, Tensor& out, Tensor* mean) {
  const Tensor g_rows = torch::stable::contiguous(g);
  STD_TORCH_CHECK(g_rows.numel() == rows.z.numel() && g_rows.scalar_type() == rows.z.scalar_type(),
                  "grad must have z's shape and type");
  check_device("grad", g, rows.z);
  with_element_type(rows.z, [&](auto element) {
    using Element = decltype(element);
    using T = Compute<Element>;
    run_parallel(
        Derivative<Element>{static_cast<const Element*>(g_rows.data_ptr()),
                            push ? static_cast<const T*>(push->data_ptr()) : nullptr,
                            static_cast<const Element*>(rows.z.data_ptr()),
                            static_cast<const T*>(rows.per_row.data_ptr()), rows.mask_data(),
                            static_cast<Element*>(out.data_ptr()), mean ? static_cast<T*>(mean->data_ptr()) : nullptr,
                            rows.length},
        rows.rows);
  });
}

std::tuple<Tensor, Tensor> project_vjp(const Tensor& grad, const Tensor& z, const Tensor& threshold,
                                       const OptionalTensor& mask) {
  const Rows rows = make_rows(z, threshold, mask);
  Tensor grad_z = torch::stable::empty_like(rows.z);
  Tensor mean = torch::stable::empty_like(rows.per_row);
  differentiate(grad, nullptr, rows, grad_z, &mean);
  return {grad_z, mean};
}

Tensor project_jvp(const Tensor& tangent_z, const Tensor& tangent_budget, const Tensor& z, const Tensor& threshold,
                   const OptionalTensor& mask) {
  const Rows rows = make_rows(z, threshold, mask);
  const Tensor push = torch::stable::contiguous(tangent_budget);
  STD_TORCH_CHECK(push.numel() == rows.rows && push.scalar_type() == rows.per_row.scalar_type(),
                  "tangent_budget must have the budget's shape and type");
  check_device("tangent_budget", tangent_budget, z);
  Tensor out = torch::stable::empty_like(rows.z);
  differentiate(tangent_z, &push, rows, out, nullptr);
  return out;
}

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CPU, m) {
  m.impl("project", TORCH_BOX(&multifuse::project));
  m.impl("project_vjp", TORCH_BOX(&multifuse::project_vjp));
  m.impl("project_jvp", TORCH_BOX(&multifuse::project_jvp));
}
