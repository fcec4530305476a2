"""A fixture for tests of the kernels on every instruction set of this CPU."""

import pytest

from htdemucs.fast import kernels


@pytest.fixture(params=kernels.BUILDS.items(), ids=lambda item: item[0])
def each_build(request, monkeypatch):
    """Run the test once with each build that this CPU can run."""
    build, feature = request.param
    if not kernels.cpu_has(feature):
        pytest.skip(f"this CPU has no {feature}")
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled")
    library = kernels.load(build)
    monkeypatch.setattr(kernels, "library", lambda: library)
    return build
