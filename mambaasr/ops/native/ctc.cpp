// The CTC prefix scores for one instruction set, apart from the other kernels: how much a compiler
// puts in line depends on what else is in its unit.
#include "ctc.h"

#include "ctc_best.h"
#include "run.h"

namespace {

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

#define NAME_(isa) ctc_##isa
#define NAME(isa) NAME_(isa)
extern const CtcKernels NAME(ISA) = {ctc_scores, ctc_end, ctc_best, ctc_advance};
