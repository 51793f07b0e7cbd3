// The exponentials alone: what no forward pass of the scan that computes each of them can beat.
#include "vec.h"

extern "C" {

__attribute__((visibility("default"))) int width() { return WIDTH; }

// 2^x of `count` vectors, in pieces that stay in the first-level cache. The empty
// assembly, which might read them, keeps the compiler from leaving any out.
__attribute__((visibility("default"))) float exponentials(int64_t count) {
  constexpr int kPiece = 64;
  alignas(64) vf in[kPiece], out[kPiece];
  for (int i = 0; i < kPiece; i++)
    for (int j = 0; j < WIDTH; j++) in[i][j] = -0.01f * (float)(i * WIDTH + j);
  for (int64_t done = 0; done < count; done += kPiece) {
    for (int i = 0; i < kPiece; i++) out[i] = exp2v(in[i]);
    __asm__ volatile("" : : "r"(in), "r"(out) : "memory");
  }
  return out[kPiece - 1][0];
}
}
