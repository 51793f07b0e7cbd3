"""Check that the documents name commands, options, make targets and files that exist.

Reads every Markdown file of the repository: shell commands in fenced blocks and in inline code,
options in inline code, Python and yaml in fenced blocks (their syntax), and relative links; and
that README.md stays short. Prints one line for each thing that is wrong, and exits with 1 if there
is any.
"""

import argparse
import functools
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Pages about recipes in general mean any recipe's run.sh, and that of a new recipe.
ANY_RECIPE = ROOT / "egs/an4/asr1"
SKELETON = ROOT / "egs/TEMPLATE/asr1/skeleton"
# Options of run.sh whose values are options of another command.
INNER = {"--inference_args": "asr_inference"}
README_LINES = 120
README_SENTENCES = 3
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"([A-Z_]+=\S+ )*(make \w|mambaasr \w|python -m mambaasr\.|\.?[\w./]+\.sh --)")
ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
SHELL = {"sh", "bash", "console", "shell"}


@functools.cache
def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z_]+):(?!=)", text, re.MULTILINE))


@functools.cache
def command_options(name: str) -> set[str] | None:
    """Return the options of ``mambaasr NAME``, or None if there is no such command."""
    name = name.replace("-", "_")
    if name not in {module.name for module in pkgutil.iter_modules([str(ROOT / "mambaasr/bin")])}:
        return None
    parser: argparse.ArgumentParser = importlib.import_module(f"mambaasr.bin.{name}").get_parser()
    return {word for action in parser._actions for word in action.option_strings}


@functools.cache
def script_options(*command: str) -> set[str] | None:
    """Return the options that ``command --help`` prints, or None if it fails."""
    result = subprocess.run(
        [*command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return set(re.findall(r"--[a-z][\w-]*", result.stdout)) if result.returncode == 0 else None


@functools.cache
def recipe_options() -> set[str]:
    """Return the options of a recipe's run.sh."""
    return script_options(str(ANY_RECIPE / "run.sh")) or set()


@functools.cache
def all_options() -> set[str]:
    """Return the options of every command, of run.sh and of the scripts that a user calls."""
    found = set(recipe_options())
    for module in pkgutil.iter_modules([str(ROOT / "mambaasr/bin")]):
        if module.name != "main":
            found |= command_options(module.name) or set()
    # Their sources are read, for each of these would cost seconds to ask.
    for script in [*ROOT.glob("tools/**/*.py"), *ROOT.glob("egs/**/local/*.py")]:
        names = re.findall(r'"--([a-z][\w-]*)"', script.read_text(encoding="utf-8"))
        found |= {f"--{name}" for name in names} | {f"--no-{name}" for name in names}
    return found


def options(words: Sequence[str]) -> list[str]:
    """Return the long options among ``words``, without their values, up to a bare ``--``.

    A word of several is a value: options of another command, in quotes.
    """
    words = words[: words.index("--")] if "--" in words else words
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z][\w-]*(=\S*)?$", word)]


def check_options(known: set[str] | None, name: str, words: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the options that follow a command of this name."""
    if known is None:
        yield f"`{name} --help` fails"
        return
    for option in options(words):
        if option != "--help" and option not in known:
            yield f"`{name}` has no option {option}"
    for option, value in zip(words, words[1:], strict=False):
        if option in INNER and option in known:
            inner = INNER[option]
            yield from check_options(command_options(inner), f"mambaasr {inner}", value.split())


def check_command(words: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield what is wrong with one simple command, given as words."""
    while words and ASSIGNMENT.match(words[0]):
        words = words[1:]
    if not words:
        return
    head, rest = words[0], words[1:]
    if head in ("python", "python3") and rest and rest[0].endswith(".py"):
        script = Path(folder, rest[0])
        if not script.is_file():
            yield f"there is no {rest[0]} in {shown(folder)}"
        else:
            known = script_options(sys.executable, str(script.resolve()))
            yield from check_options(known, shown(script), rest[1:])
        return
    if head in ("python", "python3") and rest[:1] == ["-m"] and rest[1:]:
        if not rest[1].startswith("mambaasr.bin."):
            return
        head, rest = "mambaasr", [rest[1].removeprefix("mambaasr.bin."), *rest[2:]]
    if head == "make":
        for target in rest:
            if not ASSIGNMENT.match(target) and target not in make_targets():
                yield f"the Makefile has no target '{target}'"
    elif head == "mambaasr":
        if rest and not rest[0].startswith("-"):
            known = command_options(rest[0])
            if known is None:
                yield f"there is no command mambaasr {rest[0]}"
                return
            # Further options of `table` are those of run.sh.
            if rest[0] == "table":
                known = known | recipe_options()
            yield from check_options(known, f"mambaasr {rest[0]}", rest[1:])
    elif head.endswith(".sh") and "/" in head:
        script = Path(folder, head)
        if head == "./run.sh" and not script.is_file():
            script = ANY_RECIPE / "run.sh"
        if not script.is_file():
            yield f"there is no {head} in {shown(folder)}"
        else:
            known = script_options(str(script.resolve()))
            if known and script.name == "table.sh":
                known = known | (command_options("table") or set()) | recipe_options()
            yield from check_options(known, shown(script), rest)


def shown(path: Path) -> str:
    """Return a path for messages, relative to the repository where it lies inside."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the simple commands of a shell snippet as lists of words."""
    script = re.sub(r"\\\n\s*", " ", script)
    for line in script.splitlines():
        line = line.strip().removeprefix("$ ")
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check_shell(script: str, folder: Path) -> Iterator[str]:
    """Yield what is wrong with a shell snippet that starts in ``folder``."""
    try:
        commands = list(simple_commands(script))
    except ValueError as error:
        yield f"cannot be read as shell ({error}): {script.strip()!r}"
        return
    made_here, new_recipes = False, set()
    for words in commands:
        if words[:2] == ["git", "clone"]:
            made_here = True
        elif words[0] == "cd" and len(words) == 2:
            # Whoever follows the page has just cloned the repository: that folder is the root.
            target = ROOT if made_here else Path(folder, words[1])
            made_here = False
            if words[1] in new_recipes:
                target = ANY_RECIPE
            if not target.is_dir():
                yield f"there is no folder {words[1]} in {shown(folder)}"
                return
            folder = target
        else:
            if words[:2] == ["mambaasr", "new_recipe"] and len(words) > 2:
                new_recipes.add(f"egs/{words[2]}/asr1")
            yield from check_command(words, folder)


def check_readme(text: str) -> Iterator[str]:
    """Yield where README.md is longer than a person with ten minutes reads."""
    lines = text.splitlines()
    if len(lines) > README_LINES:
        yield f"{len(lines)} lines, at most {README_LINES} are allowed: move what is detail to docs"
    for line in FENCE.sub("", text).splitlines():
        count = len(re.findall(r"\w[\w)*`\]\"]*[.!?](?=\s+[^a-z\d\s]|$)", line))
        if count > README_SENTENCES and not line.startswith("|"):
            yield f"{count} sentences in one paragraph, at most {README_SENTENCES}: {line[:60]}..."


def check_file(path: Path) -> Iterator[str]:
    """Yield what is wrong with one Markdown file."""
    text = path.read_text(encoding="utf-8")
    folder = path.parent
    # A page of docs is read in the repository's root, the skeleton's in the recipe made of it.
    start = {ROOT / "docs": ROOT, SKELETON: ANY_RECIPE}.get(folder, folder)
    if path == ROOT / "README.md":
        yield from check_readme(text)
    for language, body in FENCE.findall(text):
        if language in SHELL:
            yield from check_shell(body, start)
        elif language == "python":
            try:
                compile(body, str(path), "exec")
            except SyntaxError as error:
                yield f"Python does not parse: {error}"
        elif language == "yaml":
            try:
                yaml.safe_load(body)
            except yaml.YAMLError as error:
                yield f"yaml does not parse: {' '.join(str(error).split())}"
    prose = FENCE.sub("", text)
    for code in INLINE.findall(prose):
        if COMMAND.match(code):
            yield from check_shell(code, start)
        elif re.match(r"--[a-z]", code):
            for option in options(code.split()):
                if option not in all_options():
                    yield f"no command has an option {option}"
    for target in LINK.findall(INLINE.sub("", prose)):
        yield from check_link(target, path)


def check_link(target: str, page: Path) -> Iterator[str]:
    """Yield what is wrong with a link: its file or its heading is not there."""
    file, _, heading = target.partition("#")
    if re.match(r"[a-z]+:", target):
        return
    path = Path(page.parent, file) if file else page
    if not path.exists():
        yield f"the link {target} leads nowhere"
    elif heading and path.suffix == ".md" and heading not in anchors(path):
        yield f"the link {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def main(paths: Sequence[str | Path]) -> int:
    """Check the given files, or every Markdown file that git knows; return the exit code."""
    if not paths:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        paths = [ROOT / line for line in listed.stdout.splitlines()]
    problems = 0
    for path in map(Path, paths):
        for problem in dict.fromkeys(check_file(path.resolve())):
            print(f"{shown(path)}: {problem}")
            problems += 1
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
