// Product of a few rows with a weight as torch.nn.Linear has it:
//   out[i, j] = bias[j] + sum over k of x[i, k] weight[j, k]
// With few rows a weight's way from memory takes longer than the arithmetic. So it is read once, as
// it lies, no copy in another order is made, and its next rows come while these are multiplied. A
// sum has the same order of terms for any number of rows. A task is `block` outputs of all rows.
#pragma once
#include "vec.h"

namespace {

typedef float v4 __attribute__((vector_size(16), may_alias));
typedef float v4u __attribute__((vector_size(16), aligned(4), may_alias));

constexpr int kOutputs = 4;                   // rows of the weight at a time
constexpr int kInputs = WIDTH == 16 ? 6 : 3;  // rows of x at a time: as many sums as registers hold
constexpr int64_t kDepth = 1024;              // terms of a sum, so that these rows stay in a cache

// The sums of the lanes of four vectors.
inline v4 sum_four(const vf* x) {
  vf ac = LOWER(x[0], x[2]) + UPPER(x[0], x[2]), bd = LOWER(x[1], x[3]) + UPPER(x[1], x[3]);
  vf sums = LOWER(ac, bd) + UPPER(ac, bd);
  v4 parts[WIDTH / 4];
  memcpy(parts, &sums, sizeof sums);
  for (int half = WIDTH / 8; half; half /= 2)
    for (int i = 0; i < half; i++) parts[i] += parts[i + half];
  return parts[0];
}

// `lanes` floats at p, zeros beyond.
inline vf load_lanes(const float* p, int64_t lanes) {
  vf v = {};
  memcpy(&v, p, lanes * sizeof(float));
  return v;
}

// The products of M rows of x with N rows of weight, N at most kOutputs, are added to what out holds.
template <int M, int N>
void product_tile(const ProductArgs& a, const float* x, const float* weight, int64_t depth, float* out) {
  vf sum[M][kOutputs] = {};
  auto add = [&](auto load) {
    vf w[N];
    for (int j = 0; j < N; j++) w[j] = load(weight + j * a.in);
    for (int i = 0; i < M; i++) {
      vf v = load(x + i * a.sx);
      for (int j = 0; j < N; j++) sum[i][j] += v * w[j];
    }
  };
  int64_t k = 0;
  for (; k + WIDTH <= depth; k += WIDTH)
    add([&](const float* p) -> vf { return *(const vfu*)(p + k); });
  if (k < depth) add([&](const float* p) { return load_lanes(p + k, depth - k); });
  for (int i = 0; i < M; i++) {
    v4 sums = sum_four(sum[i]);
    float* o = out + i * a.outs;
    if (N == kOutputs) *(v4u*)o += sums;
    else for (int j = 0; j < N; j++) o[j] += sums[j];
  }
}

// All rows of x with N rows of weight; asks for the N rows after those if there are `more`.
template <int N>
void product_rows(const ProductArgs& a, int64_t j, int64_t k, int64_t depth, bool more) {
  const float *x = (const float*)a.x + k, *weight = (const float*)a.weight + j * a.in + k;
  float* out = (float*)a.out + j;
  auto tile = [&](auto count, int64_t i) {
    for (int64_t c = depth * i / a.rows; more && c < depth * (i + count.value) / a.rows; c += 16)
      for (int n = 0; n < N; n++) __builtin_prefetch(weight + (N + n) * a.in + c, 0, 3);
    product_tile<count.value, N>(a, x + i * a.sx, weight, depth, out + i * a.outs);
  };
  int64_t i = 0;
  for (; i + kInputs <= a.rows; i += kInputs) tile(Constant<kInputs>(), i);
  if (kInputs > 4 && i + 4 <= a.rows) tile(Constant<4>(), i), i += 4;
  if (i + 2 <= a.rows) tile(Constant<2>(), i), i += 2;
  if (i < a.rows) tile(Constant<1>(), i);
}

void product_task(const ProductArgs& a, int64_t index, Workspace&) {
  const int64_t first = index * a.block, end = min64(first + a.block, a.outs);
  for (int64_t i = 0; i < a.rows; i++) {
    float* o = (float*)a.out + i * a.outs + first;
    if (a.bias) memcpy(o, (const float*)a.bias + first, (end - first) * sizeof(float));
    else memset(o, 0, (end - first) * sizeof(float));
  }
  for (int64_t k = 0; k < a.in; k += kDepth) {
    int64_t depth = min64(kDepth, a.in - k), j = first;
    for (; j + kOutputs <= end; j += kOutputs)
      product_rows<kOutputs>(a, j, k, depth, a.rows > 3 && j + 2 * kOutputs <= end);
    for (; j < end; j++) product_rows<1>(a, j, k, depth, false);
  }
}

}  // namespace
