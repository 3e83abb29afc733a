"""Released foundation models: where MACE's loaders have them, and where those keep them on this machine."""

from __future__ import annotations

import os
import shutil
import urllib.request
from pathlib import Path

from retemper.core.files import atomic_write

MP = "https://github.com/ACEsuit/mace-mp/releases/download"
FOUNDATIONS = "https://github.com/ACEsuit/mace-foundations/releases/download"
OFF = "https://raw.githubusercontent.com/ACEsuit/mace-off/main/mace_off23"
# By loader of MACE and by the name that the loader knows; equal to MACE's own tables, see tests/test_layout.py.
URLS = {
    "mace_mp": {
        "small": f"{MP}/mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model",
        "medium": f"{MP}/mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model",
        "large": f"{MP}/mace_mp_0/MACE_MPtrj_2022.9.model",
        "small-0b": f"{MP}/mace_mp_0b/mace_agnesi_small.model",
        "medium-0b": f"{MP}/mace_mp_0b/mace_agnesi_medium.model",
        "small-0b2": f"{MP}/mace_mp_0b2/mace-small-density-agnesi-stress.model",
        "medium-0b2": f"{MP}/mace_mp_0b2/mace-medium-density-agnesi-stress.model",
        "large-0b2": f"{MP}/mace_mp_0b2/mace-large-density-agnesi-stress.model",
        "medium-0b3": f"{MP}/mace_mp_0b3/mace-mp-0b3-medium.model",
        "medium-mpa-0": f"{MP}/mace_mpa_0/mace-mpa-0-medium.model",
        "small-omat-0": f"{MP}/mace_omat_0/mace-omat-0-small.model",
        "medium-omat-0": f"{MP}/mace_omat_0/mace-omat-0-medium.model",
        "mace-matpes-pbe-0": f"{FOUNDATIONS}/mace_matpes_0/MACE-matpes-pbe-omat-ft.model",
        "mace-matpes-r2scan-0": f"{FOUNDATIONS}/mace_matpes_0/MACE-matpes-r2scan-omat-ft.model",
        "mh-0": f"{FOUNDATIONS}/mace_mh_1/mace-mh-0.model",
        "mh-1": f"{FOUNDATIONS}/mace_mh_1/mace-mh-1.model",
    },
    "mace_off": {
        "small": f"{OFF}/MACE-OFF23_small.model",
        "medium": f"{OFF}/MACE-OFF23_medium.model",
        "large": f"{OFF}/MACE-OFF23_large.model",
    },
    "mace_omol": {
        "extra_large": f"{FOUNDATIONS}/mace_omol_0/MACE-omol-0-extra-large-1024.model",
    },
}
TIMEOUT = 120.0  # s without a byte


def cached(loader: str, model: str) -> Path:
    """Where MACE's loader keeps a model, and looks for it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace"
    name = URLS[loader][model].rsplit("/", 1)[1]
    if loader == "mace_mp":
        name = "".join(c for c in name if c.isalnum() or c == "_")
    return folder / name


def download(url: str, path: Path) -> None:
    """Fetch a file, whole or not at all.

    Raises
    ------
    OSError
        No network, an address that is not there, a full disk.
    RuntimeError
        A page in the place of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise RuntimeError(f"{url} is a page, not a file of weights")
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(answer, file)
