// Tasks shared out among threads.
#pragma once
#include "kernels.h"
#include "vec.h"

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

}  // namespace
