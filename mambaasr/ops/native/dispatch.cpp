// The library's C interface: chooses the instruction set at run time and checks the lengths.
#include <cstring>

#include "kernels.h"

struct Choice {
  const char* name;
  const Kernels* kernels;
};
static Choice chosen = {"none", nullptr};

static bool lengths_fit(int64_t ptr, int64_t batch, int64_t time) {
  for (int64_t b = 0; ptr && b < batch; b++) {
    int64_t length = ((const int64_t*)ptr)[b];
    if (length < 0 || length > time) return false;
  }
  return true;
}

#define EXPORT __attribute__((visibility("default")))

extern "C" {

// To be called once, before anything else. `wanted`: avx512, avx2, scalar, or empty for the best.
EXPORT int mambaasr_init(const char* wanted) {
  Choice best = {"none", nullptr};
  auto offer = [&](const char* name, bool able, const Kernels* kernels) {
    if (!best.kernels && able && (!*wanted || !strcmp(wanted, name))) best = {name, kernels};
  };
#ifdef X86_KERNELS
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  offer("avx512", avx512, &kernels_avx512);
  offer("avx2", avx2, &kernels_avx2);
#endif
  offer("scalar", true, &kernels_scalar);
  if (!best.kernels) return kBadIsa;  // what was chosen before stays
  chosen = best;
  return kDone;
}

EXPORT const char* mambaasr_isa() { return chosen.name; }

EXPORT int mambaasr_openmp() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

EXPORT int mambaasr_scan_forward(const ScanArgs* a) {
  return lengths_fit(a->lengths, a->batch, a->time) ? chosen.kernels->scan_forward(*a) : kBadLength;
}
EXPORT int mambaasr_scan_backward(const ScanArgs* a) {
  return lengths_fit(a->lengths, a->batch, a->time) ? chosen.kernels->scan_backward(*a) : kBadLength;
}
EXPORT int mambaasr_conv_forward(const ConvArgs* a) {
  return lengths_fit(a->lengths, a->batch, a->time) ? chosen.kernels->conv_forward(*a) : kBadLength;
}
EXPORT int mambaasr_conv_backward(const ConvArgs* a) {
  return lengths_fit(a->lengths, a->batch, a->time) ? chosen.kernels->conv_backward(*a) : kBadLength;
}
EXPORT int mambaasr_sum(const SumArgs* a) { return chosen.kernels->sum(*a); }
}
