// Causal depthwise convolution, forward and backward, with bias and SiLU:
//   out[s] = act(bias + sum over k of weight[k] e[s + k])
// over the extended input e: the taps - 1 frames of the initial state, then the sequence in the order
// in which it is walked. A task is one sequence and kConvBlock channels.
#pragma once
#include "rows.h"

namespace {

constexpr int64_t kConvBlock = 64, kConvChunk = 64;

struct ConvTask {
  const ConvArgs& a;
  int64_t b, channel, channels, length, past;

  ConvTask(const ConvArgs& args, int64_t index) : a(args), past(args.width - 1) {
    int64_t blocks = (a.channels + kConvBlock - 1) / kConvBlock;
    b = index / blocks;
    channel = index % blocks * kConvBlock;
    channels = min64(kConvBlock, a.channels - channel);
    length = a.lengths ? ((const int64_t*)a.lengths)[b] : a.time;
  }
  static int64_t count(const ConvArgs& a) {
    return a.batch * ((a.channels + kConvBlock - 1) / kConvBlock);
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

// Before the activation. TAPS of 0 takes the number at run time.
template <int TAPS>
void convolve(int64_t frames, const vf* e, const vf* weight, int64_t taps, vf bias, vf* out) {
  if (TAPS) taps = TAPS;
  for (int64_t s = 0; s < frames; s++) {
    vf sum = bias;
    for (int64_t k = 0; k < taps; k++) sum += weight[k] * e[s + k];
    out[s] = sum;
  }
}

void convolve_any(int64_t frames, const vf* e, const vf* weight, int64_t taps, vf bias, vf* out) {
  auto run = taps == 4 ? convolve<4> : taps == 3 ? convolve<3> : taps == 2 ? convolve<2> : convolve<0>;
  run(frames, e, weight, taps, bias, out);
}

int64_t conv_space(const ConvArgs& a) {
  int64_t V = kConvBlock / WIDTH;
  return V * (6 * a.width + 2) + 4 * (kConvChunk + a.width);
}

void conv_forward_task(const ConvArgs& a, int64_t index, Workspace& work) {
  ConvTask task(a, index);
  const int64_t V = task.vectors(), past = task.past;
  vf *e = work.take(kConvChunk + past), *y = work.take(kConvChunk);
  vf *weight = work.take(V * a.width), *kept = work.take(V * a.width);
  Rows x = task.rows(a.x), out = task.rows(a.out);
  for (int64_t i = 0; i < V; i++) {
    task.load_entries(a.weight, 0, i, a.width, weight + i * a.width);
    task.load_entries(a.h0, task.b, i, past, kept + i * a.width);
  }
  for (int64_t s0 = 0; s0 < task.length; s0 += kConvChunk) {
    int64_t frames = min64(kConvChunk, task.length - s0);
    for (int64_t i = 0; i < V; i++) {
      memcpy(e, kept + i * a.width, past * sizeof(vf));
      x.load(s0, frames, i * WIDTH, task.lanes(i), e + past);
      vf bias = gather(task.at(a.bias, 0, i, 1, 0), 1, task.lanes(i));
      convolve_any(frames, e, weight + i * a.width, a.width, bias, y);
      if (a.silu)
        for (int64_t s = 0; s < frames; s++) y[s] *= sigmoid(y[s]);
      out.store(s0, frames, i * WIDTH, task.lanes(i), y);
      memcpy(kept + i * a.width, e + frames, past * sizeof(vf));
    }
  }
  zero_padding(a.out, task.b, task.channel, task.channels, task.length, a.time);
  for (int64_t i = 0; i < V && a.last; i++)
    for (int64_t k = 0; k < past; k++)
      scatter(kept[i * a.width + k], task.at(a.last, task.b, i, past, k), past, task.lanes(i));
}

void conv_backward_task(const ConvArgs& a, int64_t index, Workspace& work) {
  ConvTask task(a, index);
  const int64_t V = task.vectors(), past = task.past, taps = a.width;
  vf *e = work.take(kConvChunk + past), *y = work.take(kConvChunk), *de = work.take(kConvChunk + past);
  vf* dy = work.take(kConvChunk + past);  // its first `past` rows: the chunk before
  vf *weight = work.take(V * taps), *reversed = work.take(V * taps), *dweight = work.take(V * taps);
  vf *kept = work.take(V * taps), *kept_dy = work.take(V * taps), *dlast = work.take(V * taps);
  vf* dbias = work.take(V);
  Rows x = task.rows(a.x), dout = task.rows(a.out), dx = task.rows(a.dx);
  for (int64_t i = 0; i < V; i++) {
    task.load_entries(a.weight, 0, i, taps, weight + i * taps);
    task.load_entries(a.h0, task.b, i, past, kept + i * taps);
    task.load_entries(a.dlast, task.b, i, past, dlast + i * taps);
    for (int64_t k = 0; k < taps; k++) {
      reversed[i * taps + k] = weight[i * taps + taps - 1 - k];
      dweight[i * taps + k] = kept_dy[i * taps + k] = vf{};
    }
    dbias[i] = vf{};
  }
  // The gradient of e[s] is whole once dy[s] is known, so that it is written `past` frames late;
  // the last round, behind the end, writes what is left.
  for (int64_t s0 = 0; s0 <= task.length; s0 += kConvChunk) {
    int64_t frames = min64(kConvChunk, task.length - s0);
    bool end = s0 + kConvChunk > task.length;
    for (int64_t i = 0; i < V; i++) {
      int lanes = task.lanes(i);
      vf *w = weight + i * taps, *new_dy = dy + past;
      memcpy(e, kept + i * taps, past * sizeof(vf));
      memcpy(dy, kept_dy + i * taps, past * sizeof(vf));
      x.load(s0, frames, i * WIDTH, lanes, e + past);
      dout.load(s0, frames, i * WIDTH, lanes, new_dy);
      if (a.silu) {
        vf bias = gather(task.at(a.bias, 0, i, 1, 0), 1, lanes);
        convolve_any(frames, e, w, taps, bias, y);
        for (int64_t s = 0; s < frames; s++) {
          vf g = sigmoid(y[s]);
          new_dy[s] *= g * (1.0f + y[s] * (1.0f - g));
        }
      }
      for (int64_t s = 0; s < frames; s++) dbias[i] += new_dy[s];
      for (int64_t k = 0; k < taps; k++) {
        vf sum = {};
        for (int64_t s = 0; s < frames; s++) sum += new_dy[s] * e[s + k];
        dweight[i * taps + k] += sum;
      }
      memcpy(kept + i * taps, e + frames, past * sizeof(vf));
      memcpy(kept_dy + i * taps, dy + frames, past * sizeof(vf));
      convolve_any(frames, dy, reversed + i * taps, taps, vf{}, de);
      int64_t n = frames;
      if (end) {  // de[length + k], k < past: no output lies behind; the last state's gradient comes in
        for (int64_t k = 0; k < past; k++) {
          vf sum = dlast[i * taps + k];
          for (int64_t m = k + 1; m < taps; m++) sum += w[m] * dy[frames + past + k - m];
          de[n++] = sum;
        }
      }
      int64_t initial = s0 < past ? min64(past - s0, n) : 0;  // rows that belong to the initial state
      for (int64_t k = 0; k < initial && a.dh0; k++)
        scatter(de[k], task.at(a.dh0, task.b, i, past, s0 + k), past, lanes);
      dx.store(s0 + initial - past, n - initial, i * WIDTH, lanes, de + initial);
    }
  }
  zero_padding(a.dx, task.b, task.channel, task.channels, task.length, a.time);
  for (int64_t i = 0; i < V; i++) {
    for (int64_t k = 0; k < taps; k++)
      scatter(dweight[i * taps + k], task.at(a.dweight, task.b, i, taps, k), taps, task.lanes(i));
    if (a.dbias) scatter(dbias[i], task.at(a.dbias, task.b, i, 1, 0), 1, task.lanes(i));
  }
}

}  // namespace
