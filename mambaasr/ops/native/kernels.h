// The functions that each instruction set provides.
#pragma once
#include "args.h"

enum { kDone = 0, kNoMemory = 1, kBadLength = 2, kBadIsa = 3, kBadSize = 4, kBadIndex = 5 };

struct Kernels {
  int (*scan_forward)(const ScanArgs&);
  int (*scan_backward)(const ScanArgs&);
  int (*conv_forward)(const ConvArgs&);
  int (*conv_backward)(const ConvArgs&);
  int (*sum)(const SumArgs&);
  int (*product)(const ProductArgs&);
  int (*ctc_scores)(const CtcScoresArgs&);
  int (*ctc_end)(const CtcScoresArgs&);
  int (*ctc_best)(const CtcBestArgs&);
  int (*ctc_advance)(const CtcAdvanceArgs&);
};

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512;
