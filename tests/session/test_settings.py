"""Fields of a Config from text and from Python values."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tagseg.cli import _plain
from tagseg.errors import ConfigError
from tagseg.recipes import builtin_priors
from tagseg.recipes.catalog import RECIPES, find_recipe
from tagseg.session.settings import check_settings, laid_under, parse_settings
from tagseg.session.train import make_config
from tagseg.stages.recipe import Recipe
from tagseg.stages.settings import where_from

Config = builtin_priors.Config


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_all_defaults_go_there_and_back(recipe: Recipe):
    """What ``recipes --fields`` prints is what ``--set`` takes."""
    config = recipe.config()
    texts = [f"{name}={_plain(value)}" for name, value, _, _ in where_from(config)]
    assert len(texts) == len(fields(recipe.config))
    parsed = parse_settings(recipe.config, texts)
    assert recipe.config(**parsed) == config
    for name, value in parsed.items():
        assert type(value) is type(getattr(config, name)), name


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_values_of_demos_and_of_fast_fit_and_differ(recipe: Recipe):
    usual = recipe.config()
    for values in (recipe.fast, recipe.demo.settings):
        assert make_config(recipe.config, values).idle() == usual.idle()
        for name, value in values.items():
            assert value != getattr(usual, name), name


def test_usual_values_lie_under_the_given():
    usual = {"mask_regions": "none", "alpha": 0.3, "prior_saturate": 0.2}
    assert laid_under(Config, usual, {}) == usual
    assert laid_under(Config, usual, {"alpha": 0.5}) == {
        "mask_regions": "none",
        "prior_saturate": 0.2,
    }
    assert laid_under(Config, usual, {"masks": "localization"}) == {"mask_regions": "none"}
    assert laid_under(Config, {}, {"alpha": 2.0}) == {}, "what is given is looked at elsewhere"
    with pytest.raises(ConfigError, match=r"alpha is 2\.0"):
        laid_under(Config, usual, {"alpha": 2.0})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_field_tells_its_section_and_meaning(recipe: Recipe):
    for name, value, where, meaning in where_from(recipe.config):
        assert where, name
        assert meaning, name
        assert value == getattr(recipe.config(), name)
    assert recipe.paper
    hints = get_type_hints(recipe.config)
    own = {name for name, kind in hints.items() if get_origin(kind) is not ClassVar}
    assert own == {item.name for item in fields(recipe.config)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("alpha=0.25", 0.25),
        (" alpha = 1 ", 1.0),
        ("alpha=1e-3", 1e-3),
        ("crf_iterations=7", 7),
        ("crf_iterations= 1_0", 10),
        ("output_stride=16", 16),
        ("output_stride=None", None),
        ("mask_crf=no", False),
        ("mask_crf=ON", True),
        ("schedule=paper", "paper"),
        ("crf_smoothness=1,2", (1.0, 2.0)),
        ("crf_smoothness=(1, 2.5)", (1.0, 2.5)),
        ("crf_bilateral=[1,2,3]", (1.0, 2.0, 3.0)),
    ],
)
def test_values_of_each_type(text, value):
    (parsed,) = parse_settings(Config, [text]).values()
    assert parsed == value
    assert type(parsed) is type(value)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(some.floats(0, 1), some.integers(1, 10**9), some.booleans(), some.floats(0.1, 1e6))
def test_any_value_goes_there_and_back(alpha, iterations, crf, sigma):
    given_values = {
        "alpha": alpha,
        "segmenter_iterations": iterations,
        "mask_crf": crf,
        "crf_smoothness": (1.5, sigma),
    }
    texts = [f"{name}={_plain(value)}" for name, value in given_values.items()]
    assert parse_settings(Config, texts) == given_values


@settings(derandomize=True, max_examples=200, deadline=None)
@given(some.sampled_from([item.name for item in fields(Config)]), some.text(max_size=12))
def test_any_text_is_a_value_or_one_line(name, text):
    said = None
    try:
        make_config(Config, parse_settings(Config, [f"{name}={text}"]))
    except ConfigError as error:
        said = error
    assert said is None or ("\n" not in str(said) and said.do)


def test_the_last_of_two_counts():
    assert parse_settings(Config, ["alpha=0.1", "alpha=0.2"]) == {"alpha": 0.2}


def test_values_from_python():
    given_values = {"alpha": 1, "crf_smoothness": [1, 2], "output_stride": None, "masks": "none"}
    checked = check_settings(Config, given_values)
    assert checked == {**given_values, "alpha": 1.0, "crf_smoothness": (1.0, 2.0)}
    assert type(checked["alpha"]) is float
    assert make_config(Config, given_values) == Config(
        alpha=1.0, crf_smoothness=(1.0, 2.0), masks="none"
    )
    assert make_config(Config, None) == Config()
    own = Config(alpha=0.1)
    assert make_config(Config, own) is own


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"alhpa": 1}, "the recipe has no field 'alhpa'; did you mean alpha?"),
        ({"alpha": "0.5"}, "alpha is '0.5'; give a number"),
        ({"alpha": True}, "alpha is True; give a number"),
        ({"alpha": None}, "alpha is None; give a number"),
        ({"alpha": float("nan")}, "alpha is nan; give a number"),
        ({"alpha": -0.1}, "alpha is -0.1; use 0 to 1"),
        ({"photo_side": 500.0}, "photo_side is 500.0; give a whole number"),
        ({"photo_side": True}, "photo_side is True; give a whole number"),
        ({"mask_crf": 1}, "mask_crf is 1; give true or false"),
        ({"masks": "all"}, "masks is 'all'; give none or foreground or localization or both"),
        ({"masks": []}, "masks is []; give none or foreground or localization or both"),
        ({"crf_smoothness": (1, 2, 3)}, "crf_smoothness is (1, 2, 3); give 2 values with commas"),
        ({"crf_smoothness": 3}, "crf_smoothness is 3; give 2 values with commas between"),
        ({"crf_smoothness": ("a", 3)}, "crf_smoothness is ('a', 3); give 2 values with commas"),
        ({"segmenter_batch_size": 0}, "segmenter_batch_size is 0; use a value over 0"),
        ({"crf_iterations": -1}, "crf_iterations is -1; use 0 or more"),
    ],
)
def test_values_from_python_that_do_not_fit(values, line):
    with pytest.raises(ConfigError) as caught:
        make_config(Config, values)
    assert str(caught.value).startswith(line)


def test_a_config_of_another_recipe():
    other = RECIPES["cam_baseline"].config()
    with pytest.raises(ConfigError, match=r"of another recipe \(tagseg.recipes.cam_baseline\)"):
        make_config(Config, other)


def test_a_wrong_config_object_is_found_early():
    with pytest.raises(ConfigError, match="crf_iterations is -1; use 0 or more"):
        make_config(Config, Config(crf_iterations=-1))


def test_find_recipe():
    assert find_recipe("builtin_priors") is builtin_priors.RECIPE
    with pytest.raises(ConfigError, match=r"did you mean cam_baseline\?"):
        find_recipe("cam-baseline")
    with pytest.raises(
        ConfigError, match="choose one of builtin_priors, cam_baseline, coarse_to_fine, "
    ):
        find_recipe("")
