// The CUDA ops of the projection onto the capped simplex and of its backward.
#include "cuda_projection_rows.h"

#include <torch/csrc/stable/accelerator.h>

namespace multifuse {
namespace {

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Cuda {
  template <typename Element>
  using Type = typename DeviceType<Element>::Type;

  struct Scope {
    explicit Scope(const Tensor& z) : guard(z.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  template <typename Task>
  static void run(const Task& task, const Tensor& z) {
    launch(task, current_stream(z));
  }
};

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CUDA, m) {
  MULTIFUSE_PROJECTION_OPS(m, multifuse::Cuda);
}
