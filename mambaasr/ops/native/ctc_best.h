// The best tokens of a row, without the scores of most others. No frame of a tile gives a token more
// than the largest of the tile does, so that
//   sum over tiles of (sum of exp phi) peak
// bounds a score. Tokens are scored by falling bounds, halved from one level to the next, until what
// was found is better than any bound that is left.
#pragma once
#include "ctc.h"

namespace {

constexpr int kCtcTile = 16, kCtcLevels = 96;  // the last level: bounds that may have been rounded to 0

inline int64_t ctc_tiles(const CtcBestArgs& a) { return whole(a.rows.time / kCtcTile) + WIDTH; }

inline int64_t ctc_best_space(const CtcBestArgs& a) {
  return 2 * CtcPhi::space(a.rows.time) + ctc_tiles(a) / WIDTH + a.rows.tokens / WIDTH * 2 + 2;
}

void ctc_best_task(const CtcBestArgs& best, int64_t row, Workspace& work) {
  const CtcScoresArgs& a = best.rows;
  const CtcScoresTask task(a, row / a.hypotheses * a.slices);
  double* out = (double*)a.out + row * a.count;
  int64_t* out_tokens = (int64_t*)best.out_tokens + row * a.count;
  const bool broken = task.broken();
  for (int64_t i = 0; i < a.count; i++) {
    out[i] = broken ? __builtin_nan("") : kLogZero;
    out_tokens[i] = a.blank;
  }
  if (broken) return;
  CtcPhi phi, repeat;
  phi.fill(a, row, false, work);
  if (!phi.alive()) return;

  int64_t found = 0;
  auto score = [&](const CtcPhi& of, int64_t c) {
    const CtcPhi* rows[1] = {&of};
    double value, *to[1] = {&value};
    ctc_score<1>(rows, task.token(c), to);
    if (value <= kLogZero || (found == a.count && value <= out[found - 1])) return;
    int64_t i = found < a.count ? found++ : found - 1;
    for (; i && out[i - 1] < value; i--) out[i] = out[i - 1], out_tokens[i] = out_tokens[i - 1];
    out[i] = value, out_tokens[i] = c;
  };
  const int64_t last = task.last(row);
  if (last >= 0 && last != a.blank) {
    repeat.fill(a, row, true, work);
    if (repeat.alive()) score(repeat, last);
  }

  const int64_t tiles = (phi.length + kCtcTile - 1) / kCtcTile, stride = a.time / kCtcTile;
  float* sums = (float*)work.take(ctc_tiles(best) / WIDTH);
  for (int64_t i = 0; i < whole(tiles); i++) sums[i] = 0.0f;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t block = i * kCtcTile / kCtcBlock;
    vf sum = {};
    for (int64_t t = i * kCtcTile; t < min64((i + 1) * kCtcTile, whole(phi.length)); t += WIDTH)
      sum += load(phi.e + t);
    sums[i] = sum_lane(sum) * (float)__builtin_exp(phi.ref[block] - phi.ref[phi.best]);
  }

  float* bounds = (float*)work.take(a.tokens / WIDTH + 1);
  int32_t* next = (int32_t*)work.take(a.tokens / WIDTH + 1);
  float greatest = 0.0f;
  const float* peaks = (const float*)best.peaks + task.u * a.tokens * stride;
  for (int64_t c = 0; c < a.tokens; c++, peaks += stride) {
    vf sum = {};
    int64_t i = 0;
    for (; i + WIDTH <= tiles; i += WIDTH) sum += load(sums + i) * load(peaks + i);
    float bound = sum_lane(sum);
    for (; i < tiles; i++) bound += sums[i] * peaks[i];
    bounds[c] = bound;
    if (bound > greatest) greatest = bound;
  }
  int32_t levels[kCtcLevels];
  for (int i = 0; i < kCtcLevels; i++) levels[i] = -1;
  const float unit = greatest > 0.0f ? 1.0f / greatest : 0.0f;
  for (int64_t c = a.tokens - 1; c >= 0; c--) {
    if (c == a.blank || c == last) continue;
    int power;
    __builtin_frexpf(bounds[c] * unit, &power);
    const int level = bounds[c] < kTiny || -power >= kCtcLevels ? kCtcLevels - 1 : power > 0 ? 0 : -power;
    next[c] = levels[level];
    levels[level] = (int32_t)c;
  }
  for (int i = 0; i < kCtcLevels; i++) {
    // A little more than the arithmetic may have lost.
    double left = __builtin_ldexp((double)greatest, -i) * 1.001 + 1e-30;
    if (i == kCtcLevels - 1 && left < 2 * kTiny) left = 2 * kTiny;
    if (found == a.count && out[found - 1] > phi.ref[phi.best] + __builtin_log(left)) return;
    for (int32_t c = levels[i]; c >= 0; c = next[c]) score(phi, c);
  }
}

}  // namespace
