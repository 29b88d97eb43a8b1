"""The JavaScript's own tests, *.test.mjs, by Node's test runner; and what its lint relies on."""

import json
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def test_the_tests_in_javascript_pass(node):
    files = sorted(HERE.glob("*.test.mjs"))
    command = [node, "--test", "--test-reporter=spec", *files]
    ran = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    count = re.search(r"^\S+ pass (\d+)$", ran.stdout, re.M)
    assert count is not None, ran.stdout
    assert int(count[1]) >= 90


def test_versions_are_exact_and_the_lock_file_names_no_address():
    package = json.loads((HERE / "package.json").read_text(encoding="utf-8"))
    text = (HERE / "package-lock.json").read_text(encoding="utf-8")
    wanted = package["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    packages = json.loads(text)["packages"]
    assert packages[""]["devDependencies"] == wanted
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert "://" not in text
    assert '"resolved"' not in text
    assert all("integrity" in one for name, one in packages.items() if name)
