// One binary for every x86-64 processor: MULTIFUSE_ROWS is compiled for AVX-512, for AVX2 and for neither, and `run_rows`
// uses the widest version that the processor supports.
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#define MULTIFUSE_VERSION baseline
#define MULTIFUSE_VECTOR_BYTES 16
#include MULTIFUSE_ROWS
#undef MULTIFUSE_VERSION
#undef MULTIFUSE_VECTOR_BYTES
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MULTIFUSE_HAS_VERSIONS
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define MULTIFUSE_VERSION avx2
#define MULTIFUSE_VECTOR_BYTES 32
#include MULTIFUSE_ROWS
#undef MULTIFUSE_VERSION
#undef MULTIFUSE_VECTOR_BYTES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define MULTIFUSE_VERSION avx512
#define MULTIFUSE_VECTOR_BYTES 64
#include MULTIFUSE_ROWS
#undef MULTIFUSE_VERSION
#undef MULTIFUSE_VECTOR_BYTES
#pragma GCC pop_options
#endif

namespace multifuse {
namespace {

// The widest version that the processor supports, or MULTIFUSE_CPU (baseline, avx2 or avx512) if that is narrower.
enum class CpuVersion { kBaseline, kAvx2, kAvx512 };

inline CpuVersion cpu_version() {
#ifdef MULTIFUSE_HAS_VERSIONS
  const char* named = std::getenv("MULTIFUSE_CPU");
  const std::string wanted = named && *named ? named : "avx512";
  STD_TORCH_CHECK(wanted == "avx512" || wanted == "avx2" || wanted == "baseline",
                  "MULTIFUSE_CPU must be avx512, avx2 or baseline, is ", wanted);
  if (__builtin_cpu_supports("x86-64-v4") && wanted == "avx512") {
    return CpuVersion::kAvx512;
  }
  if (__builtin_cpu_supports("x86-64-v3") && wanted != "baseline") {
    return CpuVersion::kAvx2;
  }
#endif
  return CpuVersion::kBaseline;
}

template <typename Task>
void run_rows(const Task& task, int64_t begin, int64_t end) {
#ifdef MULTIFUSE_HAS_VERSIONS
  static const CpuVersion version = cpu_version();
  if (version == CpuVersion::kAvx512) {
    return avx512::run(task, begin, end);
  }
  if (version == CpuVersion::kAvx2) {
    return avx2::run(task, begin, end);
  }
#endif
  baseline::run(task, begin, end);
}

// Runs all rows, with at least `grain` of them per thread.
template <typename Task>
void run_parallel(const Task& task, int64_t rows, int64_t grain) {
  if (rows <= grain) {
    run_rows(task, 0, rows);
    return;
  }
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { run_rows(task, begin, end); });
}

}  // namespace
}  // namespace multifuse
