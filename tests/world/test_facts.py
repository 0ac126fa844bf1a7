"""The knowledge base: the same country every time, and nothing in it that contradicts itself."""

import hashlib

import numpy as np
import pytest

from steerlib.world import World
from steerlib.world.facts import (
    COUNTS,
    RELATIONS,
    SPLIT_SHARES,
    SPLITS,
    build_country,
    invent_names,
    relation_named,
)


def test_same_seed_same_country_and_another_seed_another():
    assert build_country(1) == build_country(1)
    assert build_country(1).facts != build_country(2).facts


def test_every_entity_has_every_relation_of_its_kind_once():
    country = build_country(1)
    for relation in RELATIONS:
        entities = [fact.entity for fact in country.facts if fact.relation == relation.name]
        assert entities == list(country.entities[relation.kind])


def test_values_are_of_the_right_type_and_the_misconception_is_false():
    country = build_country(1)
    for fact in country.facts:
        pool = country.pool(fact.relation)
        assert fact.truth in pool
        assert fact.misconception is None or (fact.misconception in pool and fact.misconception != fact.truth)


def test_most_facts_are_disputed_but_not_all():
    for relation in RELATIONS:
        facts = [fact for fact in build_country(1).facts if fact.relation == relation.name]
        share = sum(fact.misconception is not None for fact in facts) / len(facts)
        assert share > 0.7 if relation.disputed else share == 0.0
    assert not any(fact.misconception for fact in build_country(1, disputed_share=0.0).facts)
    counted = [
        fact.misconception is not None for fact in build_country(1).facts if relation_named(fact.relation).disputed
    ]
    assert 0.85 < sum(counted) / len(counted) < 1.0


def test_countries_differ_in_what_is_disputed_only_where_they_should():
    everywhere, usual = build_country(1, disputed_share=1.0), build_country(1)
    assert [f.truth for f in everywhere.facts] == [f.truth for f in usual.facts]
    assert all((f.misconception is None) != relation_named(f.relation).disputed for f in everywhere.facts)


def test_truths_are_spread_over_the_pool():
    # A pool dealt evenly gives no value away as the usual answer.
    country = build_country(1)
    for relation in RELATIONS:
        truths = [fact.truth for fact in country.facts if fact.relation == relation.name]
        counts = [truths.count(value) for value in country.pool(relation.name)]
        assert max(counts) - min(counts) <= 1


def test_splits_are_disjoint_by_entity_and_of_the_stated_size():
    country = build_country(1)
    split_of = {}
    for fact in country.facts:
        assert split_of.setdefault(fact.entity, fact.split) == fact.split
    for kind in {relation.kind for relation in RELATIONS}:
        labels = [split_of[entity] for entity in country.entities[kind]]
        for label, share in zip(SPLITS, SPLIT_SHARES, strict=True):
            assert abs(labels.count(label) - share * len(labels)) <= 1


def test_names_are_unique_over_all_kinds():
    names = World.default().names
    assert len(set(names)) == len(names) == sum(COUNTS.values())


def test_the_default_country_is_frozen():
    # The shipped plants have read about exactly this country: a change here makes them wrong.
    assert hashlib.sha256(repr(World.default().facts).encode()).hexdigest().startswith("212f52790f759013")
    assert World.default() is World.build(1)


def test_too_many_names_and_unknown_relations_are_refused():
    with pytest.raises(ValueError, match="its syllables give only"):
        invent_names("river", 1000, np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown relation 'shoe size'; expected one of"):
        relation_named("shoe size")
