// What Python hands over: flat records of 64-bit integers (packed by mambaasr/ops/native/call.py,
// same order), of which the first one is how many they are. Pointers of 0 mean "not given". Strides
// count elements.
#pragma once
#include <cstdint>

struct Tensor {  // (batch, channel, time), float or bfloat16
  int64_t ptr, sb, sc, st, bf16;
};

struct Coefficients {  // B, C and their gradients: float (batch, group, time, state), state stride 1
  int64_t ptr, sb, sg, st;
};

struct ScanArgs {
  int64_t size, threads, batch, channels, time, states, groups;
  int64_t softplus, reverse;
  int64_t chunk, block;  // frames between saved states; channels of one task; multiples of 16
  int64_t segments;      // pieces of time that are walked side by side
  int64_t lengths;       // int64 (batch)
  int64_t A, D, bias;    // float (channel, state), (channel), (channel), contiguous
  int64_t h0, last;      // float (batch, channel, state), contiguous
  int64_t saved;         // float (batch, chunk, state, channel): the states before each chunk
  int64_t carry;         // float, room for what segments hand on, see carried() in scan.h
  Tensor u, delta, z, out;
  Coefficients B, C;
  // Backward only: `out` above is then the gradient that comes in.
  int64_t dlast, dA, dD, dbias, dh0;  // gradients; dA, dD, dbias still per segment
  Tensor du, ddelta, dz;
  int64_t dB, dC;  // float (batch, task, time, state): partial sums over a task's channels
};

struct ConvArgs {
  int64_t size, threads, batch, channels, time, width, block;
  int64_t silu, reverse;
  int64_t lengths;
  int64_t weight, bias;  // float (channel, width), (channel), contiguous
  int64_t h0, last;      // float (batch, channel, width - 1), contiguous
  Tensor x, out;
  int64_t dlast, dweight, dbias, dh0;  // dweight and dbias still per batch
  Tensor dx;
};

struct SumArgs {  // out[o, i] = sum over r of in[o, r, i], in this order
  int64_t size, threads, outer, terms, inner, in, out;
};

struct ProductArgs {  // out[i, j] = bias[j] + sum over k of x[i, k] weight[j, k]; float, stride of k 1
  int64_t size, threads, rows, outs, in, block, x, sx, weight, bias, out;
};

struct CtcScoresArgs {  // ctc_scores and, with neither candidates nor count, ctc_end
  int64_t size, threads, batch, hypotheses, tokens, time, blank;
  int64_t lengths;               // int64 (batch)
  int64_t log_probs, base;       // float (batch, token, time), double (batch, time); all contiguous
  int64_t forward, shift, last;  // float (batch, hypothesis, 2, time), double and int64 (batch, hypothesis)
  int64_t candidates;            // int64 (batch, hypothesis, count), or 0 for all tokens
  int64_t count, slices;         // tasks that share the tokens of an utterance, if all are candidates
  int64_t out;                   // double (batch, hypothesis, count), or (batch, hypothesis)
};

struct CtcBestArgs {  // the `count` best of all tokens for each row
  CtcScoresArgs rows;  // without candidates; out: double (batch, hypothesis, count), best first
  int64_t peaks;       // float (batch, token, time / 16): the largest probability of each 16 frames
  int64_t out_tokens;  // int64 (batch, hypothesis, count)
};

struct CtcAdvanceArgs {
  int64_t size, threads, batch, hypotheses, rows, tokens, time, blank;
  int64_t lengths, log_probs, forward, shift, last;  // as above
  int64_t parents, labels;                           // int64 (batch, row)
  int64_t out, out_shift, out_last;                  // forward, shift and last of (batch, row)
};
