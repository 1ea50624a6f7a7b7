"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def environment_requirements() -> set[str]:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    return {line.strip()[2:] for line in text.splitlines() if line.startswith("      - ")}


def test_environment_is_in_step_with_pyproject() -> None:
    assert environment_requirements() - {"--editable ."} == set(PROJECT["dependencies"])
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert f"- python{PROJECT['requires-python']}" in text


def test_every_dependency_has_a_lower_bound() -> None:
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    assert all(re.search(r">=\d", r) for r in [*PROJECT["dependencies"], *extras])


def test_demo_data_stay_under_their_size() -> None:
    total = sum(f.stat().st_size for f in (ROOT / "data").rglob("*") if f.is_file())
    assert total <= 45 * 2**20


def test_ci_runs_the_readme_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("demo", "test"):
        assert len(re.findall(rf"<!-- {name} -->\n```sh\n(.+)\n```", readme)) == 1
