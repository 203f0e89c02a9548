// A convolution of width 3 along time, every channel by itself, then GELU: for one sample and as many channels as a vector
// has lanes at a time. Included once for every version of the code.
#include "cpu_vectors.h"

#include <algorithm>

namespace multifuse {
namespace MULTIFUSE_VERSION {

// Vectors in memory whose last one may be shorter: `lanes` elements of any type, converted.
template <typename T, typename Element>
MULTIFUSE_INLINE Values<T> load_some(const Element* from, int64_t lanes) {
  if constexpr (std::is_same_v<T, Element>) {
    if (lanes == Vector<T>::kLanes) {
      return load(from);
    }
  }
  T values[Vector<T>::kLanes] = {};
  for (int64_t lane = 0; lane < lanes; ++lane) {
    values[lane] = static_cast<T>(from[lane]);
  }
  return load(values);
}

template <typename T, typename Element>
MULTIFUSE_INLINE void store_some(Element* to, const Values<T>& values, int64_t lanes) {
  if constexpr (std::is_same_v<T, Element>) {
    if (lanes == Vector<T>::kLanes) {
      return store<T>(to, values);
    }
  }
  for (int64_t lane = 0; lane < lanes; ++lane) {
    to[lane] = static_cast<Element>(values[lane]);
  }
}

// The normal distribution's probability of less than x, to 7.5e-8 (Abramowitz and Stegun, 7.1.26; double by the C library),
// and its density.
template <typename T>
struct Normal {
  Values<T> probability;
  Values<T> density;
};

template <typename T>
MULTIFUSE_INLINE Normal<T> normal(const Values<T>& x) {
  constexpr T kRootOfTwo = static_cast<T>(1.4142135623730951);
  constexpr T kPeak = static_cast<T>(0.3989422804014327);
  if constexpr (sizeof(T) == sizeof(float)) {
    const Lanes<T> positive = x >= 0.0f;
    const Values<T> size = (Values<T>)((Lanes<T>)x & 0x7fffffff);
    const Values<T> bell = power_of_two<T>(x * x * -0.7213475204444817f);
    const Values<T> t = 1.0f / (1.0f + (0.3275911f / kRootOfTwo) * size);
    Values<T> tail = 0.5f * 1.061405429f * t + 0.5f * -1.453152027f;
    tail = tail * t + 0.5f * 1.421413741f;
    tail = tail * t + 0.5f * -0.284496736f;
    tail = tail * t + 0.5f * 0.254829592f;
    tail = tail * t * bell;
    const Values<T> other = 1.0f - tail;
    return {(Values<T>)(((Lanes<T>)other & positive) | ((Lanes<T>)tail & ~positive)), kPeak * bell};
  } else {
    Normal<T> out;
    for (int64_t lane = 0; lane < Vector<T>::kLanes; ++lane) {
      out.probability[lane] = 0.5 * std::erfc(-x[lane] / kRootOfTwo);
      out.density[lane] = kPeak * std::exp(-0.5 * x[lane] * x[lane]);
    }
    return out;
  }
}

// One sample's channels [channel, channel + lanes).
template <typename Element>
struct ChannelConvolution {
  using T = Compute<Element>;
  const Convolution<Element>& c;
  int64_t sample;
  int64_t channel;
  int64_t lanes;
  Values<T> before, here, after, bias;

  MULTIFUSE_INLINE ChannelConvolution(const Convolution<Element>& c, int64_t sample, int64_t channel)
      : c(c), sample(sample), channel(channel), lanes(std::min(Vector<T>::kLanes, c.channels - channel)) {
    T weights[3][Vector<T>::kLanes] = {};
    for (int64_t lane = 0; lane < lanes; ++lane) {
      for (int64_t tap = 0; tap < 3; ++tap) {
        weights[tap][lane] = static_cast<T>(c.weight[(channel + lane) * 3 + tap]);
      }
    }
    before = load(weights[0]);
    here = load(weights[1]);
    after = load(weights[2]);
    bias = load_some<T>(c.bias + channel, lanes);
  }

  MULTIFUSE_INLINE int64_t at(int64_t t) const {
    return (sample * c.length + t) * c.channels + channel;
  }
  MULTIFUSE_INLINE bool is_real(int64_t t) const {
    return t >= 0 && t < c.length && (!c.mask || c.mask[sample * c.length + t]);
  }
  MULTIFUSE_INLINE Values<T> token(int64_t t) const {
    return is_real(t) ? load_some<T>(c.tokens + at(t), lanes) : Values<T>{};
  }

  MULTIFUSE_INLINE void convolve() const {
    for (int64_t t = 0; t < c.length; ++t) {
      const Values<T> sum = bias + before * token(t - c.dilation) + here * token(t) + after * token(t + c.dilation);
      store_some<T>(c.out + at(t), sum * normal<T>(sum).probability, lanes);
    }
  }

  // `pulled` is scratch of (length, lanes).
  MULTIFUSE_INLINE void differentiate(T* pulled) const {
    constexpr int64_t kLanes = Vector<T>::kLanes;
    Values<T> of_before = {}, of_here = {}, of_after = {}, of_bias = {};
    for (int64_t t = 0; t < c.length; ++t) {
      const Values<T> left = token(t - c.dilation), own = token(t), right = token(t + c.dilation);
      const Values<T> sum = bias + before * left + here * own + after * right;
      const Normal<T> n = normal<T>(sum);
      const Values<T> grad = load_some<T>(c.grad + at(t), lanes) * (n.probability + sum * n.density);
      of_before += grad * left;
      of_here += grad * own;
      of_after += grad * right;
      of_bias += grad;
      store<T>(pulled + t * kLanes, grad);
    }
    for (int64_t t = 0; t < c.length; ++t) {
      Values<T> grad = {};
      if (is_real(t)) {
        grad = here * load(pulled + t * kLanes);
        if (t >= c.dilation) {
          grad += after * load(pulled + (t - c.dilation) * kLanes);
        }
        if (t + c.dilation < c.length) {
          grad += before * load(pulled + (t + c.dilation) * kLanes);
        }
      }
      store_some<T>(c.grad_tokens + at(t), grad, lanes);
    }
    T* sums = c.grad_parameters + sample * 4 * c.channels + channel;
    store_some<T>(sums, of_before, lanes);
    store_some<T>(sums + c.channels, of_here, lanes);
    store_some<T>(sums + 2 * c.channels, of_after, lanes);
    store_some<T>(sums + 3 * c.channels, of_bias, lanes);
  }
};

template <typename Element>
MULTIFUSE_INLINE void convolution_rows(const Convolution<Element>& c, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  std::vector<T> pulled(c.is_backward ? c.length * Vector<T>::kLanes : 0);
  for (int64_t sample = begin; sample < end; ++sample) {
    for (int64_t channel = 0; channel < c.channels; channel += Vector<T>::kLanes) {
      const ChannelConvolution<Element> own(c, sample, channel);
      if (c.is_backward) {
        own.differentiate(pulled.data());
      } else {
        own.convolve();
      }
    }
  }
}

MULTIFUSE_RUN(Convolution, convolution_rows)

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
