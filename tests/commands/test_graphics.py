"""Stand-ins for nvidia-smi, drivers of several years, and what is said and installed for them."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from storyforge.commands import doctor, graphics
from storyforge.commands.graphics import Graphics

ROOT = Path(__file__).parents[2]


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
def torch(monkeypatch, tmp_path):
    """A function that says which torch is installed, and with which CUDA where its version tells none."""

    def install(version, cuda=None):
        monkeypatch.setattr(graphics, "torch_version", lambda: version)
        monkeypatch.setattr(graphics, "find_spec", lambda name: None)
        if cuda:
            (tmp_path / "torch").mkdir()
            (tmp_path / "torch" / "version.py").write_text(f"cuda: Optional[str] = '{cuda}'\nhip = None\n")
            found = type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})
            monkeypatch.setattr(graphics, "find_spec", lambda name: found)

    monkeypatch.delenv("TORCH_INDEX", raising=False)
    return install


@pytest.mark.parametrize("text", [None, "No devices were found"])
def test_without_any_sign_of_a_gpu_there_is_none(smi, monkeypatch, text):
    if text:
        smi(text, 6)
    else:
        monkeypatch.setenv("PATH", "no-such-place")
    assert graphics.found() is None
    assert graphics.wanted_build(None) is None


def test_a_gpu_is_known_by_its_name_driver_and_capability(smi):
    smi("Tesla T4, 550.54.15, 7.5\nTesla T4, 550.54.15, 7.5")
    assert graphics.found() == Graphics("Tesla T4", "550.54.15", 7.5)
    assert str(graphics.found()) == "Tesla T4, driver 550.54.15"
    smi("Some, GPU, 550.54.15, [N/A]")
    assert graphics.found() == Graphics("Some, GPU", "550.54.15", None)


def test_a_driver_that_knows_no_capability_is_asked_without(smi, tmp_path):
    smi("")
    refusal = """echo 'Field "compute_cap" is not a valid field to query.'; exit 2"""
    text = f"case $* in *compute_cap*) {refusal};; esac\necho Tesla K80, 470.1\n"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}")
    assert graphics.found() == Graphics("Tesla K80", "470.1")


@pytest.mark.parametrize(
    ("gpu", "build", "wanted"),
    [
        ("Tesla T4, 535.104.05, 7.5", "2.13.0", "2.13.0+cu126"),
        ("Tesla T4, 550.54.15, 7.5", "2.13.0", "2.13.0+cu126"),
        ("Tesla T4, 550.54.15, 7.5", "2.13.0+cpu", "2.13.0+cu126"),
        ("Tesla T4, 550.54.15, 7.5", "2.13.0+cu130", "2.13.0+cu126"),
        ("Tesla T4, 550.54.15, 7.5", "2.13.0+cu126", None),
        ("H100, 570.10, 9.0", "2.13.0", "2.13.0+cu126"),
        ("Tesla T4, 580.65.06, 7.5", "2.13.0+cpu", "2.13.0+cu130"),
        ("Tesla T4, 580.65.06, 7.5", "2.13.0", None),
        ("Tesla T4, 580.65.06, [N/A]", "2.13.0+cu130", None),
        ("Tesla P100, 580.65.06, 6.0", "2.13.0", "2.13.0+cu126"),
        ("RTX 5090, 580.65.06, 12.0", "2.13.0+cu126", "2.13.0+cu130"),
        ("RTX 5090, 580.65.06, 12.0", "2.13.0+cu132", None),
        ("Tesla T4, 610.1, 7.5", "2.13.0+cu126", None),
    ],
)
def test_the_build_is_one_that_driver_and_gpu_run(smi, torch, gpu, build, wanted):
    smi(gpu)
    torch(build)
    here = graphics.found()
    assert graphics.wanted_build(here) == wanted
    problem = graphics.problem(here)
    if wanted is None:
        assert problem is None
    else:
        text, command = problem
        assert text.startswith(f"{here} is here, but torch {build}") and text.endswith(graphics.WHERE)
        assert command == (
            f"{sys.executable} -m pip install torch=={wanted} --index-url INDEX/{wanted.partition('+')[2]}"
        )


@pytest.mark.parametrize(("cuda", "wanted"), [("13.0", "2.13.0+cu126"), ("12.6", None)])
def test_a_version_that_names_no_cuda_is_looked_up_in_the_package(smi, torch, cuda, wanted):
    """As the wheel of an index's first choice is called; torch itself is not imported."""
    smi("Tesla T4, 550.54.15, 7.5")
    torch("2.13.0", cuda)
    assert graphics.wanted_build(graphics.found()) == wanted


@pytest.mark.parametrize(
    ("gpu", "build", "why"),
    [
        ("Tesla T4, 550.54.15, 7.5", "2.13.0+cu130", "needs driver 580; INDEX is"),
        ("Tesla T4, 550.54.15, 7.5", "2.13.0+cpu", "is built without CUDA; INDEX is"),
        ("Tesla P100, 580.1, 6.0", "2.13.0+cu130", "has no code for compute capability 6.0; INDEX is"),
        ("RTX 5090, 570.1, 12.0", "2.13.0+cu130", "needs driver 580: install driver 580 or newer"),
        ("RTX 5090, 570.1, 12.0", "2.13.0+cpu", "is built without CUDA: install driver 580 or newer"),
        ("Tesla V100, 470.1, 7.0", "2.13.0+cu126", "needs driver 525: install driver 525 or newer"),
        ("Tesla K80, 470.1, 3.7", "2.13.0+cu126", "needs driver 525, nor has any other build"),
    ],
)
def test_why_it_cannot_be_used_is_said(smi, torch, gpu, build, why):
    smi(gpu)
    torch(build)
    text, command = graphics.problem(graphics.found())
    assert f"is here, but torch {build} {why}" in text
    assert bool(command) == ("INDEX is" in why)


def test_the_command_is_exact_where_the_index_is_known(smi, torch, monkeypatch):
    smi("Tesla T4, 550.54.15, 7.5")
    torch("2.13.0")
    monkeypatch.setenv("TORCH_INDEX", "https://wheels.example/all/")
    text, command = graphics.problem(graphics.found())
    assert text.endswith("needs driver 580") and command.endswith(
        "torch==2.13.0+cu126 --index-url https://wheels.example/all/cu126"
    )


def test_before_anything_is_installed_the_pinned_torch_counts(smi, monkeypatch):
    smi("Tesla T4, 550.54.15, 7.5")
    monkeypatch.setattr(graphics, "version", lambda name: version("no-such-package"))
    monkeypatch.setattr(graphics, "find_spec", lambda name: None)
    monkeypatch.chdir(ROOT)
    [pin] = re.findall(r"(?m)^torch==(\S+)", (ROOT / "requirements.txt").read_text())
    assert graphics.wanted_build(graphics.found()) == f"{pin}+cu126"


@pytest.mark.parametrize("index", ["", "file:///no-such-place", "made"])
def test_set_up_installs_it_from_the_index_that_is_given(smi, tmp_path, monkeypatch, index):
    """By pip itself: a wheel that is called as PyTorch's, in a folder laid out as its index is."""
    smi("Tesla T4, 550.54.15, 7.5")
    torch = f"torch-{graphics.torch_version().partition('+')[0]}+cu126"
    wheel = tmp_path / "all/cu126/torch" / f"{torch}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with ZipFile(wheel, "w") as file:
        name, number = torch.split("-")
        file.writestr("torch/version.py", "cuda = '12.6'\n")
        file.writestr(
            f"{torch}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        )
        file.writestr(
            f"{torch}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{torch}.dist-info/RECORD", "")
    (wheel.parent / "index.html").write_text(f"<a href='{wheel.name}'>{wheel.name}</a>")
    index = f"file://{tmp_path / 'all'}/" if index == "made" else index
    place = tmp_path / "installed"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PIP_TARGET": str(place)}
    command = [sys.executable, "-m", "storyforge.commands.graphics", index]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if "all/" in index:
        assert done.returncode == 0, done.stderr
        assert (place / "torch/version.py").read_text() == "cuda = '12.6'\n"
    elif index:
        assert done.returncode == 1 and "could not be installed from file:///no-such-place" in done.stderr
    else:
        assert done.returncode == 1
        assert f"make setup TORCH_INDEX=INDEX takes torch {torch.removeprefix('torch-')}" in done.stderr
    assert place.exists() == ("all/" in index)


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

    smi("Tesla T4, 580.65.06, 7.5")
    torch("2.13.0+cu130")
    monkeypatch.setattr("storyforge.model.device.device", lambda: real.device("cpu"))
    monkeypatch.chdir(tmp_path)
    for asked, state in (("nf4", "wrong"), ("none", "note")):  # never "no GPU", nor in silence
        (tmp_path / "params.yaml").write_text(f"model: {{quantization: {asked}}}\n")
        finding = doctor.device()
        start = "Tesla T4, driver 580.65.06 is here, but torch 2.13.0+cu130 cannot use it: "
        assert finding.state == state and finding.text.startswith(start)
        assert "Error: " in finding.text  # torch's own
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor.device().text.endswith("cannot use it: CUDA_VISIBLE_DEVICES hides it")
