"""Options of a mixer, in one place for all classes that have one."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Self

from mambaasr.checks import check_choice, check_rates
from mambaasr.layers.bidirectional import MERGES, InnerBiMamba, InnerBiMamba2, OuterBiMamba
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mamba2 import Mamba2
from mambaasr.layers.mixer import Mixer

MIXERS = {"mamba1": Mamba, "mamba2": Mamba2}
INNER = {"mamba1": InnerBiMamba, "mamba2": InnerBiMamba2}
DIRECTIONS = ("uni", "inner", "outer")


@dataclass(frozen=True)
class CausalMixerConf:
    """Options of a causal mixer: the ``mixer_conf`` of decoders and language models.

    Attributes:
        mixer: "mamba1" (:class:`Mamba`) or "mamba2" (:class:`Mamba2`).
        d_state: states of each channel; None for the mixer's own default, 16 or 128.
        d_conv: width of the causal convolution.
        expand: inner width / d_model.
        dropout_rate: after the input and before the output projection.
        options: further options of the mixer's class, such as ``headdim``; in a yaml they stand
            beside the others.

    Raises:
        ValueError: a name is unknown, or the dropout rate impossible. Sizes are checked by
            :meth:`make`, which knows how they fit each other.
    """

    mixer: Annotated[str, MIXERS] = "mamba1"
    d_state: int | None = None
    d_conv: int = 4
    expand: float = 2
    dropout_rate: float = 0.0
    options: Mapping[str, object] = field(default_factory=dict)

    # Keys that yamls may have beside ``mixer_conf``, as they did before it held them all.
    flat: ClassVar[dict[str, str]] = {
        "mixer": "mixer",
        "d_state": "d_state",
        "d_conv": "d_conv",
        "expand": "expand",
        "mixer_dropout_rate": "dropout_rate",
    }

    def __post_init__(self) -> None:
        check_choice("mixer", self.mixer, MIXERS)
        check_rates("mixer_conf", dropout_rate=self.dropout_rate)
        taken = inspect.signature(MIXERS[self.mixer]).parameters
        own = self._names()
        allowed = own + [name for name in taken if name not in (*own, "d_model")]
        for name in self.options:
            if name in own or name not in allowed:
                raise ValueError(
                    f"mixer_conf: {name!r} is no option of {self.mixer}; "
                    f"choose among {', '.join(allowed)}"
                )

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in fields(cls) if each.name != "options"]

    def over(self, conf: Mapping[str, object] | Self | None, **flat: object) -> Self:
        """Lay what a yaml gives over these values.

        Args:
            conf: the yaml's ``mixer_conf``, whose keys are the attributes and the further options
                of the mixer's class; None for nothing, an instance for its own values.
            **flat: what the yaml has beside it, see :attr:`flat`.

        Raises:
            ValueError: ``conf`` is no mapping, an option is given twice or unknown.
        """
        if isinstance(conf, CausalMixerConf):
            return conf.over(None, **flat)
        if not isinstance(conf, Mapping | None):
            raise ValueError(f"mixer_conf is {conf!r}; it must be a mapping of a mixer's options")
        given = dict(conf or {})
        for key, value in flat.items():
            name = self.flat[key]
            if name in given:
                raise ValueError(
                    f"mixer_conf: {name!r} is {given[name]!r}, and {key} beside it is {value!r}; "
                    f"give it once, in mixer_conf (mixer_conf.{name}={value} on a command line)"
                )
            given[name] = value
        own: dict[str, Any] = {name: given.pop(name) for name in self._names() if name in given}
        return replace(self, **own, options={**self.options, **given})

    def as_mapping(self) -> dict[str, object]:
        """Return the values as a yaml writes them."""
        return {name: getattr(self, name) for name in self._names()} | dict(self.options)

    def _of_class(self) -> dict[str, object]:
        """Return the options of the mixer's class."""
        size = {} if self.d_state is None else {"d_state": self.d_state}
        named = {"d_conv": self.d_conv, "expand": self.expand, "dropout_rate": self.dropout_rate}
        return named | dict(self.options) | size

    def make(self, d_model: int) -> Mixer:
        """Make a mixer of a width.

        Raises:
            ValueError: a value is impossible.
        """
        return MIXERS[self.mixer](d_model, **self._of_class())


@dataclass(frozen=True)
class MixerConf(CausalMixerConf):
    """Options of a mixer of any direction: the ``mixer_conf`` of encoders.

    Attributes:
        direction: "uni" (causal), "inner" (shared projections) or "outer" (two whole mixers).
        merge: how two directions meet, "sum", "mean" or "concat"; unused by "uni".

    Further attributes and errors: see :class:`CausalMixerConf`.
    """

    direction: Annotated[str, DIRECTIONS] = "uni"
    merge: Annotated[str, MERGES] = "sum"

    flat: ClassVar[dict[str, str]] = CausalMixerConf.flat | {
        "direction": "direction",
        "merge": "merge",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("direction", self.direction, DIRECTIONS)
        check_choice("merge", self.merge, MERGES)

    @property
    def causal(self) -> bool:
        """Whether the mixer sees past frames only."""
        return self.direction == "uni"

    def make(self, d_model: int) -> Mixer:
        """See :meth:`CausalMixerConf.make`."""
        if self.direction == "uni":
            return super().make(d_model)
        if self.direction == "outer":
            return OuterBiMamba(MIXERS[self.mixer], d_model, self.merge, **self._of_class())
        return INNER[self.mixer](d_model, self.merge, **self._of_class())
