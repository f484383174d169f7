"""Who may import whom: ARCHITECTURE.md's table, and who alone knows a library."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import CHECKOUT

PACKAGE = CHECKOUT / "maskrl"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def rows() -> list[list[str]]:
    """The modules in the table's rows, from the top."""
    section = (CHECKOUT / "ARCHITECTURE.md").read_text().split("## Who may import whom")[1]
    cells = re.findall(r"^\|[^|]*\|([^|]*`[^|]*)\|$", section, re.MULTILINE)
    return [re.findall(r"`(\w+)/?(?:\.py)?`", cell) for cell in cells]


LEVEL = {module: level for level, modules in enumerate(rows()) for module in modules}


def imports(path) -> set[str]:
    """Full names of what a file imports, wherever in it: `maskrl.envs.Row`, `numpy`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_table_names_every_module_once():
    top = {name.partition(".")[0] for name in FILES}
    named = [module for row in rows() for module in row]
    assert sorted(named) == sorted(top | {"train", "evaluate", "benchmarks"})


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    here = name.partition(".")[0]
    for full in imports(FILES[name]):
        package, _, rest = full.partition(".")
        assert package not in ("train", "evaluate", "benchmarks")
        there = rest.partition(".")[0]
        if package == "maskrl" and there != here:
            assert LEVEL[there] > LEVEL[here], f"{name} imports {there}"


@pytest.mark.parametrize(
    ("library", "by"),
    [
        ("envpool", {"envs"}),
        ("orbax", {"checkpoint"}),
        ("jax.experimental.multihost_utils", {"hosts"}),
    ],
)
def test_who_alone_knows_a_library(library, by):
    users = {
        name
        for name, path in FILES.items()
        if any(f"{full}.".startswith(f"{library}.") for full in imports(path))
    }
    assert users == by


def test_figures_and_the_explorer_need_no_encoder():
    code = "import sys; from maskrl.explain import explorer, figures; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    loaded = done.stdout.split()
    assert "maskrl.explain.video" in loaded
    assert "imageio_ffmpeg" not in loaded


SCRIPTS = [*CHECKOUT.glob("*.py"), *CHECKOUT.glob("benchmarks/*.py")]


@pytest.mark.parametrize("path", [*FILES.values(), *SCRIPTS], ids=lambda path: path.name)
def test_nothing_is_too_long(path):
    """At most 8 parameters (`self` aside) and 200 lines of a class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 200, node.name
        elif isinstance(node, ast.FunctionDef):
            given = node.args
            named = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len([name for name in named if name != "self"])
            assert count + (given.vararg is not None) + (given.kwarg is not None) <= 8, node.name


def test_drawing_needs_no_jax():
    for name, path in FILES.items():
        if name.partition(".")[0] in ("recording", "tables", "explain"):
            used = {full.partition(".")[0] for full in imports(path)}
            assert not used & {"jax", "flax", "envpool", "orbax"}, name
