"""Hook of the site: links from a page to files of the repository that are no pages lead to the repository's text."""

from __future__ import annotations

import re
from typing import Any

LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link out of docs/ becomes the path: the site does not hold the repository."""
    return LINK.sub(lambda match: f"{match[1]} (`{match[2].removeprefix('../')}`)", markdown)
