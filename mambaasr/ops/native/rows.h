// Rows of (batch, channel, time) tensors, float or bfloat16, in any layout: read into and written
// from vectors of WIDTH channels.
#pragma once
#include "args.h"
#include "vec.h"

namespace {

inline float bf16_to_float(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

inline uint16_t float_to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if (f != f) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline vf widen(const uint16_t* p) {  // bfloat16 to float
  return (vf)(__builtin_convertvector(*(const vh*)p, vu) << 16);
}

inline void narrow(vf x, uint16_t* p) {  // to the nearest bfloat16, ties to even
  vu bits = (vu)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  rounded = x == x ? rounded : (vu{} + 0x7fc0);
  *(vh*)p = __builtin_convertvector(rounded, vh);
}

// Rows of one block of channels of a (batch, channel, time) tensor, walked forward or backward.
struct Rows {
  char* base = nullptr;
  int64_t st = 0, sc = 0;  // strides in elements
  bool bf16 = false;

  Rows() = default;
  // Row s of the walk is frame s, or frame length - 1 - s in reverse.
  Rows(const Tensor& x, int64_t b, int64_t channel, int64_t length, bool reverse)
      : st(reverse ? -x.st : x.st), sc(x.sc), bf16(x.bf16) {
    int64_t offset = b * x.sb + channel * x.sc + (reverse ? (length - 1) * x.st : 0);
    if (x.ptr) base = (char*)x.ptr + offset * (bf16 ? 2 : 4);
  }
  explicit operator bool() const { return base != nullptr; }

  // Asks for part i of `parts` of the rows s0 .. s0 + n - 1, soon to be read, or written. Where the
  // frames of a channel lie side by side, every channel is a stream of its own, too many for the
  // processor to see by itself. Inline, as GCC takes a function that only prefetches for one
  // without effect and leaves its calls out.
  template <int write = 0>
  __attribute__((always_inline)) void expect(int64_t s0, int64_t n, int64_t channels, int64_t i, int64_t parts) const {
    const int64_t bytes = bf16 ? 2 : 4;
    if (!base || n <= 0) return;
    if (sc == 1 && !write) {
      for (int64_t s = s0 + n * i / parts; s < s0 + n * (i + 1) / parts; s++)
        for (int64_t c = 0; c < channels; c += WIDTH)
          __builtin_prefetch(base + (s * st + c) * bytes, 0, 2);
    } else if (st == 1 || st == -1) {
      for (int64_t c = channels * i / parts; c < channels * (i + 1) / parts; c++) {
        const char* p = base + (s0 * st + c * sc) * bytes;
        for (int64_t s = 0; s < n; s += 64 / bytes) __builtin_prefetch(p + s * st * bytes, write, 2);
        __builtin_prefetch(p + (n - 1) * st * bytes, write, 2);
      }
    }
  }

  float get(int64_t i) const {
    return bf16 ? bf16_to_float(((const uint16_t*)base)[i]) : ((const float*)base)[i];
  }
  void set(int64_t i, float v) const {
    if (bf16) ((uint16_t*)base)[i] = float_to_bf16(v);
    else ((float*)base)[i] = v;
  }

  // Rows s0 .. s0 + n - 1, `lanes` channels from `channel` on; lanes beyond hold zeros.
  void load(int64_t s0, int64_t n, int64_t channel, int lanes, vf* out) const {
    int64_t at = s0 * st + channel * sc;
    if (sc == 1 && lanes == WIDTH && !bf16) {
      const float* p = (const float*)base + at;
      for (int64_t s = 0; s < n; s++) out[s] = *(const vfu*)(p + s * st);
    } else if (sc == 1 && lanes == WIDTH) {
      const uint16_t* p = (const uint16_t*)base + at;
      for (int64_t s = 0; s < n; s++) out[s] = widen(p + s * st);
    } else {
      float* o = (float*)out;
      if (lanes < WIDTH) memset(o, 0, n * sizeof(vf));
      int64_t s = 0;
      if (lanes == WIDTH && (st == 1 || st == -1) && !bf16)
        for (; s + WIDTH <= n; s += WIDTH) {
          vf tile[WIDTH];
          const float* p = (const float*)base + at + s * st - (st < 0 ? WIDTH - 1 : 0);
          for (int c = 0; c < WIDTH; c++) tile[c] = *(const vfu*)(p + c * sc);
          transpose(tile);
          for (int k = 0; k < WIDTH; k++) out[s + k] = tile[st < 0 ? WIDTH - 1 - k : k];
        }
      for (int c = 0; c < lanes; c++)
        for (int64_t k = s; k < n; k++) o[k * WIDTH + c] = get(at + k * st + c * sc);
    }
  }

  // The same way out; write() below does it for channels that lie side by side.
  void store(int64_t s0, int64_t n, int64_t channel, int lanes, const vf* in) const {
    int64_t at = s0 * st + channel * sc, s = 0;
    const float* v = (const float*)in;
    if (lanes == WIDTH && (st == 1 || st == -1) && !bf16)
      for (; s + WIDTH <= n; s += WIDTH) {
        vf tile[WIDTH];
        float* p = (float*)base + at + s * st - (st < 0 ? WIDTH - 1 : 0);
        for (int k = 0; k < WIDTH; k++) tile[st < 0 ? WIDTH - 1 - k : k] = in[s + k];
        transpose(tile);
        for (int c = 0; c < WIDTH; c++) *(vfu*)(p + c * sc) = tile[c];
      }
    for (int c = 0; c < lanes; c++)
      for (int64_t k = s; k < n; k++) set(at + k * st + c * sc, v[k * WIDTH + c]);
  }

  // Rows s0 .. s0 + n - 1 of all `channels`, handed to take(i, s, vector of channels i * WIDTH on).
  // Where channels lie side by side whole rows are read, as memory likes best.
  template <class Take>
  void read(int64_t s0, int64_t n, int64_t channels, Take take) const {
    int64_t whole = sc == 1 ? channels / WIDTH : 0;
    if (bf16) {
      for (int64_t s = 0; s < n; s++)
        for (int64_t i = 0; i < whole; i++)
          take(i, s, widen((const uint16_t*)base + (s0 + s) * st + i * WIDTH));
    } else {
      for (int64_t s = 0; s < n; s++)
        for (int64_t i = 0; i < whole; i++)
          take(i, s, *(const vfu*)((const float*)base + (s0 + s) * st + i * WIDTH));
    }
    for (int64_t i = whole; i * WIDTH < channels; i++)
      for (int64_t s = 0; s < n; s += WIDTH) {
        vf tile[WIDTH];
        int64_t rows = min64(WIDTH, n - s);
        load(s0 + s, rows, i * WIDTH, (int)min64(WIDTH, channels - i * WIDTH), tile);
        for (int64_t k = 0; k < rows; k++) take(i, s + k, tile[k]);
      }
  }

  // The same way out: give(i, s) returns the vector.
  template <class Give>
  void write(int64_t s0, int64_t n, int64_t channels, Give give) const {
    int64_t whole = sc == 1 ? channels / WIDTH : 0;
    if (bf16) {
      for (int64_t s = 0; s < n; s++)
        for (int64_t i = 0; i < whole; i++)
          narrow(give(i, s), (uint16_t*)base + (s0 + s) * st + i * WIDTH);
    } else {
      for (int64_t s = 0; s < n; s++)
        for (int64_t i = 0; i < whole; i++)
          *(vfu*)((float*)base + (s0 + s) * st + i * WIDTH) = give(i, s);
    }
    for (int64_t i = whole; i * WIDTH < channels; i++)
      for (int64_t s = 0; s < n; s += WIDTH) {
        vf tile[WIDTH];
        int64_t rows = min64(WIDTH, n - s);
        for (int64_t k = 0; k < rows; k++) tile[k] = give(i, s + k);
        store(s0 + s, rows, i * WIDTH, (int)min64(WIDTH, channels - i * WIDTH), tile);
      }
  }
};

// Zeros in the frames [length, time) of `channels` channels.
inline void zero_padding(const Tensor& x, int64_t b, int64_t channel, int64_t channels,
                         int64_t length, int64_t time) {
  Rows rows(x, b, channel, 0, false);
  if (!rows) return;
  bool time_major = x.sc <= x.st;
  int64_t outer = time_major ? time - length : channels, inner = time_major ? channels : time - length;
  for (int64_t i = 0; i < outer; i++)
    for (int64_t j = 0; j < inner; j++) {
      int64_t t = length + (time_major ? i : j), c = time_major ? j : i;
      rows.set(t * x.st + c * x.sc, 0.0f);
    }
}

// The sums over the lanes of `frames` rows of nb vectors; row s goes to out + s * stride.
inline void store_sums(const vf* in, int64_t frames, int64_t nb, float* out, int64_t stride) {
  for (int64_t k = 0; k < frames * nb; k += WIDTH) {
    float sums[WIDTH];
    int64_t count = min64(WIDTH, frames * nb - k);
    vf sum = sum_lanes(in + k);
    memcpy(sums, &sum, sizeof sum);
    for (int64_t m = 0; m < count; m++) out[(k + m) / nb * stride + (k + m) % nb] = sums[m];
  }
}

}  // namespace
