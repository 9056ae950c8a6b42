"""Fenced blocks of the documents, for the tests that run them (tests/test_docs.py says how they are marked)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.conftest import ROOT

FENCE = re.compile(
    r"(?:^<!-- test: (?P<tier>\w+) -->\n)?(?:^`(?P<file>[\w./-]+)`:\n\n?)?(?:^<!-- test: (?P<tier2>\w+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    body: str
    tier: str = ""
    file: str = ""
    expected: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str, text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        tier = match["tier"] or match["tier2"] or ""
        line = text.count("\n", 0, match.start("body"))
        if (
            match["language"] == "text"
            and found
            and found[-1].language == "python"
            and not text[end : match.start()].strip()
        ):
            previous = found.pop()
            found.append(Block(**{**vars(previous), "expected": match["body"]}))
        else:
            found.append(Block(document, line, match["language"], match["body"], tier, match["file"] or ""))
        end = match.end()
    return found


def read(document: str) -> list[Block]:
    """The blocks of a document of the repository; none where it does not exist."""
    path = ROOT / document
    return blocks(document, path.read_text(encoding="utf-8")) if path.exists() else []
