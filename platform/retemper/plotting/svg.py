"""Figures as ``<svg>`` text that takes the page's colours and font, and is small enough to be mailed with it."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

from retemper.core.files import digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour
COLOURS = 24  # of a picture of dots in one colour, with its shades of transparency


def svg(drawing: Figure, description: str) -> str:
    """The figure as an ``<svg>`` element that scales, is described by `description`, and follows the page's colours.

    Numbers are rounded to a hundredth of a point.
    """
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{description}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = _own_ids(text, f"p{digest(description)[:6]}")
    text = re.sub(r"(data:image/png;base64,)([^\"]+)", lambda match: match[1] + _fewer_colours(match[2]), text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), text)
    return re.sub(r"\s+", " ", text.replace(INK, "currentColor")).replace("> <", "><")


def _own_ids(text: str, mark: str) -> str:
    """Ids that something refers to, under names that no other figure of a page has; the others are left out."""
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^)"]+)', text))
    names = {old: f"{mark}-{k}" for k, old in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda match: f' id="{names[match[1]]}"' if match[1] in names else "", text)
    return re.sub(r'(href="#|url\(#)([^)"]+)', lambda match: match[1] + names[match[2]], text)


def _fewer_colours(png: str) -> str:
    """A picture of few colours with a palette; base64 on both sides."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    buffer = io.BytesIO()
    picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
