import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep what tests cache out of the user's cache folder, and theirs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
