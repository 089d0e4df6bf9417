"""Checks the documents: links, anchors, paths, modules of the glossary and make targets.

usage: links.py [DIRECTORY]     the project, or a tree of files
       links.py --self-test     a tree with one fault of each kind

It reads files only. Addresses on other hosts are not fetched.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^ *(```|~~~)")
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)")
HTML = re.compile(r"<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)=\"([^\"]+)\"")
ID = re.compile(r"<[^>]+\bid=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.M)
# A path to a page in any text: comments, scripts, messages.
PAGE = re.compile(r"(?<![\w/.-])docs/[\w./-]*?\.md\b")
# Paths of sources in documents. A pattern (`*`) or a place holder (capitals) is not a path.
PATH = re.compile(r"(?<![\w/.-])(?:src|tests|cross)/[\w./-]*[\w/]")
MAKE = re.compile(r"(?:^|\$ |`)(?:[A-Z]+=\S+ )*make ((?:[a-z][a-z0-9-]*[a-z0-9])(?: [a-z][a-z0-9-]*[a-z0-9])*)(?![\w-])", re.M)
MODULE = re.compile(r"`([a-z0-9_]+(?:::[a-z0-9_]+)*)`")
GLOSSARY = "docs/glossary.md"
INDEX = "docs/README.md"
ARCHITECTURE = "docs/internals/architecture.md"
# Entries of src/ that are not layers: the crate's roots.
NOT_DRAWN = {"main.rs", "lib.rs", "bin/"}
SELF = "tests/docs/links.py"


def files_of(root):
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    texts = {}
    for name in names:
        path = root / name
        if "/corpus/" in name or path.is_symlink() or not path.is_file():
            continue
        try:
            texts[name] = path.read_text()
        except UnicodeDecodeError:
            texts[name] = None
    return texts


def without_fences(text):
    """The text without fenced blocks, with the same number of lines."""
    lines, inside = [], False
    for line in text.split("\n"):
        if FENCE.match(line):
            inside = not inside
            lines.append("")
        else:
            lines.append("" if inside else line)
    return "\n".join(lines)


def slug(heading):
    """Returns the anchor of a heading in GitHub and most other renderers."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def anchors(text):
    found = {}
    names = set(ID.findall(text))
    for heading in HEADING.findall(without_fences(text)):
        name = slug(heading)
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def line_of(text, index):
    return text.count("\n", 0, index) + 1


def check(root):
    root = pathlib.Path(root).resolve()
    texts = files_of(root)
    pages = {name: text for name, text in texts.items() if name.endswith(".md") and text is not None}
    faults = []
    reached = {}

    def fault(name, index, what):
        faults.append(f"{name}:{line_of(texts[name], index)}: {what}")

    for name, text in sorted(pages.items()):
        plain = without_fences(text)
        no_code = CODE.sub(lambda m: " " * len(m[0]), plain)
        for pattern in (LINK, HTML):
            for match in pattern.finditer(no_code):
                target = match[1]
                index = sum(len(line) + 1 for line in text.split("\n")[: line_of(no_code, match.start()) - 1])
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = (root / name).parent / path if path else root / name
                file = file.resolve()
                if not file.exists() or root not in [file, *file.parents]:
                    fault(name, index, f"link to a missing file: {target}")
                    continue
                other = str(file.relative_to(root))
                reached.setdefault(name, set()).add(other)
                if anchor and anchor not in anchors(texts.get(other) or ""):
                    fault(name, index, f"link to a missing anchor: {target}")
        for match in PATH.finditer(text):
            line = text[text.rfind("\n", 0, match.start()) + 1 :].split("\n")[0]
            tail = text[match.end() : match.end() + 1]
            if name == "CHANGELOG.md" or tail in ("*", "{") or re.search(r"[A-Z]{2,}", match[0]):
                continue
            if not (root / match[0]).exists() and not (root / name).parent.joinpath(match[0]).exists():
                fault(name, match.start(), f"path of a missing file: {match[0]} in: {line.strip()[:60]}")

    # Sources may name a page by docs/NAME.md, in any directory of docs/.
    names = [name.rsplit("/", 1)[1] for name in pages if name.startswith("docs/")]
    for name, text in sorted(texts.items()):
        if name == SELF:
            continue
        for match in PAGE.finditer(text or ""):
            short = name.startswith("src/") and match[0].count("/") == 1
            if match[0] not in texts and not (short and names.count(match[0].split("/")[1]) == 1):
                fault(name, match.start(), f"path of a missing page: {match[0]}")

    targets = set(re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", texts.get("Makefile") or "", re.M))
    targets = set(" ".join(targets).replace("\\\n", " ").split())
    for name, text in sorted(pages.items()):
        if name == "CHANGELOG.md":
            continue
        for match in MAKE.finditer(text):
            for word in match[1].split():
                if word not in targets:
                    fault(name, match.start(), f"missing make target: {word}")
                    break

    tree = {name.split("/")[1] for name in texts if name.startswith("src/")}

    def module(name, index, path):
        file = "src/" + path.replace("::", "/")
        if f"{file}.rs" not in texts and f"{file}/mod.rs" not in texts:
            fault(name, index, f"missing module: {path}")

    for match in re.finditer(r"^\|.*\| *([^|]*)\|$", pages.get(GLOSSARY, ""), re.M):
        for path in MODULE.findall(match[1]):
            module(GLOSSARY, match.start(), path)
    for name, text in pages.items():
        for match in MODULE.finditer(text if name != GLOSSARY else ""):
            if "::" in match[1] and match[1].split("::")[0] in tree:
                module(name, match.start(), match[1])

    drawn = set(re.findall(r"^  ([a-z0-9_]+(?:\.rs|/)) ", pages.get(ARCHITECTURE, ""), re.M))
    real = {part if part.endswith(".rs") else part + "/" for part in tree} - NOT_DRAWN
    for part in sorted(drawn ^ real):
        faults.append(f"{ARCHITECTURE}: the tree differs from src/: {part}")

    if INDEX in pages:
        seen, todo = {INDEX}, [INDEX]
        while todo:
            for other in reached.get(todo.pop(), ()):
                if other in pages and other not in seen:
                    seen.add(other)
                    todo.append(other)
        for name in sorted(pages):
            if name.startswith("docs/") and name not in reached.get(INDEX, ()) and name != INDEX:
                fault(name, 0, f"page is missing in {INDEX}")
    else:
        faults.append(f"{INDEX}: missing")
    return len(pages), faults


FAULTY = {
    "README.md": "# A\n[a](docs/none.md) [b](docs/guide/x.md#no) <img src=\"none.png\">\n`make nothing`\n",
    "Makefile": ".PHONY: demo \\\n\ttest\n",
    "docs/README.md": "[x](guide/x.md#x-and-y) [g](glossary.md) [y](guide/y.md) [out](../../etc)\n",
    "docs/glossary.md": "| term | meaning | module |\n|---|---|---|\n| a | b | `no::such` |\n| a | b | `such` |\n",
    "docs/guide/x.md": "# X and `y`\n`tests/none.sh` `tests/here.sh` `tests/*.sh`\n```\n[no](link.md)\n```\n`[no](link)`\n",
    "docs/reference/x.md": "[self](#no)\n",
    "docs/guide/y.md": "[x](../README.md) `such::no` `other::no`\n",
    "docs/internals/architecture.md": "```\nsrc/\n  such.rs   x\n  none/     x\n```\n",
    "src/such/b.rs": "",
    "src/lib.rs": "",
    "src/such.rs": "//! docs/y.md docs/x.md docs/gone.md docs/internals/y.md\n",
    "tests/here.sh": "# docs/x.md\n",
}
EXPECTED = """
README.md:2: link to a missing file: docs/none.md
README.md:2: link to a missing anchor: docs/guide/x.md#no
README.md:2: link to a missing file: none.png
README.md:2: path of a missing page: docs/none.md
README.md:3: missing make target: nothing
docs/README.md:1: link to a missing file: ../../etc
docs/glossary.md:3: missing module: no::such
docs/guide/y.md:1: missing module: such::no
docs/internals/architecture.md: the tree differs from src/: none/
docs/internals/architecture.md: the tree differs from src/: such/
docs/internals/architecture.md:1: page is missing in docs/README.md
docs/guide/x.md:2: path of a missing file: tests/none.sh in: `tests/none.sh` `tests/here.sh` `tests/*.sh`
docs/reference/x.md:1: link to a missing anchor: #no
docs/reference/x.md:1: page is missing in docs/README.md
src/such.rs:1: path of a missing page: docs/gone.md
src/such.rs:1: path of a missing page: docs/internals/y.md
src/such.rs:1: path of a missing page: docs/x.md
tests/here.sh:1: path of a missing page: docs/x.md
"""


def self_test():
    with tempfile.TemporaryDirectory() as directory:
        for name, text in FAULTY.items():
            path = pathlib.Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found = sorted(check(directory)[1])
    expected = sorted(EXPECTED.strip().split("\n"))
    for line in expected:
        if line not in found:
            print(f"not found: {line}")
    for line in found:
        if line not in expected:
            print(f"found without a cause: {line}")
    print(f"links: {len(set(expected) & set(found))} passed, {len(set(expected) ^ set(found))} failed")
    return expected == found


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(not self_test())
    number, faults = check(sys.argv[1] if sys.argv[1:] else ".")
    for line in faults:
        print(line)
    print(f"{number} pages, {len(faults)} faults")
    sys.exit(bool(faults))
