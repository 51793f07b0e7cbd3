// Vectors of WIDTH floats in GCC/Clang's portable vector extension, their loads, stores and the few
// functions that the kernels need. Included once for each instruction set, in a namespace of its
// own; nothing here may be an external inline function (no std:: templates), else the linker could
// give one instruction set's copy to another.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "args.h"

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

namespace {

typedef float vf __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * WIDTH), may_alias));
typedef float vfu __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * WIDTH), may_alias));

// Denormal numbers cost a hundred cycles each and decaying states are full of them.
struct FlushDenormals {
#if defined(__SSE2__)
  unsigned saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

inline vf splat(float x) { return vf{} + x; }
inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

// 2^f on [-0.5, 0.5]: minimax with relative error 9.1e-8 and p(0) = 1 exactly.
inline vf exp2_poly(vf f) {
  vf p = 1.3264727252587823e-3f * f + 9.671512785775785e-3f;
  p = p * f + 5.55073374447127e-2f;
  p = p * f + 0.24022242083111825f;
  p = p * f + 0.6931469775976783f;
  return p * f + 1.0f;
}

// 2^x for finite x: 0 below the range of normal numbers.
inline vf exp2v(vf x) {
#if defined(__AVX512F__)
  vf n = (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return (vf)_mm512_scalef_ps((__m512)exp2_poly(x - n), (__m512)n);
#else
  // Clamped to where adding n to the exponent bits stays inside them; at -127 exactly the sum is 0.
  x = x < -127.0f ? splat(-127.0f) : x;
  x = x > 127.0f ? splat(127.0f) : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: its low bits hold the rounded number
  vf t = x + magic;
  vf p = exp2_poly(x - (t - magic));
  return (vf)((vi)p + ((vi)t << 23));
#endif
}

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

inline vf expv(vf x) {
  x = x < -200.0f ? splat(-200.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  return exp2v(x * kLog2e);
}

inline vf sigmoid(vf x) { return 1.0f / (1.0f + expv(-x)); }

// log(1 + exp(x)); log1p(y) = 2 artanh(s) with s = y / (2 + y), relative error 5e-9 before rounding.
inline vf softplus(vf x) {
  vf y = expv(x > 0.0f ? -x : x);
  vf s = y / (y + 2.0f), w = s * s;
  vf p = 0.28011993385367384f * w + 0.28001804073364617f;
  p = p * w + 0.4002152730311913f;
  p = p * w + 0.6666641628474442f;
  return (x > 0.0f ? x : vf{}) + (2.0f * s + s * w * p);
}

inline float hsum(vf v) {  // a fixed tree, so that sums are the same in every run
  float x[WIDTH];
  memcpy(x, &v, sizeof v);
  for (int half = WIDTH / 2; half; half /= 2)
    for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}

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
      for (int64_t s = 0; s < n; s++)
        out[s] = (vf)(__builtin_convertvector(*(const vh*)(p + s * st), vu) << 16);
    } else {
      float* o = (float*)out;
      if (lanes < WIDTH) memset(o, 0, n * sizeof(vf));
      for (int c = 0; c < lanes; c++)
        for (int64_t s = 0; s < n; s++) o[s * WIDTH + c] = get(at + s * st + c * sc);
    }
  }

  void store(int64_t s0, int64_t n, int64_t channel, int lanes, const vf* in) const {
    int64_t at = s0 * st + channel * sc;
    if (sc == 1 && lanes == WIDTH && !bf16) {
      float* p = (float*)base + at;
      for (int64_t s = 0; s < n; s++) *(vfu*)(p + s * st) = in[s];
    } else if (sc == 1 && lanes == WIDTH) {
      uint16_t* p = (uint16_t*)base + at;
      for (int64_t s = 0; s < n; s++) {
        vu bits = (vu)in[s];
        vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        rounded = in[s] == in[s] ? rounded : (vu{} + 0x7fc0);
        *(vh*)(p + s * st) = __builtin_convertvector(rounded, vh);
      }
    } else {
      const float* v = (const float*)in;
      for (int c = 0; c < lanes; c++)
        for (int64_t s = 0; s < n; s++) set(at + s * st + c * sc, v[s * WIDTH + c]);
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

// `lanes` floats at p (stride s), zeros beyond.
inline vf gather(const float* p, int64_t s, int lanes) {
  float x[WIDTH] = {};
  for (int i = 0; p && i < lanes; i++) x[i] = p[i * s];
  vf v;
  memcpy(&v, x, sizeof v);
  return v;
}

inline void scatter(vf v, float* p, int64_t s, int lanes) {
  float x[WIDTH];
  memcpy(x, &v, sizeof v);
  for (int i = 0; i < lanes; i++) p[i * s] = x[i];
}

// A thread's workspace: aligned memory handed out front to back.
struct Workspace {
  vf* memory = nullptr;
  vf* next = nullptr;
  explicit Workspace(int64_t vectors) {
    void* p = nullptr;
    if (posix_memalign(&p, 64, vectors * sizeof(vf)) == 0) memory = (vf*)p;
  }
  ~Workspace() { free(memory); }
  void reset() { next = memory; }
  vf* take(int64_t vectors) {
    vf* p = next;
    next += vectors;
    return p;
  }
};

}  // namespace
