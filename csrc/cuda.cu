// CUDA kernels of the projection onto the capped simplex and of its backward.
//
// A row is kept in the registers of one warp (up to 512 tokens) or of one block (up to 16,384, in float64 4,096); a longer
// one is read again from global memory at every step. Sums are reduced in a fixed order, so results are deterministic, and
// nothing waits for the host.
#define MULTIFUSE_VERSION gpu
#include "capped_simplex.h"
#include "projection.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <limits>
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
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
    }
    if constexpr (kThreads > kWarp) {
      constexpr int kWarps = kThreads / kWarp;
      __shared__ T partial[kWarps];
      const int lane = threadIdx.x % kWarp;
      __syncthreads();  // the readers of the previous reduction are done
      if (lane == 0) {
        partial[threadIdx.x / kWarp] = value;
      }
      __syncthreads();
      value = lane < kWarps ? partial[lane] : identity;
      for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
      }
    }
    return value;
  }
};

// Returns the piece of a row at a threshold, summed by the group.
template <typename T, int kThreads, typename Row>
__device__ __forceinline__ Piece<T> piece_at(const Row& row, T threshold, T budget) {
  T saturated = 0;
  T below = 0;
  T inside = 0;
  row.each([&](T z) {
    saturated += is_saturated(z - threshold) ? T(1) : T(0);
    below += below_saturation(z - threshold);
    inside += is_inside(z - threshold) ? T(1) : T(0);
  });
  saturated = Group<kThreads>::reduce(saturated, Add(), T(0));
  below = Group<kThreads>::reduce(below, Add(), T(0));
  return {(saturated - budget) + below, Group<kThreads>::reduce(inside, Add(), T(0))};
}

// A row without +inf, which is replaced by `top`, 1 above the other tokens, when the row is loaded.
template <typename T>
struct FiniteRow {
  T top = kInfinity<T>;

  __device__ __forceinline__ bool make_finite() const {
    return false;
  }

  __device__ __forceinline__ T maximum() const {
    return top;
  }
};

// A row in registers, with kItems tokens per thread; masked tokens and those beyond its end are 0.
template <typename T, int kItems, int kThreads>
struct RegisterRow : FiniteRow<T> {
  T values[kItems];

  template <typename F>
  __device__ __forceinline__ void each(F&& f) const {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      f(values[i]);
    }
  }

  __device__ __forceinline__ Piece<T> at(T threshold, T budget) const {
    return piece_at<T, kThreads>(*this, threshold, budget);
  }
};

// A row that does not fit into registers: it is read from global memory at every step.
template <typename Element, int kThreads>
struct GlobalRow : FiniteRow<Compute<Element>> {
  using T = Compute<Element>;
  const Element* z;
  const bool* mask;
  int64_t length;

  template <typename F>
  __device__ __forceinline__ void each(F&& f) const {
    for (int64_t t = threadIdx.x; t < length; t += kThreads) {
      const T value = mask && !mask[t] ? T(0) : load(z + t);
      f(value == kInfinity<T> ? this->top : value);
    }
  }

  __device__ __forceinline__ Piece<T> at(T threshold, T budget) const {
    return piece_at<T, kThreads>(*this, threshold, budget);
  }
};

// Returns the maximum of 1 and the finite values of a row.
template <typename T, int kThreads, typename Row>
__device__ __forceinline__ T finite_maximum(const Row& row) {
  T top = 1;
  row.each([&](T z) { top = z > top && z < kInfinity<T> ? z : top; });
  return Group<kThreads>::reduce(top, Max(), T(1));
}

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
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kThreads + threadIdx.x;
    const bool real = t < p.length && (!p.mask || p.mask[offset + t]);
    row.values[i] = real ? load(p.z + offset + t) : T(0);
  }
  row.top = finite_maximum<T, kThreads>(row) + T(1);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    row.values[i] = row.values[i] == kInfinity<T> ? row.top : row.values[i];
  }
  const T threshold = row_threshold(row, p.budget[row_index], T(0));
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(i) * kThreads + threadIdx.x;
    if (t < p.length) {
      const bool real = !p.mask || p.mask[offset + t];
      store(p.alpha + offset + t, real ? projected(row.values[i], threshold) : T(0));
    }
  }
  if (threadIdx.x == 0) {
    p.threshold[row_index] = threshold;
  }
}

template <typename Element, int kThreads>
__global__ void __launch_bounds__(kThreadsPerBlock<kThreads>) project_from_memory(Projection<Element> p) {
  using T = Compute<Element>;
  const int64_t offset = int64_t(blockIdx.x) * p.length;
  const bool* mask = p.mask ? p.mask + offset : nullptr;
  GlobalRow<Element, kThreads> row{{}, p.z + offset, mask, p.length};
  row.top = finite_maximum<T, kThreads>(row) + T(1);
  const T threshold = row_threshold(row, p.budget[blockIdx.x], T(0));
  for (int64_t t = threadIdx.x; t < p.length; t += kThreads) {
    const bool real = !mask || mask[t];
    const T z = load(row.z + t);
    const T value = z == kInfinity<T> ? row.top : z;
    store(p.alpha + offset + t, real ? projected(value, threshold) : T(0));
  }
  if (threadIdx.x == 0) {
    p.threshold[blockIdx.x] = threshold;
  }
}

// `grad_z = 1_A (grad - [binds] mean_A grad)` and `grad_budget = [binds] mean_A grad`. The second sweep finds the row in cache.
template <typename Element, int kThreads>
__global__ void __launch_bounds__(kThreadsPerBlock<kThreads>) backward_rows(Backward<Element> b) {
  using T = Compute<Element>;
  const int64_t row_index = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row_index >= b.rows) {
    return;
  }
  const int64_t offset = row_index * b.length;
  const T threshold = b.threshold[row_index];
  T sum = 0;
  T count = 0;
  for (int64_t t = threadIdx.x; t < b.length; t += kThreads) {
    const bool active = is_inside(load(b.z + offset + t) - threshold) && (!b.mask || b.mask[offset + t]);
    sum += active ? load(b.grad + offset + t) : T(0);
    count += active ? T(1) : T(0);
  }
  sum = Group<kThreads>::reduce(sum, Add(), T(0));
  count = Group<kThreads>::reduce(count, Add(), T(0));
  const bool invalid = threshold != threshold;
  const T slope = count > T(0) && threshold > T(0) ? sum / count : T(0);
  const T mean = invalid ? threshold : slope;
  for (int64_t t = threadIdx.x; t < b.length; t += kThreads) {
    const bool real = !b.mask || b.mask[offset + t];
    const bool active = real && is_inside(load(b.z + offset + t) - threshold);
    const T value = active ? load(b.grad + offset + t) - mean : T(0);
    store(b.grad_z + offset + t, invalid && real ? threshold : value);
  }
  if (threadIdx.x == 0) {
    b.grad_budget[row_index] = mean;
  }
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "multifuse: a CUDA kernel could not be launched: ", cudaGetErrorString(error));
}

// Returns the grid for `rows` rows of one warp each.
dim3 warp_grid(int64_t rows) {
  return dim3(static_cast<unsigned>((rows + kWarpsPerBlock - 1) / kWarpsPerBlock));
}

template <typename Element, int kItems>
void launch_warps(const Projection<Element>& p, cudaStream_t stream) {
  project_in_registers<Element, kItems, kWarp><<<warp_grid(p.rows), dim3(kWarp, kWarpsPerBlock), 0, stream>>>(p);
}

template <typename Element, int kItems>
void launch_block(const Projection<Element>& p, cudaStream_t stream) {
  project_in_registers<Element, kItems, kBlock><<<dim3(static_cast<unsigned>(p.rows)), kBlock, 0, stream>>>(p);
}

// The most tokens per thread of a block that fit into its 64 registers.
template <typename Element>
constexpr int kMostItems = sizeof(Compute<Element>) == sizeof(float) ? 16 : 4;

template <typename Element>
void launch(const Projection<Element>& p, cudaStream_t stream) {
  const int64_t items_in_warp = (p.length + kWarp - 1) / kWarp;
  const int64_t items_in_block = (p.length + kBlock - 1) / kBlock;
  if (items_in_warp <= 2) {
    launch_warps<Element, 2>(p, stream);
  } else if (items_in_warp <= 4) {
    launch_warps<Element, 4>(p, stream);
  } else if (items_in_warp <= 8) {
    launch_warps<Element, 8>(p, stream);
  } else if (items_in_warp <= 16) {
    launch_warps<Element, 16>(p, stream);
  } else if (items_in_block <= 4) {
    launch_block<Element, 4>(p, stream);
  } else if (items_in_block <= 16 && sizeof(Compute<Element>) == sizeof(float)) {
    launch_block<Element, kMostItems<Element>>(p, stream);
  } else {
    project_from_memory<Element, kBlock><<<dim3(static_cast<unsigned>(p.rows)), kBlock, 0, stream>>>(p);
  }
  check_launch();
}

template <typename Element>
void launch(const Backward<Element>& b, cudaStream_t stream) {
  if (b.length <= 1024) {
    backward_rows<Element, kWarp><<<warp_grid(b.rows), dim3(kWarp, kWarpsPerBlock), 0, stream>>>(b);
  } else {
    backward_rows<Element, kBlock><<<dim3(static_cast<unsigned>(b.rows)), kBlock, 0, stream>>>(b);
  }
  check_launch();
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
