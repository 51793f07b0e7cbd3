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

// The larger and the smaller of two; b where one of them is NaN.
#if defined(__AVX512F__)
inline vf maximum(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
inline vf minimum(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
inline vf maximum(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
inline vf minimum(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
inline vf maximum(vf a, vf b) { return a > b ? a : b; }
inline vf minimum(vf a, vf b) { return a < b ? a : b; }
#endif

inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

// 2^x: 0 below the range of normal numbers; huge, or infinite, above it. Exactly 1 at 0 and most exact near it, where
// the decay of a long memory lies.
inline vf exp2v(vf x) {
#if defined(__AVX512F__)
  // x = n + j / 32 + f; 2^(j/32) comes out of two registers, which leaves a cubic for |f| <= 1/64.
  // Its first coefficients are those of the series: an error of the slope would shift every slow
  // decay the same way. The multipliers are what bounds the scan: this needs five of them where a
  // polynomial over [-1/2, 1/2] needs six.
  alignas(64) static const float kRoots[32] = {
      1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f,
      1.1637249f, 1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f,
      1.32523668f, 1.35425556f, 1.38390994f, 1.41421354f, 1.44518077f, 1.47682619f,
      1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f, 1.68179286f,
      1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f,
      1.95714414f};
  const __m512 low = _mm512_load_ps(kRoots), high = _mm512_load_ps(kRoots + 16);
  const float magic = 393216.0f;  // 1.5 * 2^23 / 32: the low bits of the sum hold j
  vf t = x + magic;
  // f = x less the nearest multiple of 1/32, and 0 for infinite x. The instruction waits for what its
  // target register held before, often the last result of a loop, unless that is cleared first.
  vf f;
  __asm__("vpxord %x0, %x0, %x0\n\tvreduceps $0x58, %1, %0" : "=&v"(f) : "v"(x));
  vf root = (vf)_mm512_permutex2var_ps(low, _mm512_castps_si512((__m512)t), high);
  vf power = (vf)_mm512_scalef_ps((__m512)root, (__m512)(t - magic));
  return power * (((0.05550411f * f + 0.2402265f) * f + 0.69314718f) * f + 1.0f);
#else
  // A polynomial over [-1/2, 1/2], minimax with relative error 9.1e-8. Clamped to where adding n to
  // the exponent bits stays inside them; at -127 exactly the sum is 0.
  x = minimum(splat(127.0f), maximum(splat(-127.0f), x));
  const float magic = 12582912.0f;  // 1.5 * 2^23: its low bits hold the rounded number
  vf t = x + magic, f = x - (t - magic);
  vf p = 1.3264727252587823e-3f * f + 9.671512785775785e-3f;
  p = p * f + 5.55073374447127e-2f;
  p = p * f + 0.24022242083111825f;
  p = p * f + 0.6931469775976783f;
  p = p * f + 1.0f;
  return (vf)((vi)p + ((vi)t << 23));
#endif
}

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

inline vf expv(vf x) { return exp2v(x * kLog2e); }

inline vf sigmoid(vf x) { return 1.0f / (1.0f + expv(-x)); }

// log(1 + exp(x)) for x <= 0; log1p(y) = 2 artanh(s) with s = y / (2 + y), relative error 5e-9 before
// rounding.
inline vf log1p_exp(vf x) {
  vf y = expv(x);
  vf s = y / (y + 2.0f), w = s * s;
  vf p = 0.28011993385367384f * w + 0.28001804073364617f;
  p = p * w + 0.4002152730311913f;
  p = p * w + 0.6666641628474442f;
  return 2.0f * s + s * w * p;
}

// log(1 + exp(x)).
inline vf softplus(vf x) {
  return (x > 0.0f ? x : vf{}) + log1p_exp(x > 0.0f ? -x : x);
}

// Halves of a and b interleaved: a0 b0 a1 b1 ... of their lower or upper halves.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#if WIDTH == 16
#define LOWER(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UPPER(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif WIDTH == 8
#define LOWER(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define UPPER(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOWER(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define UPPER(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#endif

// WIDTH vectors as the rows of a square: the square turned over its diagonal, in place.
inline void transpose(vf* x) {
  for (int round = 1; round < WIDTH; round *= 2) {
    vf y[WIDTH];
    for (int i = 0; i < WIDTH / 2; i++) {
      y[2 * i] = LOWER(x[i], x[i + WIDTH / 2]);
      y[2 * i + 1] = UPPER(x[i], x[i + WIDTH / 2]);
    }
    for (int i = 0; i < WIDTH; i++) x[i] = y[i];
  }
}

// The sum of the lanes of each of WIDTH vectors, by a fixed tree: the same in every run.
inline vf sum_lanes(const vf* x) {
  vf y[WIDTH];
  for (int i = 0; i < WIDTH; i++) y[i] = x[i];
  for (int half = WIDTH / 2; half; half /= 2)
    for (int i = 0; i < half; i++)
      y[i] = LOWER(y[i], y[i + half]) + UPPER(y[i], y[i + half]);
  return y[0];
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

// A number that templates can see through a lambda's argument.
template <int N>
struct Constant {
  static constexpr int value = N;
};

}  // namespace
