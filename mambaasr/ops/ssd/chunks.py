"""The chunked matrix form of the scan of Mamba-2, forward and backward, of batched matrix products.

Within a chunk of q frames the scan is a product with a q x q matrix; a state of n x p numbers for
each head goes from chunk to chunk (Dao and Gu, arXiv 2405.21060, section 6). With a_t = dt_t A,
v_t = dt_t x_t, and s_t the sum of a from the chunk's first frame (that is visited) to t:

    M_ij = exp(s_i - s_j) <C_i, B_j>, i not before j          y_i = sum_j M_ij v_j + exp(s_i) C_i H
    H'   = exp(s_last) H + sum_j exp(s_last - s_j) B_j v_j^T  the state after the chunk

A slab is a run of chunks of one or several sequences whose working set fits a core's cache. All of
its chunks go through each product together, and every slab uses the same memory. The backward
pass walks the slabs backwards and recomputes what it needs from the state saved at each slab's
start. Padding is never visited.

Shapes: b sequences, k chunks of the slab, q frames of a chunk, g groups, r heads of a group,
h = g r heads, p headdim, n d_state.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

SILU_BACKWARD = torch.ops.aten.silu_backward.grad_input


class Sizes(NamedTuple):
    """Frames of a chunk, chunks of a slab, sequences of a slab."""

    chunk: int
    chunks: int
    sequences: int

    def slots(self, time):
        """How many states a sequence saves: one a slab, one more for an incomplete last chunk."""
        return -(-time // (self.chunk * self.chunks)) + 1


class Slab(NamedTuple):
    """Sequences b0 to b1, ``chunks`` chunks of ``chunk`` frames from frame t0 on."""

    b0: int
    b1: int
    t0: int
    chunks: int
    chunk: int
    slot: int  # where the state at its start is saved
    first: bool  # whether it is the first slab that its sequences visit
    last: bool

    def cut(self, x):
        """x (batch, time, ...) -> view (k, b, q, ...)."""
        x = x[self.b0 : self.b1, self.t0 : self.t0 + self.chunks * self.chunk]
        return x.unflatten(1, (self.chunks, self.chunk)).transpose(0, 1)


def slabs(batch, time, lengths, sizes, reverse):
    """All slabs in the order in which the scan visits them."""
    if lengths is None:
        ends = [
            (b, min(b + sizes.sequences, batch), time) for b in range(0, batch, sizes.sequences)
        ]
    else:  # one by one, each to its own end
        ends = [(b, b + 1, end) for b, end in enumerate(lengths.tolist())]
    run = sizes.chunk * sizes.chunks
    for b0, b1, end in ends:
        pieces = []
        for slot, t0 in enumerate(range(0, end, run)):
            whole, rest = divmod(min(end - t0, run), sizes.chunk)
            if whole:
                pieces.append((t0, whole, sizes.chunk, slot))
            if rest:
                pieces.append((t0 + whole * sizes.chunk, 1, rest, slot + (whole > 0)))
        for i, piece in enumerate(reversed(pieces) if reverse else pieces):
            yield Slab(b0, b1, *piece, i == 0, i == len(pieces) - 1)


class Memory:
    """Named scratch tensors that every slab uses again: fresh memory costs a page fault a page."""

    def __init__(self, dtype, device):
        self.new = {"dtype": dtype, "device": device}
        self.flat = {}

    def __call__(self, name, *shape):
        size = math.prod(shape)
        if name not in self.flat or self.flat[name].numel() < size:
            self.flat[name] = torch.empty(size, **self.new)
        return self.flat[name][:size].view(shape)


class Decays:
    """What follows from a (batch, time, head), for all chunks of q frames: (chunk, b, h, q).

    Sums within a chunk are taken in fp64 and kept as the sum of two numbers, so that a frame that
    forgets everything does not blur the decays of the small steps after it.
    """

    def __init__(self, a, chunk, reverse):
        batch, time, heads = a.shape
        wide = F.pad(a.double(), (0, 0, 0, -time % chunk))
        wide = wide.view(batch, -1, chunk, heads).permute(1, 0, 3, 2)
        if reverse:
            total = wide.flip(-1).cumsum(-1).flip(-1)
            whole = total[..., :1]
        else:
            total = wide.cumsum(-1)
            whole = total[..., -1:]
        self.high = total.to(a.dtype)
        self.low = (total - self.high).to(a.dtype)
        self.into = total.exp().to(a.dtype)  # from the chunk's start to a frame
        self.out_of = (whole - total).exp().to(a.dtype)  # from a frame to the chunk's end
        self.across = whole.squeeze(-1).exp().to(a.dtype)  # (chunk, b, h)
        corner = torch.full((chunk, chunk), -math.inf, dtype=a.dtype, device=a.device)
        self.mask = corner.tril(-1) if reverse else corner.triu(1)
        self.chunk = chunk

    def cut(self, x, slab):
        """(chunk, b, h, ...) -> those of a slab, frames cut to the slab's."""
        c0 = slab.t0 // self.chunk
        x = x[c0 : c0 + slab.chunks, slab.b0 : slab.b1]
        return x if x.dim() == 3 else x[..., : slab.chunk]

    def between(self, slab, out):
        """exp(s_i - s_j) into out (k, b, h, q, q), zero where i is before j."""
        high, low = self.cut(self.high, slab), self.cut(self.low, slab)
        torch.sub(high.unsqueeze(-1), high.unsqueeze(-2), out=out)
        out.add_(low.unsqueeze(-1)).sub_(low.unsqueeze(-2))
        return out.add_(self.mask[: slab.chunk, : slab.chunk]).exp_()


class Scan:
    """One call: its tensors, sizes and scratch memory."""

    def __init__(self, x, dt, a, B, C, D, z, lengths, reverse, sizes):
        self.x, self.dt, self.B, self.C, self.z = x, dt, B, C, z
        self.D = None if D is None else D.to(a.dtype).reshape(D.shape[0], -1)
        self.reverse, self.sizes = reverse, sizes
        self.decays = Decays(a, sizes.chunk, reverse)
        self.memory = Memory(a.dtype, a.device)
        batch, time, self.heads, self.p = x.shape
        self.g, self.n = B.shape[2:]
        self.r = self.heads // self.g
        self.slabs = list(slabs(batch, time, lengths, sizes, reverse))

    def grouped(self, heads):
        """View (k, b, h, q, ...) as (k, b, g, q, r, ...)."""
        return heads.unflatten(2, (self.g, self.r)).transpose(3, 4)

    def natural(self, grouped):
        """View (k, b, g, q, r, p) as (k, b, q, g, r, p)."""
        return grouped.transpose(2, 3)

    def states(self, name, slab):
        """Room for the states around the chunks of a slab: all k + 1, starts, ends."""
        states = self.memory(
            name, slab.chunks + 1, slab.b1 - slab.b0, self.g, self.n, self.r, self.p
        )
        return (
            (states, states[1:], states[:-1]) if self.reverse else (states, states[:-1], states[1:])
        )

    def load(self, slab):
        """Recompute, for both passes, what lies in a slab: matrices, inputs, decays."""
        k, b, q = slab.chunks, slab.b1 - slab.b0, slab.chunk
        g, r, p, n = self.g, self.r, self.p, self.n
        memory, decays = self.memory, self.decays
        v = memory("v", k, b, g * r, q, p)
        dt = slab.cut(self.dt).transpose(2, 3).unsqueeze(-1)
        torch.mul(slab.cut(self.x).transpose(2, 3), dt, out=v)
        B, C = (
            memory(name, k, b, g, q, n).copy_(slab.cut(x).transpose(2, 3)).flatten(0, 2)
            for name, x in (("B", self.B), ("C", self.C))
        )
        leaving = self.grouped(decays.cut(decays.out_of, slab).unsqueeze(-1))
        vF = torch.mul(self.grouped(v), leaving, out=memory("vF", k, b, g, q, r, p))
        L = decays.between(slab, memory("L", k, b, g * r, q, q))
        CB = torch.bmm(C, B.mT, out=memory("CB", k * b * g, q, q)).view(k, b, g, 1, q, q)
        return v, vF, B, C, L, CB

    def advance(self, slab, state, B, vF):
        """Carry ``state`` (b, g, n, r, p) through a slab; returns starts, ends."""
        k, b, q = slab.chunks, slab.b1 - slab.b0, slab.chunk
        new = self.memory("new", k, b, self.g, self.n, self.r, self.p)
        torch.bmm(B.mT, vF.view(-1, q, self.r * self.p), out=new.view(-1, self.n, self.r * self.p))
        across = self.across(slab)
        _, starts, ends = self.states("H", slab)
        order = range(k - 1, -1, -1) if self.reverse else range(k)
        for i, c in enumerate(order):
            if i == 0:
                starts[c].copy_(state)
            torch.addcmul(new[c], across[c], starts[c], out=ends[c])
        state.copy_(ends[order[-1]])
        return starts, ends

    def across(self, slab):
        """Decay across each chunk, (k, b, g, 1, r, 1)."""
        across = self.decays.cut(self.decays.across, slab)
        return across.unflatten(2, (self.g, self.r))[:, :, :, None, :, None]

    def skip(self):
        return self.D.view(self.g, self.r, -1)

    def split(self, x, slab):
        """x (batch, time, head, headdim) -> a slab's (k, b, q, g, r, p)."""
        return slab.cut(x).unflatten(3, (self.g, self.r))


def forward(scan, h0, out, last, y, saved):
    """Fill out, last (b, h, p, n), and where not None y (before D and z) and saved."""
    memory, decays, g, n, r, p = scan.memory, scan.decays, scan.g, scan.n, scan.r, scan.p
    for slab in scan.slabs:
        k, b, q = slab.chunks, slab.b1 - slab.b0, slab.chunk
        rows = slice(slab.b0, slab.b1)
        state = memory("state", b, g, n, r, p)
        if slab.first:
            load_state(state, None if h0 is None else h0[rows])
        if saved is not None:
            saved[rows, slab.slot] = state
        v, vF, B, C, L, CB = scan.load(slab)
        M = L.view(k, b, g, r, q, q).mul_(CB)
        starts, _ = scan.advance(slab, state, B, vF)
        inside = torch.bmm(
            M.view(-1, q, q), v.view(-1, q, p), out=memory("in", k * b * g * r, q, p)
        )
        inside = scan.grouped(inside.view(k, b, g * r, q, p))
        # vF is done with
        before = torch.bmm(C, starts.view(-1, n, r * p), out=vF.view(-1, q, r * p))
        before = before.view(k, b, g, q, r, p)
        into = scan.grouped(decays.cut(decays.into, slab).unsqueeze(-1))
        target = scan.split(out, slab)
        natural = (k, b, q, g, r, p)
        if y is not None:
            total = scan.split(y, slab)
        elif scan.D is None and scan.z is None:
            total = target
        else:
            total = memory("y", *natural)
        torch.addcmul(scan.natural(inside), scan.natural(before), scan.natural(into), out=total)
        if scan.D is not None:
            skipped = target if scan.z is None else memory("s", *natural)
            total = torch.addcmul(total, scan.split(scan.x, slab), scan.skip(), out=skipped)
        if scan.z is not None:
            gate = memory("z", *natural).copy_(scan.split(scan.z, slab))
            torch.mul(total, F.silu(gate, inplace=True), out=target)
        elif total is not target and scan.D is None:
            target.copy_(total)
        store_state(state, last[rows])


def backward(scan, saved, y, dout, dlast, grads):
    """Fill the gradients: dx, ddt, da, dB, dC, dz or None, dD (h, p), dh0 (b, h, p, n).

    Scaling exp(a_t) scales whatever passes from before t to t or later. So the gradient of a_t is
    what reaches the outputs from t on and the state after the chunk, sum <y_i, dy_i> + <H', dH'>,
    less what has started there, sum <v_j, dv_j>.
    """
    dx, ddt, da, dB, dC, dz, dD, dh0 = grads
    memory, decays, g, n, r, p = scan.memory, scan.decays, scan.g, scan.n, scan.r, scan.p
    flow = torch.zeros_like(decays.into)  # (chunk, b, h, q): <y_i, dy_i> - <v_i, dv_i>
    leave = torch.zeros_like(decays.across)  # (chunk, b, h): <H', dH'>
    for slab in reversed(scan.slabs):
        k, b, q = slab.chunks, slab.b1 - slab.b0, slab.chunk
        rows, c0, heads = slice(slab.b0, slab.b1), slab.t0 // decays.chunk, g * r
        dstate = memory("dstate", b, g, n, r, p)
        if slab.last:
            load_state(dstate, None if dlast is None else dlast[rows])
        v, vF, B, C, L, CB = scan.load(slab)
        starts, ends = scan.advance(slab, saved[rows, slab.slot].clone(), B, vF)

        x = slab.cut(scan.x).transpose(2, 3)  # (k, b, h, q, p), as are y, dy, dv
        y_ = slab.cut(y).transpose(2, 3)
        dy = memory("dy", k, b, heads, q, p).copy_(slab.cut(dout).transpose(2, 3))
        temporary = memory("t", k, b, heads, q, p)
        D = None if scan.D is None else scan.D.unsqueeze(1)
        if scan.z is not None:
            z = memory("z", k, b, heads, q, p).copy_(slab.cut(scan.z).transpose(2, 3))
            total = temporary.copy_(y_) if D is None else torch.addcmul(y_, x, D, out=temporary)
            gated = memory("gated", k, b, heads, q, p)
            SILU_BACKWARD(total.mul_(dy), z, grad_input=gated)
            slab.cut(dz).transpose(2, 3).copy_(gated)
            dy.mul_(F.silu(z, inplace=True))
        if D is not None:
            dD += torch.mul(dy, x, out=temporary).sum((0, 1, 3))
        into = scan.grouped(decays.cut(decays.into, slab).unsqueeze(-1))
        dyE = torch.mul(scan.grouped(dy), into, out=memory("dyE", k, b, g, q, r, p))
        dyE = dyE.view(-1, q, r * p)

        carried = torch.bmm(C.mT, dyE, out=memory("new", k * b * g, n, r * p))
        carried = carried.view(k, b, g, n, r, p)
        across = scan.across(slab)
        _, dstarts, dends = scan.states("dH", slab)
        order = range(k) if scan.reverse else range(k - 1, -1, -1)
        for i, c in enumerate(order):
            if i == 0:
                dends[c].copy_(dstate)
            torch.addcmul(carried[c], across[c], dends[c], out=dstarts[c])
        dstate.copy_(dstarts[order[-1]])
        if slab.first:
            store_state(dstate, dh0[rows])
        product = torch.mul(ends, dends, out=memory("new", *ends.shape))
        leave[c0 : c0 + k, rows] = product.sum((3, 5)).flatten(2)

        dM = torch.bmm(
            dy.view(-1, q, p), v.view(-1, q, p).mT, out=memory("dM", k * b * heads, q, q)
        )
        dM = dM.view(k, b, g, r, q, q).mul_(L.view(k, b, g, r, q, q))
        dCB = torch.sum(dM, dim=3, out=memory("dCB", k, b, g, q, q)).view(-1, q, q)
        M = L.view(k, b, g, r, q, q).mul_(CB).view(-1, q, q)
        dv = torch.bmm(M.mT, dy.view(-1, q, p), out=memory("dv", k * b * heads, q, p))
        dv = dv.view(k, b, heads, q, p)
        dC_ = torch.bmm(dyE, starts.view(-1, n, r * p).mT, out=memory("dC", k * b * g, q, n))
        slab.cut(dC).transpose(2, 3).copy_(dC_.baddbmm_(dCB, B).view(k, b, g, q, n))
        dends = dends.view(-1, n, r * p)
        dB_ = torch.bmm(vF.view(-1, q, r * p), dends.mT, out=memory("dC", k * b * g, q, n))
        slab.cut(dB).transpose(2, 3).copy_(dB_.baddbmm_(dCB.mT, C).view(k, b, g, q, n))
        after = torch.bmm(B, dends, out=memory("dyE", k * b * g, q, r * p))
        leaving = scan.grouped(decays.cut(decays.out_of, slab).unsqueeze(-1))
        scan.grouped(dv).addcmul_(after.view(k, b, g, q, r, p), leaving)

        dt = slab.cut(scan.dt).transpose(2, 3)  # (k, b, h, q)
        ddt_ = torch.mul(dv, x, out=temporary).sum(-1)
        slab.cut(ddt).transpose(2, 3).copy_(ddt_)
        flow_ = torch.mul(y_, dy, out=temporary).sum(-1).sub_(ddt_.mul_(dt))
        flow[c0 : c0 + k, rows, :, :q] = flow_
        dv.mul_(dt.unsqueeze(-1))
        if D is not None:
            dv.addcmul_(dy, D)
        slab.cut(dx).transpose(2, 3).copy_(dv)
    flow = flow.double()
    flow = flow.cumsum(-1) if scan.reverse else flow.flip(-1).cumsum(-1).flip(-1)
    flow = flow.add_(leave.unsqueeze(-1)).permute(1, 0, 3, 2).flatten(1, 2)  # (b, time, h)
    da.copy_(flow[:, : da.shape[1]])


def load_state(state, h):
    """(b, h, p, n) or None for zeros into state (b, g, n, r, p)."""
    if h is None:
        state.zero_()
    else:
        b, g, n, r, p = state.shape
        state.copy_(h.view(b, g, r, p, n).permute(0, 1, 4, 2, 3))


def store_state(state, h):
    """state (b, g, n, r, p) into h (b, h, p, n)."""
    b, g, n, r, p = state.shape
    h.view(b, g, r, p, n).copy_(state.permute(0, 1, 3, 4, 2))
