"""The chunked matrix form of the scan of Mamba-2, forward and backward, of batched matrix products.

Within a chunk of q frames the scan is a product with a q x q matrix; a state of n x p numbers for
each head goes from chunk to chunk (Dao and Gu, arXiv 2405.21060, section 6). With a_t = dt_t A,
v_t = dt_t x_t, and s_t the sum of a from the chunk's first frame (that is visited) to t:

    M_ij = exp(s_i - s_j) <C_i, B_j>, i not before j          y_i = sum_j M_ij v_j + exp(s_i) C_i H
    H'   = exp(s_last) H + sum_j exp(s_last - s_j) B_j v_j^T  the state after the chunk

The steps have the names of mamba_ssm's kernels: `chunk_state` is the sum in H', `state_passing` the
recurrence from H to H', `chunk_scan` the outputs y; `_bwd` their backward passes.

A tile is a run of chunks of one or several sequences whose working set fits a core's cache. All of
its chunks go through each product together, and every tile uses the same memory. The backward
pass walks the tiles backwards and recomputes what it needs from the state saved at each tile's
start. Padding is never visited.

Shapes: b sequences, k chunks of the tile, q frames of a chunk, g groups, r heads of a group,
h = g r heads, p headdim, n d_state.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SILU_BACKWARD = torch.ops.aten.silu_backward.grad_input


class Sizes(NamedTuple):
    """Frames of a chunk, chunks of a tile, sequences of a tile."""

    chunk: int
    chunks: int
    sequences: int

    def slots(self, time: int) -> int:
        """Return how many states a sequence saves: one a tile, one for an incomplete last chunk."""
        return -(-time // (self.chunk * self.chunks)) + 1


class Tile(NamedTuple):
    """Sequences b0 to b1, ``chunks`` chunks of ``chunk`` frames from frame t0 on."""

    b0: int
    b1: int
    t0: int
    chunks: int
    chunk: int
    slot: int  # where the state at its start is saved
    first: bool  # whether it is the first tile that its sequences visit
    last: bool

    def cut(self, x: Tensor) -> Tensor:
        """x (batch, time, ...) -> view (k, b, q, ...)."""
        x = x[self.b0 : self.b1, self.t0 : self.t0 + self.chunks * self.chunk]
        return x.unflatten(1, (self.chunks, self.chunk)).transpose(0, 1)


def tiles(
    batch: int, time: int, lengths: Tensor | None, sizes: Sizes, reverse: bool
) -> Iterator[Tile]:
    """All tiles in the order in which the scan visits them."""
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
            yield Tile(b0, b1, *piece, i == 0, i == len(pieces) - 1)


class Memory:
    """Named scratch tensors that every tile uses again: fresh memory costs a page fault a page."""

    def __init__(self, dtype: torch.dtype, device: torch.device | str | None) -> None:
        self.new: dict[str, Any] = {"dtype": dtype, "device": device}
        self.flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        if name not in self.flat or self.flat[name].numel() < size:
            self.flat[name] = torch.empty(size, **self.new)
        return self.flat[name][:size].view(shape)


class Decays:
    """What follows from a (batch, time, head), for all chunks of q frames: (chunk, b, h, q).

    Sums within a chunk are taken in fp64 and kept as the sum of two numbers, so that a frame that
    forgets everything does not blur the decays of the small steps after it.
    """

    def __init__(self, a: Tensor, chunk: int, reverse: bool) -> None:
        batch, time, heads = a.shape
        wide = F.pad(a.double(), (0, 0, 0, -time % chunk))
        wide = wide.view(batch, wide.shape[1] // chunk, chunk, heads).permute(1, 0, 3, 2)
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
        seen = torch.ones(chunk, chunk, dtype=a.dtype, device=a.device)
        self.seen = seen.triu() if reverse else seen.tril()  # (i, j): 1 where i is not before j
        # Where i is before j, exp() is of no use and must not overflow. Elsewhere, vectorised
        # exponentials take ten times as long where they underflow.
        self.highest = torch.where(self.seen > 0, torch.inf, 0.0).to(a.dtype)
        self.lowest = self.seen.new_tensor(math.log(torch.finfo(a.dtype).tiny) + 0.5)
        self.later = self.seen - torch.eye(chunk, dtype=a.dtype, device=a.device)
        self.chunk = chunk

    def cut(self, x: Tensor, tile: Tile) -> Tensor:
        """(chunk, b, h, ...) -> those of a tile, frames cut to the tile's."""
        c0 = tile.t0 // self.chunk
        x = x[c0 : c0 + tile.chunks, tile.b0 : tile.b1]
        return x if x.dim() == 3 else x[..., : tile.chunk]

    def between(self, tile: Tile, out: Tensor) -> Tensor:
        """exp(s_i - s_j) into out (k, b, h, q, q); garbage from 0 to 1 where i is before j."""
        high, low = self.cut(self.high, tile), self.cut(self.low, tile)
        torch.sub(high.unsqueeze(-1), high.unsqueeze(-2), out=out)
        out.add_(low.unsqueeze(-1)).sub_(low.unsqueeze(-2))
        return out.clamp_(self.lowest, self.highest[: tile.chunk, : tile.chunk]).exp_()


class Scan:
    """One call: its tensors, sizes and scratch memory."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        lengths: Tensor | None,
        reverse: bool,
        sizes: Sizes,
    ) -> None:
        self.x, self.dt, self.B, self.C, self.z = x, dt, B, C, z
        self.D = None if D is None else D.to(a.dtype).reshape(D.shape[0], -1)
        self.reverse, self.sizes = reverse, sizes
        self.decays = Decays(a, sizes.chunk, reverse)
        self.memory = Memory(a.dtype, a.device)
        batch, time, self.heads, self.p = x.shape
        self.g, self.n = B.shape[2:]
        self.r = self.heads // self.g
        self.tiles = list(tiles(batch, time, lengths, sizes, reverse))

    def grouped(self, heads: Tensor) -> Tensor:
        """View (k, b, h, q, ...) as (k, b, g, q, r, ...)."""
        return heads.unflatten(2, (self.g, self.r)).transpose(3, 4)

    def by_head(self, grouped: Tensor) -> Tensor:
        """View (k, b, g, q, r) as (k, b, h, q)."""
        return grouped.transpose(3, 4).flatten(2, 3)

    def natural(self, grouped: Tensor) -> Tensor:
        """View (k, b, g, q, r, p) as (k, b, q, g, r, p)."""
        return grouped.transpose(2, 3)

    def states(self, name: str, tile: Tile) -> tuple[Tensor, Tensor]:
        """Room for the states around the chunks of a tile, k + 1 in all: starts, ends."""
        states = self.memory(
            name, tile.chunks + 1, tile.b1 - tile.b0, self.g, self.n, self.r, self.p
        )
        return (states[1:], states[:-1]) if self.reverse else (states[:-1], states[1:])

    def chunk_inputs(self, tile: Tile) -> tuple[Tensor, ...]:
        """Recompute, for both passes, what lies in a tile: matrices, inputs, decays."""
        k, b, q = tile.chunks, tile.b1 - tile.b0, tile.chunk
        g, r, p, n = self.g, self.r, self.p, self.n
        memory, decays = self.memory, self.decays
        v = memory("v", k, b, g * r, q, p)
        dt = tile.cut(self.dt).transpose(2, 3).unsqueeze(-1)
        torch.mul(tile.cut(self.x).transpose(2, 3), dt, out=v)
        B, C = (
            memory(name, k, b, g, q, n).copy_(tile.cut(x).transpose(2, 3)).flatten(0, 2)
            for name, x in (("B", self.B), ("C", self.C))
        )
        leaving = self.grouped(decays.cut(decays.out_of, tile).unsqueeze(-1))
        vF = torch.mul(self.grouped(v), leaving, out=memory("vF", k, b, g, q, r, p))
        L = decays.between(tile, memory("L", k, b, g * r, q, q))
        CB = torch.bmm(C, B.mT, out=memory("CB", k * b * g, q, q)).mul_(decays.seen[:q, :q])
        CB = CB.view(k, b, g, 1, q, q)
        return v, vF, B, C, L, CB

    def chunk_state(self, tile: Tile, B: Tensor, vF: Tensor) -> Tensor:
        """Compute what each chunk adds to the state behind it: (k, b, g, n, r, p)."""
        k, b, q = tile.chunks, tile.b1 - tile.b0, tile.chunk
        added = self.memory("added", k, b, self.g, self.n, self.r, self.p)
        out = added.view(-1, self.n, self.r * self.p)
        torch.bmm(B.mT, vF.view(-1, q, self.r * self.p), out=out)
        return added

    def state_passing(self, tile: Tile, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Carry ``state`` (b, g, n, r, p) through a tile; returns starts, ends of its chunks."""
        across = self.across(tile)
        starts, ends = self.states("H", tile)
        order = range(tile.chunks - 1, -1, -1) if self.reverse else range(tile.chunks)
        starts[order[0]].copy_(state)
        for c in order:
            torch.addcmul(added[c], across[c], starts[c], out=ends[c])
        state.copy_(ends[order[-1]])
        return starts, ends

    def chunk_scan_bwd_dstates(self, tile: Tile, C: Tensor, dyE: Tensor) -> Tensor:
        """Compute what each chunk's outputs add to the gradient of the state before it."""
        k, b = tile.chunks, tile.b1 - tile.b0
        added = self.memory("added", k, b, self.g, self.n, self.r, self.p)
        torch.bmm(C.mT, dyE, out=added.view(-1, self.n, self.r * self.p))
        return added

    def state_passing_bwd(self, tile: Tile, added: Tensor, dstate: Tensor) -> Tensor:
        """Carry the gradient ``dstate`` back through a tile; returns that of each chunk's end."""
        across = self.across(tile)
        starts, ends = self.states("dH", tile)
        order = range(tile.chunks) if self.reverse else range(tile.chunks - 1, -1, -1)
        ends[order[0]].copy_(dstate)
        for c in order:
            torch.addcmul(added[c], across[c], ends[c], out=starts[c])
        dstate.copy_(starts[order[-1]])
        return ends

    def across(self, tile: Tile) -> Tensor:
        """Decay across each chunk, (k, b, g, 1, r, 1)."""
        across = self.decays.cut(self.decays.across, tile)
        return across.unflatten(2, (self.g, self.r))[:, :, :, None, :, None]

    def skip(self) -> Tensor:
        assert self.D is not None
        return self.D.view(self.g, self.r, -1)

    def split(self, x: Tensor, tile: Tile) -> Tensor:
        """x (batch, time, head, headdim) -> a tile's (k, b, q, g, r, p)."""
        return tile.cut(x).unflatten(3, (self.g, self.r))


def forward(
    scan: Scan, h0: Tensor | None, out: Tensor, last: Tensor, y: Tensor | None, saved: Tensor | None
) -> None:
    """Fill out, last (b, h, p, n), and where not None y (before the gate) and saved."""
    for tile in scan.tiles:
        b, rows = tile.b1 - tile.b0, slice(tile.b0, tile.b1)
        state = scan.memory("state", b, scan.g, scan.n, scan.r, scan.p)
        if tile.first:
            load_state(state, None if h0 is None else h0[rows])
        if saved is not None:
            saved[rows, tile.slot] = state
        v, vF, B, C, L, CB = scan.chunk_inputs(tile)
        starts, _ = scan.state_passing(tile, scan.chunk_state(tile, B, vF), state)
        # vF is done with
        chunk_scan(scan, tile, v, C, L, CB, starts, vF, out, y)
        store_state(state, last[rows])


def chunk_scan(
    scan: Scan,
    tile: Tile,
    v: Tensor,
    C: Tensor,
    L: Tensor,
    CB: Tensor,
    starts: Tensor,
    scratch: Tensor,
    out: Tensor,
    y: Tensor | None,
) -> None:
    """Fill a tile's outputs, from the states at the start of its chunks, into out and y.

    ``scratch`` is memory of v's size that may be overwritten.
    """
    memory, g, n, r, p = scan.memory, scan.g, scan.n, scan.r, scan.p
    k, b, q = tile.chunks, tile.b1 - tile.b0, tile.chunk
    M = L.view(k, b, g, r, q, q).mul_(CB)
    inside = torch.bmm(M.view(-1, q, q), v.view(-1, q, p), out=memory("in", k * b * g * r, q, p))
    inside = scan.grouped(inside.view(k, b, g * r, q, p))
    before = torch.bmm(C, starts.view(-1, n, r * p), out=scratch.view(-1, q, r * p))
    before = before.view(k, b, g, q, r, p)
    into = scan.grouped(scan.decays.cut(scan.decays.into, tile).unsqueeze(-1))
    target = scan.split(out, tile)
    if y is not None:
        total = scan.split(y, tile)
    else:
        direct = scan.z is None and out.dtype == memory.new["dtype"]
        total = target if direct else memory("y", k, b, q, g, r, p)
    torch.addcmul(scan.natural(inside), scan.natural(before), scan.natural(into), out=total)
    if scan.D is not None:
        total.addcmul_(scan.split(scan.x, tile), scan.skip())
    if scan.z is not None:
        gate = memory("z", k, b, q, g, r, p).copy_(scan.split(scan.z, tile))
        torch.mul(total, F.silu(gate, inplace=True), out=target)
    elif total is not target:
        target.copy_(total)


def backward(
    scan: Scan, saved: Tensor, y: Tensor, dout: Tensor, dlast: Tensor | None, grads: Sequence[Any]
) -> None:
    """Fill the gradients: dx, ddt, da, dB, dC, dz or None, dD (h, p), dh0 (b, h, p, n).

    exp(a_t) scales whatever passes from before t to t or later, so the gradient of a_t adds up the
    gradients times values of all that crosses there: from a frame or the chunk's first state to
    a frame or to the state after the chunk. (What arrives less what departs is the same
    with fewer products, but in fp32 the difference drowns where little crosses.)
    """
    dx, ddt, da, dB, dC, dz, dD, dh0 = grads
    memory, decays, g, n, r, p = scan.memory, scan.decays, scan.g, scan.n, scan.r, scan.p
    heads = g * r
    # (chunk, b, h, q): what crosses whole within the chunk, what arrives from the state before
    # it, what departs into the state after it.
    crossing, arriving, departing = (torch.zeros_like(decays.into) for _ in range(3))
    for tile in reversed(scan.tiles):
        k, b, q = tile.chunks, tile.b1 - tile.b0, tile.chunk
        rows, c0 = slice(tile.b0, tile.b1), tile.t0 // decays.chunk
        place = slice(c0, c0 + k), rows, slice(None), slice(q)
        dstate = memory("dstate", b, g, n, r, p)
        if tile.last:
            load_state(dstate, None if dlast is None else dlast[rows])
        v, vF, B, C, L, CB = scan.chunk_inputs(tile)
        state = saved[rows, tile.slot].clone()
        starts, _ = scan.state_passing(tile, scan.chunk_state(tile, B, vF), state)

        x = tile.cut(scan.x).transpose(2, 3)  # (k, b, h, q, p), as are dy, dv
        dy = memory("dy", k, b, heads, q, p).copy_(tile.cut(dout).transpose(2, 3))
        temporary = memory("t", k, b, heads, q, p)
        if scan.z is not None:
            z = memory("z", k, b, heads, q, p).copy_(tile.cut(scan.z).transpose(2, 3))
            torch.mul(tile.cut(y).transpose(2, 3), dy, out=temporary)
            SILU_BACKWARD(temporary, z, grad_input=temporary)
            tile.cut(dz).transpose(2, 3).copy_(temporary)
            dy.mul_(F.silu(z, inplace=True))
        if scan.D is not None:
            dD += torch.mul(dy, x, out=temporary).sum((0, 1, 3))
        into = scan.grouped(decays.cut(decays.into, tile).unsqueeze(-1))
        dyE = torch.mul(scan.grouped(dy), into, out=memory("dyE", k, b, g, q, r, p))
        dyE_ = dyE.view(-1, q, r * p)

        added = scan.chunk_scan_bwd_dstates(tile, C, dyE_)
        dends = scan.state_passing_bwd(tile, added, dstate)
        if tile.first:
            store_state(dstate, dh0[rows])
        through = torch.mul(starts, dends, out=memory("added", *starts.shape)).sum((3, 5))
        through = through.flatten(2).mul_(decays.cut(decays.across, tile)).unsqueeze(-1)
        starts_, dends_ = starts.view(-1, n, r * p), dends.view(-1, n, r * p)

        dM = torch.bmm(
            dy.view(-1, q, p), v.view(-1, q, p).mT, out=memory("dM", k * b * heads, q, q)
        )
        dM = dM.view(k, b, g, r, q, q).mul_(L.view(k, b, g, r, q, q))
        dCB = torch.sum(dM, dim=3, out=memory("dCB", k, b, g, q, q)).view(-1, q, q)
        dCB.mul_(decays.seen[:q, :q])
        M = L.view(k, b, g, r, q, q).mul_(CB).view(-1, q, q)
        dv = torch.bmm(M.mT, dy.view(-1, q, p), out=memory("dv", k * b * heads, q, p))
        dv = dv.view(k, b, heads, q, p)
        # M is done with: its memory takes, at (t, j), all that goes from j to t or later.
        sums = decays.seen[:q, :q].mT.expand(k * b * heads, q, q)
        torch.bmm(sums, dM.mul_(CB).view(-1, q, q), out=M)
        within = M.mul_(decays.later[:q, :q]).sum(-1).view(k, b, heads, q)
        crossing[place] = within.add_(through)

        dC_ = torch.bmm(dyE_, starts_.mT, out=memory("dC", k * b * g, q, n))
        tile.cut(dC).transpose(2, 3).copy_(dC_.baddbmm_(dCB, B).view(k, b, g, q, n))
        dB_ = torch.bmm(vF.view(-1, q, r * p), dends_.mT, out=memory("dC", k * b * g, q, n))
        tile.cut(dB).transpose(2, 3).copy_(dB_.baddbmm_(dCB.mT, C).view(k, b, g, q, n))

        state_out = torch.bmm(C, starts_, out=memory("state_out", k * b * g, q, r * p))
        arriving[place] = scan.by_head(dyE.mul_(state_out.view(dyE.shape)).sum(-1))
        after = torch.bmm(B, dends_, out=dyE_).view(dyE.shape)
        leaving = scan.grouped(decays.cut(decays.out_of, tile).unsqueeze(-1))
        scan.grouped(dv).addcmul_(after, leaving)
        departing[place] = scan.by_head(vF.mul_(after).sum(-1))

        dt = tile.cut(scan.dt).transpose(2, 3)  # (k, b, h, q)
        tile.cut(ddt).transpose(2, 3).copy_(torch.mul(dv, x, out=temporary).sum(-1))
        dv.mul_(dt.unsqueeze(-1))
        if scan.D is not None:
            dv.addcmul_(dy, scan.D.unsqueeze(1))
        tile.cut(dx).transpose(2, 3).copy_(dv)
    if scan.reverse:
        crossing += arriving.cumsum(-1) + _before(departing.flip(-1)).flip(-1)
    else:
        crossing += arriving.flip(-1).cumsum(-1).flip(-1) + _before(departing)
    crossing = crossing.permute(1, 0, 3, 2).flatten(1, 2)  # (b, time, h)
    da.copy_(crossing[:, : da.shape[1]])


def _before(x):
    """Sums over the earlier places of the last axis."""
    return F.pad(x.cumsum(-1), (1, -1))


def load_state(state: Tensor, h: Tensor | None) -> None:
    """(b, h, p, n) or None for zeros into state (b, g, n, r, p)."""
    if h is None:
        state.zero_()
    else:
        b, g, n, r, p = state.shape
        state.copy_(h.view(b, g, r, p, n).permute(0, 1, 4, 2, 3))


def store_state(state: Tensor, h: Tensor) -> None:
    """state (b, g, n, r, p) into h (b, h, p, n)."""
    b, g, n, r, p = state.shape
    h.view(b, g, r, p, n).copy_(state.permute(0, 1, 3, 4, 2))
