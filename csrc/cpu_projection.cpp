// CPU kernels of the projection onto the capped simplex and of its backward, parallel over rows.
#include "cpu.h"

#define MULTIFUSE_ROWS "cpu_projection_rows.h"
#include "cpu_versions.h"

namespace multifuse {
namespace {

constexpr int64_t kElementsPerTask = 16384;

struct Cpu {
  template <typename Element>
  using Type = Element;

  struct Scope {
    explicit Scope(const Tensor&) {}
  };

  template <typename Task>
  static void run(const Task& task, const Tensor&) {
    run_parallel(task, task.rows, (kElementsPerTask + task.length - 1) / task.length);
  }
};

}  // namespace
}  // namespace multifuse

STABLE_TORCH_LIBRARY_IMPL(multifuse, CPU, m) {
  MULTIFUSE_PROJECTION_OPS(m, multifuse::Cpu);
}
