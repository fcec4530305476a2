"""A fixture for tests of the kernels on every instruction set of this CPU, and `--kernels`."""

from pathlib import Path

import pytest
import torch

from htdemucs.fast import kernels, layers, transformer


def pytest_addoption(parser):
    parser.addoption(
        "--kernels", type=Path, metavar="FOLDER",
        help="test the builds in this folder, which this CPU must run, not those of the package",
    )  # fmt: skip


def pytest_configure(config):
    kernels.FOLDER = config.getoption("--kernels") or kernels.FOLDER


@pytest.fixture(params=kernels.BUILDS.items(), ids=lambda item: item[0])
def each_build(request, monkeypatch):
    """Run the test once with each build that this CPU can run."""
    build, feature = request.param
    if request.config.getoption("--kernels"):
        if not kernels._path(build).exists():
            pytest.skip("not in the folder")
    elif not kernels.cpu_has(feature):
        pytest.skip(f"this CPU has no {feature}")
    elif kernels.library() is None:
        pytest.skip("the kernels were not compiled")
    library = kernels.load(build)
    monkeypatch.setattr(kernels, "library", lambda: library)
    if build in kernels.WITH_BF16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        for module, name in ((layers, "Convolution"), (transformer, "Linear")):
            monkeypatch.setattr(module, name, in_float32(getattr(module, name)))
    return build


def in_float32(product):
    """Return the class of oneDNN's products for CPUs on which those have no bfloat16."""

    class InFloat32(product):
        def __init__(self, *arguments, **options):
            *others, self._dtype = arguments
            super().__init__(*others, torch.float32, **options)

        def __call__(self, x):
            return super().__call__(x.float()).to(self._dtype)

    return InFloat32
