// CPU kernels of the projection onto the capped simplex and of its derivatives, parallel over rows.
#include "library.h"

#include <type_traits>

#define MULTIFUSE_INLINE inline __attribute__((always_inline))

namespace multifuse {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template <typename Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

constexpr int64_t kElementsPerTask = 16384;
// Sums run in the compute type over chunks of this length, and in double over the chunks.
constexpr int64_t kChunk = 1024;

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

}  // namespace multifuse

// One binary for every x86-64 processor: each version of the rows is compiled for its instructions, and run where they are.
#define MULTIFUSE_VERSION baseline
#define MULTIFUSE_VECTOR_BYTES 16
#include "cpu_rows.h"
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MULTIFUSE_HAS_VERSIONS
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define MULTIFUSE_VERSION avx2
#define MULTIFUSE_VECTOR_BYTES 32
#include "cpu_rows.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define MULTIFUSE_VERSION avx512
#define MULTIFUSE_VECTOR_BYTES 64
#include "cpu_rows.h"
#pragma GCC pop_options
#endif

namespace multifuse {
namespace {

template <typename Task>
void run(const Task& task, int64_t begin, int64_t end) {
#ifdef MULTIFUSE_HAS_VERSIONS
  static const bool has_avx512 = __builtin_cpu_supports("x86-64-v4");
  static const bool has_avx2 = __builtin_cpu_supports("x86-64-v3");
  if (has_avx512) {
    return avx512::run(task, begin, end);
  }
  if (has_avx2) {
    return avx2::run(task, begin, end);
  }
#endif
  baseline::run(task, begin, end);
}

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
