// Runs the threads of a block as fibers, in a random order. This file is compiled without sanitizers, so they know only the
// waiting that is announced to them: under ThreadSanitizer, a barrier orders memory and a shuffle does not.
#include "cuda_runtime.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

// Defined where ThreadSanitizer is linked.
extern "C" {
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
}

namespace on_host {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStack = 128 * 1024;
constexpr unsigned kNoOrder = 1;  // a switch of fibers that orders no memory

void acquire(void* address) {
  if (__tsan_acquire) {
    __tsan_acquire(address);
  }
}

void release(void* address) {
  if (__tsan_release) {
    __tsan_release(address);
  }
}

// One thread of a block, or the host.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  void* sanitizer = nullptr;
  Place place;
  unsigned barriers;
};

// The threads that wait for each other: a warp or a block.
struct Barrier {
  size_t size;
  int line = 0;
  std::vector<Fiber*> waiting;

  explicit Barrier(size_t size = 0) : size(size) {
    waiting.reserve(size);  // here, because sanitizers see it if a thread requests memory
  }
};

struct Warp {
  Barrier barrier = Barrier(kWarp);
  uint64_t values[2][kWarp];  // of this exchange and of the last one, which some threads may still have to read
  unsigned exchanges[kWarp] = {};
};

std::mt19937 order;
Fiber host;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
Barrier block_barrier;
// Addresses that stand for an order of memory. Barriers take two in turn: with one, a thread that comes late to a barrier
// would be ordered after what others have done since, if they are waiting for the next one already.
char block_begins;
char block_ends;
char barrier_passed[2];
std::vector<Fiber*> ready;
Fiber* current = &host;
size_t running = 0;
void (*kernel)(const void*);
const void* arguments;

void switch_to(Fiber* next) {
  if (next == current) {
    return;
  }
  Fiber* previous = current;
  current = next;
  if (__tsan_switch_to_fiber) {
    __tsan_switch_to_fiber(next->sanitizer, kNoOrder);
  }
  swapcontext(&previous->context, &next->context);
}

void go_on_with_any() {
  require(!ready.empty(), "threads wait for others that never come");
  std::swap(ready[order() % ready.size()], ready.back());
  Fiber* next = ready.back();
  ready.pop_back();
  switch_to(next);
}

void wait(Barrier& barrier, int line) {
  require(barrier.waiting.empty() || barrier.line == line, "threads wait for each other in different lines");
  barrier.line = line;
  barrier.waiting.push_back(current);
  if (barrier.waiting.size() == barrier.size) {
    for (Fiber* fiber : barrier.waiting) {
      ready.push_back(fiber);
    }
    barrier.waiting.clear();
  }
  go_on_with_any();
}

void run_thread() {
  acquire(&block_begins);
  kernel(arguments);
  release(&block_ends);
  if (--running == 0) {
    switch_to(&host);
  }
  go_on_with_any();
}

void make_fiber(Fiber& fiber) {
  fiber.stack.reset(new char[kStack]);
  fiber.sanitizer = __tsan_create_fiber ? __tsan_create_fiber(0) : nullptr;
}

void prepare(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  makecontext(&fiber.context, run_thread, 0);
  fiber.context.uc_stack.ss_size = 0;  // otherwise AddressSanitizer forgets what it knows of the stack at every switch
  fiber.barriers = 0;
  ready.push_back(&fiber);
}

void run_block(dim3 block, dim3 block_size) {
  const size_t threads = size_t(block_size.x) * block_size.y;
  while (fibers.size() < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    make_fiber(*fibers.back());
  }
  warps = std::vector<Warp>(threads / kWarp);
  block_barrier = Barrier(threads);
  ready.reserve(threads);
  for (size_t i = 0; i < threads; ++i) {
    fibers[i]->place = {dim3(i % block_size.x, i / block_size.x), block, block_size};
    prepare(*fibers[i]);
  }
  running = threads;
  release(&block_begins);
  go_on_with_any();
  acquire(&block_ends);
}

size_t thread_in_block() {
  return current->place.thread.x + size_t(current->place.thread.y) * current->place.block_size.x;
}

}  // namespace

void choose_order(unsigned seed) {
  order.seed(seed);
}

const Place& place() {
  return current->place;
}

void require(bool condition, const char* message) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", message);
    std::abort();
  }
}

unsigned lane() {
  return thread_in_block() % kWarp;
}

void wait_for_block(int line) {
  char* passed = &barrier_passed[current->barriers++ % 2];
  release(passed);
  wait(block_barrier, line);
  acquire(passed);
}

const uint64_t* values_of_warp(uint64_t value, int line) {
  Warp& warp = warps[thread_in_block() / kWarp];
  uint64_t* values = warp.values[warp.exchanges[lane()]++ % 2];
  values[lane()] = value;
  wait(warp.barrier, line);
  return values;
}

void run_grid(dim3 grid, dim3 block_size, void (*given_kernel)(const void*), const void* given_arguments) {
  require(grid.y * grid.z * block_size.z == 1, "grids of more than one dimension, and blocks of more than two, do not run");
  require(block_size.x * block_size.y % kWarp == 0, "a block must consist of whole warps");
  host.sanitizer = __tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr;
  kernel = given_kernel;
  arguments = given_arguments;
  std::vector<unsigned> blocks(grid.x);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), order);
  for (unsigned block : blocks) {
    run_block(dim3(block), block_size);
  }
}

}  // namespace on_host
