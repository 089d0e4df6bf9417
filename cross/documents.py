"""Copies the project's documents into a package.

usage: documents.py DIRECTORY

A link to a file that is not packaged becomes its text, so that no link is broken.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CHANGELOG.md", "SECURITY.md"]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+)\)")
PICTURE = re.compile(r"<picture>.*?</picture>\n*", re.S)


def packaged(text, page, pages):
    def link(match):
        image, words, target = match.groups()
        path = target.partition("#")[0]
        if re.match(r"[a-z]+:", target) or not path:
            return match[0]
        other = (ROOT / page).parent.joinpath(path).resolve()
        if other.is_relative_to(ROOT) and str(other.relative_to(ROOT)) in pages:
            return match[0]
        return "" if image else words

    return LINK.sub(link, PICTURE.sub("", text))


def main(directory):
    pages = PAGES + sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md"))
    for page in pages:
        copy = pathlib.Path(directory, page)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(packaged((ROOT / page).read_text(), page, pages))
        copy.chmod(0o644)


if __name__ == "__main__":
    main(sys.argv[1])
