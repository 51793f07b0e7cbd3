// Causal depthwise convolution, forward and backward, with bias and SiLU:
//   out[s] = act(bias + sum over k of weight[k] e[s + k])
// over the extended input e: the taps - 1 frames of the initial state, then the sequence in the order
// in which it is walked. A task is one sequence and `block` channels.
#pragma once
#include "rows.h"

namespace {

constexpr int64_t kConvChunk = 32;

struct ConvTask {
  const ConvArgs& a;
  int64_t b, channel, channels, length, past;

  ConvTask(const ConvArgs& args, int64_t index) : a(args), past(args.width - 1) {
    int64_t blocks = (a.channels + a.block - 1) / a.block;
    b = index / blocks;
    channel = index % blocks * a.block;
    channels = min64(a.block, a.channels - channel);
    length = a.lengths ? ((const int64_t*)a.lengths)[b] : a.time;
  }
  static int64_t count(const ConvArgs& a) {
    return a.batch * ((a.channels + a.block - 1) / a.block);
  }
  int64_t vectors() const { return (channels + WIDTH - 1) / WIDTH; }
  int lanes(int64_t i) const { return (int)min64(WIDTH, channels - i * WIDTH); }
  Rows rows(const Tensor& x) const { return Rows(x, b, channel, length, a.reverse); }
  // Entry k of channel vector i in (batch or 1, channel, entries).
  float* at(int64_t ptr, int64_t batch, int64_t i, int64_t entries, int64_t k) const {
    return ptr ? (float*)ptr + (batch * a.channels + channel + i * WIDTH) * entries + k : nullptr;
  }
  void load_entries(int64_t ptr, int64_t batch, int64_t i, int64_t entries, vf* out) const {
    for (int64_t k = 0; k < entries; k++)
      out[k] = gather(at(ptr, batch, i, entries, k), entries, lanes(i));
  }
};

constexpr int kTile = 8;  // sums that grow side by side: one alone would wait for itself

// Before the activation. TAPS of 0 takes the number at run time.
template <int TAPS>
void convolve_taps(int64_t frames, const vf* e, const vf* weight, int64_t taps, vf bias, vf* out) {
  if (TAPS) taps = TAPS;
  int64_t s = 0;
  for (; s + kTile <= frames; s += kTile) {
    vf sum[kTile];
    for (int i = 0; i < kTile; i++) sum[i] = bias;
    for (int64_t k = 0; k < taps; k++)
      for (int i = 0; i < kTile; i++) sum[i] += weight[k] * e[s + k + i];
    for (int i = 0; i < kTile; i++) out[s + i] = sum[i];
  }
  for (; s < frames; s++) {
    out[s] = bias;
    for (int64_t k = 0; k < taps; k++) out[s] += weight[k] * e[s + k];
  }
}

void convolve(int64_t frames, const vf* e, const vf* weight, int64_t taps, vf bias, vf* out) {
  auto run = taps == 4 ? convolve_taps<4> : taps == 3 ? convolve_taps<3> : convolve_taps<0>;
  run(frames, e, weight, taps, bias, out);
}

// dweight[k] += sum over s of dy[s] e[s + k]
void correlate(int64_t frames, const vf* e, const vf* dy, int64_t taps, vf* dweight) {
  int64_t k = 0;
  for (; k + kTile <= taps; k += kTile) {
    vf sum[kTile];
    for (int i = 0; i < kTile; i++) sum[i] = dweight[k + i];
    for (int64_t s = 0; s < frames; s++)
      for (int i = 0; i < kTile; i++) sum[i] += dy[s] * e[s + k + i];
    for (int i = 0; i < kTile; i++) dweight[k + i] = sum[i];
  }
  for (; k < taps; k++) {
    vf even = dweight[k], odd = {};
    int64_t s = 0;
    for (; s + 2 <= frames; s += 2) even += dy[s] * e[s + k], odd += dy[s + 1] * e[s + 1 + k];
    if (s < frames) even += dy[s] * e[s + k];
    dweight[k] = even + odd;
  }
}

// Rows of e and dy hold the frames before a chunk, then the chunk; one vector longer than they need,
// else all of a frame would compete for one cache set.
int64_t conv_row(const ConvArgs& a) { return kConvChunk + a.width; }

int64_t conv_space(const ConvArgs& a) {
  int64_t V = (a.block + WIDTH - 1) / WIDTH;
  return V * (4 * conv_row(a) + 4 * a.width + 2) + kConvChunk;
}

void conv_forward_task(const ConvArgs& a, int64_t index, Workspace& work) {
  ConvTask task(a, index);
  const int64_t V = task.vectors(), past = task.past, K = conv_row(a);
  vf *e = work.take(V * K), *y = work.take(V * K), *weight = work.take(V * a.width);
  Rows x = task.rows(a.x), out = task.rows(a.out);
  for (int64_t i = 0; i < V; i++) {
    task.load_entries(a.weight, 0, i, a.width, weight + i * a.width);
    task.load_entries(a.h0, task.b, i, past, e + i * K);
  }
  for (int64_t s0 = 0; s0 < task.length; s0 += kConvChunk) {
    int64_t frames = min64(kConvChunk, task.length - s0);
    x.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) { e[i * K + past + s] = v; });
    for (int64_t i = 0; i < V; i++) {
      vf bias = gather(task.at(a.bias, 0, i, 1, 0), 1, task.lanes(i));
      convolve(frames, e + i * K, weight + i * a.width, a.width, bias, y + i * K);
      memmove(e + i * K, e + i * K + frames, past * sizeof(vf));
    }
    out.write(s0, frames, task.channels, [&](int64_t i, int64_t s) {
      vf v = y[i * K + s];
      return a.silu ? v * sigmoid(v) : v;
    });
  }
  zero_padding(a.out, task.b, task.channel, task.channels, task.length, a.time);
  for (int64_t i = 0; i < V && a.last; i++)
    for (int64_t k = 0; k < past; k++)
      scatter(e[i * K + k], task.at(a.last, task.b, i, past, k), past, task.lanes(i));
}

void conv_backward_task(const ConvArgs& a, int64_t index, Workspace& work) {
  ConvTask task(a, index);
  const int64_t V = task.vectors(), past = task.past, taps = a.width, K = conv_row(a);
  vf *e = work.take(V * K), *dy = work.take(V * K), *de = work.take(V * 2 * K);
  vf *weight = work.take(V * taps), *reversed = work.take(V * taps), *dweight = work.take(V * taps);
  vf *dlast = work.take(V * taps), *dbias = work.take(V), *bias = work.take(V);
  vf* y = work.take(kConvChunk);
  Rows x = task.rows(a.x), dout = task.rows(a.out), dx = task.rows(a.dx);
  for (int64_t i = 0; i < V; i++) {
    task.load_entries(a.weight, 0, i, taps, weight + i * taps);
    task.load_entries(a.h0, task.b, i, past, e + i * K);
    task.load_entries(a.dlast, task.b, i, past, dlast + i * taps);
    for (int64_t k = 0; k < taps; k++) {
      reversed[i * taps + k] = weight[i * taps + taps - 1 - k];
      dweight[i * taps + k] = dy[i * K + k] = vf{};
    }
    bias[i] = gather(task.at(a.bias, 0, i, 1, 0), 1, task.lanes(i));
    dbias[i] = vf{};
  }
  // The gradient of e[s] is whole once dy[s] is known, so that it is written `past` frames late;
  // the last round, behind the end, writes what is left.
  for (int64_t s0 = 0; s0 <= task.length; s0 += kConvChunk) {
    int64_t frames = min64(kConvChunk, task.length - s0), n = frames;
    bool end = s0 + kConvChunk > task.length;
    x.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) { e[i * K + past + s] = v; });
    dout.read(s0, frames, task.channels, [&](int64_t i, int64_t s, vf v) { dy[i * K + past + s] = v; });
    for (int64_t i = 0; i < V; i++) {
      vf *w = weight + i * taps, *ei = e + i * K, *di = dy + i * K, *out = de + i * 2 * K;
      if (a.silu) {
        convolve(frames, ei, w, taps, bias[i], y);
        for (int64_t s = 0; s < frames; s++) {
          vf g = sigmoid(y[s]);
          di[past + s] *= g * (1.0f + y[s] * (1.0f - g));
        }
      }
      for (int64_t s = 0; s < frames; s++) dbias[i] += di[past + s];
      correlate(frames, ei, di + past, taps, dweight + i * taps);
      convolve(frames, di, reversed + i * taps, taps, vf{}, out);
      // out[length + k], k < past: no output lies behind; the last state's gradient comes in.
      for (int64_t k = 0; k < past && end; k++) {
        vf sum = dlast[i * taps + k];
        for (int64_t m = k + 1; m < taps; m++) sum += w[m] * di[frames + past + k - m];
        out[frames + k] = sum;
      }
      memmove(ei, ei + frames, past * sizeof(vf));
      memmove(di, di + frames, past * sizeof(vf));
    }
    if (end) n += past;
    int64_t initial = s0 < past ? min64(past - s0, n) : 0;  // rows that belong to the initial state
    for (int64_t i = 0; i < V && a.dh0; i++)
      for (int64_t k = 0; k < initial; k++)
        scatter(de[i * 2 * K + k], task.at(a.dh0, task.b, i, past, s0 + k), past, task.lanes(i));
    dx.write(s0 + initial - past, n - initial, task.channels,
             [&](int64_t i, int64_t s) { return de[i * 2 * K + initial + s]; });
  }
  zero_padding(a.dx, task.b, task.channel, task.channels, task.length, a.time);
  for (int64_t i = 0; i < V; i++) {
    for (int64_t k = 0; k < taps; k++)
      scatter(dweight[i * taps + k], task.at(a.dweight, task.b, i, taps, k), taps, task.lanes(i));
    if (a.dbias) scatter(dbias[i], task.at(a.dbias, task.b, i, 1, 0), 1, task.lanes(i));
  }
}

}  // namespace
