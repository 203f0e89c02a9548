// CPU kernels of the token budget and of its gradient, parallel over samples.
#include "cpu.h"

#include <algorithm>
#include <vector>

namespace multifuse {

// The forward, or the backward, which reads `kept`.
template <typename Element>
struct Budget {
  using T = Compute<Element>;
  const Element* codes;  // (B, T, rank), the rank's numbers side by side
  int64_t sample_stride;
  int64_t token_stride;
  T sharpness;
  T threshold;
  T share;           // of the real tokens, which the budget is
  const bool* mask;  // (B, T), the real tokens; null: all
  T* alpha;          // (B, T)
  T* kept;           // (B, 4): the evidence's mean and scale, the real tokens, the projection's threshold
  bool is_backward;
  const T* grad;
  Element* grad_codes;  // (B, T, rank)
  T* grad_parameters;   // (B, 3): of sharpness, threshold and share, by sample
  int64_t length;
  int64_t rank;
};

}  // namespace multifuse

#define MULTIFUSE_ROWS "cpu_budget_rows.h"
#include "cpu_versions.h"

namespace multifuse {
namespace {

constexpr int64_t kElementsPerTask = 16384;

struct Inputs {
  Tensor codes;
  OptionalTensor mask;
};

Inputs checked(const Tensor& codes, const Tensor& parameters, const OptionalTensor& mask) {
  STD_TORCH_CHECK(codes.dim() == 3, "codes must have shape (batch, tokens, rank), have ", codes.dim(), " dimensions");
  STD_TORCH_CHECK(parameters.dim() == 1 && parameters.size(0) == 3 && parameters.scalar_type() == row_type(codes) &&
                      parameters.is_contiguous(),
                  "parameters must be sharpness, threshold and share (3,), float64 for float64 codes, else float32");
  check_device("parameters", parameters, codes);
  const bool lies_well = codes.size(2) <= 1 || codes.stride(2) == 1;
  return {lies_well ? codes : in_order(codes), token_mask("mask", mask, codes)};
}

template <typename Element>
Budget<Element> task_of(const Inputs& in, const Tensor& parameters) {
  using T = Compute<Element>;
  const T* values = static_cast<const T*>(parameters.data_ptr());
  Budget<Element> task{};
  task.codes = static_cast<const Element*>(in.codes.data_ptr());
  task.sample_stride = in.codes.stride(0);
  task.token_stride = in.codes.stride(1);
  task.sharpness = values[0];
  task.threshold = values[1];
  task.share = values[2];
  task.mask = mask_data(in.mask);
  task.length = in.codes.size(1);
  task.rank = in.codes.size(2);
  return task;
}

template <typename Element>
void run(const Budget<Element>& task, int64_t samples) {
  const int64_t elements = std::max<int64_t>(1, task.length * task.rank);
  run_parallel(task, samples, (kElementsPerTask + elements - 1) / elements);
}

std::tuple<Tensor, Tensor> allot(const Tensor& codes, const Tensor& parameters, const OptionalTensor& mask) {
  const Inputs in = checked(codes, parameters, mask);
  Tensor alpha = torch::stable::new_empty(parameters, {codes.size(0), codes.size(1)});
  Tensor kept = torch::stable::new_empty(parameters, {codes.size(0), 4});
  with_element_type("codes", codes, [&](auto element) {
    using Element = decltype(element);
    Budget<Element> task = task_of<Element>(in, parameters);
    task.alpha = static_cast<Compute<Element>*>(alpha.data_ptr());
    task.kept = static_cast<Compute<Element>*>(kept.data_ptr());
    run(task, codes.size(0));
  });
  return {alpha, kept};
}

std::tuple<Tensor, Tensor> allot_vjp(const Tensor& grad, const Tensor& codes, const Tensor& parameters, const Tensor& kept,
                                     const OptionalTensor& mask) {
  const Inputs in = checked(codes, parameters, mask);
  STD_TORCH_CHECK(grad.numel() == codes.size(0) * codes.size(1) && grad.scalar_type() == row_type(codes),
                  "grad must have shape (batch, tokens) and the compute type");
  STD_TORCH_CHECK(kept.numel() == 4 * codes.size(0) && kept.scalar_type() == row_type(codes) && kept.is_contiguous(),
                  "kept must have shape (batch, 4) and the compute type");
  check_device("grad", grad, codes);
  check_device("kept", kept, codes);
  const Tensor grad_rows = in_order(grad);
  Tensor grad_codes = torch::stable::new_empty(codes, {codes.size(0), codes.size(1), codes.size(2)});
  Tensor by_sample = torch::stable::new_empty(parameters, {codes.size(0), 3});
  Tensor grad_parameters = uninitialised_like(parameters);
  with_element_type("codes", codes, [&](auto element) {
    using Element = decltype(element);
    using T = Compute<Element>;
    Budget<Element> task = task_of<Element>(in, parameters);
    task.kept = static_cast<T*>(kept.data_ptr());
    task.is_backward = true;
    task.grad = static_cast<const T*>(grad_rows.data_ptr());
    task.grad_codes = static_cast<Element*>(grad_codes.data_ptr());
    task.grad_parameters = static_cast<T*>(by_sample.data_ptr());
    run(task, codes.size(0));
    T* sums = static_cast<T*>(grad_parameters.data_ptr());
    std::fill_n(sums, 3, T(0));
    for (int64_t index = 0; index < 3 * codes.size(0); ++index) {
      sums[index % 3] += task.grad_parameters[index];
    }
  });
  return {grad_codes, grad_parameters};
}

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CPU, m) {
  m.impl("allot", TORCH_BOX(&multifuse::allot));
  m.impl("allot_vjp", TORCH_BOX(&multifuse::allot_vjp));
}
