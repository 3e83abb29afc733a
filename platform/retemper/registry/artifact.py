"""What a registered version's artifact holds, and how it is told from one that was changed.

The artifact is a folder: ``MLmodel``, environments, ``data/model.safetensors``. Its digest is a tag of the version, in
the registry's database: who can write files beside the weights cannot change it together with them. What retemper adds
to the folder later (measures, ``retemper/``) and what MLflow notes in a downloaded copy are not part of it.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from retemper.core import template
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.core.version import __version__

TAG = "artifact.sha256"  # of the version and of its logged model
WEIGHTS = "data/model.safetensors"
LATER = "retemper"  # folder of what is added after registration
NOTE = "registered_model_meta"  # MLflow's note of the version, in every copy that it downloads
PACKAGES = ("mlflow", "mace-torch", "torch", "ase", "numpy", "pandas", "scipy", "pydantic", "safetensors")


def digest(folder: Path) -> str:
    """sha256 of the names and contents of all files, links refused."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if name.parts[0] == LATER or str(name) == NOTE:
            continue
        if path.is_symlink():
            raise RetemperError(f"{folder} has a link, {name}: it was not opened.", expected="files alone")
        if path.is_file():
            total.update(f"{sha256(path)} {name.as_posix()!r}\n".encode())
    return total.hexdigest()


def require(folder: Path, registered: str | None, version: str) -> None:
    """Raise a `RetemperError` unless the digest of the folder is the registered one."""
    if registered is None:
        raise RetemperError(
            f"{version} was registered by an earlier release: its artifact has code of its own, and no digest.",
            expected=f"the tag {TAG}",
            fix="dvc repro -f the stage that registers it; its weights load with retemper.load, which checks them",
        )
    got = digest(folder)
    if got != registered:
        raise RetemperError(
            f"The artifact of {version} is not the registered one and was not opened.",
            expected=f"sha256 of all its files {registered}",
            got=f"sha256 {got}",
            fix="register it again, or restore the store from a backup",
        )


def check(folder: Path) -> bool:
    """Compare a downloaded artifact with the registry that this process uses; whether there was one to compare with.

    Raises
    ------
    RetemperError
        Another artifact than the registered one, or a registry that does not answer.
    """
    import yaml
    from mlflow import MlflowClient, tracking
    from mlflow.exceptions import MlflowException

    client_of: Any = tracking  # without types
    if not client_of.is_tracking_uri_set():
        return False
    client = MlflowClient()
    note = folder / NOTE
    metadata = yaml.safe_load(note.read_text()) if note.is_file() else {}
    try:
        if metadata.get("model_name"):
            name, number = str(metadata["model_name"]), str(metadata["model_version"])
            tags, label = client.get_model_version(name, number).tags, f"{name}/{number}"
        else:
            model_id = str(yaml.safe_load((folder / "MLmodel").read_text()).get("model_id"))
            tags, label = client.get_logged_model(model_id).tags, f"models:/{model_id}"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise RetemperError(
            f"The registry cannot say whether {folder} is what was registered: {str(error).splitlines()[0][:300]}",
            fix="start the server that MLFLOW_TRACKING_URI names, or unset it to load without comparing",
        ) from error
    require(folder, tags.get(TAG), label)
    return True


def add_package(folder: Path) -> None:
    """Put this package beside the model as a wheel, and into the environment that MLflow makes for the model.

    No index has it. It is part of the digest, and installed only where someone builds an environment from the artifact.
    """
    import yaml

    name = f"retemper-{__version__}"
    metadata = {
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: retemper\nVersion: {__version__}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    source = Path(__file__).parents[1]
    modules = (path for path in source.rglob("*.py") if not path.is_relative_to(template.INSTALLED))
    files = {f"retemper/{path.relative_to(source).as_posix()}": path.read_text() for path in modules}
    files = dict(sorted(files.items())) | metadata
    record = "".join(f"{path},{_record_hash(text)},{len(text.encode())}\n" for path, text in files.items())
    wheel = folder / f"wheels/{name}-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as out:
        for path, text in {**files, f"{name}.dist-info/RECORD": f"{record}{name}.dist-info/RECORD,,\n"}.items():
            out.writestr(
                zipfile.ZipInfo(path), text, zipfile.ZIP_DEFLATED
            )  # without times: the same files, the same wheel
    environment = folder / "python_env.yaml"
    content = yaml.safe_load(environment.read_text())
    content["dependencies"].append(f"wheels/{wheel.name}")
    environment.write_text(yaml.safe_dump(content, sort_keys=False))


def _record_hash(text: str) -> str:
    """A file's hash as a wheel's RECORD has it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def requirements() -> list[str]:
    """Packages of this environment that a served model needs, as an index has them: versions without local parts."""
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]
