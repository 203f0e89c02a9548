// The projection onto the capped simplex and its backward as ops, the same on every device.
#pragma once

#include "library.h"

#include <tuple>
#include <type_traits>

namespace multifuse {

// The rows of z (rows, length), one number of the compute type per row, and an optional mask of z's shape.
struct Rows {
  Tensor z;
  Tensor per_row;
  OptionalTensor mask;
  int64_t rows;
  int64_t length;
};

inline Rows make_rows(const Tensor& z, const Tensor& per_row, const OptionalTensor& mask) {
  using torch::headeronly::ScalarType;
  const int64_t length = z.dim() > 0 ? z.size(z.dim() - 1) : 0;
  STD_TORCH_CHECK(z.dim() > 0, "z must have at least one dimension (..., T), got a scalar tensor");
  check_device("budget", per_row, z);
  STD_TORCH_CHECK(per_row.dim() == z.dim() - 1, "budget must have z's leading shape: it has ", per_row.dim(),
                  " dimensions, z has ", z.dim());
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < z.dim(); ++i) {
    STD_TORCH_CHECK(per_row.size(i) == z.size(i), "budget must have z's leading shape: dimension ", i, " is ",
                    per_row.size(i), ", z has ", z.size(i));
    rows *= z.size(i);
  }
  STD_TORCH_CHECK(per_row.scalar_type() == row_type(z), "budget must be float64 for float64 z, else float32");
  if (mask) {
    check_device("mask", *mask, z);
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool, "mask must be bool");
    STD_TORCH_CHECK(mask->dim() == z.dim(), "mask must have z's shape: it has ", mask->dim(), " dimensions, z has ", z.dim());
    for (int64_t i = 0; i < z.dim(); ++i) {
      STD_TORCH_CHECK(mask->size(i) == z.size(i), "mask must have z's shape: dimension ", i, " is ", mask->size(i),
                      ", z has ", z.size(i));
    }
  }
  return {in_order(z), in_order(per_row),
          mask ? OptionalTensor(in_order(*mask)) : OptionalTensor(), rows, length};
}

// The type in which rows are computed.
template <typename Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

template <typename Element>
struct Projection {
  using T = Compute<Element>;
  const Element* z;
  const T* budget;
  const bool* mask;
  Element* alpha;
  T* threshold;
  int64_t rows;
  int64_t length;
};

// The backward: `grad_z = 1_A (grad - [binds] mean_A grad)` and `grad_budget = [binds] mean_A grad`.
template <typename Element>
struct Backward {
  using T = Compute<Element>;
  const Element* grad;
  const Element* z;
  const T* threshold;
  const bool* mask;
  Element* grad_z;
  T* grad_budget;
  int64_t rows;
  int64_t length;
};

// The ops of a device. `Device::Type<Element>` is its name of an element type, `Device::Scope` makes it the current device,
// and `Device::run(task, z)` runs a Projection or a Backward.
template <typename Device>
struct ProjectionOps {
  static std::tuple<Tensor, Tensor> project(const Tensor& z, const Tensor& budget, const OptionalTensor& mask) {
    const Rows rows = make_rows(z, budget, mask);
    const typename Device::Scope scope(z);
    Tensor alpha = uninitialised_like(rows.z);
    Tensor threshold = uninitialised_like(rows.per_row);
    if (is_empty(rows)) {
      torch::stable::zero_(threshold);
      return {alpha, threshold};
    }
    with_element_type("z", z, [&](auto element) {
      using Element = typename Device::template Type<decltype(element)>;
      using T = Compute<Element>;
      Device::run(Projection<Element>{static_cast<const Element*>(rows.z.data_ptr()),
                                      static_cast<const T*>(rows.per_row.data_ptr()), mask_data(rows.mask),
                                      static_cast<Element*>(alpha.data_ptr()), static_cast<T*>(threshold.data_ptr()),
                                      rows.rows, rows.length},
                  z);
    });
    return {alpha, threshold};
  }

  static std::tuple<Tensor, Tensor> project_vjp(const Tensor& grad, const Tensor& z, const Tensor& threshold,
                                                const OptionalTensor& mask) {
    const Rows rows = make_rows(z, threshold, mask);
    const typename Device::Scope scope(z);
    const Tensor grad_rows = in_order(grad);
    STD_TORCH_CHECK(grad_rows.numel() == rows.z.numel() && grad_rows.scalar_type() == rows.z.scalar_type(),
                    "grad must have z's shape and type");
    check_device("grad", grad, z);
    Tensor grad_z = uninitialised_like(rows.z);
    Tensor grad_budget = uninitialised_like(rows.per_row);
    if (is_empty(rows)) {
      torch::stable::zero_(grad_budget);
      return {grad_z, grad_budget};
    }
    with_element_type("z", z, [&](auto element) {
      using Element = typename Device::template Type<decltype(element)>;
      using T = Compute<Element>;
      Device::run(Backward<Element>{static_cast<const Element*>(grad_rows.data_ptr()),
                                    static_cast<const Element*>(rows.z.data_ptr()),
                                    static_cast<const T*>(rows.per_row.data_ptr()), mask_data(rows.mask),
                                    static_cast<Element*>(grad_z.data_ptr()), static_cast<T*>(grad_budget.data_ptr()),
                                    rows.rows, rows.length},
                  z);
    });
    return {grad_z, grad_budget};
  }

 private:
  static bool is_empty(const Rows& rows) {
    return rows.rows == 0 || rows.length == 0;
  }
};

// Registers the ops of a device on a STABLE_TORCH_LIBRARY_IMPL's m.
#define MULTIFUSE_PROJECTION_OPS(m, Device)                                         \
  m.impl("project", TORCH_BOX(&multifuse::ProjectionOps<Device>::project));         \
  m.impl("project_vjp", TORCH_BOX(&multifuse::ProjectionOps<Device>::project_vjp))

}  // namespace multifuse
