// Stands in for CUDA's header of this name, so that g++ compiles kernels for the CPU, where sanitizers watch them.
//
// Blocks run one after another, and each thread of a block is a fiber (fibers.cpp). A thread runs until it has to wait for
// others. The order of the blocks, and of the threads that can go on, is random. Shuffles order no memory, as on a GPU: only
// barriers do. A barrier is stricter than on a GPU: threads that have ended count, too. What is not found: races between
// blocks, and reads of shared memory that nothing has written, which holds the values of the block before.
#pragma once

#include <cstdint>
#include <cstring>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  constexpr dim3() = default;
  constexpr dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace on_host {

// The variables that CUDA gives to each thread.
struct Place {
  dim3 thread;
  dim3 block;
  dim3 block_size;
};

void choose_order(unsigned seed);
const Place& place();
// Ends the program with a message if the condition does not hold.
void require(bool condition, const char* message);
// These wait for threads that call the same function in the same line.
void wait_for_block(int line);
const uint64_t* values_of_warp(uint64_t value, int line);
unsigned lane();
void run_grid(dim3 grid, dim3 block, void (*kernel)(const void*), const void* arguments);

// `kernel<<<grid, block>>>(task)`
template <typename Task>
void launch(dim3 grid, dim3 block, void (*kernel)(Task), const Task& task) {
  struct Arguments {
    void (*kernel)(Task);
    const Task& task;
  };
  const Arguments arguments{kernel, task};
  const auto call = [](const void* given) {
    const auto* arguments = static_cast<const Arguments*>(given);
    arguments->kernel(arguments->task);
  };
  run_grid(grid, block, call, &arguments);
}

}  // namespace on_host

#define threadIdx (on_host::place().thread)
#define blockIdx (on_host::place().block)
#define blockDim (on_host::place().block_size)

inline void __syncthreads(int line = __builtin_LINE()) {
  on_host::wait_for_block(line);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int line = __builtin_LINE()) {
  on_host::require(mask == ~0u && lanes >= 0 && lanes < 32, "a shuffle must be of all lanes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = on_host::values_of_warp(bits, line)[on_host::lane() ^ lanes];
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
  on_host::require(mask == ~0u, "a sum must be of all lanes");
  const uint64_t* values = on_host::values_of_warp(value, line);
  unsigned sum = 0;
  for (int i = 0; i < 32; ++i) {
    sum += unsigned(values[i]);
  }
  return sum;
}

inline int __popc(unsigned value) {
  return __builtin_popcount(value);
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };

inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t) {
  return "";
}
