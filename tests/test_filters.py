"""Conditions on attributes, against plain Python."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raeburnmemory.errors import InvalidInput, MemoryGraphError
from raeburnmemory.filters import condition, divided

# What one operator is asked for, and the values that meet it and do not.
TABLE = [
    ({"a": 1}, [1, 1.0], [2, "1", None, [1]]),
    ({"a": "x"}, ["x"], ["X", "xx", ["x"], None]),
    ({"a": None}, [None], [0, "", False, []]),
    ({"a": [1, 2]}, [[1, 2]], [[2, 1], [1], 1]),
    ({"a": {}}, [{}], [None, [], {"b": 1}]),  # an empty dict holds no operator
    ({"a": {"b": 1}}, [{"b": 1}], [{"b": 2}, {"b": 1, "c": 2}, 1]),  # nor does one without any of their names
    ({"a": {"eq": {"gt": 1}}}, [{"gt": 1}], [2, {"gt": 2}]),  # and so a value that looks like one is asked for
    ({"a": {"eq": "x"}}, ["x"], ["y", None]),
    ({"a": {"ne": "x"}}, ["y", None, 1, ["x"]], ["x"]),
    ({"a": {"in": ["x", 2, None]}}, ["x", 2, None], ["y", 3, ["x"]]),
    ({"a": {"in": []}}, [], ["x", None]),
    ({"a": {"gt": 2}}, [3, 2.5], [2, 1, "3", None, [3], True]),
    ({"a": {"gte": 2}}, [3, 2, 2.0], [1, 1.9, "2"]),
    ({"a": {"lt": 2}}, [1, -5, 1.9], [2, 3, "1", None, False]),
    ({"a": {"lte": 2}}, [1, 2], [2.1, "1"]),
    ({"a": {"gt": "m"}}, ["n", "mm"], ["m", "a", "", 5, None]),
    ({"a": {"gte": "2026-01-02"}}, ["2026-01-02", "2026-01-02T00:00:00+00:00"], ["2026-01-01T23:59:59+00:00", 2027]),
    ({"a": {"lt": "m"}}, ["a", ""], ["m", "z", 1]),
    ({"a": {"lte": "m"}}, ["m", "a"], ["mm", []]),
    ({"a": {"gte": 2, "lt": 4}}, [2, 3.9], [1, 4]),
    ({"a": {"contains": "ea"}}, ["ear", "pear", "ea"], ["era", "", ["ea r"], None, {"ea": 1}]),
    ({"a": {"contains": 3}}, [[1, 3], [3]], ["3", "123", 3, [[3]], []]),
    ({"a": {"contains": "x"}}, [["x", 1], "axb"], [["xx"], 1, None]),
    ({"a": {"contains": [1]}}, [[[1], 2]], [[1], "[1]"]),
    ({"a": {"contains": ""}}, ["", "anything", [""]], [[], None]),
    ({"a": {"icontains": "EA"}}, ["ear", "PEAR", "Ea"], ["era", "", ["ea r"], None, {"ea": 1}]),
    ({"a": {"icontains": "STRASSE"}}, ["Hauptstraße 1", ["x", "straße"]], ["Strase", ["Hauptstraße"], 1]),
    ({"a": {"icontains": 3}}, [[1, 3], [3]], ["3", 3, []]),
    ({"a": {"exists": True}}, [None, 0, "", [], "x"], []),
    ({"a": {"exists": False}}, [], [None, 0, "x"]),
]


@pytest.mark.parametrize(("where", "met", "not_met"), TABLE, ids=lambda value: str(value)[:40])
def test_each_operator(where, met, not_met):
    holds = condition(where)
    assert [value for value in met if not holds({"a": value, "other": 1})] == []
    assert [value for value in not_met if holds({"a": value, "other": 1})] == []


@pytest.mark.parametrize(("where", "met", "not_met"), TABLE, ids=lambda value: str(value)[:40])
def test_a_node_without_the_attribute(where, met, not_met):
    """It is told apart from one where it is None, and meets only what asks for its absence."""
    (asked,) = where.values()
    absent = asked == {"exists": False} or (isinstance(asked, dict) and "ne" in asked)
    assert condition(where)({}) is absent
    assert condition(where)({"b": met[0] if met else 1}) is absent


def test_entries_are_met_together():
    holds = condition({"topic": "billing", "stars": {"gte": 4}})
    assert holds({"topic": "billing", "stars": 5})
    assert not holds({"topic": "billing", "stars": 3})
    assert not holds({"topic": "other", "stars": 5})
    assert not holds({"topic": "billing"})


def test_nothing_asked_for_is_met_by_all():
    assert condition({})({})
    assert condition({})({"a": 1})


def test_and_or_not():
    holds = condition({"stars": {"gte": 4}, "or": [{"topic": "billing"}, {"topic": {"exists": False}}]})
    assert holds({"stars": 4, "topic": "billing"})
    assert holds({"stars": 4})
    assert not holds({"stars": 4, "topic": "other"})
    assert not holds({"topic": "billing"})
    neither = condition({"not": {"or": [{"a": 1}, {"b": 1}]}})
    assert neither({})
    assert not neither({"b": 1})
    both = condition({"and": [{"a": {"gt": 1}}, {"a": {"lt": 5}}, {"not": {"a": 3}}]})
    assert [a for a in range(7) if both({"a": a})] == [2, 4]
    assert condition({"not": {"a": {"exists": False}}})({"a": None})
    assert condition({"or": [{"a": 1, "b": 2}, {"c": 3}]})({"a": 1, "b": 3, "c": 3})
    assert not condition({"or": [{"a": 1, "b": 2}, {"c": 3}]})({"a": 1, "b": 3})
    assert not condition({"not": {}})({})  # what all meet, not


def test_attributes_named_like_operators():
    assert condition({"gt": 3})({"gt": 3})
    assert condition({"contains": {"contains": "x"}})({"contains": "xy"})
    assert condition({"in": {"in": [1, 2]}})({"in": 2})


def test_what_is_asked_for_is_read_once():
    """A list that its owner changes afterwards changes no answer."""
    wanted = [1, 2]
    holds = condition({"a": {"in": wanted}})
    wanted.append(3)
    assert not holds({"a": 3})


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"a": {"gt": 1, "below": 2}}, "'below'"),
        ({"a": {"eq": 1, "": 2}}, "''"),
        ({"a": {"in": "abc"}}, "'abc'"),
        ({"a": {"in": {"x": 1}}}, "'a'"),
        ({"a": {"in": 5}}, "5"),
        ({"a": {"exists": 1}}, "1"),
        ({"a": {"exists": "yes"}}, "'yes'"),
        ({"a": {"gt": None}}, "None"),
        ({"a": {"lt": [1]}}, "'lt'"),
        ({"a": {"gte": True}}, "True"),
        ({"a": {"lte": {"b": 1}}}, "'lte'"),
        ({"and": []}, "'and'"),
        ({"and": {"a": 1}}, "'and'"),
        ({"or": [1]}, "'or'"),
        ({"or": [{"a": 1}, "b"]}, "'or'"),
        ({"or": "a"}, "'or'"),
        ({"not": [{"a": 1}]}, "'not'"),
        ({"not": None}, "'not'"),
        ({"a": {1, 2}}, "where"),
        ({"a": float("nan")}, "where"),
        ({1: 2}, "where"),
        ([("a", 1)], "Where must be a dict"),
        ("a", "'a'"),
        (None, "None"),
    ],
)
def test_what_cannot_be_understood_is_named(where, named):
    with pytest.raises(InvalidInput) as caught:
        condition(where)
    assert named in str(caught.value)
    assert isinstance(caught.value, MemoryGraphError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("where", "named", "instead"),
    [
        ({"stars": {"$gte": 4}}, "'$gte' for 'stars'", "{'stars': {'gte': 4}}"),
        ({"a": 1, "stars": {"$gte": 4, "$lt": 6}}, "'$gte' for 'stars'", "{'stars': {'gte': 4}}"),
        ({"a": {"$in": ["x"]}}, "'$in' for 'a'", "{'a': {'in': ['x']}}"),
        ({"a": {"$nin": ["x"]}}, "'$nin' for 'a'", "{'not': {'a': {'in': ['x']}}}"),
        ({"a": {"$regex": "^x"}}, "'$regex' for 'a'", "Choose one of: eq, ne"),
        ({"a": {"$ref": "#/x"}}, "'$ref' for 'a'", "{'eq': {…}}"),
        (
            {"or": [{"b": 1}, {"not": {"metadata.a": {"$ne": 1}}}]},
            "'$ne' for 'metadata.a'",
            "{'metadata.a': {'ne': 1}}",
        ),
        ({"$and": [{"a": 1}, {"b": 1}]}, "'$and'", "'and': ["),
        ({"$or": [{"a": 1}]}, "'$or'", "'or': ["),
        ({"$nor": [{"a": 1}]}, "'$nor'", "'not': {'or': ["),
        ({"$not": {"a": 1}}, "'$not'", "'not': {"),
        ({"a": 1, "and": [{"$or": [{"a": 1}]}]}, "'$or'", "'or': ["),
    ],
    ids=str,
)
def test_operators_of_other_libraries_are_no_values(where, named, instead):
    """They would be compared as objects, and nothing would be found without a word."""
    for ask in (condition, divided):
        with pytest.raises(InvalidInput) as caught:
            ask(where)
        assert named in str(caught.value)
        assert instead in str(caught.value)


def test_an_object_that_looks_like_theirs_can_be_asked_for():
    assert condition({"a": {"eq": {"$ref": "#/x"}}})({"a": {"$ref": "#/x"}})
    assert condition({"a": {"$ref": "#/x", "b": 1}})({"a": {"$ref": "#/x", "b": 1}})
    assert condition({"$or": {"eq": [1]}})({"$or": [1]})
    assert condition({"$or": "x"})({"$or": "x"})


def test_the_choice_of_operators_is_told():
    with pytest.raises(InvalidInput, match="eq, ne, in, gt, gte, lt, lte, contains, icontains, exists"):
        condition({"a": {"gt": 1, "below": 2}})


@pytest.mark.parametrize("name", ["not", "and", "or"])
def test_too_deep(name):
    def nested(depth):
        where = {"a": 1}
        for _ in range(depth):
            where = {name: where} if name == "not" else {name: [where]}
        return where

    assert condition(nested(20))({"a": 1}) is True
    with pytest.raises(InvalidInput, match="20 deep"):
        condition(nested(21))
    with pytest.raises(InvalidInput):
        condition(nested(5000))  # before Python's own limit is met


# --- any condition, against a slower reading of the same --------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0]) | st.text("ab", max_size=2)
held = scalars | st.lists(scalars, max_size=2)
ordered = st.integers(-2, 2) | st.sampled_from([0.5]) | st.text("ab", max_size=2)
asked = (
    held
    | st.fixed_dictionaries({}, optional={"eq": held, "ne": held, "in": st.lists(held, max_size=3)})
    | st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), ordered))
    | st.fixed_dictionaries({}, optional={"contains": held, "exists": st.booleans()})
)
wheres = st.recursive(
    st.dictionaries(names, asked, max_size=2),
    lambda inner: (
        st.fixed_dictionaries({"not": inner})
        | st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3), "a": asked})
    ),
    max_leaves=5,
)
ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def fulfils(attributes, where):
    for name, value in where.items():
        if name == "not":
            if fulfils(attributes, value):
                return False
        elif name == "or":
            if not [one for one in value if fulfils(attributes, one)]:
                return False
        elif name == "and":
            if [one for one in value if not fulfils(attributes, one)]:
                return False
        elif isinstance(value, dict) and value:
            if not all(meets(attributes, name, each, operand) for each, operand in value.items()):
                return False
        elif name not in attributes or attributes[name] != value:
            return False
    return True


def meets(attributes, name, each, operand):
    if each == "exists":
        return operand == (name in attributes)
    if name not in attributes:
        return each == "ne"
    value = attributes[name]
    if each in ORDERS:
        types = {str} if isinstance(operand, str) else {int, float}
        return type(value) in types and ORDERS[each](value, operand)
    if each == "contains" and isinstance(value, str):
        return isinstance(operand, str) and value.count(operand) > 0
    if each == "contains":
        return isinstance(value, list) and value.count(operand) > 0
    return {"eq": value == operand, "ne": value != operand, "in": each == "in" and operand.count(value) > 0}[each]


@given(where=wheres, nodes=st.lists(st.dictionaries(names, held, max_size=3), max_size=5))
def test_any_condition(where, nodes):
    holds = condition(where)
    assert [holds(node) for node in nodes] == [fulfils(node, where) for node in nodes]
