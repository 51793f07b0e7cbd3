"""What ESPnet and this package accept, read from their sources without importing them.

Importing an ESPnet task takes ten seconds; parsing the few files that matter takes a fraction
of one, so a mistake in a config is reported before anything heavy is loaded.
"""

import ast
import functools
import importlib.util
import inspect
from dataclasses import dataclass, field
from pathlib import Path

from mambaasr.registry import load, of_task

ABS_TASK = "espnet2.tasks.abs_task"
TASKS = {"asr": "espnet2.tasks.asr", "lm": "espnet2.tasks.lm"}
OUR_OPTIONS = "mambaasr.task.optim"

# What ESPnet's build_model and main_worker give to each class themselves.
_GIVEN = {
    "encoder": {"input_size"},
    "postencoder": {"input_size"},
    "decoder": {"vocab_size", "encoder_output_size"},
    "lm": {"vocab_size"},
    "ctc": {"odim", "encoder_output_size"},
    "joint_net": {"vocab_size", "encoder_size", "decoder_size"},
    "optim": {"params"},
    "scheduler": {"optimizer"},
    "model": {
        "vocab_size", "token_list", "frontend", "specaug", "normalize", "preencoder", "encoder",
        "postencoder", "decoder", "ctc", "joint_network", "lm",
    },
    "preprocessor": {
        "train", "token_type", "token_list", "bpemodel", "non_linguistic_symbols",
        "text_cleaner", "g2p_type", "rir_scp", "rir_apply_prob", "noise_scp",
        "noise_apply_prob", "noise_db_range", "short_noise_thres", "speech_volume_normalize",
        "aux_task_names", "use_lang_prompt", "use_nlp_prompt",
    },
}  # fmt: skip

# Options of each task that hold the arguments of one fixed class.
FIXED = {
    "asr": {
        "ctc": ("espnet2.asr.ctc", "CTC"),
        "joint_net": ("espnet2.asr_transducer.joint_network", "JointNetwork"),
    },
    "lm": {},
}


@dataclass(frozen=True)
class Parameter:
    """One argument of a class: whether it must be given, and its plain type if it states one."""

    required: bool
    type: str | None


@dataclass(frozen=True)
class Signature:
    """The arguments that a class takes from a config; ``open`` if it takes any (``**kwargs``)."""

    parameters: dict
    open: bool = False


@dataclass(frozen=True)
class Option:
    """A command-line option as far as its source states it literally."""

    type: str | None = None
    choices: tuple | None = None
    several: bool = False


@dataclass
class Slot:
    """A choice among classes: yaml name -> (module, class), and the name taken by default."""

    classes: dict = field(default_factory=dict)
    default: str | None = None


@functools.lru_cache(None)
def _tree(module):
    """Parse a module's source; None where it is not installed or not Python."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    # The path is built by hand: find_spec of a submodule imports its parents (all of torch).
    for folder in spec.submodule_search_locations:
        path = Path(folder, *rest)
        for source in (path / "__init__.py", Path(f"{path}.py")):
            if source.is_file():
                return ast.parse(source.read_text(encoding="utf-8"), str(source))
    return None


def _statements(body):
    """Yield a module's statements, those inside try and if at its top level included."""
    for node in body:
        yield node
        if isinstance(node, ast.Try):
            yield from _statements(node.body)
            for handler in node.handlers:
                yield from _statements(handler.body)
        elif isinstance(node, ast.If):
            yield from _statements(node.body + node.orelse)


@functools.lru_cache(None)
def _names(module):
    """Map each name that a module defines or imports to its ClassDef or (module, name)."""
    tree = _tree(module)
    names = {}
    if tree is None:
        return names
    is_package = _tree(f"{module}.__init__") is not None
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = module.split(".")
                keep = len(parents) - node.level + (1 if is_package else 0)
                source = ".".join(parents[:keep] + ([source] if source else []))
            for alias in node.names:
                names[alias.asname or alias.name] = (source, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                names[name] = (alias.name if alias.asname else name, None)
    return names


def _target(module, expression):
    """Resolve a name or dotted name used in a module to (module, class name), or None."""
    if isinstance(expression, ast.Name):
        return module, expression.id
    parts = []
    while isinstance(expression, ast.Attribute):
        parts.insert(0, expression.attr)
        expression = expression.value
    found = _names(module).get(getattr(expression, "id", None))
    if not parts or not isinstance(found, tuple):
        return None
    source = ".".join(part for part in found if part)
    return ".".join([source, *parts[:-1]]), parts[-1]


def _class(module, name):
    """Follow imports from a module to a class definition: (module, ClassDef), or None."""
    for _ in range(10):
        found = _names(module).get(name)
        if isinstance(found, ast.ClassDef):
            return module, found
        if not isinstance(found, tuple) or found[1] is None:
            return None
        module, name = found
    return None


@functools.lru_cache(None)
def signature(module, name):
    """Read the arguments of a class's constructor.

    Args:
        module: the module that defines or imports the class.
        name: the class's name there.

    Returns:
        Signature: open where the source cannot be found or takes ``**kwargs``.
    """
    if module.startswith("mambaasr."):
        return _of_ours(load(f"{module}:{name}"))
    found = _class(module, name)
    if found is None:
        return Signature({}, open=True)
    module, definition = found
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            own = _from_function(node)
            if not _passes_rest_on(node):
                return own
            above = _inherited(module, definition)
            return Signature(above.parameters | own.parameters, above.open)
    if definition.decorator_list:  # dataclasses and the like write their own constructor
        return Signature({}, open=True)
    return _inherited(module, definition)


def _of_ours(found):
    """Read the arguments that a class of ours shows."""
    shown = inspect.signature(found).parameters
    parameters = {
        name: Parameter(each.default is each.empty, _name_of(each.annotation))
        for name, each in shown.items()
        if each.kind is not each.VAR_KEYWORD
    }
    return Signature(parameters, open=len(parameters) < len(shown))


def _name_of(annotation):
    return annotation.__name__ if annotation in (int, float, bool, str) else None


def _inherited(module, definition):
    """Read the arguments of the constructor that a class gets from its bases."""
    for base in definition.bases:
        target = _target(module, base)
        if target and _class(*target):
            inherited = signature(*target)
            if inherited.parameters or inherited.open:
                return inherited
        elif not (isinstance(base, ast.Name) and base.id in ("ABC", "object")):
            return Signature({}, open=True)
    return Signature({})


def _passes_rest_on(node):
    """Say whether a constructor gives all of its ``**kwargs`` to ``super().__init__``."""
    rest = getattr(node.args.kwarg, "arg", None)
    for call in ast.walk(node) if rest else ():
        if not isinstance(call, ast.Call) or getattr(call.func, "attr", None) != "__init__":
            continue
        if getattr(getattr(call.func.value, "func", None), "id", None) == "super":
            if any(k.arg is None and getattr(k.value, "id", None) == rest for k in call.keywords):
                return True
    return False


def _from_function(node):
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args][1:]
    first_default = len(plain) - len(arguments.defaults)
    parameters = {
        argument.arg: Parameter(index < first_default, _plain_type(argument.annotation))
        for index, argument in enumerate(plain)
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(default is None, _plain_type(argument.annotation))
    return Signature(parameters, open=arguments.kwarg is not None)


def _plain_type(annotation):
    name = getattr(annotation, "id", None)
    return name if name in ("int", "float", "bool", "str") else None


def _keywords(call):
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _constant(node, default=None):
    return node.value if isinstance(node, ast.Constant) else default


@functools.lru_cache(None)
def slots(task="asr"):
    """Read which classes a config may name.

    Args:
        task: "asr" or "lm".

    Returns:
        dict: slot name (encoder, optim, ...) -> :class:`Slot`, our own names included.
    """
    found = {}
    tree = _tree(TASKS[task])
    for node in _statements(tree.body if tree else []):
        call = getattr(node, "value", None)
        if not isinstance(node, ast.Assign) or not isinstance(call, ast.Call):
            continue
        if getattr(call.func, "id", None) != "ClassChoices":
            continue
        keywords = _keywords(call)
        name = _constant(keywords.get("name", call.args[0] if call.args else None))
        listed = keywords.get("classes", call.args[1] if len(call.args) > 1 else None)
        slot = found[name] = Slot(default=_constant(keywords.get("default")))
        for key, value in _keywords(listed).items():
            slot.classes[key.lower()] = _target(TASKS[task], value)
    for name, variable, default in (
        ("optim", "optim_classes", "adadelta"),
        ("scheduler", "scheduler_classes", None),
    ):
        slot = found[name] = Slot(default=default)
        tree = _tree(ABS_TASK)
        for node in _statements(tree.body if tree else []):
            call = getattr(node, "value", None)
            if not isinstance(call, ast.Call):
                continue
            if isinstance(node, ast.Assign):
                matches = getattr(node.targets[0], "id", None) == variable
            else:
                owner = getattr(getattr(call.func, "value", None), "id", None)
                matches = owner == variable and call.func.attr == "update"
            if matches:
                for key, value in _keywords(call).items():
                    # The first wins: a later one is a package's fallback for an old torch.
                    slot.classes.setdefault(key.lower(), _target(ABS_TASK, value))
    for name, classes in of_task(task).items():
        if name in found:
            found[name].classes.update(
                {key: tuple(target.split(":")) for key, target in classes.items()}
            )
    return found


@functools.lru_cache(None)
def options(task="asr"):
    """Read the options of ESPnet's task and ours: name -> :class:`Option`."""
    found = {"help": Option(), "config": Option()}
    for module in (ABS_TASK, TASKS[task], OUR_OPTIONS):
        tree = _tree(module)
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if getattr(node.func, "attr", None) != "add_argument":
                continue
            name = _literal_name(node.args[0])
            if name is None or not name.startswith("--"):
                continue
            keywords = _keywords(node)
            try:
                choices = tuple(ast.literal_eval(keywords["choices"]))
            except (KeyError, ValueError):
                choices = None
            found[name[2:]] = Option(
                type=getattr(keywords.get("type"), "id", None),
                choices=choices,
                several="nargs" in keywords or _constant(keywords.get("action")) == "append",
            )
    for name in slots(task):
        found.setdefault(name, Option())
        found.setdefault(f"{name}_conf", Option())
    return found


def _literal_name(node):
    """Return an option's name; the suffix of ESPnet's ``f"--optim{suf}"`` is empty here."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_constant(part, "") for part in node.values)
    return _constant(node)


def class_options(option, name, task="asr"):
    """Return the signature that ``<option>_conf`` must fit, less what ESPnet gives itself.

    Args:
        option: a slot, or ``ctc`` and ``joint_net``, whose class is fixed.
        name: the chosen yaml name; unused where the class is fixed.
        task: "asr" or "lm".
    """
    target = FIXED[task].get(option) or slots(task)[option].classes.get(name)
    if target is None:
        return Signature({}, open=True)
    found = signature(*target)
    given = _GIVEN.get(option, set())
    kept = {key: value for key, value in found.parameters.items() if key not in given}
    return Signature(kept, found.open)
