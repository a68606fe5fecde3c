from __future__ import annotations

import pytest

from tagseg.errors import ConfigError
from tagseg.recipes.catalog import RECIPES
from tagseg.tables.catalog import PAPERS, find_paper


def test_papers_are_called_as_their_recipes():
    for name, module in PAPERS.items():
        assert find_paper(name) is module
        assert name in RECIPES
        assert module.TABLES


@pytest.mark.parametrize(
    ("name", "advice"), [("builtin-priors", "did you mean builtin_priors?"), ("x", "choose one of")]
)
def test_a_wrong_name(name, advice):
    with pytest.raises(ConfigError, match="there are no tables of ") as caught:
        find_paper(name)
    assert advice in str(caught.value)
