// CPU kernels of the projection onto the capped simplex and of its derivatives, parallel over rows.
#include "cpu.h"

#include <algorithm>
#include <vector>

namespace multifuse {

constexpr int64_t kElementsPerTask = 16384;

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

#define MULTIFUSE_ROWS "cpu_projection_rows.h"
#include "cpu_versions.h"

namespace multifuse {
namespace {

template <typename Task>
void run(const Task& task, int64_t rows) {
  run_parallel(task, rows, task.length > 0 ? (kElementsPerTask + task.length - 1) / task.length : rows + 1);
}

std::tuple<Tensor, Tensor> project(const Tensor& z, const Tensor& budget, const OptionalTensor& mask) {
  const Rows rows = make_rows(z, budget, mask);
  Tensor alpha = uninitialised_like(rows.z);
  Tensor threshold = uninitialised_like(rows.per_row);
  with_element_type("z", z, [&](auto element) {
    using Element = decltype(element);
    using T = Compute<Element>;
    run(
        Projection<Element>{static_cast<const Element*>(rows.z.data_ptr()), static_cast<const T*>(rows.per_row.data_ptr()),
                            mask_data(rows.mask), static_cast<Element*>(alpha.data_ptr()),
                            static_cast<T*>(threshold.data_ptr()), rows.length},
        rows.rows);
  });
  return {alpha, threshold};
}

void differentiate(const Tensor& g, const Tensor* push, const Rows& rows, Tensor& out, Tensor* mean) {
  const Tensor g_rows = in_order(g);
  STD_TORCH_CHECK(g_rows.numel() == rows.z.numel() && g_rows.scalar_type() == rows.z.scalar_type(),
                  "grad must have z's shape and type");
  check_device("grad", g, rows.z);
  with_element_type("z", rows.z, [&](auto element) {
    using Element = decltype(element);
    using T = Compute<Element>;
    run(
        Derivative<Element>{static_cast<const Element*>(g_rows.data_ptr()),
                            push ? static_cast<const T*>(push->data_ptr()) : nullptr,
                            static_cast<const Element*>(rows.z.data_ptr()),
                            static_cast<const T*>(rows.per_row.data_ptr()), mask_data(rows.mask),
                            static_cast<Element*>(out.data_ptr()), mean ? static_cast<T*>(mean->data_ptr()) : nullptr,
                            rows.length},
        rows.rows);
  });
}

std::tuple<Tensor, Tensor> project_vjp(const Tensor& grad, const Tensor& z, const Tensor& threshold,
                                       const OptionalTensor& mask) {
  const Rows rows = make_rows(z, threshold, mask);
  Tensor grad_z = uninitialised_like(rows.z);
  Tensor mean = uninitialised_like(rows.per_row);
  differentiate(grad, nullptr, rows, grad_z, &mean);
  return {grad_z, mean};
}

Tensor project_jvp(const Tensor& tangent_z, const Tensor& tangent_budget, const Tensor& z, const Tensor& threshold,
                   const OptionalTensor& mask) {
  const Rows rows = make_rows(z, threshold, mask);
  const Tensor push = in_order(tangent_budget);
  STD_TORCH_CHECK(push.numel() == rows.rows && push.scalar_type() == rows.per_row.scalar_type(),
                  "tangent_budget must have the budget's shape and type");
  check_device("tangent_budget", tangent_budget, z);
  Tensor out = uninitialised_like(rows.z);
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
