"""``peftselect doctor``: what it finds, what it advises, when it fails."""

from __future__ import annotations

import json
from pathlib import Path


def checks(done) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_healthy_installation_passes(peftselect, isolated_home: Path) -> None:
    done = peftselect("doctor", "--json")
    found = checks(done)
    assert done.returncode == 0, done.stdout
    assert {"python", "peftselect", "torch", "peft", "card", "memory", "hub", "plugins", "data folder"} <= set(found)
    assert found["data folder"]["found"] == str(isolated_home)
    assert found["hub"]["status"] == "warn"
    assert "HF_HUB_OFFLINE is set" in found["hub"]["found"]
    assert not isolated_home.exists(), "looking must not write"


def test_people_get_a_table_and_a_verdict(peftselect) -> None:
    done = peftselect("doctor")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("All that is needed is there.")
    assert "CPU cores" in done.stdout


def test_a_home_that_cannot_be_written_fails_with_advice(peftselect, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = peftselect("doctor", "--json", PEFTSELECT_HOME=str(tmp_path / "file" / "home"))
    assert done.returncode == 1
    assert checks(done)["data folder"]["status"] == "fail"
    assert "PEFTSELECT_HOME" in checks(done)["data folder"]["advice"]


def test_a_broken_plugin_fails_with_its_reason(peftselect, tmp_path: Path) -> None:
    install_broken_plugin(tmp_path)
    done = peftselect("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ImportError: it needs a moon" in done.stdout
    assert done.stdout.rstrip().endswith("Something must be mended (FAIL).")


def test_a_missing_and_an_old_package_fail_with_the_command_that_mends_it(peftselect, tmp_path: Path) -> None:
    folder = tmp_path / "peft-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1\n")
    done = peftselect("doctor", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert checks(done)["peft"]["found"] == "0.1, but <0.22,>=0.21 is needed"
    assert checks(done)["peft"]["advice"] == "pip install 'peft<0.22,>=0.21'"


def test_plugins_lists_origin_version_and_the_broken(peftselect, tmp_path: Path) -> None:
    install_broken_plugin(tmp_path)
    done = peftselect("plugins", "--json", PYTHONPATH=str(tmp_path))
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["broken"] == {"moon": "ImportError: it needs a moon"}
    by_name = {item["name"]: item for item in document["plugins"]}
    assert by_name["lora"]["origin"] == "built in"
    assert by_name["lora"]["adds"] == ["lora"]
    assert set(by_name["lora"]) == {"name", "origin", "version", "adds"}
    assert "ImportError: it needs a moon" in peftselect("plugins", PYTHONPATH=str(tmp_path)).stdout


def test_a_disabled_plugin_is_neither_loaded_nor_broken(peftselect, tmp_path: Path) -> None:
    install_broken_plugin(tmp_path)
    done = peftselect("plugins", "--json", PYTHONPATH=str(tmp_path), PEFTSELECT_DISABLE_PLUGINS="moon,bitfit")
    document = json.loads(done.stdout)
    assert document["broken"] == {}
    assert "bitfit" not in {item["name"] for item in document["plugins"]}


def install_broken_plugin(folder: Path) -> None:
    """A distribution whose plugin cannot be imported."""
    info = folder / "moon-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moon\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[peftselect]\nmoon = moon_plugin\n")
    (folder / "moon_plugin.py").write_text("raise ImportError('it needs a moon')\n")
