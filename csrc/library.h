// Checks of tensors that the kernels share. The schemas are defined in Python (multifuse/ops/library.py).
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

// Returns the tensor, or a contiguous copy; no operator is called if the tensor is contiguous.
inline Tensor in_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Returns an empty tensor like a contiguous one. torch::stable::empty_like would look its operator up by name each time.
inline Tensor uninitialised_like(const Tensor& tensor) {
  int64_t* sizes = nullptr;
  int64_t* strides = nullptr;
  int32_t dtype = 0;
  int32_t device_type = 0;
  int32_t device_index = 0;
  AtenTensorHandle created = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &sizes));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor.get(), &strides));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &device_index));
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(tensor.dim(), sizes, strides, dtype, device_type, device_index, &created));
  return Tensor(created);
}

// Returns the type of values of which a row has one, such as its budget.
inline torch::headeronly::ScalarType row_type(const Tensor& tensor) {
  using torch::headeronly::ScalarType;
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.device() == like.device(), name, " must be on the device of the other arguments");
}

// Checks a mask (batch, tokens) of tokens (batch, tokens, ...), if there is one, and returns it contiguous.
inline OptionalTensor token_mask(const char* name, const OptionalTensor& mask, const Tensor& tokens) {
  if (!mask) {
    return mask;
  }
  STD_TORCH_CHECK(mask->scalar_type() == torch::headeronly::ScalarType::Bool && mask->dim() == 2 &&
                      mask->size(0) == tokens.size(0) && mask->size(1) == tokens.size(1),
                  name, " must be bool of shape (", tokens.size(0), ", ", tokens.size(1), "), has ", mask->dim(),
                  " dimensions and ", mask->numel(), " elements");
  check_device(name, *mask, tokens);
  return in_order(*mask);
}

inline const bool* mask_data(const OptionalTensor& mask) {
  return mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr;
}

// Calls `f` with a value of the tensor's element type.
template <typename F>
void with_element_type(const char* name, const Tensor& tensor, F&& f) {
  using torch::headeronly::ScalarType;
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    case ScalarType::Half:
      return f(torch::headeronly::Half());
    case ScalarType::BFloat16:
      return f(torch::headeronly::BFloat16());
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace multifuse
