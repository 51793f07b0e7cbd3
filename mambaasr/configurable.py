"""Constructors whose arguments a yaml gives: options of a mixer, of the base class, other defaults.

ESPnet calls a class with the keys of its ``*_conf`` as arguments. What several classes share is
written down once, and :func:`configurable` makes of it the signature that the class shows to
whoever asks :func:`inspect.signature`: the checker of configs, ESPnet's ``--print_config``, a
reader.
"""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter

from mambaasr.layers.mixer_conf import CausalMixerConf

# The default of keys that a yaml may have beside mixer_conf. None is a value (d_state: null);
# this is no value of yaml's, so that ESPnet leaves it out where it prints defaults.
NOT_GIVEN = ...


def configurable[C: type](**defaults: object) -> Callable[[C], C]:
    """Return a decorator of classes whose constructor a yaml calls.

    The class's constructor takes, and shows in ``__init__.__signature__``,

    - what its own ``__init__`` names, or the inherited one if it has none;
    - in the place of ``**rest``, which it hands on to ``super().__init__``, what that one takes by
      keyword and it does not name itself. An argument that is no option of a yaml is
      positional-only there;
    - if the default of its ``mixer_conf`` is a :class:`CausalMixerConf` or a
      :class:`mambaasr.layers.mixer_conf.MixerConf`: a mapping of options that are laid over this
      default, and, as old yamls have them, the same options beside it (``d_state``,
      ``mixer_dropout_rate``, ...: its ``flat``). The constructor itself gets an instance. The
      signature shows the default as a mapping, and :data:`NOT_GIVEN` for the keys beside it.

    Any other argument is a TypeError.

    Args:
        **defaults: other defaults for some of these arguments.
    """

    def decorate(cls: C) -> C:
        inner = cls.__init__
        parameters = _gather(cls)
        for name, default in defaults.items():
            parameters[name] = parameters[name].replace(default=default)
        mixer = parameters["mixer_conf"].default if "mixer_conf" in parameters else None
        flat = mixer.flat if isinstance(mixer, CausalMixerConf) else {}
        if flat:
            parameters["mixer_conf"] = parameters["mixer_conf"].replace(
                default=mixer.as_mapping(), annotation=dict | None
            )
            for name in flat:
                parameters[name] = Parameter(name, Parameter.KEYWORD_ONLY, default=NOT_GIVEN)
        signature = inspect.Signature(sorted(parameters.values(), key=lambda each: each.kind))

        @functools.wraps(inner)
        def __init__(self, *args, **given):
            try:
                arguments = defaults | signature.bind_partial(self, *args, **given).arguments
            except TypeError as error:
                raise TypeError(f"{cls.__name__}: {error}") from None
            del arguments["self"]
            if flat:
                beside = {name: arguments.pop(name) for name in flat if name in arguments}
                beside = {key: value for key, value in beside.items() if value is not NOT_GIVEN}
                arguments["mixer_conf"] = mixer.over(arguments.get("mixer_conf"), **beside)
            inner(self, **arguments)

        __init__.__signature__ = signature
        cls.__init__ = __init__
        return cls

    return decorate


def _gather(cls: type) -> dict[str, Parameter]:
    """Return the arguments of a class's constructor, those for ``**rest`` from the one above."""
    found = dict(inspect.signature(cls.__init__).parameters)
    rest = [name for name, each in found.items() if each.kind is Parameter.VAR_KEYWORD]
    for name in rest:
        del found[name]
        above = inspect.signature(super(cls, cls).__init__).parameters
        for other, each in above.items():
            if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
                found.setdefault(other, each.replace(kind=Parameter.KEYWORD_ONLY))
    return found
