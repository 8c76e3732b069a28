"""One rank and two ranks, each group started once for all the tests of a process."""

import pytest
from ranks import Ranks


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    ranks = Ranks(2, tmp_path_factory.mktemp("two"))
    yield ranks
    ranks.end()


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory):
    ranks = Ranks(1, tmp_path_factory.mktemp("one"))
    yield ranks
    ranks.end()
