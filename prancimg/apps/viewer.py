"""Two pictures over each other with a divider to drag: a fragment of HTML that needs nothing but itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Picture:
    """A picture that a browser can show, and what to say of it."""

    data: bytes
    mime: str
    caption: str
    size: int
    """Bytes of the file it stands for, by which pictures of nearest rate are found."""


@dataclass(frozen=True)
class Scene:
    """One motif: its original and what codecs made of it, each at one or more rates."""

    name: str
    width: int
    height: int
    original: Picture
    versions: Mapping[str, Sequence[Picture]]


def viewer(scenes: Sequence[Scene]) -> str:
    """The fragment: markup, styles, script and all pictures. A page may hold one."""
    first = scenes[0]
    codecs = list(dict.fromkeys(name for scene in scenes for name in scene.versions))
    rates = [8 * each.size / (first.width * first.height) for each in max(first.versions.values(), key=len)]
    content = {
        "scenes": [
            {
                "name": scene.name,
                "width": scene.width,
                "height": scene.height,
                "original": _packed(scene.original),
                "versions": {name: list(map(_packed, pictures)) for name, pictures in scene.versions.items()},
            }
            for scene in scenes
        ],
        "codecs": codecs,
        "rates": rates,
    }
    return "\n".join(
        (
            f"<style>{(PAGE / 'viewer.css').read_text()}</style>",
            (PAGE / "viewer.html").read_text(encoding="utf-8"),
            f'<script type="application/json" id="viewer-content">{as_script(content)}</script>',
            f"<script>{(PAGE / 'viewer.js').read_text(encoding='utf-8')}</script>",
        )
    )


def as_script(content: object) -> str:
    """JSON without ``<``: a script element has more ways to end, or not to end, than its end tag."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _packed(picture: Picture) -> dict[str, str | int]:
    data = base64.b64encode(picture.data).decode()
    return {"source": f"data:{picture.mime};base64,{data}", "caption": picture.caption, "size": picture.size}
