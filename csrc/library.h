// What both libraries check of their tensors: the schema is registered from Python (multifuse/ops/registration.py).
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <optional>
#include <tuple>

namespace multifuse {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The rows of z (rows, length), each with one number of the compute type, and a mask of z's shape or none.
struct Rows {
  Tensor z;
  Tensor per_row;
  OptionalTensor mask;
  int64_t rows;
  int64_t length;

  const bool* mask_data() const {
    return mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr;
  }
};

inline void check_device(const char* name, const Tensor& tensor, const Tensor& z) {
  STD_TORCH_CHECK(tensor.device() == z.device(), name, " must be on z's device");
}

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
  const auto expected = z.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(per_row.scalar_type() == expected, "budget must be float64 for float64 z, else float32");
  if (mask) {
    check_device("mask", *mask, z);
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool, "mask must be bool");
    STD_TORCH_CHECK(mask->dim() == z.dim(), "mask must have z's shape: it has ", mask->dim(), " dimensions, z has ", z.dim());
    for (int64_t i = 0; i < z.dim(); ++i) {
      STD_TORCH_CHECK(mask->size(i) == z.size(i), "mask must have z's shape: dimension ", i, " is ", mask->size(i),
                      ", z has ", z.size(i));
    }
  }
  return {torch::stable::contiguous(z), torch::stable::contiguous(per_row),
          mask ? OptionalTensor(torch::stable::contiguous(*mask)) : OptionalTensor(), rows, length};
}

// Calls f with a value of z's element type.
template <typename F>
void with_element_type(const Tensor& z, F&& f) {
  using torch::headeronly::ScalarType;
  switch (z.scalar_type()) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    case ScalarType::Half:
      return f(torch::headeronly::Half());
    case ScalarType::BFloat16:
      return f(torch::headeronly::BFloat16());
    default:
      STD_TORCH_CHECK(false, "z must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace multifuse
