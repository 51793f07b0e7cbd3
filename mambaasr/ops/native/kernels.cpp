// The kernels for one instruction set; compiled once for each with ISA as its name.
#include "kernels.h"

#include "conv.h"
#include "product.h"
#include "run.h"
#include "scan.h"

namespace {

int scan_forward(const ScanArgs& a) {
  const int64_t count = ScanTask::count(a), space = scan_forward_space(a);
  int code = a.segments > 1 ? run(a, count, space, scan_forward_task<true>) : kDone;
  return code ? code : run(a, count, space, scan_forward_task<false>);
}
int scan_backward(const ScanArgs& a) {
  const int64_t count = ScanTask::count(a), space = scan_forward_space(a);
  int code = a.segments > 1 ? run(a, count, space, scan_adjoint_task) : kDone;
  return code ? code : run(a, count, scan_backward_space(a), scan_backward_task);
}
int conv_forward(const ConvArgs& a) {
  return run(a, ConvTask::count(a), conv_space(a), conv_forward_task);
}
int conv_backward(const ConvArgs& a) {
  return run(a, ConvTask::count(a), conv_space(a), conv_backward_task);
}

// Element by element in the order of the terms: the same sum in every run, for any thread count.
void sum_task(const SumArgs& a, int64_t o, Workspace&) {
  const float* in = (const float*)a.in + o * a.terms * a.inner;
  float* out = (float*)a.out + o * a.inner;
  memcpy(out, in, a.inner * sizeof(float));
  for (int64_t r = 1; r < a.terms; r++)
    for (int64_t i = 0; i < a.inner; i++) out[i] += in[r * a.inner + i];
}
int sum(const SumArgs& a) { return run(a, a.outer, 1, sum_task); }
int product(const ProductArgs& a) {
  return run(a, (a.outs + a.block - 1) / a.block, 1, product_task);
}

}  // namespace

#define NAME_(prefix, isa) prefix##_##isa
#define NAME(prefix, isa) NAME_(prefix, isa)
extern const Kernels NAME(kernels, ISA) = {scan_forward, scan_backward, conv_forward, conv_backward,
                                           sum,          product,       &NAME(ctc, ISA)};
