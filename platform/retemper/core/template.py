"""What a project begins with: files of this package's repository, which a wheel carries in ``retemper/template``.

The build reads this module by itself: it imports the standard library alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "template"  # in a wheel
CLONE = PACKAGE.parents[1]  # in a clone, where the repository itself is the template

# Files, and folders with all that is in them.
MACHINERY = (  # of every project; `retemper upgrade` renews them
    *(".dvc/.gitignore", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitattributes", ".gitignore", ".rayignore"),
    *(".retemper/schemas", "data/rounds/.gitignore", "dvc.yaml", "foundations/foundations.yaml", "pipelines"),
    "strategies",
)
MINI = (  # of projects with the embedded foundation
    *("foundations/mini.md", "foundations/mini.model"),
    *("foundations/pretraining/test.extxyz.xz", "foundations/pretraining/train.extxyz.xz"),
)
EXAMPLE = ("data/raw/nacl.extxyz.xz", "params.yaml")
SYSTEMS = ("systems",)  # stay with the package: the catalogue lists them beside a project's own
OF_THE_CLONE = frozenset({"pipelines/pretrain.py"})  # makes the embedded foundations


def template_root() -> Path:
    """Folder of the template: beside the modules in a wheel, the repository in a clone."""
    return INSTALLED if INSTALLED.is_dir() else CLONE


def files(*paths: str) -> list[str]:
    """Files at and below `paths` of the template, relative to it."""
    root = template_root()
    return sorted(path.relative_to(root).as_posix() for name in paths for path in _below(root / name))


def _below(path: Path) -> Iterator[Path]:
    for file in path.rglob("*") if path.is_dir() else [path]:
        name = file.relative_to(template_root())
        if file.is_file() and "__pycache__" not in name.parts and name.as_posix() not in OF_THE_CLONE:
            yield file
