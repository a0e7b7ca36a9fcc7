"""Agents that answer by themselves: echo, menu, slow, silent, and the survey bot that follows a MAIN dialog."""

from __future__ import annotations

import functools
from typing import Final

import attrs

from connector_async.errors import ConfigurationError
from connector_async.sandbox._json import Json
from connector_async.sandbox._state import Happening
from connector_async.sandbox.agents import AgentDesk, Script

__all__ = ["AGENTS", "SurveyBot", "make_agent"]

_SLOW: Final = 2.0  # seconds
_MENU: Final = (("order", "Where is my order?"), ("opening", "When do you open?"), ("bye", "That is all"))
_QUESTIONS: Final = (
    ("satisfaction", "How would you rate your overall experience?", ("1", "2", "3", "4", "5")),
    ("resolution", "Was your issue resolved?", ("Yes", "No")),
)


def _said(happening: Happening) -> str | None:
    """What a consumer has written in the MAIN dialog of an open conversation; a file counts by its caption."""
    event = happening.event
    if event is None or happening.role != "CONSUMER" or event["type"] != "ContentEvent":
        return None
    if happening.dialog.dialog_type != "MAIN":
        return None
    message = event["message"]
    return message if isinstance(message, str) else str(message.get("caption", ""))


def _button(text: str, metadata: Json) -> Json:
    click = {"actions": [{"type": "publishText", "text": text}], "metadata": [metadata]}
    return {"type": "button", "title": text, "tooltip": text, "click": click}


@attrs.define(eq=False)
class EchoAgent:
    """Joins, receives, reads, types and says the same again, each after a moment.

    Attributes:
        moment: Seconds that each step takes.
    """

    moment: float = 0.05

    def __call__(self, desk: AgentDesk, happening: Happening) -> None:
        text, conversation = _said(happening), happening.conversation
        identity = conversation.conversation_id
        if text is not None:
            desk.later(self.moment, functools.partial(self._notices, desk, identity, text))
        elif happening.event is None and conversation.main.is_open and conversation.agent_id is None:
            desk.later(self.moment, functools.partial(self._joins, desk, identity))

    def _joins(self, desk: AgentDesk, conversation_id: str) -> None:
        conversation = desk.conversation(conversation_id)
        if conversation.main.is_open and conversation.agent_id is None:
            desk.joins(conversation_id)

    def _notices(self, desk: AgentDesk, conversation_id: str, text: str) -> None:
        if desk.conversation(conversation_id).main.is_open:
            desk.accepts(conversation_id)
            desk.reads(conversation_id)
            desk.types(conversation_id)
            desk.later(self.moment, functools.partial(self._answers, desk, conversation_id, text))

    def _answers(self, desk: AgentDesk, conversation_id: str, text: str) -> None:
        if desk.conversation(conversation_id).main.is_open:
            self.answer(desk, conversation_id, text)
            if desk.conversation(conversation_id).main.is_open:
                desk.types(conversation_id, "PAUSE")

    def answer(self, desk: AgentDesk, conversation_id: str, text: str) -> None:
        """Say the same again."""
        desk.says(conversation_id, text)


class MenuAgent(EchoAgent):
    """Offers quick replies, answers the choice with a card, and closes when told that it is all."""

    def answer(self, desk: AgentDesk, conversation_id: str, text: str) -> None:
        """Answer a choice of the menu, or show the menu."""
        chosen = next((key for key, title in _MENU if title == text), None)
        if chosen == "bye":
            desk.says(conversation_id, "Good bye.")
            desk.closes(conversation_id)
        elif chosen is not None:
            desk.shows(conversation_id, _card(text, chosen))
        else:
            replies = [_button(title, {"type": "ExternalId", "id": key}) for key, title in _MENU]
            desk.says(conversation_id, "What can I do for you?", quick_replies=replies)


def _card(title: str, key: str) -> Json:
    return {
        "type": "vertical",
        "elements": [
            {"type": "text", "text": title, "tooltip": title, "style": {"bold": True}},
            {"type": "text", "text": "It is on its way." if key == "order" else "We are always open."},
            _button("That is all", {"type": "ExternalId", "id": "bye"}),
        ],
    }


def silent(desk: AgentDesk, happening: Happening) -> None:
    """Nobody is there."""


class SurveyBot:
    """Runs the survey dialog: a greeting, the questions with quick replies, thanks, and the close.

    Args:
        moment: Seconds that each step takes.
    """

    def __init__(self, moment: float = 0.05) -> None:
        self._moment = moment
        self._asked: dict[str, int] = {}

    def __call__(self, desk: AgentDesk, happening: Happening) -> None:
        survey = happening.conversation.survey
        if survey is None:
            return
        identity = happening.conversation.conversation_id
        event = happening.event
        if event is None and survey.dialog_id not in self._asked:
            self._asked[survey.dialog_id] = -1
            desk.later(self._moment, functools.partial(self._greets, desk, identity, survey.dialog_id))
        elif event is not None and happening.role == "CONSUMER" and event["type"] == "ContentEvent":
            desk.later(
                self._moment,
                functools.partial(self._goes_on, desk, identity, survey.dialog_id, str(event["message"])),
            )

    def _greets(self, desk: AgentDesk, conversation_id: str, dialog_id: str) -> None:
        if not self._is_open(desk, conversation_id, dialog_id):
            return
        desk.says(conversation_id, "Would you tell us how it was? Type 'skip' to leave.")
        self._asks(desk, conversation_id, dialog_id)

    def _is_open(self, desk: AgentDesk, conversation_id: str, dialog_id: str) -> bool:
        survey = desk.conversation(conversation_id).survey
        return survey is not None and survey.dialog_id == dialog_id

    def _asks(self, desk: AgentDesk, conversation_id: str, dialog_id: str) -> None:
        self._asked[dialog_id] += 1
        key, question, answers = _QUESTIONS[self._asked[dialog_id]]
        replies = [
            _button(answer, {"type": "Answer", "questionId": key, "id": f"{key}-{answer}", "provider": "AC"})
            for answer in answers
        ]
        about = {"type": "Question", "id": key, "surveyId": "sandbox-survey", "provider": "AC"}
        desk.says(conversation_id, question, quick_replies=replies, metadata=[about])

    def _goes_on(self, desk: AgentDesk, conversation_id: str, dialog_id: str, text: str) -> None:
        if not self._is_open(desk, conversation_id, dialog_id):
            return
        desk.reads(conversation_id)
        if text.strip().lower() != "skip" and self._asked[dialog_id] + 1 < len(_QUESTIONS):
            self._asks(desk, conversation_id, dialog_id)
            return
        desk.says(conversation_id, "Thank you for your time.")
        del self._asked[dialog_id]
        desk.completes_survey(conversation_id)


AGENTS: Final = ("echo", "menu", "survey", "silent", "slow")


def make_agent(agent: str | Script, moment: float) -> Script:
    """A scripted agent by name, or the caller's own.

    Raises:
        ConfigurationError: There is no agent of that name.
    """
    if not isinstance(agent, str):
        return agent
    if agent in ("echo", "survey"):
        return EchoAgent(moment)
    if agent == "menu":
        return MenuAgent(moment)
    if agent == "slow":
        return EchoAgent(_SLOW)
    if agent == "silent":
        return silent
    raise ConfigurationError(f"agent {agent!r} is not known; known are {', '.join(AGENTS)}")
