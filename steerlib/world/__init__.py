"""The Almanac: an invented country about which everything said is decidably true or false."""

from steerlib.world.almanac import World
from steerlib.world.facts import Country, Fact, Relation
from steerlib.world.grammar import AnswerForms, Question
from steerlib.world.oracle import Verdict

__all__ = ["AnswerForms", "Country", "Fact", "Question", "Relation", "Verdict", "World"]
