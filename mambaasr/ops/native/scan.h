// Selective scan (Mamba-1), forward and backward:
//   dt = softplus(delta + bias);  h[t] = exp(dt A) h[t-1] + dt B u;  y = <C, h> + D u;  out = y silu(z)
// A task is one sequence, `block` channels of one group and one segment of time. It walks through its
// frames in chunks: reads rows of all its channels, then, for one vector of WIDTH channels after the
// other, runs NB states at a time over the chunk's frames in registers.
// More than one segment: each is walked twice. The first time it starts from zero and carries away
// what it ends with; as the recurrence is linear, the second one then knows where to start.
#pragma once
#include <initializer_list>

#include "rows.h"

namespace {

constexpr int64_t kRows = 16;  // frames that the forward pass reads at a time; divides args.chunk

struct ScanTask {
  const ScanArgs& a;
  int64_t b, j, segment, group, channel, channels, length, chunks, from, to;
  bool reverse;
  const float *B, *C;  // row s of the walk at B + s * sB
  int64_t sB, sC;

  ScanTask(const ScanArgs& args, int64_t index) : a(args), reverse(args.reverse) {
    int64_t per_group = a.channels / a.groups, blocks = (per_group + a.block - 1) / a.block;
    segment = index % a.segments;
    j = index / a.segments % (blocks * a.groups);
    b = index / a.segments / (blocks * a.groups);
    group = j / blocks;
    int64_t start = (j % blocks) * a.block;
    channel = group * per_group + start;
    channels = min64(a.block, per_group - start);
    length = a.lengths ? ((const int64_t*)a.lengths)[b] : a.time;
    chunks = (a.time + a.chunk - 1) / a.chunk;
    int64_t frames = (chunks + a.segments - 1) / a.segments * a.chunk;
    from = min64(segment * frames, length);
    to = min64(from + frames, length);
    B = coefficient(a.B, sB);
    C = coefficient(a.C, sC);
  }
  static int64_t blocks(const ScanArgs& a) {  // of all groups
    return a.groups * ((a.channels / a.groups + a.block - 1) / a.block);
  }
  static int64_t count(const ScanArgs& a) { return a.batch * blocks(a) * a.segments; }
  static int64_t width(const ScanArgs& a) { return (a.block + WIDTH - 1) / WIDTH; }
  int64_t vectors() const { return (channels + WIDTH - 1) / WIDTH; }

  const float* coefficient(const Coefficients& x, int64_t& stride) const {
    stride = reverse ? -x.st : x.st;
    return (const float*)x.ptr + b * x.sb + group * x.sg + (reverse ? (length - 1) * x.st : 0);
  }
  Rows rows(const Tensor& x) const { return Rows(x, b, channel, length, reverse); }

  // States of the task's channels before chunk k, as rows of channels.
  Rows saved_states(int64_t k) const {
    Tensor x{a.saved, chunks * a.states * a.channels, 1, a.channels, 0};
    return Rows(x, b, channel + k * a.states * a.channels, 0, false);
  }
  // What segment q carries away, and the sum of its dt: [batch][block][segment][state + 1][channel].
  float* carried(int64_t q) const {
    int64_t at = (b * blocks(a) + j) * a.segments + q;
    return (float*)a.carry + at * (a.states + 1) * width(a) * WIDTH;
  }
  void hand_on(const vf* h, const vf* sum) const {
    vfu* p = (vfu*)carried(segment);
    for (int64_t k = 0; k < vectors() * a.states; k++) *p++ = h[k];
    for (int64_t i = 0; i < vectors(); i++) *p++ = sum[i];
  }
  // h as it is when segment q has been walked.
  void pass(int64_t q, const vf* A, vf* h) const {
    const vfu* p = (const vfu*)carried(q);
    for (int64_t k = 0; k < vectors() * a.states; k++)
      h[k] = exp2v(p[vectors() * a.states + k / a.states] * A[k]) * h[k] + p[k];
  }
  // (plane, channel, state) as WIDTH channels a vector: out[i * states + n]; zeros if not given.
  void load(int64_t ptr, int64_t plane, vf* out, float scale = 1.0f) const {
    int64_t N = a.states;
    Tensor x{ptr, a.channels * N, N, 1, 0};
    Rows rows(x, plane, channel, N, false);
    for (int64_t k = 0; k < vectors() * N; k++) out[k] = vf{};
    if (!rows) return;
    rows.read(0, N, channels, [&](int64_t i, int64_t n, vf v) { out[i * N + n] = scale * v; });
  }
  void store(const vf* in, int64_t ptr, int64_t plane) const {
    int64_t N = a.states;
    Tensor x{ptr, a.channels * N, N, 1, 0};
    Rows rows(x, plane, channel, N, false);
    if (rows) rows.write(0, N, channels, [&](int64_t i, int64_t n) { return in[i * N + n]; });
  }
  // (plane, channel): out[i].
  void load_row(int64_t ptr, vf* out) const {
    for (int64_t i = 0; i < vectors(); i++)
      out[i] = gather(ptr ? (const float*)ptr + channel + i * WIDTH : nullptr, 1,
                      (int)min64(WIDTH, channels - i * WIDTH));
  }
  void store_row(const vf* in, int64_t ptr, int64_t plane) const {
    for (int64_t i = 0; ptr && i < vectors(); i++)
      scatter(in[i], (float*)ptr + plane * a.channels + channel + i * WIDTH, 1,
              (int)min64(WIDTH, channels - i * WIDTH));
  }
  // A product dt A beyond the range of floats must give exp(-inf) = 0, not NaN.
  vf time_step(vf raw, vf bias) const {
    vf dt = raw + bias;
    if (a.softplus) dt = softplus(dt);
    return dt > 1e30f ? splat(1e30f) : dt;
  }
};

template <int NB>
void scan_states(int64_t frames, const vf* dt, const vf* du, vf* y, const float* B, int64_t sB,
                 const float* C, int64_t sC, const vf* A_, vf* h_) {
  vf A[NB], h[NB];
  for (int k = 0; k < NB; k++) A[k] = A_[k], h[k] = h_[k];
  for (int64_t s = 0; s < frames; s++) {
    vf d = dt[s], x = du[s], sum = y[s];
    const float *b = B + s * sB, *c = C + s * sC;
    for (int k = 0; k < NB; k++) {
      h[k] = exp2v(d * A[k]) * h[k] + x * b[k];
      sum += h[k] * c[k];
    }
    y[s] = sum;
  }
  for (int k = 0; k < NB; k++) h_[k] = h[k];
}

// Runs `run(NB constant, n)` over all states, as many at a time as the registers hold.
template <class Run>
void over_states(int64_t states, Run run) {
  int64_t n = 0;
  for (; n + 8 <= states; n += 8) run(Constant<8>(), n);
  if (n + 4 <= states) run(Constant<4>(), n), n += 4;
  for (; n < states; n++) run(Constant<1>(), n);
}

int64_t scan_forward_space(const ScanArgs& a) {
  return ScanTask::width(a) * (3 * (kRows + 1) + 2 * a.states + 3);
}

// With `carry` only the state is run, from zero, and carried away.
template <bool carry>
void scan_forward_task(const ScanArgs& a, int64_t index, Workspace& work) {
  ScanTask task(a, index);
  if (carry && task.segment == a.segments - 1) return;  // nobody follows
  // Rows are one vector longer than they need, else all of a frame would compete for one cache set.
  const int64_t N = a.states, V = task.vectors(), K = kRows + 1;
  vf *dt = work.take(V * K), *du = work.take(V * K), *y = work.take(V * K);
  vf *A = work.take(V * N), *h = work.take(V * N), *bias = work.take(V), *D = work.take(V);
  vf* sum = work.take(V);
  task.load(a.A, 0, A, kLog2e);  // in units of log2, so that exp2 serves
  task.load(carry ? 0 : a.h0, task.b, h);
  for (int64_t q = 0; q < task.segment && !carry; q++) task.pass(q, A, h);
  for (int64_t i = 0; i < V; i++) sum[i] = vf{};
  task.load_row(a.bias, bias);
  task.load_row(a.D, D);
  Rows u = task.rows(a.u), delta = task.rows(a.delta), z = task.rows(a.z), out = task.rows(a.out);
  for (int64_t s0 = task.from; s0 < task.to; s0 += kRows) {
    int64_t frames = min64(kRows, task.to - s0);
    if (a.saved && s0 % a.chunk == 0 && !carry)
      task.saved_states(s0 / a.chunk).write(0, N, task.channels, [&](int64_t i, int64_t n) {
        return h[i * N + n];
      });
    delta.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) {
      dt[i * K + s] = task.time_step(v, bias[i]);
    });
    u.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) {
      y[i * K + s] = D[i] * v;
      du[i * K + s] = dt[i * K + s] * v;
    });
    const float *B = task.B + s0 * task.sB, *C = task.C + s0 * task.sC;
    const int64_t next = s0 + kRows, more = min64(kRows, task.to - next);
    for (int64_t i = 0; i < V; i++) {
      // The next rows come while this is computed; more < 0 behind the last ones asks for none.
      for (const Rows* x : {&delta, &u, &z}) x->expect(next, more, task.channels, i, V);
      out.expect<1>(s0, frames, task.channels, i, V);
      over_states(N, [&](auto count, int64_t n) {
        scan_states<count.value>(frames, dt + i * K, du + i * K, y + i * K, B + n, task.sB, C + n,
                                 task.sC, A + i * N + n, h + i * N + n);
      });
    }
    if (carry) {
      for (int64_t i = 0; i < V; i++)
        for (int64_t s = 0; s < frames; s++) sum[i] += dt[i * K + s];
      continue;
    }
    if (z)
      z.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) {
        y[i * K + s] *= v * sigmoid(v);
      });
    out.write(s0, frames, task.channels, [&](int64_t i, int64_t s) { return y[i * K + s]; });
  }
  if (carry) return task.hand_on(h, sum);
  if (task.segment < a.segments - 1) return;
  zero_padding(a.out, task.b, task.channel, task.channels, task.length, a.time);
  task.store(h, a.last, task.b);
}

struct ScanChunk {  // one channel vector's rows of a chunk, in the backward pass
  vf *dt, *u, *dy, *y, *ddt, *ddu, *slope, *gate;
};

// Recomputes NB states of a chunk from the state before it, then walks back through it.
template <int NB>
void scan_states_backward(int64_t frames, const ScanChunk& c, bool need_y, const float* B, int64_t sB,
                          const float* C, int64_t sC, const vf* A_, vf* h_buf, vf* a_buf, vf* dB,
                          vf* dC, vf* dA_, vf* g_) {
  vf A[NB], h[NB], g[NB], dA[NB];
  for (int k = 0; k < NB; k++) A[k] = A_[k], h[k] = h_buf[k];
  for (int64_t s = 0; s < frames; s++) {
    vf d = c.dt[s], x = d * c.u[s], sum = {};
    const float *b = B + s * sB, *cc = C + s * sC;
    for (int k = 0; k < NB; k++) {
      vf decay = exp2v(d * A[k]);
      a_buf[s * NB + k] = decay;
      h[k] = decay * h[k] + x * b[k];
      h_buf[(s + 1) * NB + k] = h[k];
      sum += h[k] * cc[k];
    }
    if (need_y) c.y[s] += sum;
  }
  for (int k = 0; k < NB; k++) g[k] = g_[k], dA[k] = vf{};
  for (int64_t s = frames - 1; s >= 0; s--) {
    vf d = c.dt[s], x = d * c.u[s], dy = c.dy[s], sum_dt = {}, sum_du = {};
    const float *b = B + s * sB, *cc = C + s * sC;
    for (int k = 0; k < NB; k++) {
      vf gk = g[k] + dy * cc[k];
      dC[s * NB + k] += dy * h_buf[(s + 1) * NB + k];
      dB[s * NB + k] += gk * x;
      sum_du += gk * b[k];
      gk *= a_buf[s * NB + k];
      vf q = gk * h_buf[s * NB + k];
      dA[k] += q * d;
      sum_dt += q * A[k];
      g[k] = gk;
    }
    c.ddt[s] += sum_dt;
    c.ddu[s] += sum_du;
  }
  for (int k = 0; k < NB; k++) g_[k] = g[k], dA_[k] += dA[k];
}

// The gradient of the state alone, from zero behind the segment's end to its start.
void scan_adjoint_task(const ScanArgs& a, int64_t index, Workspace& work) {
  ScanTask task(a, index);
  if (task.segment == 0) return;  // nobody follows
  const int64_t N = a.states, V = task.vectors(), K = kRows + 1;
  vf *dt = work.take(V * K), *dy = work.take(V * K);
  vf *A = work.take(V * N), *g = work.take(V * N), *bias = work.take(V), *sum = work.take(V);
  task.load(a.A, 0, A, kLog2e);
  task.load_row(a.bias, bias);
  for (int64_t k = 0; k < V * N; k++) g[k] = vf{};
  for (int64_t i = 0; i < V; i++) sum[i] = vf{};
  Rows delta = task.rows(a.delta), z = task.rows(a.z), dout = task.rows(a.out);
  for (int64_t end = task.to; end > task.from;) {
    int64_t frames = min64(kRows, end - task.from), s0 = end - frames;
    end = s0;
    delta.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) {
      sum[i] += dt[i * K + s] = task.time_step(v, bias[i]);
    });
    dout.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) { dy[i * K + s] = v; });
    if (z)
      z.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) {
        dy[i * K + s] *= v * sigmoid(v);
      });
    for (int64_t i = 0; i < V; i++)
      over_states(N, [&](auto count, int64_t n) {
        constexpr int NB = count.value;
        vf *gi = g + i * N + n, *Ai = A + i * N + n, h[NB];
        for (int k = 0; k < NB; k++) h[k] = gi[k];
        for (int64_t s = frames - 1; s >= 0; s--) {
          const float* C = task.C + (s0 + s) * task.sC + n;
          vf d = dt[i * K + s], y = dy[i * K + s];
          for (int k = 0; k < NB; k++) h[k] = exp2v(d * Ai[k]) * (h[k] + y * C[k]);
        }
        for (int k = 0; k < NB; k++) gi[k] = h[k];
      });
  }
  task.hand_on(g, sum);
}

constexpr int64_t kBackwardStates = 4;  // at a time

int64_t scan_backward_space(const ScanArgs& a) {
  return ScanTask::width(a) * (8 * (a.chunk + 1) + 3 * a.states + 4) +
         (4 * a.chunk + 1) * kBackwardStates + WIDTH;
}

void scan_backward_task(const ScanArgs& a, int64_t index, Workspace& work) {
  ScanTask task(a, index);
  const int64_t N = a.states, V = task.vectors(), K = a.chunk + 1;
  vf *A = work.take(V * N), *dA = work.take(V * N), *g = work.take(V * N);
  vf *bias = work.take(V), *D = work.take(V), *dD = work.take(V), *dbias = work.take(V);
  auto all = [&] { return work.take(V * K); };
  ScanChunk rows{all(), all(), all(), all(), all(), all(), all(), all()};
  vf *h_buf = work.take(K * kBackwardStates), *a_buf = work.take(a.chunk * kBackwardStates);
  vf *dB = work.take(a.chunk * kBackwardStates), *dC = work.take(a.chunk * kBackwardStates + WIDTH);
  task.load(a.A, 0, A, kLog2e);
  task.load(a.dlast, task.b, g);
  for (int64_t q = a.segments - 1; q > task.segment; q--) task.pass(q, A, g);
  task.load_row(a.bias, bias);
  task.load_row(a.D, D);
  for (int64_t i = 0; i < V * N; i++) dA[i] = vf{};
  for (int64_t i = 0; i < V; i++) dD[i] = dbias[i] = vf{};
  Rows u = task.rows(a.u), delta = task.rows(a.delta), z = task.rows(a.z), dout = task.rows(a.out);
  Rows du = task.rows(a.du), ddelta = task.rows(a.ddelta), dz = task.rows(a.dz);
  int64_t partial = (task.b * ScanTask::blocks(a) + task.j) * a.time * N;
  float *part_B = (float*)a.dB + partial, *part_C = (float*)a.dC + partial;

  for (int64_t s0 = (task.to - 1) / a.chunk * a.chunk; s0 >= task.from && task.to > task.from;
       s0 -= a.chunk) {
    int64_t frames = min64(a.chunk, task.to - s0), channels = task.channels;
    Rows saved = task.saved_states(s0 / a.chunk);
    delta.read(s0, frames, channels, [&](int64_t i, int64_t s, vf v) {
      rows.slope[i * K + s] = a.softplus ? sigmoid(v + bias[i]) : splat(1.0f);
      rows.dt[i * K + s] = task.time_step(v, bias[i]);
    });
    u.read(s0, frames, channels, [&](int64_t i, int64_t s, vf v) {
      rows.u[i * K + s] = v;
      rows.y[i * K + s] = D[i] * v;
      rows.ddt[i * K + s] = rows.ddu[i * K + s] = vf{};
    });
    dout.read(s0, frames, channels, [&](int64_t i, int64_t s, vf v) { rows.dy[i * K + s] = v; });
    if (z)
      z.read(s0, frames, channels, [&](int64_t i, int64_t s, vf v) {
        vf gate = sigmoid(v), &dy = rows.dy[i * K + s];
        rows.gate[i * K + s] = dy * gate * (1.0f + v * (1.0f - gate));
        dy *= v * gate;
      });
    const float *B = task.B + s0 * task.sB, *C = task.C + s0 * task.sC;
    for (int64_t n = 0; n < N;) {
      int64_t nb = n + kBackwardStates <= N ? kBackwardStates : 1;
      for (int64_t k = 0; k < frames * nb; k++) dB[k] = dC[k] = vf{};
      for (int64_t i = 0; i < V; i++) {
        if (n == 0 && s0 > task.from)
          for (const Rows* x : {&delta, &u, &dout, &z})
            x->expect(s0 - a.chunk, a.chunk, channels, i, V);
        if (n == 0)
          for (const Rows* x : {&du, &ddelta, &dz}) x->expect<1>(s0, frames, channels, i, V);
        ScanChunk c{rows.dt + i * K,  rows.u + i * K,   rows.dy + i * K,    rows.y + i * K,
                    rows.ddt + i * K, rows.ddu + i * K, rows.slope + i * K, rows.gate + i * K};
        saved.load(n, nb, i * WIDTH, (int)min64(WIDTH, channels - i * WIDTH), h_buf);
        auto run = nb == 1 ? scan_states_backward<1> : scan_states_backward<kBackwardStates>;
        run(frames, c, (bool)z, B + n, task.sB, C + n, task.sC, A + i * N + n, h_buf, a_buf, dB, dC,
            dA + i * N + n, g + i * N + n);
      }
      int64_t first = a.reverse ? task.length - 1 - s0 : s0;
      store_sums(dB, frames, nb, part_B + first * N + n, a.reverse ? -N : N);
      store_sums(dC, frames, nb, part_C + first * N + n, a.reverse ? -N : N);
      n += nb;
    }
    for (int64_t i = 0; i < V; i++)
      for (int64_t k = i * K; k < i * K + frames; k++) {
        vf x = rows.u[k], raw = (kLn2 * rows.ddt[k] + rows.ddu[k] * x) * rows.slope[k];
        dD[i] += rows.dy[k] * x;
        dbias[i] += raw;
        rows.u[k] = rows.ddu[k] * rows.dt[k] + D[i] * rows.dy[k];
        rows.ddt[k] = raw;
        if (z) rows.gate[k] *= rows.y[k];
      }
    du.write(s0, frames, channels, [&](int64_t i, int64_t s) { return rows.u[i * K + s]; });
    ddelta.write(s0, frames, channels, [&](int64_t i, int64_t s) { return rows.ddt[i * K + s]; });
    if (dz) dz.write(s0, frames, channels, [&](int64_t i, int64_t s) { return rows.gate[i * K + s]; });
  }
  int64_t plane = task.b * a.segments + task.segment;
  task.store(dA, a.dA, plane);
  task.store_row(dD, a.dD, plane);
  task.store_row(dbias, a.dbias, plane);
  if (task.segment == 0) task.store(g, a.dh0, task.b);
  if (task.segment < a.segments - 1) return;
  zero_padding(a.du, task.b, task.channel, task.channels, task.length, a.time);
  zero_padding(a.ddelta, task.b, task.channel, task.channels, task.length, a.time);
  zero_padding(a.dz, task.b, task.channel, task.channels, task.length, a.time);
  memset(part_B + task.length * N, 0, (a.time - task.length) * N * sizeof(float));
  memset(part_C + task.length * N, 0, (a.time - task.length) * N * sizeof(float));
}

}  // namespace
