"""A fixture for tests of the kernels on every instruction set of this CPU."""

import ctypes

import pytest

from htdemucs.fast import kernels


@pytest.fixture(params=kernels.BUILDS.items(), ids=lambda item: item[1])
def each_build(request, monkeypatch):
    """Run the test once with each build that this CPU can run."""
    feature, build = request.param
    if not kernels.cpu_has(feature):
        pytest.skip(f"this CPU has no {feature}")
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled")
    library = kernels.declare(ctypes.CDLL(str(kernels.FOLDER / f"kernels_{build}.so")))
    monkeypatch.setattr(kernels, "library", lambda: library)
    return build
