"""The one walker of nested settings."""

import pytest

from raydream.config.tree import leaves


@pytest.mark.parametrize(
    ("settings", "whole", "expected"),
    [
        ({}, (), {}),
        ({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}, (), {"a": 1, "b.c": 2, "b.d.e": [3]}),
        ({"b": {"z": 1, "a": 2}, "a": None}, (), {"b.z": 1, "b.a": 2, "a": None}),
        ({"a": {"b": {}}, "c": {}}, (), {}),
        ({"a": {"arguments": {"x": 1}}}, ("arguments",), {"a.arguments": {"x": 1}}),
        ({"a": {"arguments": {}}}, ("arguments",), {"a.arguments": {}}),
        ({"a": [{"b": 1}]}, (), {"a": [{"b": 1}]}),
    ],
)
def test_leaves_have_dotted_names_in_their_order(settings, whole, expected):
    found = leaves(settings, whole)
    assert found == expected and list(found) == list(expected)


def test_an_empty_mapping_is_a_leaf_where_it_is_asked_for():
    assert leaves({"a": {"b": {}, "c": 1}, "d": {}}, empty=True) == {"a.b": {}, "a.c": 1, "d": {}}
