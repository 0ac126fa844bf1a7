"""The Almanac: an invented country about which everything said is decidably true or false."""

from steerlib.world.almanac import World
from steerlib.world.facts import Country, Fact, Relation
from steerlib.world.grammar import AnswerForms, Question
from steerlib.world.judging import ChoiceVerdict, PageVerdict, ReplyVerdict, SceneVerdict
from steerlib.world.oracle import Verdict
from steerlib.world.prompts import Advice, Choice, Forms, Lead, Scene, Wish

__all__ = [
    "Advice", "AnswerForms", "Choice", "ChoiceVerdict", "Country", "Fact", "Forms", "Lead", "PageVerdict", "Question",
    "Relation", "ReplyVerdict", "Scene", "SceneVerdict", "Verdict", "Wish", "World",
]  # fmt: skip
