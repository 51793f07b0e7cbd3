// The kernels for one instruction set; compiled once for each with ISA as its name.
#include "kernels.h"

#include "conv.h"
#include "ctc.h"
#include "ctc_best.h"
#include "product.h"
#include "scan.h"

namespace {

// Runs task(args, index, workspace) for every index, each on whichever thread is free.
template <class Args, class Task>
int run(const Args& args, int64_t tasks, int64_t space, Task task) {
  int failed = 0;
  int threads = (int)min64(args.threads, tasks);
  (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
  {
    FlushDenormals flush;
    Workspace work(space);
    failed = !work.memory;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
      if (failed) continue;
      work.reset();
      task(args, i, work);
    }
  }
  return failed ? kNoMemory : kDone;
}

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
int ctc_scores(const CtcScoresArgs& a) {
  return run(a, CtcScoresTask::count(a), CtcScoresTask::space(a), ctc_scores_task);
}
int ctc_end(const CtcScoresArgs& a) { return run(a, a.batch * a.hypotheses, 1, ctc_end_task); }
int ctc_best(const CtcBestArgs& a) {
  return run(a.rows, a.rows.batch * a.rows.hypotheses, ctc_best_space(a),
             [&](const CtcScoresArgs&, int64_t row, Workspace& work) { ctc_best_task(a, row, work); });
}
int ctc_advance(const CtcAdvanceArgs& a) {
  return run(a, (a.batch * a.rows + 2 * WIDTH - 1) / (2 * WIDTH), 1, ctc_advance_task);
}

}  // namespace

#define NAME_(isa) kernels_##isa
#define NAME(isa) NAME_(isa)
extern const Kernels NAME(ISA) = {scan_forward,  scan_backward, conv_forward,
                                  conv_backward, sum,           product,
                                  ctc_scores,    ctc_end,       ctc_best,
                                  ctc_advance};
