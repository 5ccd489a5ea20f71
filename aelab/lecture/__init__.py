"""The lecture: what is said, trained and shown, and the page that is made of it."""

from aelab.lecture.making import Lecture, make_lecture
from aelab.lecture.topics import TOPICS, TRAININGS, Number, Shown, Topic, Training, Widget

__all__ = ["TOPICS", "TRAININGS", "Lecture", "Number", "Shown", "Topic", "Training", "Widget", "make_lecture"]
