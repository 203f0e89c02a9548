// CUDA kernels of the projection onto the capped simplex and of its backward, and their launches.
//
// A row is kept in the registers of one warp (up to 512 tokens) or, in the forward, of one block (up to 16,384, in float64
// 4,096); a longer one is read again from global memory at every step. Sums are reduced in a fixed order, so results are
// deterministic, and nothing waits for the host.
#pragma once

#define MULTIFUSE_VERSION gpu
#include "capped_simplex.h"
#include "projection.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

namespace multifuse {
namespace {

using namespace gpu;

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr int kBlock = 1024;
constexpr unsigned kAllLanes = 0xffffffffu;

// The threads of one block when a row has kThreads threads; it tells the compiler how many registers a thread may use.
template <int kThreads>
constexpr int kThreadsPerBlock = kThreads == kWarp ? kWarp * kWarpsPerBlock : kThreads;

// torch's half types have the same layout as CUDA's, which can be converted on the device.
template <typename Element>
struct DeviceType {
  using Type = Element;
};
template <>
struct DeviceType<Half> {
  using Type = __half;
};
template <>
struct DeviceType<BFloat16> {
  using Type = __nv_bfloat16;
};

template <typename Element>
__device__ __forceinline__ Compute<Element> load(const Element* from) {
  if constexpr (std::is_same_v<Element, __half>) {
    return __half2float(*from);
  } else if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    return __bfloat162float(*from);
  } else {
    return *from;
  }
}

template <typename Element>
__device__ __forceinline__ void store(Element* to, Compute<Element> value) {
  if constexpr (std::is_same_v<Element, __half>) {
    *to = __float2half(value);
  } else if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    *to = __float2bfloat16(value);
  } else {
    *to = value;
  }
}

struct Add {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

// The threads that work on one row: a warp or a block. Every thread gets the reduced value.
template <int kThreads>
struct Group {
  template <typename T, typename Combine>
  __device__ __forceinline__ static T reduce(T value, Combine combine, T identity) {
    value = in_warp(value, combine);
    if constexpr (kThreads > kWarp) {
      constexpr int kWarps = kThreads / kWarp;
      __shared__ T partial[kWarps];
      const int lane = threadIdx.x % kWarp;
      __syncthreads();  // the readers of the previous reduction are done
      if (lane == 0) {
        partial[threadIdx.x / kWarp] = value;
      }
      __syncthreads();
      value = in_warp(lane < kWarps ? partial[lane] : identity, combine);
    }
    return value;
  }

  __device__ __forceinline__ static unsigned total(unsigned value) {
    return reduce(value, Add(), 0u);
  }

 private:
  template <typename T, typename Combine>
  __device__ __forceinline__ static T in_warp(T value, Combine combine) {
    if constexpr (std::is_same_v<T, unsigned> && std::is_same_v<Combine, Add>) {
      return __reduce_add_sync(kAllLanes, value);  // one instruction
    } else {
      for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
      }
      return value;
    }
  }
};

// What row_threshold asks of a row; `Row::each` calls a function with every token.
template <typename Row, typename T, int kThreads>
struct GroupRow {
  // A NaN is neither saturated nor at most 0, and makes the sum NaN.
  __device__ __forceinline__ Piece<T> at(T threshold, T budget) const {
    unsigned saturated = 0;
    unsigned inside = 0;
    T below = 0;
    row().each([&](T z) {
      const T shifted = z - threshold;
      const bool is_counted = is_saturated(shifted);
      const bool is_summed = !is_counted && !(shifted <= T(0));
      saturated += is_counted;
      inside += is_summed;
      below += is_summed ? shifted : T(0);
    });
    saturated = Group<kThreads>::total(saturated);
    inside = Group<kThreads>::total(inside);
    return {(T(saturated) - budget) + Group<kThreads>::reduce(below, Add(), T(0)), T(inside)};
  }

  // The maximum of 1 and of the finite tokens.
  __device__ __forceinline__ T maximum() const {
    T top = 1;
    row().each([&](T z) { top = z > top && z < kInfinity<T> ? z : top; });
    return Group<kThreads>::reduce(top, Max(), T(1));
  }

  __device__ __forceinline__ bool has_infinity() const {
    unsigned found = 0;
    row().each([&](T z) { found += z == kInfinity<T>; });
    return Group<kThreads>::total(found) > 0;
  }

 private:
  __device__ __forceinline__ const Row& row() const {
    return static_cast<const Row&>(*this);
  }
};

// A row in registers, with kItems tokens per thread; masked tokens and those beyond its end are 0.
template <typename T, int kItems, int kThreads>
struct RegisterRow : GroupRow<RegisterRow<T, kItems, kThreads>, T, kThreads> {
  T values[kItems];

  template <typename F>
  __device__ __forceinline__ void each(F&& f) const {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      f(values[i]);
    }
  }

  __device__ __forceinline__ bool make_finite() {
    const bool changed = this->has_infinity();
    const T top = this->maximum() + T(1);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      values[i] = values[i] == kInfinity<T> ? top : values[i];
    }
    return changed;
  }
};

// A row that does not fit into registers: it is read from global memory at every step.
template <typename Element>
struct GlobalRow : GroupRow<GlobalRow<Element>, Compute<Element>, kBlock> {
  using T = Compute<Element>;
  const Element* z;
  const bool* mask;
  int64_t length;
  T top = kInfinity<T>;  // in place of +inf

  __device__ __forceinline__ GlobalRow(const Element* z, const bool* mask, int64_t length)
      : z(z), mask(mask), length(length) {}

  template <typename F>
  __device__ __forceinline__ void each(F&& f) const {
    for (int64_t t = threadIdx.x; t < length; t += kBlock) {
      f(!mask || mask[t] ? value(t) : T(0));
    }
  }

  __device__ __forceinline__ T value(int64_t t) const {
    const T given = load(z + t);
    return given == kInfinity<T> ? top : given;
  }

  __device__ __forceinline__ bool make_finite() {
    const bool changed = this->has_infinity();
    top = this->maximum() + T(1);
    return changed;
  }
};

template <typename T>
__device__ __forceinline__ T projected(T z, T threshold) {
  return threshold == kInfinity<T> ? T(0) : clip(z - threshold);
}

// Projects one row per group of kThreads, with kItems tokens per thread, and reads and writes global memory once.
template <typename Element, int kItems, int kThreads>
__global__ void __launch_bounds__(kThreadsPerBlock<kThreads>) project_in_registers(Projection<Element> p) {
  using T = Compute<Element>;
  const int64_t row_index = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row_index >= p.rows) {
    return;  // the entire warp returns: in blocks of several rows, each row has one warp
  }
  const int64_t offset = row_index * p.length;
  RegisterRow<T, kItems, kThreads> row;
  unsigned real = 0;  // a bit for each token
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kThreads + threadIdx.x;
    const T z = t < p.length ? load(p.z + offset + t) : T(0);  // of masked tokens, too: it need not wait for the mask
    const bool is_real = t < p.length && (!p.mask || p.mask[offset + t]);
    row.values[i] = is_real ? z : T(0);
    real |= unsigned(is_real) << i;
  }
  const T threshold = row_threshold(row, p.budget[row_index], T(0));
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kThreads + threadIdx.x;
    if (t < p.length) {
      store(p.alpha + offset + t, real >> i & 1 ? projected(row.values[i], threshold) : T(0));
    }
  }
  if (threadIdx.x == 0) {
    p.threshold[row_index] = threshold;
  }
}

template <typename Element>
__global__ void __launch_bounds__(kBlock) project_from_memory(Projection<Element> p) {
  using T = Compute<Element>;
  const int64_t offset = int64_t(blockIdx.x) * p.length;
  const bool* mask = p.mask ? p.mask + offset : nullptr;
  GlobalRow<Element> row(p.z + offset, mask, p.length);
  const T threshold = row_threshold(row, p.budget[blockIdx.x], T(0));
  for (int64_t t = threadIdx.x; t < p.length; t += kBlock) {
    const bool real = !mask || mask[t];
    store(p.alpha + offset + t, real ? projected(row.value(t), threshold) : T(0));
  }
  if (threadIdx.x == 0) {
    p.threshold[blockIdx.x] = threshold;
  }
}

// Returns `[binds] mean_A grad` from each thread's sum and number of active tokens; NaN if the row has no projection.
template <int kThreads, typename T>
__device__ __forceinline__ T mean_of_active(T threshold, T sum, unsigned count) {
  sum = Group<kThreads>::reduce(sum, Add(), T(0));
  count = Group<kThreads>::total(count);
  const T mean = count > 0 && threshold > T(0) ? sum / T(count) : T(0);
  return threshold != threshold ? threshold : mean;
}

// `grad_z = 1_A (grad - [binds] mean_A grad)` and `grad_budget = [binds] mean_A grad`, one row per warp.
template <typename Element, int kItems>
__global__ void __launch_bounds__(kThreadsPerBlock<kWarp>) backward_in_registers(Backward<Element> b) {
  using T = Compute<Element>;
  const int64_t row_index = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row_index >= b.rows) {
    return;
  }
  const int64_t offset = row_index * b.length;
  const T threshold = b.threshold[row_index];
  T grads[kItems];
  unsigned real = 0;  // a bit for each token
  unsigned active = 0;
  T sum = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kWarp + threadIdx.x;
    const bool is_within = t < b.length;
    const T z = is_within ? load(b.z + offset + t) : T(0);
    grads[i] = is_within ? load(b.grad + offset + t) : T(0);
    const bool is_real = is_within && (!b.mask || b.mask[offset + t]);
    const bool is_active = is_real && is_inside(z - threshold);
    sum += is_active ? grads[i] : T(0);
    real |= unsigned(is_real) << i;
    active |= unsigned(is_active) << i;
  }
  const T mean = mean_of_active<kWarp>(threshold, sum, __popc(active));
  const unsigned invalid = threshold != threshold ? real : 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kWarp + threadIdx.x;
    if (t < b.length) {
      const T value = active >> i & 1 ? grads[i] - mean : T(0);
      store(b.grad_z + offset + t, invalid >> i & 1 ? threshold : value);
    }
  }
  if (threadIdx.x == 0) {
    b.grad_budget[row_index] = mean;
  }
}

// The same for a row per block; the second sweep finds the row in cache.
template <typename Element>
__global__ void __launch_bounds__(kBlock) backward_from_memory(Backward<Element> b) {
  using T = Compute<Element>;
  const int64_t offset = int64_t(blockIdx.x) * b.length;
  const T threshold = b.threshold[blockIdx.x];
  const auto is_active = [&](int64_t t) {
    return is_inside(load(b.z + offset + t) - threshold) && (!b.mask || b.mask[offset + t]);
  };
  T sum = 0;
  unsigned count = 0;
  for (int64_t t = threadIdx.x; t < b.length; t += kBlock) {
    const bool active = is_active(t);
    sum += active ? load(b.grad + offset + t) : T(0);
    count += active;
  }
  const T mean = mean_of_active<kBlock>(threshold, sum, count);
  const bool invalid = threshold != threshold;
  for (int64_t t = threadIdx.x; t < b.length; t += kBlock) {
    const T value = is_active(t) ? load(b.grad + offset + t) - mean : T(0);
    store(b.grad_z + offset + t, invalid && (!b.mask || b.mask[offset + t]) ? threshold : value);
  }
  if (threadIdx.x == 0) {
    b.grad_budget[blockIdx.x] = mean;
  }
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "multifuse: a CUDA kernel could not be launched: ", cudaGetErrorString(error));
}

// Calls `f` with the tokens per thread, a constant, if a row fits into the registers of a warp; returns whether it does.
template <typename F>
bool launch_in_warps(int64_t length, F&& f) {
  const int64_t items = (length + kWarp - 1) / kWarp;
  if (items <= 2) {
    f(std::integral_constant<int, 2>());
  } else if (items <= 4) {
    f(std::integral_constant<int, 4>());
  } else if (items <= 8) {
    f(std::integral_constant<int, 8>());
  } else if (items <= 16) {
    f(std::integral_constant<int, 16>());
  }
  return items <= 16;
}

// Returns the grid for `rows` rows of one warp each.
dim3 warp_grid(int64_t rows) {
  return dim3(static_cast<unsigned>((rows + kWarpsPerBlock - 1) / kWarpsPerBlock));
}

// Returns the grid for `rows` rows of one block each.
dim3 block_grid(int64_t rows) {
  return dim3(static_cast<unsigned>(rows));
}

// The most tokens that fit into the 64 registers of a thread, in a block of kBlock threads.
template <typename Element>
constexpr int kMostItems = sizeof(Compute<Element>) == sizeof(float) ? 16 : 4;

template <typename Element>
void launch(const Projection<Element>& p, cudaStream_t stream) {
  const bool is_launched = launch_in_warps(p.length, [&](auto items) {
    constexpr int kItems = decltype(items)::value;
    project_in_registers<Element, kItems, kWarp><<<warp_grid(p.rows), dim3(kWarp, kWarpsPerBlock), 0, stream>>>(p);
  });
  if (!is_launched && p.length <= 4 * kBlock) {
    project_in_registers<Element, 4, kBlock><<<block_grid(p.rows), kBlock, 0, stream>>>(p);
  } else if (!is_launched && p.length <= kMostItems<Element> * kBlock) {
    project_in_registers<Element, kMostItems<Element>, kBlock><<<block_grid(p.rows), kBlock, 0, stream>>>(p);
  } else if (!is_launched) {
    project_from_memory<Element><<<block_grid(p.rows), kBlock, 0, stream>>>(p);
  }
  check_launch();
}

template <typename Element>
void launch(const Backward<Element>& b, cudaStream_t stream) {
  const bool is_launched = launch_in_warps(b.length, [&](auto items) {
    constexpr int kItems = decltype(items)::value;
    backward_in_registers<Element, kItems><<<warp_grid(b.rows), dim3(kWarp, kWarpsPerBlock), 0, stream>>>(b);
  });
  if (!is_launched) {
    backward_from_memory<Element><<<block_grid(b.rows), kBlock, 0, stream>>>(b);
  }
  check_launch();
}

}  // namespace
}  // namespace multifuse
