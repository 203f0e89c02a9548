// CPU kernels of the temporal convolution with GELU and of its gradient, parallel over samples.
#include "cpu.h"

#include <algorithm>
#include <vector>

namespace multifuse {

// `out = GELU(bias + weight * tokens)`, or the gradients of that.
template <typename Element>
struct Convolution {
  using T = Compute<Element>;
  const Element* tokens;  // (B, T, channels)
  const Element* weight;  // (channels, 3)
  const Element* bias;    // (channels,)
  const bool* mask;       // (B, T), the tokens that count, the others being 0; null: all
  Element* out;
  bool is_backward;
  const Element* grad;
  Element* grad_tokens;
  T* grad_parameters;  // (B, 4, channels): of the three taps and the bias, by sample
  int64_t length;
  int64_t channels;
  int64_t dilation;
};

}  // namespace multifuse

#define MULTIFUSE_ROWS "cpu_convolution_rows.h"
#include "cpu_versions.h"

namespace multifuse {
namespace {

constexpr int64_t kElementsPerTask = 8192;

struct Inputs {
  Tensor tokens;
  Tensor weight;
  Tensor bias;
  OptionalTensor mask;
};

Inputs checked(const Tensor& tokens, const Tensor& weight, const Tensor& bias, int64_t dilation, const OptionalTensor& mask) {
  STD_TORCH_CHECK(tokens.dim() == 3, "tokens must have shape (batch, tokens, channels), have ", tokens.dim(), " dimensions");
  const int64_t channels = tokens.size(2);
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) == channels && weight.size(1) == 3, "weight must have shape (",
                  channels, ", 3), has ", weight.dim(), " dimensions and ", weight.numel(), " elements");
  STD_TORCH_CHECK(bias.dim() == 1 && bias.size(0) == channels, "bias must have shape (", channels, ",), has ", bias.numel(),
                  " elements");
  STD_TORCH_CHECK(weight.scalar_type() == tokens.scalar_type() && bias.scalar_type() == tokens.scalar_type(),
                  "weight and bias must have the tokens' type");
  STD_TORCH_CHECK(dilation >= 1, "dilation must be >= 1, got ", dilation);
  check_device("weight", weight, tokens);
  check_device("bias", bias, tokens);
  return {in_order(tokens), in_order(weight), in_order(bias), token_mask("mask", mask, tokens)};
}

template <typename Element>
Convolution<Element> task_of(const Inputs& in, int64_t dilation) {
  return {static_cast<const Element*>(in.tokens.data_ptr()),
          static_cast<const Element*>(in.weight.data_ptr()),
          static_cast<const Element*>(in.bias.data_ptr()),
          mask_data(in.mask),
          nullptr,
          false,
          nullptr,
          nullptr,
          nullptr,
          in.tokens.size(1),
          in.tokens.size(2),
          dilation};
}

template <typename Element>
void run(const Convolution<Element>& task, int64_t samples) {
  const int64_t elements = std::max<int64_t>(1, task.length * task.channels);
  run_parallel(task, samples, (kElementsPerTask + elements - 1) / elements);
}

Tensor convolve_gelu(const Tensor& tokens, const Tensor& weight, const Tensor& bias, int64_t dilation,
                     const OptionalTensor& mask) {
  const Inputs in = checked(tokens, weight, bias, dilation, mask);
  Tensor out = uninitialised_like(in.tokens);
  with_element_type("tokens", tokens, [&](auto element) {
    using Element = decltype(element);
    Convolution<Element> task = task_of<Element>(in, dilation);
    task.out = static_cast<Element*>(out.data_ptr());
    run(task, tokens.size(0));
  });
  return out;
}

// Sums the gradients of the taps (channels, 3) and of the bias over the samples, in their order.
template <typename Element>
void sum_over_samples(const Compute<Element>* by_sample, int64_t samples, int64_t channels, Element* weight, Element* bias) {
  for (int64_t channel = 0; channel < channels; ++channel) {
    Compute<Element> sums[4] = {};
    for (int64_t sample = 0; sample < samples; ++sample) {
      for (int64_t part = 0; part < 4; ++part) {
        sums[part] += by_sample[(sample * 4 + part) * channels + channel];
      }
    }
    std::transform(sums, sums + 3, weight + channel * 3, [](auto sum) { return static_cast<Element>(sum); });
    bias[channel] = static_cast<Element>(sums[3]);
  }
}

std::tuple<Tensor, Tensor, Tensor> convolve_gelu_vjp(const Tensor& grad, const Tensor& tokens, const Tensor& weight,
                                             const Tensor& bias, int64_t dilation, const OptionalTensor& mask) {
  const Inputs in = checked(tokens, weight, bias, dilation, mask);
  STD_TORCH_CHECK(grad.numel() == tokens.numel() && grad.scalar_type() == tokens.scalar_type(),
                  "grad must have the tokens' shape and type");
  check_device("grad", grad, tokens);
  const Tensor grad_rows = in_order(grad);
  Tensor grad_tokens = uninitialised_like(in.tokens);
  Tensor by_sample = torch::stable::new_empty(in.tokens, {tokens.size(0), 4, tokens.size(2)}, row_type(tokens));
  Tensor grad_weight = uninitialised_like(in.weight);
  Tensor grad_bias = uninitialised_like(in.bias);
  with_element_type("tokens", tokens, [&](auto element) {
    using Element = decltype(element);
    Convolution<Element> task = task_of<Element>(in, dilation);
    task.is_backward = true;
    task.grad = static_cast<const Element*>(grad_rows.data_ptr());
    task.grad_tokens = static_cast<Element*>(grad_tokens.data_ptr());
    task.grad_parameters = static_cast<Compute<Element>*>(by_sample.data_ptr());
    run(task, tokens.size(0));
    sum_over_samples<Element>(task.grad_parameters, tokens.size(0), tokens.size(2),
                              static_cast<Element*>(grad_weight.data_ptr()), static_cast<Element*>(grad_bias.data_ptr()));
  });
  return {grad_tokens, grad_weight, grad_bias};
}

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CPU, m) {
  m.impl("convolve_gelu", TORCH_BOX(&multifuse::convolve_gelu));
  m.impl("convolve_gelu_vjp", TORCH_BOX(&multifuse::convolve_gelu_vjp));
}
