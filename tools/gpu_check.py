#!/usr/bin/env python3
"""Check and time the GPU backends of scan, convolution and CTC prefix scores on this machine.

    python tools/gpu_check.py --output gpu_check            # writes gpu_check.json, gpu_check.md
    TRITON_INTERPRET=1 python tools/gpu_check.py --small    # Triton's interpreter, no GPU

Each backend (`triton`, and `cuda` where mamba_ssm and causal_conv1d are importable) runs on each
shape, with padded sequences in both directions and with whole ones in mamba_ssm's own layout.
Output and every gradient are compared with `naive` in fp64, which keeps every state: on all frames
of a few channels, and on few frames of many channels. Then time and peak memory of the whole shape.
CTC prefix scores are compared, in nats, and timed as a search asks for them, after some steps.
Exits with 1 where something disagrees.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from mambaasr.ops import (
    causal_conv1d,
    causal_conv1d_fn,
    ctc_prefix,
    selective_scan,
    selective_scan_fn,
)

SHAPES = [
    (batch, frames, channels, states)
    for batch, frames in ((16, 400), (8, 1500), (1, 15000))
    for channels in (512, 1024)
    for states in (16, 256)
]
SMALL = [(2, 9, 3, 2)]
# (utterances, frames, hypotheses of each, tokens)
CTC_SHAPES = [(16, 400, 10, 32), (16, 750, 10, 5000), (64, 250, 10, 5000)]
CTC_SMALL = [(2, 20, 2, 8)]
CTC_STEPS, CTC_CANDIDATES = 5, 15
BACKENDS = ("triton", "cuda")
# Of the largest value of each tensor. fp32 sums of a million terms in other orders differ so much.
TOLERANCE = 1e-4
# Of log-probabilities, in nats.
LOG_TOLERANCE = 2e-3
REFERENCE_STATES = 2**24  # numbers that `naive` may keep for one check
# (name, reverse, with lengths): without lengths in the layout that mamba_ssm takes as it is
WAYS = (("padded", False, True), ("padded, reverse", True, True), ("whole", False, False))


def scan_inputs(batch, frames, channels, states, device):
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    inputs = {
        "u": normal(batch, frames, channels).mT,
        "delta": normal(batch, frames, channels).mT * 0.5,
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": normal(batch, frames, states).mT,
        "C": normal(batch, frames, states).mT,
        "D": normal(channels),
        "z": normal(batch, frames, channels).mT,
        "delta_bias": normal(channels) * 0.5 - 3,
    }
    return {k: v.to(device) for k, v in inputs.items()}


def conv_inputs(batch, frames, channels, width, device):
    g = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(batch, frames, channels, generator=g).mT,
        "weight": torch.randn(channels, width, generator=g),
        "bias": torch.randn(channels, generator=g),
    }
    return {k: v.to(device) for k, v in inputs.items()}


def run(function, inputs, dtype=torch.float32):
    """Output and gradients by name, of a fixed random sum of the output."""
    leaves = {k: v.to(dtype).detach().requires_grad_() for k, v in inputs.items()}
    out = function(**leaves)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    gradients = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    return {"out": out.detach(), **{f"d{k}": g for k, g in zip(leaves, gradients, strict=True)}}


def errors(got, want):
    """Largest error of each tensor, relative to its largest value; NaN counts as infinite."""
    result = {}
    for name, x in want.items():
        error = (got[name].double() - x).abs().max() / x.abs().max().clamp(min=1e-30)
        result[name] = float(error) if torch.isfinite(error) else float("inf")
    return result


def log_error(got, want):
    """Largest error of log-probabilities; what has no path in one of them only is infinite."""
    dead = want == ctc_prefix.LOG_ZERO
    if not torch.equal(got == ctc_prefix.LOG_ZERO, dead) or not torch.isfinite(got).all():
        return float("inf")
    return float((got - want).masked_fill(dead, 0.0).abs().max())


def median_ms(body, repeats, gpu):
    """Median milliseconds of a call."""
    times = []
    for i in range(repeats + 1):  # the first run compiles
        if gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        body()
        if gpu:
            torch.cuda.synchronize()
        if i or repeats == 0:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(function, inputs, repeats):
    """Median milliseconds of forward, of forward and backward, and peak memory in MiB."""
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    gpu = next(iter(inputs.values())).is_cuda

    def forward():
        with torch.no_grad():
            function(**leaves)

    def both():
        torch.autograd.grad(function(**leaves).sum(), list(leaves.values()))

    bodies = (("forward_ms", forward), ("both_ms", both))
    result = {name: median_ms(body, repeats, gpu) for name, body in bodies}
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        both()
        result["peak_mib"] = (torch.cuda.max_memory_allocated() - base) / 2**20
    return result


def cases(small, device):
    """Name of the op, shape, its function by keyword, inputs to check and inputs to time."""
    for batch, frames, channels, states in SMALL if small else SHAPES:
        few = max(1, min(channels, REFERENCE_STATES // (batch * frames * states)))
        checked = [
            scan_inputs(batch, frames, few, states, device),
            scan_inputs(3, min(frames, 129), min(channels, 136), states, device),
        ]
        whole = scan_inputs(batch, frames, channels, states, device)
        yield "scan", (batch, frames, channels, states), checked, whole
        if states == (SMALL if small else SHAPES)[0][3]:
            x = conv_inputs(batch, frames, channels, 4, device)
            yield "conv", (batch, frames, channels, 4), [x], x


def check(op, shape, checked, whole, backend, repeats):
    """One row of the table for each way."""

    def function(backend, inputs, reverse, padded):
        lengths = None
        if padded:
            batch, _, frames = next(iter(inputs.values())).shape
            device = next(iter(inputs.values())).device
            lengths = torch.linspace(frames, frames // 2, batch).long().to(device)
        options = dict(lengths=lengths, reverse=reverse, backend=backend)
        if op == "scan":
            return lambda **x: selective_scan_fn(**x, delta_softplus=True, **options)
        return lambda **x: causal_conv1d_fn(**x, activation="silu", **options)

    for way, *options in WAYS:
        found = {}
        for inputs in checked:
            want = run(function("naive", inputs, *options), inputs, torch.float64)
            got = run(function(backend, inputs, *options), inputs)
            for name, error in errors(got, want).items():
                found[name] = max(error, found.get(name, 0.0))
        timed = whole if options[1] else {k: v.contiguous() for k, v in whole.items()}
        worst = max(found, key=found.get)
        yield {
            "op": op,
            "backend": backend,
            "shape": list(shape),
            "way": way,
            "agrees": found[worst] <= TOLERANCE,
            "worst": worst,
            "errors": found,
            **measure(function(backend, timed, *options), timed, repeats),
        }


def check_ctc(shape, backend, device, repeats):
    """One row: the scores of candidates and ends after some steps of a search; a step's time."""
    utterances, frames, hypotheses, tokens = shape
    g = torch.Generator().manual_seed(0)
    log_probs = (3 * torch.randn(utterances, frames, tokens, generator=g)).log_softmax(-1)
    lengths = torch.linspace(frames, frames // 2, utterances).long()
    prepared = ctc_prefix.prepare(log_probs.to(device), lengths.to(device))
    doubled = dataclasses.replace(prepared, log_probs=prepared.log_probs.double())
    chosen = torch.randint(1, tokens, (CTC_STEPS, utterances, hypotheses), generator=g).to(device)
    parents = torch.randint(hypotheses, chosen.shape, generator=g).to(device)
    parents[0] = 0  # at first there is one
    candidates = torch.randint(1, tokens, (utterances, hypotheses, CTC_CANDIDATES), generator=g)
    candidates = candidates.to(device)
    # Labels that come twice, which need a blank between.
    chosen[2::2], parents[2::2] = chosen[1:-1:2], torch.arange(hypotheses, device=device)
    candidates[..., 0] = chosen[-1]

    def search(of, backend):
        prefixes = ctc_prefix.start(of)
        for parent, token in zip(parents, chosen, strict=True):
            prefixes = ctc_prefix.advance(of, prefixes, parent, token, backend=backend)
        scores = ctc_prefix.scores(of, prefixes, candidates, backend=backend)
        return prefixes, {"scores": scores, "end": ctc_prefix.end(of, prefixes, backend=backend)}

    prefixes, got = search(prepared, backend)
    want = search(doubled, "naive")[1]
    # Among all tokens each must be what it is by itself.
    got["scores of all"] = ctc_prefix.scores(prepared, prefixes, backend=backend)
    got["scores of all"] = got["scores of all"].gather(2, candidates)
    found = {
        name: log_error(x, want["scores" if name == "scores of all" else name])
        for name, x in got.items()
    }

    def step():
        ctc_prefix.scores(prepared, prefixes, candidates, backend=backend)
        ctc_prefix.end(prepared, prefixes, backend=backend)
        ctc_prefix.advance(prepared, prefixes, parents[1], chosen[1], backend=backend)

    worst = max(found, key=found.get)
    return {
        "op": "ctc_prefix",
        "backend": backend,
        "shape": list(shape),
        "way": f"a step, {CTC_CANDIDATES} candidates",
        "agrees": found[worst] <= LOG_TOLERANCE,
        "worst": worst,
        "errors": found,
        "forward_ms": median_ms(step, repeats, device == "cuda"),
    }


def table(rows, machine):
    lines = [
        machine,
        "",
        "| op | backend | batch, frames, channels or hypotheses, states, width or tokens | way "
        "| largest error | of | agrees | forward ms | with backward ms | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        peak = f"{r['peak_mib']:.0f}" if "peak_mib" in r else "-"
        both = f"{r['both_ms']:.3f}" if "both_ms" in r else "-"
        shape = ", ".join(str(n) for n in r["shape"])
        lines.append(
            f"| {r['op']} | {r['backend']} | {shape} | {r['way']} "
            f"| {r['errors'][r['worst']]:.1e} | {r['worst']} | {'yes' if r['agrees'] else 'NO'} "
            f"| {r['forward_ms']:.3f} | {both} | {peak} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="one tiny shape")
    parser.add_argument("--repeats", type=int, help="timed runs; 20, or 0 (one) with --small")
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    args = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    probe = torch.zeros(1, device=device)
    modules = {"scan": selective_scan, "conv": causal_conv1d, "ctc_prefix": ctc_prefix}
    missing = {
        (op, b): module.IMPLEMENTATIONS[b].unavailable(probe)
        for op, module in modules.items()
        for b in BACKENDS
        if b in module.IMPLEMENTATIONS
    }
    if all(missing.values()):
        print(f"gpu_check: nothing to check here: {missing['scan', 'triton']}", file=sys.stderr)
        return 2
    for (op, backend), reason in missing.items():
        if reason:
            print(f"gpu_check: {op} by '{backend}' is left out: {reason}", file=sys.stderr)
    repeats = args.repeats if args.repeats is not None else (0 if args.small else 20)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, Triton's interpreter"
    machine = f"{name}, torch {torch.__version__}"
    rows = []
    for op, shape, checked, whole in cases(args.small, device):
        for backend in BACKENDS:
            if missing[op, backend] is None:
                rows.extend(check(op, shape, checked, whole, backend, repeats))
    if missing["ctc_prefix", "triton"] is None:
        for shape in CTC_SMALL if args.small else CTC_SHAPES:
            rows.append(check_ctc(shape, "triton", device, repeats))
    text = table(rows, machine)
    print(text, end="")
    if args.output:
        args.output.with_suffix(".md").write_text(text)
        content = {"machine": machine, "tolerance": TOLERANCE, "log_tolerance": LOG_TOLERANCE}
        content["rows"] = rows
        args.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(r["agrees"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
