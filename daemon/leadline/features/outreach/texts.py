"""What a mail of a script says to one contact.

The texts of a step are templates (`templates.py` has their language). They are looked at when a script is imported, so
that a fault is found by who made it; what only shows with a contact's fields, a missing one above all, is found before
its mail is sent, and no mail goes out with a hole in it.

Jinja is imported at the first text: a daemon without outreach, and most commands, never need it.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from leadline.features.outreach.characters import lines, one_line
from leadline.features.outreach.model import Associate, Step
from leadline_protocol.errors import LeadlineError

if TYPE_CHECKING:
    from leadline.features.outreach.templates import Template

SUBJECT_CHARACTERS_MAX: Final = 250
BODY_CHARACTERS_MAX: Final = 200_000

REPLY: Final = "Re: "


class Text(Struct, frozen=True):
    """What one mail says."""

    subject: str
    """One line."""
    text: str
    html: str | None


class BadText(LeadlineError):
    """A template cannot be used."""

    def __init__(self, step: int, field: str, line: int, message: str) -> None:
        super().__init__((f"step {step}, " if step else "") + f"{field}, line {line}: {message}")
        self.step: Final = step
        """From 1; 0 where it is not known."""
        self.field: Final = field
        """subject, text or html."""
        self.line: Final = line
        """From 1."""


class MissingFields(LeadlineError):
    """The contact lacks fields that the mail has to name: all of them, in the order of the text."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the contact has no {', '.join(names)}")
        self.names: Final = tuple(names)


def check(steps: Sequence[Step]) -> None:
    """Whether mails can be written by these steps. Raises BadText, for the first that is wrong."""
    for number, step in enumerate(steps, 1):
        for _ in _templates(step, number):
            pass
    if steps and not steps[0].subject.strip():
        raise BadText(1, "subject", 1, "the first mail answers none, so it needs a subject")


def missing(step: Step, fields: Mapping[str, str]) -> list[str]:
    """All fields that a mail of the step would have to name and the contact does not have, or has blank, in the order
    of the text. Raises BadText.
    """
    return _rendered(step, fields)[1]


def written(step: Step, fields: Mapping[str, str], associate: Associate, *, first_subject: str = "") -> Text:
    """A mail to a contact with these fields, in the associate's name.

    `first_subject` is that of the first mail to the contact; a step without a subject answers it.

    Raises:
        BadText: a template cannot be used, or what comes out of it is too long or no subject at all.
        MissingFields: the contact lacks fields.
        Unwritable: half a character stands in it.

    """
    texts, missed = _rendered(step, fields)
    if missed:
        raise MissingFields(missed)
    subject = one_line(texts["subject"]) or _answered(one_line(first_subject))
    if not subject:
        raise BadText(0, "subject", 1, "it is empty, and there is no mail before it that this one could answer")
    html = texts.get("html")
    return Text(
        subject=subject,
        text=lines(_signed(texts["text"], associate.signature)),
        html=None if html is None else lines(_signed_html(html, associate.signature)),
    )


def _answered(subject: str) -> str:
    return subject if not subject or subject.lower().startswith(REPLY.lower()) else REPLY + subject


def _signed(text: str, signature: str) -> str:
    return f"{text.rstrip()}\n\n{signature}" if signature.strip() else text


def _signed_html(html: str, signature: str) -> str:
    """The signature stands within the body, where the text has the tags of one."""
    if not signature.strip():
        return html
    signed = f"<p>{'<br>'.join(escape(line) for line in signature.strip().splitlines())}</p>\n"
    end = html.lower().rfind("</body>")
    return html + signed if end < 0 else html[:end] + signed + html[end:]


def _templates(step: Step, number: int) -> "Iterator[tuple[str, Template]]":
    """Each field of the step with its template. Raises BadText."""
    from leadline.features.outreach.templates import TemplateFault, parsed

    for field, source in (("subject", step.subject), ("text", step.text), ("html", step.html)):
        if source is None:
            continue
        try:
            yield field, parsed(source, html=field == "html")
        except TemplateFault as fault:
            raise BadText(number, field, fault.line, str(fault)) from fault


def _rendered(step: Step, fields: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The texts by field, and the names of the fields that were not there. Raises BadText."""
    from leadline.features.outreach.templates import TemplateFault

    missed: dict[str, None] = {}
    texts: dict[str, str] = {}
    for field, template in _templates(step, 0):
        longest = SUBJECT_CHARACTERS_MAX if field == "subject" else BODY_CHARACTERS_MAX
        try:
            texts[field] = template.rendered(fields, missed.setdefault, longest)
        except TemplateFault as fault:
            raise BadText(0, field, fault.line, str(fault)) from fault
    return texts, list(missed)
