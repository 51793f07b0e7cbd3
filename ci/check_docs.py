"""Check that the documents name commands, options, make targets and files that exist.

Reads every Markdown file of the repository: shell commands in fenced blocks and in inline code,
Python in fenced blocks (its syntax), and relative links. Prints one line for each thing that does
not exist, and exits with 1 if there is any.
"""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"([A-Z_]+=\S+ )*(make \w|mambaasr \w|python -m mambaasr\.|\.?[\w./]+\.sh --)")
ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
SHELL = {"sh", "bash", "console", "shell"}


@functools.cache
def make_targets():
    """Return the targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z_]+):(?!=)", text, re.MULTILINE))


@functools.cache
def help_text(command, folder):
    """Return what ``command --help`` prints, or None if it fails."""
    result = subprocess.run(
        [*command, "--help"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return result.stdout if result.returncode == 0 else None


def options(words):
    """Return the long options among ``words``, without their values, up to a bare ``--``.

    A word of several is a value: options of another command, in quotes.
    """
    words = words[: words.index("--")] if "--" in words else words
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z][\w-]*(=|$)", word)]


def check_options(command, words, folder):
    """Yield what is wrong with the options that follow ``command``."""
    text = help_text(command, folder)
    name = " ".join(command).replace(sys.executable, "python").replace(f"{ROOT}/", "")
    if text is None:
        yield f"`{name} --help` fails"
        return
    for option in options(words):
        if option != "--help" and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
            yield f"`{name}` has no option {option}"


def check_command(words, folder):
    """Yield what is wrong with one simple command, given as words."""
    while words and ASSIGNMENT.match(words[0]):
        words = words[1:]
    if not words:
        return
    head, rest = words[0], words[1:]
    if head == "make":
        for target in rest:
            if not ASSIGNMENT.match(target) and target not in make_targets():
                yield f"the Makefile has no target '{target}'"
    elif head == "mambaasr":
        if rest and not rest[0].startswith("-"):
            command = (sys.executable, "-m", "mambaasr", rest[0])
            yield from check_options(command, rest[1:], ROOT)
    elif head in ("python", "python3") and rest[:1] == ["-m"] and len(rest) > 1:
        if rest[1].startswith("mambaasr."):
            yield from check_options((sys.executable, "-m", rest[1]), rest[2:], ROOT)
    elif head.endswith(".sh") and "/" in head:
        script = Path(folder, head)
        if not script.is_file():
            yield f"there is no {head} in {shown(folder)}"
        else:
            yield from check_options((str(script.resolve()),), rest, folder)


def shown(folder):
    """Return a folder for messages, relative to the repository where it lies inside."""
    folder = Path(folder).resolve()
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def simple_commands(script):
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


def check_shell(script, folder):
    """Yield what is wrong with a shell snippet that starts in ``folder``."""
    try:
        commands = list(simple_commands(script))
    except ValueError as error:
        yield f"cannot be read as shell ({error}): {script.strip()!r}"
        return
    made_here = False
    for words in commands:
        if words[:2] == ["git", "clone"]:
            made_here = True
        elif words[0] == "cd" and len(words) == 2:
            # Whoever follows the page has just cloned the repository: that folder is the root.
            target = ROOT if made_here else Path(folder, words[1])
            made_here = False
            if not target.is_dir():
                yield f"there is no folder {words[1]} in {shown(folder)}"
                return
            folder = target
        else:
            yield from check_command(words, folder)


def looks_like_command(code):
    """Tell whether inline code is a command, not a name or a file."""
    return bool(COMMAND.match(code))


def check_file(path):
    """Yield what is wrong with one Markdown file."""
    text = path.read_text(encoding="utf-8")
    folder = path.parent
    # A page of docs is read in the repository's root.
    start = ROOT if folder == ROOT / "docs" else folder
    for language, body in FENCE.findall(text):
        if language in SHELL:
            yield from check_shell(body, start)
        elif language == "python":
            try:
                compile(body, str(path), "exec")
            except SyntaxError as error:
                yield f"Python does not parse: {error}"
    prose = FENCE.sub("", text)
    for code in INLINE.findall(prose):
        if looks_like_command(code):
            yield from check_shell(code, start)
    for target in LINK.findall(INLINE.sub("", prose)):
        file = target.partition("#")[0]
        if file and not re.match(r"[a-z]+:", file) and not Path(folder, file).exists():
            yield f"the link {target} leads nowhere"


def main(paths):
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
