"""What the site adds to Python-Markdown: equations as MathML, and links to files of the repository.

    $x$, and a fence called math         MathML, which a browser shows without JavaScript or a font from the network
    [vae.py](../../recipes/vae.py)       the page `sources.md`, as the file itself is not on the site

GitHub shows the same sources: it knows both notations, and the links lead to the files. A formula that cannot be read is an
error, so the build fails.
"""

import re
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor
from math_core import LatexToMathML

CONVERTER = LatexToMathML()


class InlineFormula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802
        return self.md.htmlStash.store(CONVERTER.convert_with_local_state(m[1], displaystyle=False)), m.start(), m.end()


def display(source: str, *_: Any, **__: Any) -> str:
    """The HTML of a block of mathematics; zensical.toml gives it to the fences called math."""
    return f'<div class="equation">{CONVERTER.convert_with_local_state(source, displaystyle=True)}</div>'


class RepositoryLinks(Treeprocessor):
    """Links to a recipe or an example lead to its place on the page of sources.

    CONTRIBUTING.md and CHANGELOG.md are shown as pages of this folder, so `docs/` in their links is left out.
    """

    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            href = link.get("href", "")
            if file := re.fullmatch(r"((?:\.\./)*)(recipes|examples)/(\w+)\.py", href):
                up, folder, name = file.groups()
                link.set("href", f"{up.removeprefix('../')}sources.md#{folder}-{name}")
            elif href.startswith("docs/"):
                link.set("href", href.removeprefix("docs/"))


class Site(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        # Above the escapes (180) and below code (190): a backslash in a formula is LaTeX's, and in code there are none.
        md.inlinePatterns.register(
            InlineFormula(r"(?<![\\$\w])\$(?![\s$])([^$]+?)(?<!\s)\$(?![\w$])", md), "formula", 185
        )
        md.treeprocessors.register(RepositoryLinks(md), "repository_links", 5)


def makeExtension(**options: Any) -> Site:  # noqa: N802
    """The entry point that Python-Markdown looks for."""
    return Site(**options)
