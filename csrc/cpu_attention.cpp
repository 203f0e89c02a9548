// CPU kernels of the attention to all other modalities and of its backward, parallel over samples and heads.
#include "cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace multifuse {

// The forward, which writes `attended` and `log_sum`, or the backward, which reads them.
template <typename Element>
struct Attention {
  using T = Compute<Element>;
  const Element* query_key_value;  // (B, T, 3, heads, width)
  const bool* mask;                // (B, T), the real tokens; all if null
  const bool* asking;              // (B, T), the queries that are needed; all if null
  const int64_t* ends;             // the end of the tokens of each modality
  Element* attended;               // (B, T, heads, width)
  T* log_sum;                      // (B, heads, T), base 2
  bool is_backward;
  const Element* grad;
  Element* grad_query_key_value;
  int64_t modalities;
  int64_t tokens;
  int64_t heads;
  int64_t width;
};

}  // namespace multifuse

#define MULTIFUSE_ROWS "cpu_attention_rows.h"
#include "cpu_versions.h"

namespace multifuse {
namespace {

constexpr int64_t kProductsPerTask = 1 << 16;

struct Inputs {
  Tensor query_key_value;
  OptionalTensor mask;
  OptionalTensor asking;
  std::vector<int64_t> ends;
  int64_t samples;
  int64_t tokens;
  int64_t heads;
  int64_t width;
};

Inputs checked(const Tensor& query_key_value, const std::vector<int64_t>& lengths, int64_t heads, const OptionalTensor& mask,
               const OptionalTensor& asking) {
  STD_TORCH_CHECK(query_key_value.dim() == 3 && heads > 0 && query_key_value.size(2) % (3 * heads) == 0,
                  "query_key_value must have shape (batch, tokens, 3 * heads * width), has ", query_key_value.dim(),
                  " dimensions, the last of ", query_key_value.dim() > 0 ? query_key_value.size(query_key_value.dim() - 1) : 0,
                  ", for heads=", heads);
  std::vector<int64_t> ends;
  int64_t tokens = 0;
  for (const int64_t length : lengths) {
    STD_TORCH_CHECK(length >= 0, "lengths must be >= 0, got ", length);
    ends.push_back(tokens += length);
  }
  STD_TORCH_CHECK(!ends.empty() && tokens == query_key_value.size(1), "lengths must add up to the tokens, ",
                  query_key_value.size(1), ", add up to ", tokens);
  return {in_order(query_key_value),
          token_mask("mask", mask, query_key_value),
          token_mask("asking", asking, query_key_value),
          std::move(ends),
          query_key_value.size(0),
          tokens,
          heads,
          query_key_value.size(2) / (3 * heads)};
}

template <typename Element>
void run_attention(const Inputs& in, const Tensor& attended, const Tensor& log_sum, const Tensor* grad, Tensor* grad_out) {
  const Attention<Element> task{static_cast<const Element*>(in.query_key_value.data_ptr()),
                                mask_data(in.mask),
                                mask_data(in.asking),
                                in.ends.data(),
                                static_cast<Element*>(attended.data_ptr()),
                                static_cast<Compute<Element>*>(log_sum.data_ptr()),
                                grad != nullptr,
                                grad ? static_cast<const Element*>(grad->data_ptr()) : nullptr,
                                grad_out ? static_cast<Element*>(grad_out->data_ptr()) : nullptr,
                                static_cast<int64_t>(in.ends.size()),
                                in.tokens,
                                in.heads,
                                in.width};
  const int64_t products = std::max<int64_t>(1, in.tokens * in.tokens * in.width);
  run_parallel(task, in.samples * in.heads, (kProductsPerTask + products - 1) / products);
}

std::tuple<Tensor, Tensor> attend_others(const Tensor& query_key_value, const std::vector<int64_t>& lengths, int64_t heads,
                                         const OptionalTensor& mask, const OptionalTensor& asking) {
  const Inputs in = checked(query_key_value, lengths, heads, mask, asking);
  Tensor attended = torch::stable::new_empty(in.query_key_value, {in.samples, in.tokens, in.heads * in.width});
  Tensor log_sum = torch::stable::new_empty(in.query_key_value, {in.samples, in.heads, in.tokens},
                                            row_type(in.query_key_value));
  with_element_type("query_key_value", query_key_value, [&](auto element) {
    run_attention<decltype(element)>(in, attended, log_sum, nullptr, nullptr);
  });
  return {attended, log_sum};
}

Tensor attend_others_vjp(const Tensor& grad, const Tensor& query_key_value, const Tensor& attended, const Tensor& log_sum,
                         const std::vector<int64_t>& lengths, int64_t heads, const OptionalTensor& mask,
                         const OptionalTensor& asking) {
  const Inputs in = checked(query_key_value, lengths, heads, mask, asking);
  for (const Tensor* tensor : {&grad, &attended}) {
    STD_TORCH_CHECK(tensor->numel() == in.samples * in.tokens * in.heads * in.width &&
                        tensor->scalar_type() == query_key_value.scalar_type(),
                    "grad and attended must have shape (batch, tokens, heads * width) and query_key_value's type");
    check_device("grad", *tensor, query_key_value);
  }
  STD_TORCH_CHECK(log_sum.numel() == in.samples * in.heads * in.tokens && log_sum.scalar_type() == row_type(query_key_value),
                  "log_sum must have shape (batch, heads, tokens) and the compute type");
  check_device("log_sum", log_sum, query_key_value);
  const Tensor grad_rows = in_order(grad);
  const Tensor attended_rows = in_order(attended);
  const Tensor log_sum_rows = in_order(log_sum);
  Tensor out = uninitialised_like(in.query_key_value);
  with_element_type("query_key_value", query_key_value, [&](auto element) {
    run_attention<decltype(element)>(in, attended_rows, log_sum_rows, &grad_rows, &out);
  });
  return out;
}

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CPU, m) {
  m.impl("attend_others", TORCH_BOX(&multifuse::attend_others));
  m.impl("attend_others_vjp", TORCH_BOX(&multifuse::attend_others_vjp));
}
