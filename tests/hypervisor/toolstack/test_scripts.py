"""run_cluster.sh and run_tests.sh: what they install, when, and what they say, with a python that notes its calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"

# Stands for python3 and, copied into .venv by "-m venv", for .venv/bin/python.  FAILS names the step that fails.
PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    "-V") echo "Python 3.9.2" ;;
    *version_info*) [ "$FAILS" != version ] ;;
    *ensurepip*) [ "$FAILS" != venv ] ;;
    "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/memcommons" ;;
    *"pip install"*) [ "$FAILS" != pip ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "check out"
    shutil.copytree(SCRIPTS, root / "scripts", ignore=lambda folder, names: set(names) - {
        "install.sh", "run_cluster.sh", "run_tests.sh"})
    (root / "pyproject.toml").write_text("")
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return root


def environment(checkout, **more):
    return os.environ | {"PYTHON": str(checkout.parent / "python3"), "LOG": str(checkout.parent / "log")} | more


def start(checkout, script, *words, **more):
    return subprocess.Popen([checkout / "scripts" / script, *words], cwd="/", env=environment(checkout, **more),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(checkout, script, *words, **more):
    with start(checkout, script, *words, **more) as process:
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def calls(checkout, word):
    return [line for line in (checkout.parent / "log").read_text().splitlines() if word in line]


@pytest.mark.parametrize(("script", "installed", "started"), [
    ("run_cluster.sh", "", "run a b --json"), ("run_tests.sh", "[test,lint]", "-m pytest -n auto a b --json")])
def test_first_use_installs_and_goes_on(checkout, script, installed, started):
    status, out, err = run(checkout, script, "a b", "--json")
    assert (status, out) == (0, "")
    assert err == f"memcommons: installing into {checkout}/.venv; this takes a minute, once\n"
    assert calls(checkout, "pip install") == [
        f"-m pip install --quiet --disable-pip-version-check --editable {checkout}{installed}"]
    assert calls(checkout, "")[-1] == started


def test_second_use_installs_nothing_and_is_silent(checkout):
    run(checkout, "run_cluster.sh")
    assert run(checkout, "run_cluster.sh") == (0, "", "")
    assert len(calls(checkout, "pip install")) == 1


def test_newer_project_file_is_installed_again(checkout):
    run(checkout, "run_cluster.sh")
    stamp = (checkout / ".venv" / ".installed-cluster").stat()
    os.utime(checkout / "pyproject.toml", ns=(stamp.st_mtime_ns + 1, stamp.st_mtime_ns + 1))
    run(checkout, "run_cluster.sh")
    assert len(calls(checkout, "pip install")) == 2


def test_checkout_that_moved_is_installed_again(checkout):
    run(checkout, "run_cluster.sh")
    moved = checkout.rename(checkout.with_name("moved"))
    run(moved, "run_cluster.sh")
    assert calls(moved, "pip install")[1].endswith(str(moved))


def test_uses_at_once_install_once(checkout):
    processes = [start(checkout, "run_cluster.sh", str(n)) for n in range(6)]
    for process in processes:
        process.communicate(timeout=30)
    assert [process.returncode for process in processes] == [0] * 6
    assert len(calls(checkout, "pip install")) == 1
    assert len(calls(checkout, "-m venv")) == 1
    assert sorted(calls(checkout, "run ")) == [f"run {n}" for n in range(6)]


@pytest.mark.parametrize(("fails", "line"), [
    ("version", "is Python 3.9.2, which is too old; 3.11 or newer is needed (set PYTHON to name another)"),
    ("venv", "has no venv module; install it (Debian, Ubuntu: apt install python3-venv)")])
def test_python_that_will_not_do(checkout, fails, line):
    status, out, err = run(checkout, "run_cluster.sh", FAILS=fails)
    assert (status, out, err) == (2, "", f"memcommons: {checkout.parent}/python3 {line}\n")
    assert not (checkout / ".venv").exists()


def test_python_that_is_not_there(checkout):
    status, _, err = run(checkout, "run_cluster.sh", PYTHON="/nowhere/python3")
    assert (status, err) == (
        2, "memcommons: /nowhere/python3 is not here; install python3 (3.11 or newer) and its venv module\n")


def test_installation_that_fails_is_tried_again(checkout):
    status, _, err = run(checkout, "run_cluster.sh", FAILS="pip")
    assert status == 2
    assert err.splitlines()[-1].startswith(f"memcommons: pip could not install the project into {checkout}/.venv")
    assert run(checkout, "run_cluster.sh")[0] == 0


def test_ci_runs_the_test_command(checkout):
    ci = checkout / ".ci"
    ci.mkdir()
    shutil.copy(SCRIPTS.parent / ".ci" / "run", ci / "run")
    subprocess.run([ci / "run", "-q"], cwd="/", env=environment(checkout), check=True, timeout=30, capture_output=True)
    assert calls(checkout, "-m pytest") == ["-m pytest -n auto -q"]
