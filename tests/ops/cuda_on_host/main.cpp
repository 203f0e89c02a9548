// Runs the CUDA kernels of the projection on the CPU: reads cases from standard input, writes results to standard output.
//
// A case is four int64 (the index of the dtype, rows, length, whether there is a mask), then z, budget, grad, the threshold
// of the backward, and the mask. The results are alpha, threshold, grad_z and grad_budget. The first argument chooses the
// order of the threads. A second one names a faulty kernel, which runs instead, and whose fault must be reported.
#include "rows_on_host.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

using namespace multifuse;

namespace {

// An array without spare room, so that AddressSanitizer sees any access beyond its end.
template <typename T>
struct Array {
  int64_t size;
  std::unique_ptr<T[]> data;

  explicit Array(int64_t size) : size(size), data(new T[size]) {
    std::memset(static_cast<void*>(data.get()), 0x55, size * sizeof(T));  // a number that no result is, and not NaN
  }

  static Array read(int64_t size) {
    Array array(size);
    if (std::fread(static_cast<void*>(array.data.get()), sizeof(T), size, stdin) != size_t(size)) {
      std::fputs("the case is incomplete\n", stderr);
      std::exit(2);
    }
    return array;
  }

  void write() const {
    std::fwrite(data.get(), sizeof(T), size, stdout);
  }
};

template <typename Element>
void run(int64_t rows, int64_t length, bool is_masked) {
  using T = Compute<Element>;
  const auto z = Array<Element>::read(rows * length);
  const auto budget = Array<T>::read(rows);
  const auto grad = Array<Element>::read(rows * length);
  const auto given_threshold = Array<T>::read(rows);
  const auto mask = Array<bool>::read(is_masked ? rows * length : 0);
  const bool* mask_or_none = is_masked ? mask.data.get() : nullptr;
  Array<Element> alpha(rows * length);
  Array<T> threshold(rows);
  Array<Element> grad_z(rows * length);
  Array<T> grad_budget(rows);
  launch(Projection<Element>{z.data.get(), budget.data.get(), mask_or_none, alpha.data.get(), threshold.data.get(), rows,
                             length},
         nullptr);
  launch(Backward<Element>{grad.data.get(), z.data.get(), given_threshold.data.get(), mask_or_none, grad_z.data.get(),
                           grad_budget.data.get(), rows, length},
         nullptr);
  alpha.write();
  threshold.write();
  grad_z.write();
  grad_budget.write();
}

// Faulty kernels, of one block of two warps; `results` has 64 elements.

__shared__ int shared[64];

void none(int* results) {
  shared[threadIdx.x] = threadIdx.x;
  __syncthreads();
  results[threadIdx.x] = shared[threadIdx.x ^ 32];
}

void no_barrier(int* results) {
  shared[threadIdx.x] = threadIdx.x;
  results[threadIdx.x] = shared[threadIdx.x ^ 32];
}

void no_barrier_between_two(int* results) {
  __syncthreads();
  no_barrier(results);
  __syncthreads();
}

void no_barrier_before_the_next_write(int* results) {
  none(results);
  shared[threadIdx.x] = 0;
  __syncthreads();
}

void a_shuffle_as_a_barrier(int* results) {
  shared[threadIdx.x] = threadIdx.x;
  __shfl_xor_sync(~0u, 0, 1);
  results[threadIdx.x] = shared[threadIdx.x ^ 1];
}

void beyond_the_end(int* results) {
  results[threadIdx.x + 1] = 1;
}

void beyond_shared_memory(int*) {
  shared[threadIdx.x + 1] = 1;
}

void two_barriers(int*) {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void a_barrier_of_one_warp(int*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  }
}

const std::map<std::string, void (*)(int*)> kFaults = {
    {"none", none},
    {"no barrier", no_barrier},
    {"no barrier between two", no_barrier_between_two},
    {"no barrier before the next write", no_barrier_before_the_next_write},
    {"a shuffle as a barrier", a_shuffle_as_a_barrier},
    {"beyond the end", beyond_the_end},
    {"beyond shared memory", beyond_shared_memory},
    {"two barriers", two_barriers},
    {"a barrier of one warp", a_barrier_of_one_warp},
};

int run_fault(const std::string& fault) {
  Array<int> results(64);
  on_host::launch(1, 64, kFaults.at(fault), results.data.get());
  return fault == "none" && results.data[0] != 32;
}

}  // namespace

int main(int count, char** arguments) {
  on_host::choose_order(count > 1 ? std::atoi(arguments[1]) : 0);
  if (count > 2) {
    return run_fault(arguments[2]);
  }
  int64_t header[4];
  while (std::fread(header, sizeof(int64_t), 4, stdin) == 4) {
    const auto [dtype, rows, length, is_masked] = header;
    switch (dtype) {  // as in DTYPES of test_cuda_on_host.py
      case 0:
        run<float>(rows, length, is_masked);
        break;
      case 1:
        run<double>(rows, length, is_masked);
        break;
      case 2:
        run<__half>(rows, length, is_masked);
        break;
      case 3:
        run<__nv_bfloat16>(rows, length, is_masked);
        break;
      default:
        return 2;
    }
  }
  return 0;
}
