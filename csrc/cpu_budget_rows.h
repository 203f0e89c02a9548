// The token budget of one sample's codes, from their norms to alpha; included once for every version of the code.
#include "cpu_row.h"

#include <cmath>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// What a sample's evidence e was standardised with: `x = (e - mean) scale` over `count` real tokens.
template <typename T>
struct Standard {
  T mean;
  T scale;
  T count;
};

// The share of the mean's square that is added to the variance, see `standardised` in multifuse/ops/budget.py.
constexpr double kFloor = 1e-8;

template <typename Element>
struct BudgetRow {
  using T = Compute<Element>;
  const Budget<Element>& b;
  int64_t sample;

  MULTIFUSE_INLINE const bool* mask() const {
    return b.mask ? b.mask + sample * b.length : nullptr;
  }
  MULTIFUSE_INLINE bool is_real(int64_t t) const {
    return !b.mask || mask()[t];
  }
  MULTIFUSE_INLINE const Element* code(int64_t t) const {
    return b.codes + sample * b.sample_stride + t * b.token_stride;
  }

  // Norms of the codes, 0 at padding.
  MULTIFUSE_INLINE void measure(T* evidence) const {
    for (int64_t t = 0; t < b.length; ++t) {
      T sum = 0;
      if (is_real(t)) {
        const Element* from = code(t);
#pragma omp simd reduction(+ : sum)
        for (int64_t r = 0; r < b.rank; ++r) {
          const T value = static_cast<T>(from[r]);
          sum += value * value;
        }
      }
      evidence[t] = std::sqrt(sum);
    }
  }

  MULTIFUSE_INLINE Standard<T> standard(const T* evidence) const {
    double sum = 0;
    int64_t count = 0;
    for (int64_t t = 0; t < b.length; ++t) {
      sum += evidence[t];
      count += is_real(t);
    }
    const double divisor = count > 0 ? static_cast<double>(count) : 1.0;
    const double mean = sum / divisor;
    double squares = 0;
    for (int64_t t = 0; t < b.length; ++t) {
      const double centred = is_real(t) ? evidence[t] - mean : 0.0;
      squares += centred * centred;
    }
    const double variance = squares / divisor + kFloor * mean * mean + std::numeric_limits<T>::min();
    return {static_cast<T>(mean), static_cast<T>(1.0 / std::sqrt(variance)), static_cast<T>(count)};
  }

  // sigmoid(sharpness (x - threshold)) in whole vectors, then -inf at padding.
  MULTIFUSE_INLINE void activate(const T* evidence, const Standard<T>& s, T* activation) const {
    constexpr T kLog2e = static_cast<T>(1.4426950408889634);
    for (int64_t t = 0; t < b.length; t += Vector<T>::kLanes) {
      const Values<T> score = b.sharpness * ((load(evidence + t) - s.mean) * s.scale - b.threshold);
      const Lanes<T> negative = score < T(0);
      const Values<T> zero = {};
      const Values<T> size = (Values<T>)(((Lanes<T>)(zero - score) & negative) | ((Lanes<T>)score & ~negative));
      const Values<T> small = power_of_two<T>(size * -kLog2e);
      const Lanes<T> top = ((Lanes<T>)small & negative) | ((Lanes<T>)(zero + T(1)) & ~negative);
      store<T>(activation + t, (Values<T>)top / (T(1) + small));
    }
    for (int64_t t = 0; t < b.length; ++t) {
      activation[t] = is_real(t) ? activation[t] : -kInfinity<T>;
    }
  }
};

template <typename Element>
MULTIFUSE_INLINE void allot(const BudgetRow<Element>& row, std::vector<Compute<Element>>* scratch) {
  using T = Compute<Element>;
  const Budget<Element>& b = row.b;
  row.measure(scratch[0].data());
  const Standard<T> s = row.standard(scratch[0].data());
  row.activate(scratch[0].data(), s, scratch[1].data());
  T* alpha = b.alpha + row.sample * b.length;
  T* kept = b.kept + row.sample * 4;
  kept[0] = s.mean;
  kept[1] = s.scale;
  kept[2] = s.count;
  HostRow<T> activations(scratch[1].data(), alpha, b.length, &scratch[3]);
  const T limit = b.share * s.count;
  T guess;
  guess_together<1>(&activations, &limit, &guess);
  kept[3] = project_from(activations, row.mask(), limit, guess);
}

// The gradient of the codes, and of sharpness, threshold and share by sample.
template <typename Element>
MULTIFUSE_INLINE void differentiate(const BudgetRow<Element>& row, std::vector<Compute<Element>>* scratch) {
  using T = Compute<Element>;
  const Budget<Element>& b = row.b;
  const T* kept = b.kept + row.sample * 4;
  const Standard<T> s{kept[0], kept[1], kept[2]};
  T* evidence = scratch[0].data();
  T* activation = scratch[1].data();
  T* pulled = scratch[2].data();
  row.measure(evidence);
  row.activate(evidence, s, activation);
  T of_budget = kept[3];
  if (of_budget != of_budget) {
    std::fill_n(pulled, b.length, of_budget);
  } else {
    of_budget = derivative_row(activation, b.grad + row.sample * b.length, of_budget, T(0), b.length, pulled);
  }
  double of_sharpness = 0, of_threshold = 0, sum = 0, dot = 0;
  for (int64_t t = 0; t < b.length; ++t) {
    const T own = row.is_real(t) ? pulled[t] * activation[t] * (T(1) - activation[t]) : T(0);
    const T standard = (evidence[t] - s.mean) * s.scale;
    of_sharpness += own * (standard - b.threshold);
    of_threshold -= own * b.sharpness;
    pulled[t] = own * b.sharpness;
    sum += pulled[t];
    dot += pulled[t] * standard;
  }
  T* sums = b.grad_parameters + row.sample * 3;
  sums[0] = static_cast<T>(of_sharpness);
  sums[1] = static_cast<T>(of_threshold);
  sums[2] = of_budget * s.count;
  const double divisor = s.count > 0 ? s.count : T(1);
  for (int64_t t = 0; t < b.length; ++t) {
    Element* to = b.grad_codes + (row.sample * b.length + t) * b.rank;
    T factor = 0;
    if (row.is_real(t) && evidence[t] != T(0)) {
      const T spread = (evidence[t] - s.mean) * s.scale + static_cast<T>(kFloor) * s.mean * s.scale;
      const T of_evidence = s.scale * (pulled[t] - static_cast<T>(sum / divisor) - spread * static_cast<T>(dot / divisor));
      factor = of_evidence / evidence[t];
    }
    const Element* from = row.code(t);
    for (int64_t r = 0; r < b.rank; ++r) {
      to[r] = static_cast<Element>(factor == T(0) ? T(0) : factor * static_cast<T>(from[r]));
    }
  }
}

template <typename Element>
MULTIFUSE_INLINE void budget_rows(const Budget<Element>& b, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  const int64_t padded = (b.length + Vector<T>::kLanes - 1) / Vector<T>::kLanes * Vector<T>::kLanes;
  std::vector<T> scratch[4];
  for (int index = 0; index < 3; ++index) {
    scratch[index].resize(padded);
  }
  for (int64_t sample = begin; sample < end; ++sample) {
    const BudgetRow<Element> row{b, sample};
    if (b.is_backward) {
      differentiate(row, scratch);
    } else {
      allot(row, scratch);
    }
  }
}

MULTIFUSE_RUN(Budget, budget_rows)

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
