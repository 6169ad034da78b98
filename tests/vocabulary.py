"""The vocabulary check: `python -m tests.vocabulary [--summary] [FILE ...]`.

It reports words that this project does not use, each with the term to use in its place: in names (Python and JavaScript
definitions, keys of Python dictionaries, classes of style sheets), and in prose (strings, docstrings, comments, HTML,
Markdown, comments of configuration files). It prints one line for each, `file:line: word -> better word`, and exits
with 1 if there is any. CONTRIBUTING.md says when to add a word.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import token
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = {".toml", ".txt", ".yml", ".yaml", ".cff"}  # of these only the comments are checked
SUFFIXES = {".py", ".js", ".ts", ".css", ".html", ".md", *CONFIGURATION}
SELF = {"tests/vocabulary.py", "tests/test_vocabulary.py"}  # they contain the words

# Parts of a name, after splitting it at underscores and capitals; "last_word" stands for two parts in a row.
PARTS = {
    "picture": "image",
    "pictures": "images",
    "parcel": "archive_file",
    "parcels": "archive_files",
    "untold": "pending_events",
    "pulse": "heartbeat",
    "last_word": "exit_record",
    "guesses": "predictions",
    "patience": "timeout",
    "told": "recorded, message",
    "mend": "repair",
    "beside": "compared, reference",
    "manieth": "stride",
    "put_away": "archived",
    "bring_back": "restore",
    "take_in": "import",
    "null_line": "random_baseline",
}

# Whole names: of locals, arguments, attributes and functions.
NAMES = {
    "found": "what it holds: matches, rows, path",
    "there": "what it holds: existing, present",
    "both": "what it holds: pair, runs",
    "one": "what it holds: item, row, run",
    "said": "what it holds: message, text",
    "asked": "what it holds: request, arguments",
    "its": "what it holds",
    "ours": "what it holds",
    "theirs": "what it holds",
    "made": "what it holds: element, result",
    "reads": "queries",
    "questions": "queries",
    "asks": "query",
    "matters": "importance",
    "robust": "robustness",
    "Subject": "LoadedRun",
    "Watched": "SampleImages",
    "Guesses": "Predictions",
    "Place": "TrainPosition",
    "Settling": "SampleSize",
}

# Prose, as regular expressions; a space stands for any white space, also the end of a line.
PHRASES = {
    r"pictures?": "image",
    r"parcels?": "archive file",
    r"untold": "pending",
    r"told steps?": "recorded step",
    r"pulses?": "heartbeat",
    r"patience": "timeout",
    r"lasting": "durable",
    r"last words?": "exit record",
    r"(?:in|whose|their|its|his|her|a|next) turns?": "queue order, queue position",
    r"without a word": "without reporting a result",
    r"at the least": "at least, minimum",
    r"beside": "compared with, next to",
    r"gone without": "exited without",
    r"taken for": "misclassified as",
    r"once more": "again",
    r"anew": "again",
    r"of (?:one's|its|their|his|her|our|your) own": "its own, separate",
    r"at work": "active, utilization",
    r"(?:is|are|was|were|be|been|being) told": "receives, is recorded",
    r"mends?|mended": "repair, fix",
    r"who (?:matters|decides)": "expert importance",
    r"(?:take|takes|took|taken) (?:it|them) in": "import",
    r"(?:put|puts|putting) away": "archive",
    r"(?:bring|brings|brought) back": "restore",
    r"(?:go|goes|going|gone|went) on": "continue, resume",
    r"(?:get|gets) on": "make progress",
    r"as sure as right": "calibration",
    r"% right": "accuracy, correct",
    r"(?:parameters|numbers) that learn": "trainable parameters",
    r"(?:null line|(?:what )?nothing in common would show)": "random baseline",
    r"not known yet": "estimated time, estimated memory",
    r"starts? of λ": "initial λ",
    r"the other one": "baseline, second run",
    r"(?:look|looks|looked|looking) again": "refresh",
    r"command that does the same": "equivalent command",
    r"(?:experts? drawn|drawn experts?|draws none)": "active experts",
    r"(?:random|hundred) draws": "samples",
    r"(?:measured epochs?|(?:first|last|every|each|no) measurements?)": "evaluation",
    r"survivors": "active experts",
    r"by another hand": "by a third party",
    r"against another": "compare with another",
    r"manieth": "n-th",
}

# Legitimate uses, by file: names of earlier versions that the project still reads. In Python, an assignment to a name
# with OLD in it is exempt without an entry.
ALLOWED: dict[str, set[str]] = {
    "CHANGELOG.md": {"parcel", "picture", "pictures", "untold"},
    "LOG.md": {"pictures"},
    "docs/commands.md": {"picture", "pictures"},
    "mlae_lab/analysis/robustness.py": {"robust"},
    "mlae_lab/data/cache.py": {"pictures"},
    "mlae_lab/runs/schema.py": {"parcel", "pulse"},
    "tests/data/test_cache.py": {"pictures"},
    "tests/old/README.md": {"untold"},
    "tests/old/test_store_0_5_1.py": {"pulse", "untold"},
}
# History is not rewritten: of these sections only the headings are checked.
HISTORY = {"LOG.md": "2026-11-26", "CHANGELOG.md": "0.5.1"}

_PHRASE = re.compile(
    r"(?<!\w)(?:" + "|".join(f"({phrase})" for phrase in PHRASES).replace(" ", r"\s+") + r")(?!\w)", re.IGNORECASE
)
_BETTER = tuple(PHRASES.values())
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_QUOTES = re.compile(r"""^\w*(?:\"{3}|'{3}|"|')|(?:\"{3}|'{3}|"|')$""")
_FIELD = re.compile(r"\{[^{}\n]*\}")
_DECLARED = re.compile(
    r"\b(?:const|let|var)\s+([^=;]+?)\s*(?:=|\bof\b|\bin\b|;)|\b(?:class|function)\s+(\w+)|(\w+)\s*=>"
    r"|\bthis\.(\w+)\s*=[^=]|\(([\w\s,{}]*)\)\s*(?:=>|\{)"
)
_STYLE = re.compile(r"\.([A-Za-z][\w-]*)(?=[^;{}]*\{)|\bclass=\"([^\"]*)\"|--([\w-]+)\s*:")


class Finding(NamedTuple):
    """A word that is not used here. line: from 1."""

    path: str
    line: int
    word: str
    better: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word} -> {self.better}"


def check(path: str, text: str) -> list[Finding]:
    """All findings in the text of one file.

    Args:
        path: Relative to the repository, with "/". Its suffix says how the text is read.
        text: The content.
    """
    suffix = Path(path).suffix
    if suffix == ".py":
        exempt = _old_tables(text)
        names, prose = _python_names(text), _python_prose(text)
    elif suffix in CONFIGURATION:
        exempt, names, prose = set(), (), ((1, _comments(text)),)
    else:
        exempt = set()
        names = _script_names(text) if suffix in (".js", ".ts") else _style_names(text) if suffix != ".md" else ()
        prose = _recent(path, text) if suffix == ".md" else ((1, text),)
    findings = [Finding(path, line, name, better) for line, name in names for better in _name_terms(name)]
    if suffix == ".py":  # as data a word such as "one" may stand for anything: only the parts are checked
        findings += [Finding(path, line, key, better) for line, key in _keys(text) for better in _part_terms(key)]
    for line, passage in prose:
        for match in _PHRASE.finditer(passage):
            at = line + passage.count("\n", 0, match.start())
            better = _BETTER[(match.lastindex or 1) - 1]
            findings.append(Finding(path, at, " ".join(match.group().split()), better))
    allowed = ALLOWED.get(path, set())
    return sorted({f for f in findings if f.line not in exempt and not _is_allowed(f.word, allowed)})


def _is_allowed(word: str, allowed: set[str]) -> bool:
    return word.lower() in allowed or bool(allowed & set(_split(word)))


def _split(name: str) -> list[str]:
    return [part.lower() for part in _WORD.findall(name)]


def _name_terms(name: str) -> Iterator[str]:
    """What to use in place of a name, nothing if the name is fine."""
    bare = name.lstrip("_")
    if bare in NAMES:
        yield NAMES[bare]
    yield from _part_terms(name)


def _part_terms(name: str) -> Iterator[str]:
    joined = "_" + "_".join(_split(name)) + "_"
    for part, better in PARTS.items():
        if f"_{part}_" in joined:
            yield better


def _old_tables(text: str) -> set[int]:
    """Lines of assignments to names such as OLD_FIELDS: names of earlier versions."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and "old" in _split(target.id) for target in targets):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _python_names(text: str) -> Iterator[tuple[int, str]]:
    """Every name that is defined: functions, classes, arguments, variables, attributes, aliases."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((node.lineno, alias.asname) for alias in aliases if alias.asname)


def _keys(text: str) -> Iterator[tuple[int, str]]:
    """Keys of dictionaries that read like names."""
    for node in ast.walk(ast.parse(text)):
        keys = node.keys if isinstance(node, ast.Dict) else [node.slice] if isinstance(node, ast.Subscript) else ()
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                yield key.lineno, key.value


def _python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Strings and comments with the line each begins on; what is wrapped over several lines comes as one passage."""
    passage, start, end, nested, was_comment = "", 0, 0, 0, False
    for piece in tokenize.generate_tokens(io.StringIO(text).readline):
        kind, content = token.tok_name[piece.type], ""
        if kind in ("FSTRING_START", "FSTRING_END"):  # from Python 3.12 on; until 3.11 they are STRING
            nested += 1 if kind == "FSTRING_START" else -1
        elif kind == "FSTRING_MIDDLE":
            content = piece.string
        elif nested or kind in ("NL", "INDENT", "DEDENT"):
            continue  # a field of a formatted string, or what lies between two lines of a string or of a comment
        elif kind == "STRING":
            content = _FIELD.sub("{}", _QUOTES.sub("", piece.string))
        elif kind == "COMMENT":
            content = piece.string.lstrip("#")
        is_comment = kind == "COMMENT"
        is_prose = content or nested or kind.startswith("FSTRING")
        if passage and (not is_prose or is_comment != was_comment):
            yield start, passage
            passage = ""
        if content:
            if passage:
                passage += "\n" * (piece.start[0] - end)
            else:
                start = piece.start[0]
            passage, end, was_comment = passage + content, piece.end[0], is_comment
    if passage:
        yield start, passage


def _script_names(text: str) -> Iterator[tuple[int, str]]:
    """Every name that JavaScript declares, near enough: the check reads it without parsing it."""
    for match in _DECLARED.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        for names in filter(None, match.groups()):
            yield from ((line, name) for name in re.findall(r"[A-Za-z_]\w*", names))


def _style_names(text: str) -> Iterator[tuple[int, str]]:
    """Classes and variables of a style sheet, classes of HTML."""
    for match in _STYLE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield from ((line, name) for names in filter(None, match.groups()) for name in names.split())


def _comments(text: str) -> str:
    """The comments of a configuration file, each on its line."""
    return "\n".join("".join(re.findall(r"(?:^|\s)#+(?=\s)(.*)", line)) for line in text.splitlines())


def _recent(path: str, text: str) -> Iterator[tuple[int, str]]:
    """The Markdown without the old sections of a history, of which it leaves the headings."""
    last = HISTORY.get(path)
    kept, is_old = [], False
    for line in text.splitlines():
        if last is not None and (heading := re.match(r"## ([\d.-]*\d)", line)):
            is_old = _order(heading[1]) <= _order(last)
        kept.append("" if is_old and not line.startswith("#") else line)
    yield 1, "\n".join(kept)


def _order(date_or_version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", date_or_version)]


def tracked() -> list[str]:
    """The files that are checked: those that git knows, of the kinds that it can read."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout  # fmt: skip
    return [path for path in listed.splitlines()
            if Path(path).suffix in SUFFIXES and path not in SELF and (ROOT / path).exists()]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vocabulary", description="Check the words of this project.")
    parser.add_argument("files", nargs="*", help="paths relative to the repository; all files without them")
    parser.add_argument("--summary", action="store_true", help="counts by folder and by word instead of each place")
    options = parser.parse_args(arguments)
    findings = [finding for path in options.files or tracked() for finding in check(path, (ROOT / path).read_text())]
    if options.summary:
        folders = Counter(str(Path(finding.path).parent) for finding in findings)
        for title, counts in (("folder", folders), ("word", Counter(finding.word.lower() for finding in findings))):
            print(f"{title}\tfindings")
            print("\n".join(f"{name}\t{count}" for name, count in counts.most_common()))
    else:
        print("\n".join(map(str, findings)), end="\n" if findings else "")
    print(f"vocabulary: {len(findings)} findings", file=sys.stderr)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
