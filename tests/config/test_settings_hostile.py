"""Settings that another reader would bend, that turn limits off, or that mean nothing: refused when they are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from dvc.utils.serialize import parse_yaml

from retemper import systems
from retemper.config import foundations, strategies
from retemper.config.settings import load_settings
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import LONGEST, RetemperError
from retemper.study.spec import load as load_study

hostile = pytest.mark.hostile("settings")
NULL = "turn it off"  # the advice where a limit may be off

# Plain scalars and what they are: a value, or the words of an error.
SCALARS: list[tuple[str, Any]] = [
    ("yes", "yes"),
    ("NO", "NO"),
    ("on", "on"),
    ("y", "y"),
    ("true", True),
    ("FALSE", False),
    ("1e-3", 1e-3),
    ("1E5", 1e5),
    ("+12e3", 12e3),
    (".5", 0.5),
    ("3.", 3.0),
    ("-0", 0),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("~", None),
    ("Null", None),
    ("'no'", "no"),
    ("'010'", "010"),
    ("5e", "5e"),
    ("0b5c", "0b5c"),
    ("0o8", "0o8"),
    ("٣", "٣"),
    ("[NO, N, O]", ["NO", "N", "O"]),
    ("010", RetemperError("has 010")),
    ("08", RetemperError("has 08")),
    ("-010", RetemperError("has -010")),
    ("0o17", RetemperError("has 0o17")),
    ("0x1F", RetemperError("has 0x1F")),
    ("0b11", RetemperError("has 0b11")),
    ("1_000", RetemperError("has 1_000")),
    ("1_0e3", RetemperError("has 1_0e3")),
    ("1.5_0", RetemperError("has 1.5_0")),
    ("00.5", RetemperError("has 00.5")),
    ("2026-01-31", RetemperError("the date 2026-01-31")),
    ("2026-01-31 10:00:00", RetemperError("the date 2026-01-31")),
    ("=", RetemperError("has = without quotes")),
    ("!!float 1", RetemperError("has a tag")),
    ("!!python/object/apply:os.system [echo]", RetemperError("has a tag")),
    ("! 1", RetemperError("has a tag")),
    ("9" * 5000, RetemperError("5000 digits")),
]


@pytest.mark.parametrize(("text", "meant"), SCALARS, ids=[text[:20] for text, _ in SCALARS])
@hostile
def test_a_value_is_read_as_dvc_reads_it_or_refused(tmp_path: Path, text: str, meant: Any) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(f"# first\nvalue: {text}\n")
    if isinstance(meant, RetemperError):
        with pytest.raises(RetemperError) as raised:
            read_yaml(path)
        assert "line 2" in str(raised.value) and meant.what in str(raised.value) and raised.value.fix
    else:
        (value,) = read_yaml(path).values()
        (seen,) = parse_yaml(path.read_text(), str(path)).values()
        assert (type(value), value) == (type(meant), meant)
        assert (type(seen), seen) == (type(meant), meant)


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES: list[tuple[bytes, str]] = [
    (b"", "has no names and values"),
    (b"# nothing\n", "got:      nothing"),
    (b"- a\n- b\n", "got:      a list"),
    (b"system\n", "got:      a single value"),
    (b"a: 1\nb: \xe9\n", "line 2: this is not UTF-8"),
    ("a: 1\n".encode("utf-16"), "line 1: this is not UTF-8"),
    (b"a:\n\tb: 1\n", "line 2: .*\n.*indent with spaces"),
    (b"a: 1\nb: 2\n\na: 3\n", "line 4, has 'a' again: it stands in line 1"),
    (b"a: {b: 1, b: 2}\n", "line 1, has 'b' again"),
    (b"a: 1\nb: [\n", "line 3: this is not YAML"),
    (b"a: b: c\n", "line 1: this is not YAML"),
    (b"a: 1\n---\nb: 2\n", "line 2: this is not YAML"),
    (b"a: 1\nb: 'x\x00'\n", r"line 2: .*U\+0000"),
    (b"1: x\n", "the key 1, which is no text"),
    (b"true: x\n", "the key true, which is no text"),
    (b"? [a, b]\n: x\n", "no text"),
    (b"<<: {a: 1}\nb: 2\n", "has << without quotes"),
    (b"a: &x [1]\nb: *x\n", r"line 2, has an alias \(\*x\)"),
    (BOMB.encode(), "has an alias"),
    (b"%YAML 1.1\n---\na: yes\n", "has a directive"),
    (b"[" * 5000, "nested too deeply"),
    (b"<<<<<<< HEAD\nsystem: a\n=======\nsystem: b\n>>>>>>> other\n", "not YAML"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[repr(content[:20]) for content, _ in FILES])
@hostile
def test_a_file_that_is_no_settings_says_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(RetemperError, match=message):
        load_settings(path)


@hostile
def test_a_byte_order_mark_and_windows_lines_change_nothing(tmp_path: Path) -> None:
    """DVC reads such a file too."""
    path, text = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    path.write_bytes("\ufeff".encode() + text.replace("\n", "\r\n").encode())
    assert load_settings(path) == load_settings(ROOT / "params.yaml")
    assert parse_yaml(path.read_bytes().decode(), "params.yaml") == read_yaml(path)


def test_every_file_of_settings_is_read_as_dvc_reads_it() -> None:
    for path in [
        ROOT / "params.yaml",
        *(p for f in ("strategies", "systems", "studies", "foundations") for p in (ROOT / f).glob("*.yaml")),
    ]:
        assert read_yaml(path) == parse_yaml(path.read_text(), str(path)), path


def changed(folder: Path, setting: str, value: str) -> Path:
    """The project's params.yaml with a line of YAML for one setting, its section being written in one line."""
    *sections, leaf = setting.split(".")
    content: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    target = content
    for section in sections:
        target = target.setdefault(section, {})
    target.pop(leaf, None)
    path = folder / "params.yaml"
    path.write_text("".join(f"{key}: {_flow(part)}\n" for key, part in content.items() if key != setting.split(".")[0]))
    with path.open("a") as file:
        inner = f"{leaf}: {value}"
        for depth, section in reversed(list(enumerate(sections))):
            held = content
            for name in sections[: depth + 1]:
                held = held[name]
            beside = "".join(f", {k}: {_flow(v)}" for k, v in held.items() if k not in (*sections, leaf))
            inner = f"{section}: {{{inner}{beside}}}"
        file.write(inner + "\n")
    return path


def _flow(value: Any) -> str:
    return json.dumps(value)


VALUES: list[tuple[str, str, str]] = [
    # booleans, numbers and text are what they are written as
    ("e0s.force", "yes", "true or false"),
    ("e0s.force", "1", "true or false"),
    ("e0s.force", "'true'", "true or false"),
    ("finetune.epochs", "yes", "a whole number"),
    ("finetune.epochs", "true", "a whole number"),
    ("finetune.epochs", "1:30", "a whole number"),
    ("finetune.epochs", "010", "has 010"),
    ("finetune.epochs", "1e1", "write 10"),
    ("finetune.epochs", "'10'", "without quotes"),
    ("finetune.epochs", "null", "a whole number"),
    ("finetune.epochs", "0", "greater than or equal to 1"),
    ("seeds", "[yes]", "seeds.0 is wrong"),
    ("seeds", "3", "a list"),
    ("system", "1", "in quotes: '1'"),
    ("system", "true", "in quotes: 'true'"),
    ("dataset.level_of_theory", "6.5", "in quotes"),
    ("dataset.level_of_theory", "''", "at least 1 character"),
    ("dataset.group", "null", "dataset.group is wrong"),
    ("dataset.files", "data/raw/nacl.extxyz.xz", r"write \[data"),
    ("dataset.files", "[]", "at least 1"),
    ("finetune", "null", "names and values"),
    ("promotion.gates", "{metric: target.force_rmse}", "a list"),
    # numbers are finite and in range; null where a limit may be off
    ("dataset.max_force", ".inf", "a large one"),
    ("dataset.max_force", ".nan", "a finite number"),
    ("dataset.max_force", "1e400", "a finite number"),
    ("dataset.max_force", "null", "a number"),
    ("dataset.max_force", "-1", "greater than 0"),
    ("dataset.min_distance", ".nan", "a finite number"),
    ("dataset.energy_window", ".inf", "a finite number"),
    ("dataset.max_net_force", ".inf", "a finite number"),
    ("dataset.near_duplicate", ".inf", "a finite number"),
    ("dataset.max_rejected", ".nan", "a finite number"),
    ("e0s.max_error", ".inf", "a finite number"),
    ("e0s.max_uncertainty", ".nan", "a finite number"),
    ("acquire.trust", ".inf", NULL),
    ("acquire.stop.gain", ".nan", NULL),
    ("acquire.apart", ".inf", "a finite number"),
    ("acquire.timeout", ".inf", "a finite number"),
    ("promotion.gates", "[{metric: target.force_rmse, max: .inf}]", NULL),
    ("promotion.gates", "[{metric: target.force_rmse, relative_to: champion, margin: .nan}]", "a finite number"),
    ("robustness.temperature", ".inf", "a finite number"),
    ("sweep.gpus", ".nan", "a finite number"),
    ("evaluate.confidence", "1", "less than 1"),
    ("finetune.workers", "0", "greater than or equal to 1"),
    ("finetune.overrides", "{training.lr: .nan}", "nan is no setting"),
    ("acquire.oracle", "{name: xtb, options: {accuracy: .inf}}", "inf is no setting"),
    ("dataset.valid", "0.8", "leave frames for training"),
    # each once
    ("seeds", "[1, 1]", "listed twice"),
    ("seeds", "[-1]", "greater than or equal to 0"),
    ("seeds", "[4294967296]", "less than 4294967296"),
    ("dataset.seed", "-1", "greater than or equal to 0"),
    ("strategies", "[naive, naive]", "listed twice"),
    ("dataset.files", "[data/a.xyz, data/a.xyz]", "listed twice"),
    ("dataset.files", "[data/a.xyz, ./data//a.xyz]", "listed twice"),
    ("dataset.test_files", "[data/raw/nacl.extxyz.xz]", "is in both"),
    ("dataset.rounds", "[1, 1]", "listed twice"),
    ("robustness.metrics", "[rss, rss]", "listed twice"),
    ("robustness.seeds", "[2, 2]", "listed twice"),
    ("sweep.objectives", "[target, target]", "listed twice"),
    # names
    ("robustness.metrics", "[shortrange]", "did you mean 'short_range'"),
    ("robustness.metrics", "[all, rss]", "Unknown metric 'all'"),
    ("sweep.objectives", "[target, retentoin]", "did you mean 'retention'"),
    ("promotion.objective", "target.force_rms", "did you mean 'target.force_rmse'"),
    ("promotion.objective", "target_force_rmse", "did you mean 'target.force_rmse'"),
    ("promotion.gates", "[{metric: forgeting_ratio, max: 2}]", "(?s)gates.0.metric.*did you mean 'forgetting_ratio'"),
    ("promotion.gates", "[{metric: target.force_rmse, maximum: 2}]", "Unknown setting 'promotion.gates.0.maximum'"),
    ("acquire.stop.gate", "2", "did you mean 'gates'"),
    ("acquire.stop.gates", "forgetting_ratio", "a whole number or null"),
    ("finetune.device", "gpu", "pattern"),
    ("robustness.elements", "[NO]", "pattern"),
    ("finetune.dtype", "float16", "one of float32, float64"),
    ("evaluate.bootstrap", "1000", "is no setting any more.*\n.*delete bootstrap"),
    ("promotion.resamples", "5000", "is no setting any more.*\n.*delete resamples"),
    ("promotion.gates", "[{metric: robustness.md, min: 9, better: higher}]", "no setting any more.*\n.*delete better"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "value", "message"), VALUES, ids=[f"{s} {v}"[:60] for s, v, _ in VALUES])
@hostile
def test_a_value_that_its_setting_does_not_take(tmp_path: Path, setting: str, value: str, message: str) -> None:
    """The error names the file, the line and the setting, and no type of a library."""
    path = changed(tmp_path, setting, value)
    with pytest.raises(RetemperError, match=message) as raised:
        load_settings(path)
    text = str(raised.value)
    assert f"{path}, line {len(path.read_text().splitlines())}" in text
    assert "has 010" in text or setting in text or f"{setting.partition('.')[0]} is wrong" in text
    assert "Input should" not in text and "pydantic" not in text


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("acquire.trust", "null"),
        ("acquire.trust", "1"),
        ("system", "no"),
        ("finetune.overrides", "{training.lr: 1e-3}"),
    ],
)
def test_what_looks_odd_and_is_right(tmp_path: Path, setting: str, value: str) -> None:
    load_settings(changed(tmp_path, setting, value))


# ------------------------------------------------------------------ the other files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("strategies", "systems", "foundations", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.xz", "*.model"))
    return tmp_path


STRATEGIES: list[tuple[str, str]] = [
    ("training: {lr: 1:30}", "strategies/mine.yaml, line 2: training.lr is wrong"),
    ("training: {lr: .inf}", "a finite number"),
    ("training: {clip_grad: .inf}", NULL),
    ("freeze: yes", "one of 5, 6"),
    ("name: other", "the name is mine"),
    ("search: {training.lr: {low: 1e-3, high: .inf, log: true}}", "a finite number"),
    ("search: {training.lr: {low: 1e-3, high: 1e-2, log: on}}", "true or false"),
    ("search: {lora.rank: {choices: [4, 4]}}", "each choice once"),
    ("replay: {labels: original, number: 1_000}", "has 1_000"),
    ("lora: {rnak: 4}", "did you mean 'rank'"),
    ("training:\n  lr: 1e-3\n  lr: 1e-2", "line 4, has 'lr' again"),
]


@pytest.mark.parametrize(("line", "message"), STRATEGIES, ids=[line[:40] for line, _ in STRATEGIES])
@hostile
def test_a_strategy(project: Path, line: str, message: str) -> None:
    (project / "strategies/mine.yaml").write_text(f"about: mine\n{line}\n")
    with pytest.raises(RetemperError, match=message):
        strategies.load("mine", project)


@pytest.mark.hostile("messages")
def test_the_advice_names_the_file_in_which_the_setting_stands(project: Path) -> None:
    """The strategy's own, the one that all share, params.yaml, or what a sweep has found."""
    base = project / "strategies/base.yaml"
    base.write_text(base.read_text().replace("patience: 2048", "patience: no"))
    line = base.read_text().split("patience: no")[0].count("\n") + 1
    with pytest.raises(RetemperError, match=f"strategies/base.yaml, line {line}: training.patience"):
        strategies.load("naive", project)
    base.write_text(base.read_text().replace("patience: no", "patience: 2048"))
    with pytest.raises(RetemperError) as raised:
        strategies.load("naive", project, {"training.lr": -1.0})
    assert "params.yaml (finetune.overrides)" in str(raised.value) and "naive.yaml" not in str(raised.value)
    with pytest.raises(RetemperError, match=r"take it out of params\.yaml \(finetune\.overrides\)"):
        strategies.load("naive", project, {"lora.rank": 4})
    with pytest.raises(RetemperError, match=r"runs/sweep/naive/best\.yaml: training\.lr"):
        strategies.load("naive", project, {"training.lr": 1e-3}, {"training.lr": "high"})


OTHERS: list[tuple[str, str, str]] = [
    ("systems/nacl.yaml", "charge: true", "line 9: charge is wrong"),
    ("systems/nacl.yaml", "charge: 010", "line 9, has 010"),
    ("systems/nacl.yaml", "charge: 0.5", "a whole number or text"),
    ("systems/nacl.yaml", "observables: [cohesio]", "did you mean 'cohesion'"),
    ("systems/nacl.yaml", "elements: H O Na CL", "elements.3 is wrong"),
    ("systems/nacl.yaml", "elements: H O Na Na", "listed twice"),
    ("systems/nacl.yaml", "name: kcl", "the name is nacl"),
    ("foundations/foundations.yaml", "mini: {about: x}", "level_of_theory is missing"),
    ("foundations/foundations.yaml", "mini: 3", "no section"),
    ("foundations/foundations.yaml", "mini-crystals: {}", "again"),
    ("studies/smoke.yaml", "metrics: [rsss]", "did you mean 'rss'"),
    ("studies/smoke.yaml", "metrics: [rss, rss]", "listed twice"),
    ("studies/smoke.yaml", "budget: {cpu_hours: .inf}", NULL),
    ("studies/smoke.yaml", "level: thorougher", "did you mean 'thorough'"),
    ("studies/smoke.yaml", "base: {evaluate: {bootstrap: 100}}", "Unknown setting of evaluate"),
    ("studies/smoke.yaml", "base: {finetune: {epochs: yes}}", "a whole number"),
    ("studies/smoke.yaml", "centre: {system: nacl, foundation: mini, strategy: naive, size: .nan}", "a finite number"),
]


@pytest.mark.parametrize(("file", "line", "message"), OTHERS, ids=[f"{f} {x}"[:60] for f, x, _ in OTHERS])
@hostile
def test_systems_foundations_and_studies(project: Path, file: str, line: str, message: str) -> None:
    """The line stands in place of the one with the same key, or at the end."""
    path, key = project / file, line.partition(":")[0]
    lines = path.read_text().splitlines()
    start = next((i for i, text in enumerate(lines) if text.startswith(f"{key}:")), len(lines))
    end = next((i for i in range(start + 1, len(lines)) if lines[i][:1] not in (" ", "#", "")), len(lines))
    if key == "mini-crystals":
        start = end = len(lines)
    path.write_text("\n".join([*lines[:start], line, *lines[end:]]) + "\n")
    with pytest.raises(RetemperError, match=message) as raised:
        if file.startswith("systems"):
            systems.catalogue(project)
        elif file.startswith("foundations"):
            foundations.find("mini", project)
        else:
            load_study(path)
    assert file.rpartition("/")[2] in str(raised.value)


# ------------------------------------------------------------------ messages


@pytest.mark.hostile("messages")
def test_a_message_is_short_whatever_came(tmp_path: Path) -> None:
    path = changed(tmp_path, "dataset.group", '"' + "x" * 10_000_000 + '"')
    path.write_text(path.read_text().replace("dataset: {", "dataset: {valid: 2, "))
    with pytest.raises(RetemperError) as raised:
        load_settings(path)
    error = RetemperError("a" * 10**8, expected="b" * 10**8, got="c" * 10**8, fix="d" * 10**8)
    for message in (str(raised.value), str(error)):
        assert len(message) < 5 * LONGEST
    assert "(100000000 characters)" in str(error)


@pytest.mark.hostile("messages")
def test_a_wrong_params_yaml_is_one_message_in_the_terminal(tmp_path: Path) -> None:
    path = changed(tmp_path, "finetune.epochs", "yes")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.sweep", "naive"],
        cwd=ROOT,
        env={**os.environ, "RETEMPER_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{path}, line" in done.stderr and "a whole number" in done.stderr
