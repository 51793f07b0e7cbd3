"""Named places for adapters: small modules that are trained inside a block whose weights stay.

The convention, for blocks of encoders, decoders and language models:

- Behind each residual branch ``b`` of a block there is a place ``b``, the module ``adapter_b``: the
  branch's output goes through it before dropout and residual sum, ``x += dropout(adapter_b(b(norm
  x)))``. Branches that a block lacks have no place.
- A place holds :class:`torch.nn.Identity` until :meth:`AdapterPlaces.set_adapter` puts another
  module there, so that a block without adapters has the parameters, the state dict and the numbers
  of one without places.
- An adapter maps (..., width) to the same shape and looks at each frame by itself: whole sequences
  (batch, time, width), pieces of them and single frames (batch, width) go through the same module,
  and what lies at padding reaches no valid frame.

A residual bottleneck (arXiv 1902.00751) is a module that returns ``y + up(act(down(y)))``. Low-rank
updates of a weight (arXiv 2106.09685) need no place: wrap the linear layer itself.
"""

from torch import nn

from mambaasr.checks import check_choice

PREFIX = "adapter_"


class AdapterPlaces(nn.Module):
    """A block with places for adapters, one ``adapter_<place>`` each, see above."""

    def adapter_places(self) -> tuple[str, ...]:
        """Return the names of the places in this block, those of submodules not included."""
        names = (name for name, _ in self.named_children())
        return tuple(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))

    def set_adapter(self, place: str, adapter: nn.Module) -> None:
        """Put an adapter into a place; ``nn.Identity()`` takes it out again.

        Args:
            place: one of :meth:`adapter_places`.
            adapter: maps (..., width) to the same shape, frame by frame.

        Raises:
            ValueError: this block has no such place.
        """
        check_choice("place of an adapter", place, self.adapter_places())
        setattr(self, PREFIX + place, adapter)
