"""The table of synthesizers: each of its entries can be had, and what depends on a method reads it there."""

from dataclasses import fields

import pytest

from raydream.config import METHODS, CoefficientsConfig, SearchConfig, SynthesisConfig, SynthesizeConfig
from raydream.config.conversion import validate
from raydream.config.synthesis import one_of
from raydream.errors import InputError
from raydream.losses.objective import TERMS
from raydream.synthesis import SYNTHESIZERS
from tests.tiny import tiny_synthesis, tiny_teacher


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_names_a_class_and_terms_that_exist(name):
    method, config = METHODS[name], SynthesisConfig(method=name)
    assert config.terms == method.terms and set(method.terms) <= TERMS.keys()
    assert bool(SYNTHESIZERS[name](tiny_teacher(), tiny_synthesis(method=name)).state_dict()) is False
    if method.without_student:
        other = METHODS[method.without_student]
        assert other.terms == tuple(term for term in method.terms if term != "competition")


def test_each_term_has_a_coefficient():
    assert set(TERMS) == {field.name for field in fields(CoefficientsConfig)}


def test_unknown_methods_are_refused_with_the_table():
    with pytest.raises(InputError) as caught:
        validate(SynthesisConfig, {"method": "dream"})
    assert all(f"'{name}'" in str(caught.value) for name in METHODS)


@pytest.mark.parametrize(
    ("kind", "settings", "allowed", "others"),
    [
        (SynthesizeConfig, {"synthesis": {"method": "adaptive"}}, {"noise", "dafl", "fast", "noisy"}, {"adaptive"}),
        (SearchConfig, {"space": "a.yaml", "images_only": True}, {"noise", "dafl"}, {"adaptive", "fast", "noisy"}),
    ],
)
def test_refusals_list_the_methods_that_are_allowed(kind, settings, allowed, others):
    with pytest.raises(InputError) as caught:
        validate(kind, settings)
    listed = set(caught.value.allowed.removesuffix(" where images_only is true").replace(" or ", ", ").split(", "))
    assert allowed <= listed <= METHODS.keys() - others


@pytest.mark.parametrize(("names", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a or b"), ("abc", "a, b or c")])
def test_methods_in_a_sentence(names, said):
    assert one_of(list(names)) == said
