"""Tokens of a conversation through a chat template, and those that some of its speakers say.

Where a template marks what the assistant says (``{% generation %}``), that is taken. Otherwise it is proven by what is
rendered: the first k turns alone must be rendered as the beginning of all, so the end of turn k is where that ends; it
begins behind the prompt that the template writes for an answer, or where its rendering first differs if its text does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from hskcache.errors import TeacherError
from hskcache.text.documents import plain_tokenizer
from hskcache.text.frame import Ids
from hskcache.text.language.rows import Mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT = "assistant"
_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK_IT = "give a chat template that marks what the assistant says with {% generation %}"

Message = Mapping[str, Any]


class UnusableError(Exception):
    """Raised of a conversation that makes no row: ``problem``, and ``advice`` on what to do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.problem, self.advice = problem, advice


class Conversation(NamedTuple):
    """Turns, each with a role and what was said, and descriptions of tools, where there are any."""

    messages: Sequence[Message]
    tools: list[Any] | None = None


@dataclass(frozen=True, eq=False)
class Turns:
    """A chat template and the roles whose turns are to be predicted.

    Attributes:
        tokenizer: with the template.
        roles: of a conversation, such as ``assistant``.
        called: the tokenizer's model, for messages.
    """

    tokenizer: "PreTrainedTokenizerBase"
    roles: tuple[str, ...]
    called: str

    def __post_init__(self) -> None:
        if not self.tokenizer.chat_template:
            raise TeacherError(
                f"the tokenizer of {self.called} has no chat template; put the chat_template.jinja of its chat version "
                "beside it, or give texts with --data or --corpus"
            )

    @cached_property
    def by(self) -> Literal["tag", "prefixes"]:
        """The way in which turns are found."""
        template = str(self.tokenizer.get_chat_template())
        return "tag" if self.roles == (ASSISTANT,) and _TAG.search(template) else "prefixes"

    @cached_property
    def _plain(self) -> Any:
        return plain_tokenizer(self.tokenizer)

    def tokens(self, conversation: Conversation) -> tuple[Ids, Mask]:
        """Token ids, int32 [T], and which are said by one of the roles, bool [T].

        Raises:
            UnusableError: no turn is, or the template does not tell where one stands.
        """
        if not any(message["role"] in self.roles for message in conversation.messages):
            wanted = " or ".join(self.roles)
            raise UnusableError(f"no turn of {wanted}", "add one, or give other --roles")
        text = self._rendered(conversation)
        spans = self._tagged(conversation, text) if self.by == "tag" else self._spans(conversation, text)
        encoding = self._plain.encode(text, add_special_tokens=False)
        targets = np.zeros(len(encoding.ids), np.bool_)
        begins, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        for start, stop in spans:
            # A token that is only in part within counts, too.
            targets |= (begins < stop) & (ends > start)
        return np.array(encoding.ids, np.int32), targets

    def _tagged(self, conversation: Conversation, text: str) -> list[tuple[int, int]]:
        """Places [start, stop) that the template marks in the rendered text, without blanks behind them."""
        from transformers.utils.chat_template_utils import render_jinja_template

        # Not the mask of tokens that transformers makes of these: it misses the last tokens of a character that is
        # several, and marks all that follows where no token holds the last character.
        rendered, marked = render_jinja_template(
            [[{key: one for key, one in message.items() if one is not None} for message in conversation.messages]],
            tools=conversation.tools,
            chat_template=self.tokenizer.get_chat_template(tools=conversation.tools),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        assert rendered[0] == text
        spans = [(start, start + len(text[start:stop].rstrip())) for start, stop in marked[0]]
        if not any(start < stop for start, stop in spans):
            raise UnusableError("the chat template marks nothing that is said", "fill it in or remove the line")
        return spans

    def _spans(self, conversation: Conversation, whole: str) -> list[tuple[int, int]]:
        """Places [start, stop) of what the roles say in the rendered text, without blanks behind it."""
        spans = []
        for number, message in enumerate(conversation.messages):
            if message["role"] not in self.roles:
                continue
            until = self._rendered(self._first(conversation, number + 1))
            if not whole.startswith(until):
                raise UnusableError(
                    f"the chat template renders the first {number + 1} turns otherwise when more follow, so it is not "
                    "known which tokens are theirs",
                    _MARK_IT,
                )
            start, stop = self._start(conversation, number, until), len(until.rstrip())
            if start >= stop:
                raise UnusableError(f"turn {number + 1} says nothing", "fill it in or remove the line")
            spans.append((start, stop))
        return spans

    def _start(self, conversation: Conversation, number: int, until: str) -> int:
        """Place where a turn's own words begin in the text that ends with it."""
        message = conversation.messages[number]
        if message["role"] == ASSISTANT and number:
            before = self._first(conversation, number)
            prompt = self._rendered(before, add_generation_prompt=True)
            if prompt != self._rendered(before) and until.startswith(prompt):
                return len(prompt)
        said = message.get("content")
        if not isinstance(said, str) or not said.strip():
            raise UnusableError(
                f"turn {number + 1} of {message['role']} has no text of its own, so it is not known where it begins",
                _MARK_IT,
            )
        first = len(said) - len(said.lstrip())
        other = said[:first] + ("b" if said[first] == "a" else "a") + said[first + 1 :]
        changed = [*conversation.messages[:number], {**message, "content": other}]
        differ = _first_difference(until, self._rendered(conversation._replace(messages=changed)))
        if differ == len(until):
            raise UnusableError(f"the chat template leaves out turn {number + 1}", _MARK_IT)
        # Blanks in front are its own where the template leaves them.
        return differ - first if until[:differ].endswith(said[:first]) else differ

    @staticmethod
    def _first(conversation: Conversation, count: int) -> Conversation:
        return conversation._replace(messages=conversation.messages[:count])

    def _rendered(self, conversation: Conversation, **how: Any) -> str:
        text: str = self._applied(conversation.messages, conversation.tools, tokenize=False, **how)
        return text

    def _applied(self, messages: Sequence[Message], tools: list[Any] | None, **how: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template([dict(message) for message in messages], tools=tools, **how)
        except Exception as error:  # noqa: BLE001  (a template raises whatever it likes)
            raise UnusableError(
                f"the chat template refuses it ({shorten(str(error), 160)})", "write it as the template asks"
            ) from None


def _first_difference(one: str, other: str) -> int:
    """Place where two texts differ first, or where the shorter one ends."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (here, there) in pairs if here != there), min(len(one), len(other)))
