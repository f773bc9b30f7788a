import os
from pathlib import Path

import pytest

from storyforge.commands import doctor, graphics
from storyforge.commands.graphics import Graphics


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A function that puts an nvidia-smi on the PATH, which prints a text and ends with a status."""
    monkeypatch.setattr(graphics, "NVIDIA", Path("no-such-place"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def put(text, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}'\nexit {status}\n")
        program.chmod(0o755)

    return put


@pytest.fixture
def torch(monkeypatch):
    """A function that says which torch is installed, and with which CUDA where its version tells none."""

    def install(version, cuda="13.0", folder=None):
        monkeypatch.setattr(graphics.repository, "installed", lambda name: version)
        if folder:
            (folder / "torch").mkdir()
            (folder / "torch" / "__init__.py").touch()
            (folder / "torch" / "version.py").write_text(f"cuda: Optional[str] = '{cuda}'\nhip = None\n")
            found = type("Spec", (), {"origin": str(folder / "torch" / "__init__.py")})
            monkeypatch.setattr(graphics, "find_spec", lambda name: found)

    return install


@pytest.mark.parametrize("text", [None, "No devices were found"])
def test_without_any_sign_of_a_gpu_there_is_none(smi, monkeypatch, text):
    if text:
        smi(text, 6)
    else:
        monkeypatch.setattr(graphics, "ASK", ("no-such-nvidia-smi",))
    assert graphics.found() is None
    assert graphics.wanted_build(None) is None


def test_a_gpu_is_known_by_its_name_and_driver(smi):
    smi("Tesla T4, 550.54.15\nTesla T4, 550.54.15")
    assert graphics.found() == Graphics("Tesla T4", "550.54.15")
    assert str(graphics.found()) == "Tesla T4, driver 550.54.15"


@pytest.mark.parametrize(
    ("driver", "build", "wanted"),
    [
        ("550.54.15", "2.13.0+cpu", "2.13.0+cu129"),
        ("550.54.15", "2.13.0+cu130", "2.13.0+cu129"),
        ("550.54.15", "2.13.0+cu129", None),
        ("550.54.15", "2.13.0+cu126", None),
        ("580.65.06", "2.13.0+cpu", "2.13.0+cu130"),
        ("580.65.06", "2.13.0+cu130", None),
        ("610.1", "2.13.0+cu129", None),
    ],
)
def test_the_build_is_the_newest_that_the_driver_runs(smi, torch, driver, build, wanted):
    smi(f"Tesla T4, {driver}")
    torch(build)
    here = graphics.found()
    assert graphics.wanted_build(here) == wanted
    problem = graphics.problem(here)
    if wanted is None:
        assert problem is None
    else:
        text, command = problem
        suffix = wanted.partition("+")[2]
        assert text.startswith(f"Tesla T4, driver {driver} is here, but torch {build}")
        assert command == f"pip install torch=={wanted} --index-url INDEX/{suffix}"


@pytest.mark.parametrize(("cuda", "wanted"), [("13.0", "2.13.0+cu129"), ("12.9", None)])
def test_a_version_that_names_no_cuda_is_looked_up_in_the_package(smi, torch, tmp_path, cuda, wanted):
    """As the wheel of an index's first choice is called; torch itself is not imported."""
    smi("Tesla T4, 550.54.15")
    torch("2.13.0", cuda, tmp_path)
    assert graphics.wanted_build(graphics.found()) == wanted


def test_what_the_installed_build_needs_is_said(smi, torch):
    smi("Tesla T4, 550.54.15")
    torch("2.13.0+cu130")
    assert (
        "torch 2.13.0+cu130, which needs driver 580, cannot use it" in graphics.problem(graphics.found())[0]
    )


def test_a_driver_older_than_every_build_is_said(smi, torch):
    smi("Tesla K80, 470.1")
    torch("2.13.0+cpu")
    text, command = graphics.problem(graphics.found())
    assert text == "Tesla K80, driver 470.1 is too old for torch 2.13.0+cpu: install driver 580 or newer"
    assert command == ""


def on_the_bus(tmp_path, monkeypatch, vendor):
    (tmp_path / "pci/0000:01:00.0").mkdir(parents=True)
    (tmp_path / "pci/0000:01:00.0/vendor").write_text(f"{vendor}\n")
    monkeypatch.setattr(graphics, "PCI", tmp_path / "pci")


def test_a_program_without_hardware_is_no_gpu(smi, tmp_path, monkeypatch):
    """nvidia-smi alone is in many images."""
    smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", 9)
    on_the_bus(tmp_path, monkeypatch, "0x8086")
    assert graphics.found() is None


def test_a_failing_nvidia_smi_is_no_missing_gpu(smi, torch, tmp_path, monkeypatch):
    smi("Failed to initialize NVML: Driver/library version mismatch", 18)
    torch("2.13.0+cu130")
    on_the_bus(tmp_path, monkeypatch, "0x10de")
    (tmp_path / "params.yaml").write_text("model: {quantization: nf4}\n")
    monkeypatch.chdir(tmp_path)
    finding = doctor.device()
    assert finding.state == "wrong" and "nvidia-smi fails (Failed to initialize NVML" in finding.text
    assert "finds none" not in finding.text


def test_a_gpu_that_torch_does_not_find_is_named_by_doctor(smi, torch, tmp_path, monkeypatch):
    import torch as real

    smi("Tesla T4, 580.65.06")
    torch("2.13.0+cu130")
    monkeypatch.setattr("storyforge.model.device.device", lambda: real.device("cpu"))
    (tmp_path / "params.yaml").write_text("model: {quantization: nf4}\n")
    monkeypatch.chdir(tmp_path)
    finding = doctor.device()
    assert finding.state == "wrong" and "cannot use Tesla T4, driver 580.65.06" in finding.text
