// Attention of the queries of every modality to the keys of all other modalities, for one sample and head at a time;
// included once per version of the code.
#include "cpu_vectors.h"

#include <algorithm>

namespace multifuse {
namespace MULTIFUSE_VERSION {

constexpr int64_t kQueries = MULTIFUSE_VECTOR_BYTES / 8;  // the size of a block of queries, whose sums stay in registers

// The keys and values of one sample and head, real tokens only, in the order of modalities 0, 1, ..., M - 1, 0, ..., M - 2:
// this makes all modalities other than a given one contiguous. A row is a feature, a column a token.
template <typename T>
struct OthersOf {
  const T* keys;    // (width, stride)
  const T* values;  // (width, stride), as are the gradients
  T* grad_keys;
  T* grad_values;
  const T* key_rows;  // (tokens, padded width), read by sums over tokens: values in the forward, keys in the backward
  int64_t stride;
  int64_t width;
  int64_t padded_width;
};

// The tokens that a block of queries attends to: `count` of them from `first`.
struct Span {
  int64_t first;
  int64_t count;
};

// Writes kQueries rows of dot products of `rows` (kQueries, width) with one vector of `columns`.
template <typename T>
MULTIFUSE_INLINE void products(const T* rows, const T* columns, int64_t stride, int64_t width, Values<T>* out) {
  for (int64_t q = 0; q < kQueries; ++q) {
    out[q] = Values<T>{};
  }
  for (int64_t d = 0; d < width; ++d) {
    const Values<T> column = load(columns + d * stride);
    for (int64_t q = 0; q < kQueries; ++q) {
      out[q] += rows[q * width + d] * column;
    }
  }
}

// Sets all bits in the lanes of tokens before `count`, where lane 0 is token t.
template <typename T>
MULTIFUSE_INLINE Lanes<T> before(int64_t t, int64_t count) {
  Lanes<T> lanes;
  for (int64_t lane = 0; lane < Vector<T>::kLanes; ++lane) {
    lanes[lane] = t + lane < count ? -1 : 0;
  }
  return lanes;
}

template <typename T>
MULTIFUSE_INLINE Values<T> kept(const Values<T>& values, const Lanes<T>& lanes) {
  return (Values<T>)((Lanes<T>)values & lanes);
}

// Sums weights[q][t] * rows[first + t] over t for the queries of a block -> sums (kQueries, padded width).
template <typename T>
MULTIFUSE_INLINE void weighted_rows(const T* weights, int64_t row_length, const OthersOf<T>& others, Span span, T* sums) {
  for (int64_t d = 0; d < others.padded_width; d += Vector<T>::kLanes) {
    Values<T> sum[kQueries] = {};
    Values<T> odd[kQueries] = {};  // a second chain of additions, so that consecutive ones do not wait for each other
    const T* rows = others.key_rows + span.first * others.padded_width + d;
    int64_t t = 0;
    for (; t + 2 <= span.count; t += 2) {
      const Values<T> row = load(rows + t * others.padded_width);
      const Values<T> next = load(rows + (t + 1) * others.padded_width);
      for (int64_t q = 0; q < kQueries; ++q) {
        sum[q] += weights[q * row_length + t] * row;
        odd[q] += weights[q * row_length + t + 1] * next;
      }
    }
    if (t < span.count) {
      const Values<T> row = load(rows + t * others.padded_width);
      for (int64_t q = 0; q < kQueries; ++q) {
        sum[q] += weights[q * row_length + t] * row;
      }
    }
    for (int64_t q = 0; q < kQueries; ++q) {
      store(sums + q * others.padded_width + d, sum[q] + odd[q]);
    }
  }
}

// Attends for a block: queries (kQueries, width), scaled for powers of two -> sums (kQueries, padded width) and the base-2
// logarithm of the sum of each row's weights. `weights` is scratch of kQueries rows of `row_length`, a multiple of the lanes.
template <typename T>
MULTIFUSE_INLINE void attend_block(const T* queries, const OthersOf<T>& others, Span span, T* weights, int64_t row_length,
                                   T* sums, T* log_sum) {
  constexpr int64_t kLanes = Vector<T>::kLanes;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  Values<T> top[kQueries];
  for (int64_t q = 0; q < kQueries; ++q) {
    top[q] = Values<T>{} + kLowest;
  }
  for (int64_t t = 0; t < span.count; t += kLanes) {
    Values<T> score[kQueries];
    products(queries, others.keys + span.first + t, others.stride, others.width, score);
    if (t + kLanes > span.count) {
      const Lanes<T> real = before<T>(t, span.count);
      for (int64_t q = 0; q < kQueries; ++q) {
        score[q] = (Values<T>)(((Lanes<T>)score[q] & real) | ((Lanes<T>)(Values<T>{} + kLowest) & ~real));
      }
    }
    for (int64_t q = 0; q < kQueries; ++q) {
      const Lanes<T> higher = score[q] > top[q];
      top[q] = (Values<T>)(((Lanes<T>)score[q] & higher) | ((Lanes<T>)top[q] & ~higher));
      store(weights + q * row_length + t, score[q]);
    }
  }
  T inverse[kQueries];
  for (int64_t q = 0; q < kQueries; ++q) {
    T highest = top[q][0];
    for (int64_t lane = 1; lane < kLanes; ++lane) {
      highest = top[q][lane] > highest ? top[q][lane] : highest;
    }
    Values<T> sum = {};
    T* row = weights + q * row_length;
    for (int64_t t = 0; t < span.count; t += kLanes) {
      Values<T> weight = power_of_two<T>(load(row + t) - highest);
      if (t + kLanes > span.count) {
        weight = kept<T>(weight, before<T>(t, span.count));
      }
      sum += weight;
      store(row + t, weight);
    }
    const T total = sum_of_lanes<T>(sum);
    inverse[q] = T(1) / total;
    log_sum[q] = highest + std::log2(total);
  }
  weighted_rows(weights, row_length, others, span, sums);
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t d = 0; d < others.width; ++d) {
      sums[q * others.padded_width + d] *= inverse[q];
    }
  }
}

// Computes the gradient of a block: adds to that of keys (of scaled scores) and values, and writes that of queries.
template <typename T>
MULTIFUSE_INLINE void differentiate_block(const T* queries, const T* grad, const T* log_sum, const T* dot,
                                          const OthersOf<T>& others, Span span, T* weights, int64_t row_length, T* sums) {
  constexpr int64_t kLanes = Vector<T>::kLanes;
  for (int64_t t = 0; t < span.count; t += kLanes) {
    const int64_t at = span.first + t;
    Values<T> weight[kQueries];
    Values<T> pulled[kQueries];
    products(queries, others.keys + at, others.stride, others.width, weight);
    products(grad, others.values + at, others.stride, others.width, pulled);
    for (int64_t q = 0; q < kQueries; ++q) {
      weight[q] = power_of_two<T>(weight[q] - log_sum[q]);
    }
    const bool is_last = t + kLanes > span.count;
    const Lanes<T> real = is_last ? before<T>(t, span.count) : ~Lanes<T>{};
    for (int64_t q = 0; q < kQueries; ++q) {
      pulled[q] = weight[q] * (pulled[q] - dot[q]);
      store(weights + q * row_length + t, pulled[q]);
    }
    for (int64_t d = 0; d < others.width; ++d) {
      T* grad_keys = others.grad_keys + d * others.stride + at;
      T* grad_values = others.grad_values + d * others.stride + at;
      Values<T> of_key = {};
      Values<T> of_value = {};
      for (int64_t q = 0; q < kQueries; ++q) {
        of_key += queries[q * others.width + d] * pulled[q];
        of_value += grad[q * others.width + d] * weight[q];
      }
      if (is_last) {  // the lanes beyond belong to other tokens
        of_key = kept<T>(of_key, real);
        of_value = kept<T>(of_value, real);
      }
      store<T>(grad_keys, load(grad_keys) + of_key);
      store<T>(grad_values, load(grad_values) + of_value);
    }
  }
  weighted_rows(weights, row_length, others, span, sums);
}

// The buffers of one thread for a sample and head.
template <typename T>
struct AttentionScratch {
  std::vector<T> keys, values, grad_keys, grad_values, key_rows, weights, queries, grads, sums;
  std::vector<int64_t> starts;
};

// The attention of one sample and head: the position of its rows, its tokens, and the keys that blocks of queries read.
template <typename Element>
struct HeadAttention {
  using T = Compute<Element>;
  const Attention<Element>& a;
  AttentionScratch<T>& scratch;
  int64_t sample;
  int64_t head;
  OthersOf<T> others;
  int64_t row_length;

  MULTIFUSE_INLINE int64_t rank() const {
    return a.heads * a.width;
  }
  // Returns the offset of the query (part 0), key (1) or value (2) of a token in this head.
  MULTIFUSE_INLINE int64_t at(int64_t token, int64_t part) const {
    return ((sample * a.tokens + token) * 3 + part) * rank() + head * a.width;
  }
  MULTIFUSE_INLINE int64_t attended_at(int64_t token) const {
    return (sample * a.tokens + token) * rank() + head * a.width;
  }
  MULTIFUSE_INLINE int64_t log_sum_at(int64_t token) const {
    return (sample * a.heads + head) * a.tokens + token;
  }
  MULTIFUSE_INLINE bool is_real(int64_t token) const {
    return !a.mask || a.mask[sample * a.tokens + token];
  }
  MULTIFUSE_INLINE int64_t begin(int64_t modality) const {
    return modality == 0 ? 0 : a.ends[modality - 1];
  }

  // Calls f(token, column) for every real token.
  template <typename F>
  MULTIFUSE_INLINE void each_key(F&& f) const {
    int64_t column = 0;
    for (int64_t token = 0; token < a.tokens; ++token) {
      if (is_real(token)) {
        f(token, column++);
      }
    }
  }

  // Stores where the keys of each modality begin, in both of its places.
  MULTIFUSE_INLINE void place() const {
    int64_t column = 0;
    for (int64_t modality = 0; modality < a.modalities; ++modality) {
      scratch.starts[modality] = column;
      for (int64_t token = begin(modality); token < a.ends[modality]; ++token) {
        column += is_real(token);
      }
    }
    for (int64_t modality = 0; modality < a.modalities; ++modality) {
      scratch.starts[a.modalities + modality] = column + scratch.starts[modality];
    }
  }

  MULTIFUSE_INLINE void load_keys() {
    const bool backward = a.is_backward;
    place();
    each_key([&](int64_t token, int64_t column) {
      const Element* key = a.query_key_value + at(token, 1);
      const Element* value = a.query_key_value + at(token, 2);
      const Element* row = backward ? key : value;
      for (int64_t d = 0; d < a.width; ++d) {
        scratch.keys[d * others.stride + column] = static_cast<T>(key[d]);
        scratch.key_rows[column * others.padded_width + d] = static_cast<T>(row[d]);
      }
      if (backward) {
        for (int64_t d = 0; d < a.width; ++d) {
          scratch.values[d * others.stride + column] = static_cast<T>(value[d]);
        }
      }
    });
    const int64_t count = scratch.starts[a.modalities];
    const int64_t repeated = scratch.starts[2 * a.modalities - 1] - count;
    for (int64_t d = 0; d < a.width; ++d) {
      T* keys = scratch.keys.data() + d * others.stride;
      std::copy(keys, keys + repeated, keys + count);
      if (backward) {
        T* values = scratch.values.data() + d * others.stride;
        std::copy(values, values + repeated, values + count);
      }
    }
    T* rows = scratch.key_rows.data();
    std::copy(rows, rows + repeated * others.padded_width, rows + count * others.padded_width);
  }

  MULTIFUSE_INLINE Span span_of(int64_t modality) const {
    const int64_t length = scratch.starts[modality + 1] - scratch.starts[modality];
    return {scratch.starts[modality + 1], scratch.starts[a.modalities] - length};
  }

  // Calls f(tokens, count, span) for every block of needed queries that have keys to attend to.
  template <typename F>
  MULTIFUSE_INLINE void each_block(F&& f) const {
    for (int64_t modality = 0; modality < a.modalities; ++modality) {
      const Span span = span_of(modality);
      if (span.count == 0) {
        continue;
      }
      int64_t block[kQueries];
      int64_t count = 0;
      for (int64_t token = begin(modality); token < a.ends[modality]; ++token) {
        if (a.asking && !a.asking[sample * a.tokens + token]) {
          continue;
        }
        block[count++] = token;
        if (count == kQueries) {
          f(block, count, span);
          count = 0;
        }
      }
      if (count > 0) {
        f(block, count, span);
      }
    }
  }

  // Loads the queries of a block, scaled so that the weights are powers of two of the scores; those beyond `count` are 0.
  MULTIFUSE_INLINE void load_queries(const int64_t* block, int64_t count) {
    const T scale = static_cast<T>(1.4426950408889634 / std::sqrt(static_cast<double>(a.width)));
    for (int64_t q = 0; q < kQueries; ++q) {
      for (int64_t d = 0; d < a.width; ++d) {
        scratch.queries[q * a.width + d] =
            q < count ? static_cast<T>(a.query_key_value[at(block[q], 0) + d]) * scale : T(0);
      }
    }
  }

  MULTIFUSE_INLINE void attend() {
    for (int64_t token = 0; token < a.tokens; ++token) {
      std::fill_n(a.attended + attended_at(token), a.width, static_cast<Element>(0.0f));
      a.log_sum[log_sum_at(token)] = T(0);
    }
    each_block([&](const int64_t* block, int64_t count, Span span) {
      load_queries(block, count);
      T log_sum[kQueries];
      attend_block(scratch.queries.data(), others, span, scratch.weights.data(), row_length, scratch.sums.data(), log_sum);
      for (int64_t q = 0; q < count; ++q) {
        for (int64_t d = 0; d < a.width; ++d) {
          a.attended[attended_at(block[q]) + d] = static_cast<Element>(scratch.sums[q * others.padded_width + d]);
        }
        a.log_sum[log_sum_at(block[q])] = log_sum[q];
      }
    });
  }

  MULTIFUSE_INLINE void differentiate() {
    const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(a.width)));
    std::fill(scratch.grad_keys.begin(), scratch.grad_keys.end(), T(0));
    std::fill(scratch.grad_values.begin(), scratch.grad_values.end(), T(0));
    for (int64_t token = 0; token < a.tokens; ++token) {
      for (int64_t part = 0; part < 3; ++part) {
        std::fill_n(a.grad_query_key_value + at(token, part), a.width, static_cast<Element>(0.0f));
      }
    }
    each_block([&](const int64_t* block, int64_t count, Span span) {
      load_queries(block, count);
      T log_sum[kQueries] = {};
      T dot[kQueries] = {};
      std::fill(scratch.grads.begin(), scratch.grads.end(), T(0));
      for (int64_t q = 0; q < count; ++q) {
        log_sum[q] = a.log_sum[log_sum_at(block[q])];
        for (int64_t d = 0; d < a.width; ++d) {
          const T pulled = static_cast<T>(a.grad[attended_at(block[q]) + d]);
          scratch.grads[q * a.width + d] = pulled;
          dot[q] += pulled * static_cast<T>(a.attended[attended_at(block[q]) + d]);
        }
      }
      differentiate_block(scratch.queries.data(), scratch.grads.data(), log_sum, dot, others, span, scratch.weights.data(),
                          row_length, scratch.sums.data());
      for (int64_t q = 0; q < count; ++q) {
        for (int64_t d = 0; d < a.width; ++d) {
          a.grad_query_key_value[at(block[q], 0) + d] =
              static_cast<Element>(scratch.sums[q * others.padded_width + d] * scale);
        }
      }
    });
    store_grads();
  }

  // Stores the gradient of every token as key and value: the sum over both places of its modality.
  MULTIFUSE_INLINE void store_grads() {
    constexpr double kLogOfTwo = 0.6931471805599453;
    const int64_t count = scratch.starts[a.modalities];
    each_key([&](int64_t token, int64_t column) {
      const bool is_repeated = count + column < scratch.starts[2 * a.modalities - 1];
      for (int64_t d = 0; d < a.width; ++d) {
        const T* of_key = scratch.grad_keys.data() + d * others.stride + column;
        const T* of_value = scratch.grad_values.data() + d * others.stride + column;
        const T key = of_key[0] + (is_repeated ? of_key[count] : T(0));
        const T value = of_value[0] + (is_repeated ? of_value[count] : T(0));
        a.grad_query_key_value[at(token, 1) + d] = static_cast<Element>(key * static_cast<T>(kLogOfTwo));
        a.grad_query_key_value[at(token, 2) + d] = static_cast<Element>(value);
      }
    });
  }
};

template <typename Element>
MULTIFUSE_INLINE void attention_rows(const Attention<Element>& a, int64_t begin, int64_t end) {
  using T = Compute<Element>;
  constexpr int64_t kLanes = Vector<T>::kLanes;
  const int64_t stride = (2 * a.tokens + 2 * kLanes - 1) / kLanes * kLanes;
  const int64_t padded_width = (a.width + kLanes - 1) / kLanes * kLanes;
  const int64_t row_length = (a.tokens + kLanes - 1) / kLanes * kLanes;
  const bool backward = a.is_backward;
  AttentionScratch<T> scratch;
  scratch.keys.resize(stride * a.width);
  scratch.key_rows.resize(2 * a.tokens * padded_width);
  scratch.weights.resize(kQueries * row_length);
  scratch.queries.resize(kQueries * a.width);
  scratch.sums.resize(kQueries * padded_width);
  scratch.starts.resize(2 * a.modalities);
  if (backward) {
    scratch.values.resize(stride * a.width);
    scratch.grad_keys.resize(stride * a.width);
    scratch.grad_values.resize(stride * a.width);
    scratch.grads.resize(kQueries * a.width);
  }
  const OthersOf<T> others{scratch.keys.data(), scratch.values.data(), scratch.grad_keys.data(), scratch.grad_values.data(),
                           scratch.key_rows.data(), stride, a.width, padded_width};
  for (int64_t index = begin; index < end; ++index) {
    HeadAttention<Element> attention{a, scratch, index / a.heads, index % a.heads, others, row_length};
    attention.load_keys();
    if (backward) {
      attention.differentiate();
    } else {
      attention.attend();
    }
  }
}

MULTIFUSE_RUN(Attention, attention_rows)

}  // namespace MULTIFUSE_VERSION
}  // namespace multifuse
