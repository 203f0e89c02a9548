// Measures the sweeps over a row that make up the forward of the projection: nanoseconds per row of 512 float32 tokens on
// one thread, for 4096 consecutive rows in memory and for one that stays in the first-level cache.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#define MULTIFUSE_INLINE inline __attribute__((always_inline))
namespace multifuse {
constexpr int64_t kChunk = 1024;
}
#ifdef __AVX512F__
#define MULTIFUSE_VECTOR_BYTES 64
#else
#define MULTIFUSE_VECTOR_BYTES 32
#endif
#define MULTIFUSE_VERSION measured
#include "cpu_row.h"

using namespace multifuse::measured;

constexpr int64_t kRows = 4096;
constexpr int64_t kLength = 512;
constexpr int kRepeats = 100;
constexpr float kBudget = 0.4f * kLength;

template <typename F>
void measure(const char* name, F&& sweep) {
  double nanoseconds[2];
  for (int in_cache = 0; in_cache < 2; ++in_cache) {
    double best = 1e9;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      for (int64_t row = 0; row < kRows; row += 2) {
        sweep(in_cache ? 0 : row * kLength);
      }
      best = std::min(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
    }
    nanoseconds[in_cache] = best / kRows;
  }
  std::printf("%-52s %6.0f %6.0f\n", name, nanoseconds[0], nanoseconds[1]);
}

int main() {
  std::vector<float> z(kRows * kLength), alpha(kRows * kLength), scratch;
  std::mt19937 generator(0);
  std::uniform_real_distribution<float> uniform(-0.1f, 1.1f);
  std::generate(z.begin(), z.end(), [&] { return uniform(generator); });
  const float budgets[] = {kBudget, kBudget};
  volatile float sink = 0;
  const auto pair = [&](int64_t offset) {
    return std::array{HostRow<float>(&z[offset], &alpha[offset], kLength, &scratch),
                      HostRow<float>(&z[offset + kLength], &alpha[offset + kLength], kLength, &scratch)};
  };
  const auto step = [&](int64_t offset, int64_t stride) {
    auto rows = pair(offset);
    float thresholds[] = {0.12f, 0.12f};
    step_together<2>(rows.data(), budgets, stride, thresholds);
    sink = thresholds[0] + thresholds[1];
  };
  std::printf("ns per row, 4096 x 512 float32, one thread, two rows memory  cache\n");
  measure("z.clamp(0, 1)", [&](int64_t offset) {
    for (int64_t t = offset; t < offset + 2 * kLength; ++t) {
      alpha[t] = std::min(std::max(z[t], 0.0f), 1.0f);
    }
  });
  measure("a Newton step from a quarter of the row", [&](int64_t offset) { step(offset, 4); });
  measure("a Newton step from all of it", [&](int64_t offset) { step(offset, 1); });
  measure("an exact sweep, which writes", [&](int64_t offset) {
    auto rows = pair(offset);
    sink = rows[0].at(0.12f, kBudget).excess + rows[1].at(0.12f, kBudget).excess;
  });
  measure("the whole projection", [&](int64_t offset) {
    auto rows = pair(offset);
    float guesses[2];
    guess_together<2>(rows.data(), budgets, guesses);
    sink = project_from(rows[0], nullptr, kBudget, guesses[0]) + project_from(rows[1], nullptr, kBudget, guesses[1]);
  });
}
