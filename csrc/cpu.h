// Definitions that the CPU kernels share.
#pragma once

#include "projection.h"

#define MULTIFUSE_INLINE inline __attribute__((always_inline))

// Defines the entry points of a version: `run(task, begin, end)` for tasks of every element type.
#define MULTIFUSE_RUN(Task, rows)                                                \
  inline void run(const Task<float>& task, int64_t begin, int64_t end) {         \
    rows(task, begin, end);                                                      \
  }                                                                              \
  inline void run(const Task<double>& task, int64_t begin, int64_t end) {        \
    rows(task, begin, end);                                                      \
  }                                                                              \
  inline void run(const Task<Half>& task, int64_t begin, int64_t end) {          \
    rows(task, begin, end);                                                      \
  }                                                                              \
  inline void run(const Task<BFloat16>& task, int64_t begin, int64_t end) {      \
    rows(task, begin, end);                                                      \
  }

namespace multifuse {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// A row is summed in the compute type within chunks of this length, and in double over the chunks.
constexpr int64_t kChunk = 1024;

}  // namespace multifuse
