// CTC prefix scores (Watanabe et al., 2017, algorithm 2), see mambaasr/ops/ctc_prefix. For label c
//   phi(t): paths over the frames 0..t after which c may follow: all that give the prefix, but only
//           those that end in blank where c is its last label
//   scores:  psi = log sum over t of exp(phi(t - 1) + x(t, c))
//   advance: n(t) = log(exp n(t - 1) + exp phi(t - 1)) + x(t, c)
//            b(t) = log(exp b(t - 1) + exp n(t - 1)) + x(t, blank)
// Time is a multiple of 16, hence of WIDTH. A row's result does not depend on what else is computed.
#pragma once
#include "vec.h"

namespace {

typedef double vd __attribute__((vector_size(8 * WIDTH), aligned(8), may_alias));

constexpr float kLogZero = -1e10f;
constexpr double kDead = -5e9;       // below, there is no path
constexpr int64_t kCtcBlock = 1024;  // frames summed in one go: what the rows of a group need stays in a cache
constexpr int kCtcRows = 8;          // rows that share the exp of a token's frames
constexpr float kTiny = 1e-27f;      // below, terms that were rounded to 0 might be missed
constexpr double kNegligible = 45;   // e^-45 of a sum does not change a double

inline vf logaddexp(vf a, vf b) {
  vf most = maximum(a, b);
  return most + log1p_exp(minimum(a, b) - most);
}

inline double logaddexp(double a, double b) {
  double most = a > b ? a : b, least = a > b ? b : a;
  return most + __builtin_log1p(__builtin_exp(least - most));
}

inline float max_lane(vf x) {
  float most = x[0];
  for (int i = 1; i < WIDTH; i++) most = x[i] > most ? x[i] : most;
  return most;
}

inline float sum_lane(vf x) {
  float y[WIDTH];
  memcpy(y, &x, sizeof x);
  for (int half = WIDTH / 2; half; half /= 2)
    for (int i = 0; i < half; i++) y[i] += y[i + half];
  return y[0];
}

inline vf load(const float* p) { return *(const vfu*)p; }
inline void store(float* p, vf x) { *(vfu*)p = x; }
inline int64_t whole(int64_t frames) { return (frames + WIDTH - 1) / WIDTH * WIDTH; }

// phi(t - 1) of a row, for the sums of scores, in blocks of frames.
struct CtcPhi {
  float* phi;      // less offset
  float* e;        // exp(phi - ref)
  double* offset;  // of each block
  double* ref;     // the largest phi of each block
  int64_t length, blocks, best;

  // Vectors of the workspace for so many frames.
  static int64_t space(int64_t time) {
    return 2 * (time / WIDTH + 2) + 2 * ((time / kCtcBlock + 1) * 8 / (4 * WIDTH) + 1);
  }

  bool alive() const { return blocks && ref[best] >= kDead; }

  __attribute__((flatten)) void fill(const CtcScoresArgs& a, int64_t row, bool repeat, Workspace& work) {
    const int64_t u = row / a.hypotheses;
    const float* n = (const float*)a.forward + row * 2 * a.time;
    const float* b = n + a.time;
    const double* base = (const double*)a.base + u * a.time;
    const double shift = ((const double*)a.shift)[row];
    length = ((const int64_t*)a.lengths)[u];
    blocks = (length + kCtcBlock - 1) / kCtcBlock;
    best = 0;
    phi = (float*)work.take(a.time / WIDTH + 2);
    e = (float*)work.take(a.time / WIDTH + 2);
    const int64_t doubles = (a.time / kCtcBlock + 1) * 8 / (4 * WIDTH) + 1;
    offset = (double*)work.take(doubles);
    ref = (double*)work.take(doubles);

    phi[0] = ((const int64_t*)a.last)[row] < 0 ? 0.0f : kLogZero;
    for (int64_t t = 0; t < length; t += WIDTH)
      store(phi + t + 1, repeat ? load(b + t) : logaddexp(load(n + t), load(b + t)));
    for (int64_t t = length; t < whole(length); t++) phi[t] = kLogZero;
    for (int64_t k = 0; k < blocks; k++) {
      const int64_t first = k * kCtcBlock, end = min64(first + kCtcBlock, whole(length));
      const double start = base[first];
      vf most = splat(-3e38f);
      for (int64_t t = first; t < end; t += WIDTH) {
        vf moved = __builtin_convertvector(*(const vd*)(base + t) - start, vf);
        vf value = maximum(load(phi + t) + moved, splat(kLogZero));
        store(phi + t, value);
        most = maximum(value, most);
      }
      const float top = max_lane(most);
      for (int64_t t = first; t < end; t += WIDTH) store(e + t, expv(load(phi + t) - top));
      offset[k] = start + shift;
      ref[k] = offset[k] + top;
      if (ref[k] > ref[best]) best = k;
    }
    for (int64_t t = length; t < whole(length); t++) e[t] = 0.0f;
  }

  int64_t frames(int64_t block) const {
    return min64(kCtcBlock, whole(length) - block * kCtcBlock);
  }
};

// Sums over a block of frames of exp(phi - ref) exp(x), for N rows.
template <int N>
__attribute__((flatten)) void ctc_products(const CtcPhi* const* rows, int64_t block, const float* x, float* sums) {
  const int64_t first = block * kCtcBlock, frames = rows[0]->frames(block);
  const float* e[N];
  vf sum[N] = {};
  for (int i = 0; i < N; i++) e[i] = rows[i]->e + first;
  for (int64_t t = 0; t < frames; t += WIDTH) {
    vf p = expv(load(x + first + t));
    for (int i = 0; i < N; i++) sum[i] += p * load(e[i] + t);
  }
  for (int i = 0; i < N; i++) sums[i] = sum_lane(sum[i]);
}

// The logarithm of a block's sum, of which `sum` is the outcome of ctc_products.
inline double ctc_block(const CtcPhi& row, int64_t block, const float* x, float sum) {
  if (sum >= kTiny) return row.ref[block] + __builtin_log((double)sum);
  const float* phi = row.phi + block * kCtcBlock;
  const int64_t frames = row.frames(block);
  x += block * kCtcBlock;
  vf most = splat(-3e38f), total = {};
  for (int64_t t = 0; t < frames; t += WIDTH) most = maximum(load(phi + t) + load(x + t), most);
  const float top = max_lane(most);
  for (int64_t t = 0; t < frames; t += WIDTH) total += expv(load(phi + t) + load(x + t) - top);
  return row.offset[block] + top + __builtin_log((double)sum_lane(total));
}

// Scores of N rows whose best block is the same, for a token with log-probabilities x.
template <int N>
void ctc_score(const CtcPhi* const* rows, const float* x, double* const* out) {
  float sums[N];
  const int64_t best = rows[0]->best;
  ctc_products<N>(rows, best, x, sums);
  for (int i = 0; i < N; i++) {
    const CtcPhi& row = *rows[i];
    double score = ctc_block(row, best, x, sums[i]);
    for (int64_t k = 0; k < row.blocks; k++) {
      if (k == best || row.ref[k] + 7 < score - kNegligible) continue;  // 7 > log(kCtcBlock)
      float sum;
      ctc_products<1>(rows + i, k, x, &sum);
      score = logaddexp(score, ctc_block(row, k, x, sum));
    }
    *out[i] = score < kDead ? kLogZero : score;
  }
}

inline void ctc_scores_of(Constant<0>, int, const CtcPhi* const*, const float*, double* const*) {}
template <int N>
void ctc_scores_of(Constant<N>, int n, const CtcPhi* const* rows, const float* x, double* const* out) {
  if (n == N) ctc_score<N>(rows, x, out);
  else ctc_scores_of(Constant<N - 1>(), n, rows, x, out);
}

// A task is a row with its candidates or, where all tokens are candidates, all rows of an utterance
// with one of `slices` parts of the tokens.
struct CtcScoresTask {
  const CtcScoresArgs& a;
  int64_t u, first, rows;  // first: row of all
  CtcScoresTask(const CtcScoresArgs& args, int64_t index) : a(args) {
    u = index / (a.candidates ? a.hypotheses : a.slices);
    first = a.candidates ? index : u * a.hypotheses;
    rows = a.candidates ? 1 : a.hypotheses;
  }
  static int64_t count(const CtcScoresArgs& a) {
    return a.batch * (a.candidates ? a.hypotheses : a.hypotheses ? a.slices : 0);
  }
  static int64_t space(const CtcScoresArgs& a) {
    const int64_t rows = a.candidates ? 1 : a.hypotheses;
    return rows * (2 * CtcPhi::space(a.time) + 2 * sizeof(CtcPhi) / sizeof(vf) + 2) + 1;
  }
  int64_t last(int64_t row) const { return ((const int64_t*)a.last)[row]; }
  const float* token(int64_t c) const {
    return (const float*)a.log_probs + (u * a.tokens + c) * a.time;
  }
  bool broken() const {
    const int64_t length = ((const int64_t*)a.lengths)[u];
    return length && !(((const double*)a.base)[u * a.time + length - 1] < 1e300);
  }
};

void ctc_scores_task(const CtcScoresArgs& a, int64_t index, Workspace& work) {
  const CtcScoresTask task(a, index);
  const int64_t part = a.candidates ? 0 : index % a.slices;
  const int64_t begin = a.candidates ? 0 : a.count * part / a.slices;
  const int64_t end = a.candidates ? a.count : a.count * (part + 1) / a.slices;
  const int64_t* candidates = a.candidates ? (const int64_t*)a.candidates + index * a.count : nullptr;
  auto candidate = [&](int64_t i) { return candidates ? candidates[i] : i; };
  auto out = [&](int64_t row, int64_t i) {
    return (double*)a.out + (task.first + row) * a.count + i;
  };
  const bool broken = task.broken();
  CtcPhi* all = (CtcPhi*)work.take(task.rows * sizeof(CtcPhi) / sizeof(vf) + 1);
  CtcPhi* repeats = (CtcPhi*)work.take(task.rows * sizeof(CtcPhi) / sizeof(vf) + 1);
  for (int64_t r = 0; r < task.rows && !broken; r++) {
    all[r].fill(a, task.first + r, false, work);
    bool wanted = false;
    for (int64_t i = begin; i < end && !wanted; i++)
      wanted = candidate(i) == task.last(task.first + r);
    if (wanted) repeats[r].fill(a, task.first + r, true, work);
  }
  for (int64_t i = begin; i < end; i++) {
    const int64_t c = candidate(i);
    const float* x = task.token(c);
    for (int64_t r = 0; r < task.rows;) {
      const CtcPhi* group[kCtcRows];
      double* to[kCtcRows];
      int n = 0;
      if (broken || c == a.blank) {
        *out(r++, i) = c == a.blank ? kLogZero : __builtin_nan("");
        continue;
      }
      // Rows side by side, as long as they are alike.
      for (; r < task.rows && n < kCtcRows; r++) {
        const bool repeat = c == task.last(task.first + r);
        const CtcPhi* phi = repeat ? repeats + r : all + r;
        if (!phi->alive()) *out(r, i) = kLogZero;
        else if (n && phi->best != group[0]->best) break;
        else group[n] = phi, to[n++] = out(r, i);
      }
      ctc_scores_of(Constant<kCtcRows>(), n, group, x, to);
    }
  }
}

// log p(the text is just the prefix).
void ctc_end_task(const CtcScoresArgs& a, int64_t row, Workspace&) {
  const int64_t u = row / a.hypotheses, length = ((const int64_t*)a.lengths)[u];
  double* out = (double*)a.out + row;
  if (length == 0) {
    *out = ((const int64_t*)a.last)[row] < 0 ? 0.0 : kLogZero;
    return;
  }
  const float* n = (const float*)a.forward + row * 2 * a.time + length - 1;
  const double value = logaddexp((double)n[0], (double)n[a.time]) +
                       ((const double*)a.base)[u * a.time + length - 1] + ((const double*)a.shift)[row];
  *out = value < kDead ? kLogZero : value;
}

// A row of advance: where it reads and writes.
struct CtcLane {
  const float *n, *b, *x, *blank;
  float *out_n, *out_b;
  float best;  // of the parent, which becomes 0
  int64_t length;
  bool repeat, empty, alive;

  void set(const CtcAdvanceArgs& a, int64_t row) {
    const int64_t u = row / a.rows, parent = u * a.hypotheses + ((const int64_t*)a.parents)[row];
    const int64_t label = ((const int64_t*)a.labels)[row], last = ((const int64_t*)a.last)[parent];
    const float* log_probs = (const float*)a.log_probs + u * a.tokens * a.time;
    n = (const float*)a.forward + parent * 2 * a.time;
    b = n + a.time;
    out_n = (float*)a.out + row * 2 * a.time;
    out_b = out_n + a.time;
    alive = label >= 0 && label != a.blank;
    x = log_probs + (alive ? label : a.blank) * a.time;
    blank = log_probs + a.blank * a.time;
    length = ((const int64_t*)a.lengths)[u];
    repeat = label == last;
    empty = last < 0;
    best = 0.0f;
    if (!empty && length) {
      vf most = splat(kLogZero);
      for (int64_t t = 0; t < length; t += WIDTH)
        most = maximum(maximum(load(n + t), load(b + t)), most);
      best = max_lane(most);
      if (best < kDead) best = 0.0f;
    }
    ((int64_t*)a.out_last)[row] = alive ? label : a.blank;
    ((double*)a.out_shift)[row] = alive ? ((const double*)a.shift)[parent] + best : 0.0;
  }

  vf phi(int64_t t) const {
    return (repeat ? load(b + t) : logaddexp(load(n + t), load(b + t))) - best;
  }
};

// WIDTH * N rows, one a lane.
template <int N>
__attribute__((flatten)) void ctc_advance_rows(const CtcAdvanceArgs& a, int64_t first, int64_t count) {
  CtcLane lanes[N * WIDTH];
  vf before[N], n[N], b[N];
  bool together[N];  // rows of one utterance, which have the blank's frames in common
  int64_t longest = 0;
  for (int64_t i = 0; i < count; i++) {
    lanes[i].set(a, first + i);
    if (lanes[i].alive && lanes[i].length > longest) longest = lanes[i].length;
  }
  for (int64_t i = count; i < N * WIDTH; i++) lanes[i] = lanes[count - 1];
  for (int v = 0; v < N; v++) {
    n[v] = b[v] = before[v] = splat(kLogZero);
    together[v] = lanes[v * WIDTH].blank == lanes[v * WIDTH + WIDTH - 1].blank;
    for (int i = 0; i < WIDTH; i++)
      if (lanes[v * WIDTH + i].empty) before[v][i] = 0.0f;
  }
  for (int64_t t = 0; t < longest; t += WIDTH) {
    vf phi[N][WIDTH], x[N][WIDTH], blank[N][WIDTH];
    for (int v = 0; v < N; v++) {
      for (int i = 0; i < WIDTH; i++) {
        const CtcLane& lane = lanes[v * WIDTH + i];
        phi[v][i] = lane.phi(t);
        x[v][i] = load(lane.x + t);
        blank[v][i] = together[v] ? splat(lane.blank[t + i]) : load(lane.blank + t);
      }
      transpose(phi[v]);
      transpose(x[v]);
      if (!together[v]) transpose(blank[v]);
    }
    for (int i = 0; i < WIDTH; i++)
      for (int v = 0; v < N; v++) {
        vf label = logaddexp(n[v], before[v]) + x[v][i];
        b[v] = maximum(logaddexp(b[v], n[v]) + blank[v][i], splat(kLogZero));
        n[v] = maximum(label, splat(kLogZero));
        before[v] = phi[v][i];
        x[v][i] = n[v];
        blank[v][i] = b[v];
      }
    for (int v = 0; v < N; v++) {
      transpose(x[v]);
      transpose(blank[v]);
      for (int i = 0; i < WIDTH && v * WIDTH + i < count; i++) {
        store(lanes[v * WIDTH + i].out_n + t, x[v][i]);
        store(lanes[v * WIDTH + i].out_b + t, blank[v][i]);
      }
    }
  }
  for (int64_t i = 0; i < count; i++)
    for (int64_t t = lanes[i].alive ? lanes[i].length : 0; t < a.time; t++)
      lanes[i].out_n[t] = lanes[i].out_b[t] = kLogZero;
}

void ctc_advance_task(const CtcAdvanceArgs& a, int64_t index, Workspace&) {
  const int64_t first = index * 2 * WIDTH, count = min64(2 * WIDTH, a.batch * a.rows - first);
  if (count > WIDTH) ctc_advance_rows<2>(a, first, count);
  else ctc_advance_rows<1>(a, first, count);
}

}  // namespace
