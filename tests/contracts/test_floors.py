"""The house stands: floors import downwards only, registries are complete, configs are valid, names are told."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hcqsfl

ROOT = Path(hcqsfl.__file__).parents[2]
SOURCE = Path(hcqsfl.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(SOURCE)], "hcqsfl."))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_floors_import_downwards_only() -> None:
    linted = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


def test_an_import_upwards_would_be_caught(tmp_path) -> None:
    """The linter fails on a planted house whose lower floor imports the upper one."""
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "upper.py").touch()
    (package / "lower.py").write_text("import house.upper\n")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package=house\n"
        "[importlinter:contract:1]\nname=x\ntype=layers\nlayers=\n  house.upper\n  house.lower\n"
    )
    linted = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode != 0
    assert "house.lower -> house.upper" in linted.stdout


def test_split_imports_nothing_else_of_ours() -> None:
    for path in (SOURCE / "split").rglob("*.py"):
        ours = {name for name in imports(path) if name.startswith("hcqsfl")}
        allowed = {"hcqsfl.registry", "hcqsfl.randomness", "hcqsfl.optimizers"}
        foreign = {n for n in ours if not n.startswith("hcqsfl.split") and ".".join(n.split(".")[:2]) not in allowed}
        assert not foreign, f"{path.name}: {foreign}"


def test_only_deployment_knows_flower_and_grpc() -> None:
    for path in SOURCE.rglob("*.py"):
        if "deployment" not in path.parts:
            assert not {n for n in imports(path) if n.split(".")[0] in ("flwr", "grpc")}, path


def test_only_build_and_above_read_settings() -> None:
    above = {"config.py"}
    for path in SOURCE.rglob("*.py"):
        relative = path.relative_to(SOURCE)
        if relative.name in above or relative.parts[0] in ("build", "cli", "recipes", "deployment"):
            continue
        assert not {n for n in imports(path) if n.startswith("hcqsfl.config")}, path


def test_data_sets_do_not_import_one_another() -> None:
    from hcqsfl.data import DATASETS

    for module in DATASETS.values():
        path = SOURCE / (module.removeprefix("hcqsfl.").replace(".", "/") + ".py")
        others = {other for other in DATASETS.values() if other != module}
        assert not imports(path) & others, path


def test_nothing_loads_tensors_or_arrays_that_can_run_code() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("pickle.load", "pickle.loads", "torch.load", "joblib.load"), path
                allows = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) == "True"]
                assert not allows, path


def public_objects():
    for name in MODULES:
        module = importlib.import_module(name)
        yield name, module
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{name}.{attribute}", value
            if inspect.isclass(value):
                for member, function in vars(value).items():
                    if member.startswith("_") or getattr(function, "__name__", "") == "<lambda>":
                        continue
                    if inspect.isfunction(function):
                        yield f"{name}.{attribute}.{member}", function


def test_everything_public_has_a_docstring() -> None:
    untold = [
        name
        for name, value in public_objects()
        if not (value.__doc__ or "").strip() and not name.rsplit(".", 1)[-1].startswith("forward")
    ]
    assert not untold


@pytest.mark.parametrize("word", ["/work/", "/root/", "/home/", "../shared"])
def test_no_machine_path_is_in_the_project(word: str) -> None:
    listed = subprocess.run(["git", "grep", "-l", "-F", word], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode > 1:
        pytest.skip("this is no git checkout")
    assert set(listed.stdout.split()) <= {"tests/contracts/test_floors.py"}
