// The library's C interface: chooses the instruction set at run time and checks records and lengths.
#include <cstring>

#include "kernels.h"

struct Choice {
  const char* name;
  const Kernels* kernels;
};
static Choice chosen = {"none", nullptr};

template <class Args>
static bool lengths_fit(const Args& a) {
  for (int64_t b = 0; a.lengths && b < a.batch; b++) {
    int64_t length = ((const int64_t*)a.lengths)[b];
    if (length < 0 || length > a.time) return false;
  }
  return true;
}

static bool lengths_fit(const SumArgs&) { return true; }
static bool lengths_fit(const ProductArgs&) { return true; }
static bool lengths_fit(const CtcBestArgs& a) { return lengths_fit(a.rows); }

static bool within(int64_t index, int64_t count, int64_t low, int64_t high) {
  for (int64_t i = 0; index && i < count; i++)
    if (((const int64_t*)index)[i] < low || ((const int64_t*)index)[i] >= high) return false;
  return true;
}
template <class Args>
static bool indices_fit(const Args&) { return true; }
static bool indices_fit(const CtcScoresArgs& a) {
  return within(a.candidates, a.batch * a.hypotheses * a.count, 0, a.tokens);
}
static bool indices_fit(const CtcAdvanceArgs& a) {
  return within(a.parents, a.batch * a.rows, 0, a.hypotheses) &&
         within(a.labels, a.batch * a.rows, -1, a.tokens);
}

// Whether the record has the fields that were compiled here, and the lengths lie within its frames.
template <class Args>
static int check(const Args& a) {
  if (*(const int64_t*)&a * sizeof(int64_t) != sizeof(Args)) return kBadSize;
  if (!lengths_fit(a)) return kBadLength;
  return indices_fit(a) ? kDone : kBadIndex;
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

// The functions of args.h's records; each returns one of the codes of kernels.h.
#define ENTRY(function, Args)                          \
  EXPORT int mambaasr_##function(const Args* a) {      \
    int code = check(*a);                              \
    return code ? code : chosen.kernels->function(*a); \
  }
ENTRY(scan_forward, ScanArgs)
ENTRY(scan_backward, ScanArgs)
ENTRY(conv_forward, ConvArgs)
ENTRY(conv_backward, ConvArgs)
ENTRY(sum, SumArgs)
ENTRY(product, ProductArgs)
ENTRY(ctc_scores, CtcScoresArgs)
ENTRY(ctc_end, CtcScoresArgs)
ENTRY(ctc_best, CtcBestArgs)
ENTRY(ctc_advance, CtcAdvanceArgs)
}
