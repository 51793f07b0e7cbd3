// Selective scan (Mamba-1), forward and backward:
//   dt = softplus(delta + bias);  h[t] = exp(dt A) h[t-1] + dt B u;  y = <C, h> + D u;  out = y silu(z)
// A task is one sequence and `block` channels of one group; it walks through time in chunks. Inside a
// chunk a vector holds WIDTH channels, and NB states at a time run over the chunk's frames in registers.
#pragma once
#include "vec.h"

namespace {

struct ScanTask {
  const ScanArgs& a;
  int64_t b, j, group, channel, channels, length, chunks;
  bool reverse;
  const float *B, *C;  // row s of the walk at B + s * sB
  int64_t sB, sC;

  ScanTask(const ScanArgs& args, int64_t index) : a(args), reverse(args.reverse) {
    int64_t per_group = a.channels / a.groups, tasks = (per_group + a.block - 1) / a.block;
    b = index / (tasks * a.groups);
    j = index % (tasks * a.groups);
    group = j / tasks;
    int64_t start = (j % tasks) * a.block;
    channel = group * per_group + start;
    channels = min64(a.block, per_group - start);
    length = a.lengths ? ((const int64_t*)a.lengths)[b] : a.time;
    chunks = (a.time + a.chunk - 1) / a.chunk;
    B = coefficient(a.B, sB);
    C = coefficient(a.C, sC);
  }
  static int64_t count(const ScanArgs& a) {
    int64_t per_group = a.channels / a.groups;
    return a.batch * a.groups * ((per_group + a.block - 1) / a.block);
  }
  const float* coefficient(const Coefficients& x, int64_t& stride) const {
    stride = reverse ? -x.st : x.st;
    return (const float*)x.ptr + b * x.sb + group * x.sg + (reverse ? (length - 1) * x.st : 0);
  }
  Rows rows(const Tensor& x) const { return Rows(x, b, channel, length, reverse); }
  int lanes(int64_t i) const { return (int)min64(WIDTH, channels - i * WIDTH); }
  int64_t vectors() const { return (channels + WIDTH - 1) / WIDTH; }

  // State of channel vector i before chunk k: [batch][task][chunk][state][block], unaligned.
  float* saved_states(int64_t k, int64_t i) const {
    int64_t tasks = count(a) / a.batch;
    int64_t chunk = (b * tasks + j) * chunks + k;
    return (float*)a.saved + chunk * a.states * a.block + i * WIDTH;
  }
  float* per_state(int64_t ptr, int64_t i) const {  // (batch, channel, state)
    return ptr ? (float*)ptr + (b * a.channels + channel + i * WIDTH) * a.states : nullptr;
  }
  float* per_channel(int64_t ptr, int64_t i) const {  // (batch, channel)
    return ptr ? (float*)ptr + b * a.channels + channel + i * WIDTH : nullptr;
  }
  vf parameter(int64_t ptr, int64_t i) const {  // (channel)
    return gather(ptr ? (const float*)ptr + channel + i * WIDTH : nullptr, 1, lanes(i));
  }
  void load_A(vf* A) const {  // in units of log2, so that exp2 serves
    for (int64_t i = 0; i < vectors(); i++)
      for (int64_t n = 0; n < a.states; n++)
        A[i * a.states + n] =
            kLog2e * gather((const float*)a.A + (channel + i * WIDTH) * a.states + n, a.states, lanes(i));
  }
  void load_states(int64_t ptr, vf* h) const {
    for (int64_t i = 0; i < vectors(); i++)
      for (int64_t n = 0; n < a.states; n++) {
        const float* p = per_state(ptr, i);
        h[i * a.states + n] = gather(p ? p + n : nullptr, a.states, lanes(i));
      }
  }
  void store_states(const vf* h, int64_t ptr) const {
    if (ptr)
      for (int64_t i = 0; i < vectors(); i++)
        for (int64_t n = 0; n < a.states; n++)
          scatter(h[i * a.states + n], per_state(ptr, i) + n, a.states, lanes(i));
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

int64_t scan_forward_space(const ScanArgs& a) {
  return 4 * a.chunk + 2 * ((a.block + WIDTH - 1) / WIDTH) * a.states;
}

void scan_forward_task(const ScanArgs& a, int64_t index, Workspace& work) {
  ScanTask task(a, index);
  const int64_t N = a.states, V = task.vectors();
  vf *dt = work.take(a.chunk), *du = work.take(a.chunk), *y = work.take(a.chunk);
  vf *zz = work.take(a.chunk), *h = work.take(V * N), *A = work.take(V * N);
  task.load_A(A);
  task.load_states(a.h0, h);
  Rows u = task.rows(a.u), delta = task.rows(a.delta), z = task.rows(a.z), out = task.rows(a.out);
  for (int64_t s0 = 0; s0 < task.length; s0 += a.chunk) {
    int64_t frames = min64(a.chunk, task.length - s0);
    const float *B = task.B + s0 * task.sB, *C = task.C + s0 * task.sC;
    for (int64_t i = 0; i < task.vectors(); i++) {
      int lanes = task.lanes(i);
      vf *hi = h + i * N, *Ai = A + i * N;
      if (a.saved) {
        float* saved = task.saved_states(s0 / a.chunk, i);
        for (int64_t n = 0; n < N; n++) *(vfu*)(saved + n * a.block) = hi[n];
      }
      delta.load(s0, frames, i * WIDTH, lanes, dt);
      u.load(s0, frames, i * WIDTH, lanes, du);
      vf bias = task.parameter(a.bias, i), D = task.parameter(a.D, i);
      for (int64_t s = 0; s < frames; s++) {
        dt[s] = task.time_step(dt[s], bias);
        y[s] = D * du[s];
        du[s] *= dt[s];
      }
      int64_t n = 0;
      for (; n + 8 <= N; n += 8)
        scan_states<8>(frames, dt, du, y, B + n, task.sB, C + n, task.sC, Ai + n, hi + n);
      for (; n < N; n++)
        scan_states<1>(frames, dt, du, y, B + n, task.sB, C + n, task.sC, Ai + n, hi + n);
      if (z) {
        z.load(s0, frames, i * WIDTH, lanes, zz);
        for (int64_t s = 0; s < frames; s++) y[s] *= zz[s] * sigmoid(zz[s]);
      }
      out.store(s0, frames, i * WIDTH, lanes, y);
    }
  }
  zero_padding(a.out, task.b, task.channel, task.channels, task.length, a.time);
  task.store_states(h, a.last);
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

constexpr int kBackwardStates = 4;

int64_t scan_backward_space(const ScanArgs& a) {
  int64_t V = (a.block + WIDTH - 1) / WIDTH;
  return V * (8 * a.chunk + 3 * a.states + 2) + (4 * a.chunk + 1) * kBackwardStates + a.chunk;
}

void scan_backward_task(const ScanArgs& a, int64_t index, Workspace& work) {
  ScanTask task(a, index);
  const int64_t N = a.states, V = task.vectors(), K = a.chunk;
  vf *A = work.take(V * N), *dA = work.take(V * N), *g = work.take(V * N);
  vf *dD = work.take(V), *dbias = work.take(V), *spare = work.take(K), *rows = work.take(V * 8 * K);
  vf *h_buf = work.take((K + 1) * kBackwardStates), *a_buf = work.take(K * kBackwardStates);
  vf *dB = work.take(K * kBackwardStates), *dC = work.take(K * kBackwardStates);
  auto chunk_of = [&](int64_t i) {
    vf* p = rows + i * 8 * K;
    return ScanChunk{p, p + K, p + 2 * K, p + 3 * K, p + 4 * K, p + 5 * K, p + 6 * K, p + 7 * K};
  };
  task.load_A(A);
  task.load_states(a.dlast, g);
  memset(dA, 0, V * N * sizeof(vf));
  memset(dD, 0, V * sizeof(vf));
  memset(dbias, 0, V * sizeof(vf));
  Rows u = task.rows(a.u), delta = task.rows(a.delta), z = task.rows(a.z), dout = task.rows(a.out);
  Rows du = task.rows(a.du), ddelta = task.rows(a.ddelta), dz = task.rows(a.dz);
  int64_t tasks = ScanTask::count(a) / a.batch;
  int64_t partial = (task.b * tasks + task.j) * a.time * N;
  float *part_B = (float*)a.dB + partial, *part_C = (float*)a.dC + partial;

  for (int64_t k = (task.length + K - 1) / K - 1; k >= 0; k--) {
    int64_t s0 = k * K, frames = min64(K, task.length - s0);
    for (int64_t i = 0; i < V; i++) {
      ScanChunk c = chunk_of(i);
      int lanes = task.lanes(i);
      delta.load(s0, frames, i * WIDTH, lanes, c.dt);
      u.load(s0, frames, i * WIDTH, lanes, c.u);
      dout.load(s0, frames, i * WIDTH, lanes, c.dy);
      if (z) z.load(s0, frames, i * WIDTH, lanes, spare);
      vf bias = task.parameter(a.bias, i), D = task.parameter(a.D, i);
      for (int64_t s = 0; s < frames; s++) {
        c.slope[s] = a.softplus ? sigmoid(c.dt[s] + bias) : splat(1.0f);
        c.dt[s] = task.time_step(c.dt[s], bias);
        c.y[s] = D * c.u[s];
        c.ddt[s] = c.ddu[s] = vf{};
        if (z) {
          vf sz = sigmoid(spare[s]);
          c.gate[s] = c.dy[s] * sz * (1.0f + spare[s] * (1.0f - sz));
          c.dy[s] *= spare[s] * sz;
        }
      }
    }
    const float *B = task.B + s0 * task.sB, *C = task.C + s0 * task.sC;
    for (int64_t n = 0; n < N;) {
      int64_t nb = n + kBackwardStates <= N ? kBackwardStates : 1;
      memset(dB, 0, frames * nb * sizeof(vf));
      memset(dC, 0, frames * nb * sizeof(vf));
      for (int64_t i = 0; i < V; i++) {
        const float* saved = task.saved_states(k, i);
        for (int64_t m = 0; m < nb; m++) h_buf[m] = *(const vfu*)(saved + (n + m) * a.block);
        auto run = nb == 1 ? scan_states_backward<1> : scan_states_backward<kBackwardStates>;
        run(frames, chunk_of(i), (bool)z, B + n, task.sB, C + n, task.sC, A + i * N + n, h_buf, a_buf,
            dB, dC, dA + i * N + n, g + i * N + n);
      }
      for (int64_t s = 0; s < frames; s++) {
        int64_t t = a.reverse ? task.length - 1 - (s0 + s) : s0 + s;
        for (int64_t m = 0; m < nb; m++) {
          part_B[t * N + n + m] = hsum(dB[s * nb + m]);
          part_C[t * N + n + m] = hsum(dC[s * nb + m]);
        }
      }
      n += nb;
    }
    for (int64_t i = 0; i < V; i++) {
      ScanChunk c = chunk_of(i);
      int lanes = task.lanes(i);
      vf D = task.parameter(a.D, i), sum_D = {}, sum_bias = {};
      for (int64_t s = 0; s < frames; s++) {
        vf raw = (kLn2 * c.ddt[s] + c.ddu[s] * c.u[s]) * c.slope[s];
        sum_D += c.dy[s] * c.u[s];
        sum_bias += raw;
        c.u[s] = c.ddu[s] * c.dt[s] + D * c.dy[s];
        c.ddt[s] = raw;
        if (z) c.gate[s] *= c.y[s];
      }
      dD[i] += sum_D;
      dbias[i] += sum_bias;
      du.store(s0, frames, i * WIDTH, lanes, c.u);
      ddelta.store(s0, frames, i * WIDTH, lanes, c.ddt);
      if (z) dz.store(s0, frames, i * WIDTH, lanes, c.gate);
    }
  }
  zero_padding(a.du, task.b, task.channel, task.channels, task.length, a.time);
  zero_padding(a.ddelta, task.b, task.channel, task.channels, task.length, a.time);
  zero_padding(a.dz, task.b, task.channel, task.channels, task.length, a.time);
  memset(part_B + task.length * N, 0, (a.time - task.length) * N * sizeof(float));
  memset(part_C + task.length * N, 0, (a.time - task.length) * N * sizeof(float));
  task.store_states(dA, a.dA);
  task.store_states(g, a.dh0);
  for (int64_t i = 0; i < V; i++) {
    if (a.dD) scatter(dD[i], task.per_channel(a.dD, i), 1, task.lanes(i));
    if (a.dbias) scatter(dbias[i], task.per_channel(a.dbias, i), 1, task.lanes(i));
  }
}

}  // namespace
