"""The texts of a step: what a template may say, what it costs, and what is missing."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.outreach.characters import Unwritable
from leadline.features.outreach.model import Associate, AssociateId, Step
from leadline.features.outreach.texts import BadText, MissingFields, Text, check, missing, written

ADA = Associate(id=AssociateId(1), teamspace="acme", name="ada", address="ada@a.example", signature="Ada & Co\nBerlin")
PLAIN = Associate(id=AssociateId(2), teamspace="acme", name="bob", address="bob@a.example")


def step(text: str, subject: str = "Hello", html: str | None = None) -> Step:
    return Step(0, subject, text, html)


def said(text: str, **fields: str) -> str:
    return written(step(text), fields, PLAIN).text


def test_a_mail_says_what_the_templates_say_and_is_signed() -> None:
    mail = written(
        step("Hi {{ name }},\nbye", "For {{ company }}", "<body><p>Hi {{ name }}</p></body>"),
        {"name": "Zoë <b>", "company": "A & B"},
        ADA,
    )
    assert mail == Text(
        subject="For A & B",
        text="Hi Zoë <b>,\nbye\n\nAda & Co\nBerlin\n",
        html="<body><p>Hi Zoë &lt;b&gt;</p><p>Ada &amp; Co<br>Berlin</p>\n</body>\n",
    )


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        ('{{ name | default("there") }}', {}, "there"),
        ('{{ name | default("there") }}', {"name": "  "}, "there"),
        ('{{ nick or name or "you" }}', {"name": "Ada"}, "Ada"),
        ("{% if company %}at {{ company }}{% else %}alone{% endif %}", {}, "alone"),
        ("{% if company is defined and company != 'X' %}at {{ company }}{% endif %}.", {"company": "Y"}, "at Y."),
        ('{{ "Du" if de == "1" else "you" }}', {"de": "1"}, "Du"),
        ('{{ fields["Job title"] | lower }}', {"Job title": "CTO"}, "cto"),
        ('{{ fields["self"] | trim | upper }}', {"self": " ß "}, "SS"),
        ("https://x.example/?q={{ q | urlencode }}", {"q": "a b&ü"}, "https://x.example/?q=a%20b%26%C3%BC"),
        ("{# a remark #}{% raw %}{{ name }}{% endraw %}", {}, "{{ name }}"),
        ("{{ name }}", {"name": "{{ 7*7 }}{% for x in y %}"}, "{{ 7*7 }}{% for x in y %}"),
    ],
)
def test_a_template_may_choose_and_change_texts(template: str, fields: dict[str, str], text: str) -> None:
    assert said(template, **fields) == text + "\n"


def test_all_fields_that_are_missing_are_named_in_the_order_of_the_text_once() -> None:
    letter = step(
        "{{ b }} {{ a | upper }} {{ b }} {{ c | urlencode }} {{ fields['D e'] }}", "{{ z }}", "<p>{{ y }}{{ a }}"
    )
    assert missing(letter, {"b": "", "y": "here"}) == ["z", "b", "a", "c", "D e"]
    with pytest.raises(MissingFields, match="the contact has no z, b, a, c, D e") as caught:
        written(letter, {"b": "", "y": "here"}, PLAIN)
    assert caught.value.names == ("z", "b", "a", "c", "D e")


def test_a_field_that_is_only_asked_for_is_not_missing() -> None:
    letter = step('{% if a %}{{ a }}{% endif %}{{ b | default("x") }}{{ c or "y" }}{% if d is undefined %}z{% endif %}')
    assert missing(letter, {}) == []
    assert missing(step("{% if a == 'x' %}{% endif %}"), {}) == ["a"], "a comparison wants something to compare"


def test_a_step_without_a_subject_answers_the_first_mail() -> None:
    assert written(step("x", ""), {}, PLAIN, first_subject="Hello").subject == "Re: Hello"
    assert written(step("x", " "), {}, PLAIN, first_subject="RE: Hello").subject == "RE: Hello"
    with pytest.raises(BadText, match="subject, line 1: it is empty"):
        written(step("x", ""), {}, PLAIN)


def test_a_subject_is_one_line_and_a_text_has_no_characters_that_mean_nothing() -> None:
    mail = written(step("a\r\nb\x00\x07c\rd\te", "{{ x }}"), {"x": "a\r\nBcc: eve\u2028\x85\x00 b"}, PLAIN)
    assert (mail.subject, mail.text) == ("a Bcc: eve b", "a\nbc\nd\te\n")
    with pytest.raises(Unwritable, match="half a character"):
        written(step("{{ x }}"), {"x": "\ud800"}, PLAIN)


@pytest.mark.parametrize(
    ("field", "line", "letter"),
    [
        ("subject", 1, step("x", "{{ a")),
        ("text", 3, step("x\n\n{% if a %}")),
        ("html", 2, step("x", "y", "<p>\n{{ a | shout }}")),
    ],
)
def test_a_template_that_does_not_parse_is_refused_with_its_place(field: str, line: int, letter: Step) -> None:
    with pytest.raises(BadText) as caught:
        check([step("fine"), letter])
    assert (caught.value.step, caught.value.field, caught.value.line) == (2, field, line)
    assert str(caught.value).startswith(f"step 2, {field}, line {line}: ")


def test_the_first_mail_needs_a_subject_and_the_others_do_not() -> None:
    check([step("x", "Hello"), step("y", "")])
    with pytest.raises(BadText, match="step 1, subject"):
        check([step("x", "")])


@pytest.mark.parametrize(
    "attack",
    [
        "{% for a in range(9) %}{% for b in range(9) %}x{% endfor %}{% endfor %}",
        "{{ range(999999999) }}",
        "{{ 'a' * 999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 1 + 1 }}",
        "{{ 7 }}",
        "{{ a ~ b }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'x' | replace('x', 'xxxxxxxx') }}",
        "{{ 'x' | wordwrap(1) }}",
        "{{ lipsum(9999) }}",
        "{{ a.__class__.__mro__ }}",
        "{{ a['__class__'] }}",
        "{{ ''['__class__'] }}",
        "{{ fields[a] }}",
        "{{ fields }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ a() }}",
        "{{ a | attr('__class__') }}",
        "{{ a | safe }}",
        "{{ a | default(b) }}",
        "{{ a | default('x', true) }}",
        "{{ a | upper('x') }}",
        "{{ a is callable }}",
        "{{ a is divisibleby 3 }}",
        "{{ 'x' if a }}",
        "{{ a in 'abc' }}",
        "{{ a < 'b' }}",
        "{{ [a, a] }}",
        "{{ {'a': a} }}",
        "{% set a = 'x' %}",
        "{% set x %}{{ a }}{% endset %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'x' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% with a = 'x' %}{% endwith %}",
        "{% autoescape false %}{{ a }}{% endautoescape %}",
        "{% if a is defined() %}{% endif %}{{ a.b }}",
    ],
)
def test_a_template_cannot_say_what_could_run_long_or_reach_anything(attack: str) -> None:
    with pytest.raises(BadText):
        check([step(attack)])
    with pytest.raises(BadText):
        check([step("x", "y", attack)])


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ " + "(" * 50_000 + "a" + ")" * 50_000 + " }}",
        "{{ a" + "|upper" * 15_000 + " }}",
        "{{ " + "not " * 20_000 + "a }}",
        "{{ " + "a and " * 15_000 + "a }}",
        "{{ " + "a if a else " * 8_000 + "a }}",
        "{% if a %}" * 5_000 + "{% endif %}" * 5_000,
        "{{ a }}" * 14_000,
        "{{" * 50_000,
        "{#" * 50_000,
        "{{ '" + "\\" * 90_000,
        "x" * 100_001,
    ],
    ids=range(11),
)
def test_a_template_that_is_made_to_be_costly_is_refused_at_once(bomb: str) -> None:
    began = time.process_time()
    with pytest.raises(BadText):
        check([step(bomb)])
    assert time.process_time() - began < 2


def test_what_comes_out_is_bounded() -> None:
    with pytest.raises(BadText, match="200,000 characters"):
        said("{{ a }}" * 500, a="x" * 1_000)
    with pytest.raises(BadText, match=r"subject, line 1: more than 250"):
        written(step("x", "{{ a }}"), {"a": "x" * 251}, PLAIN)
    with pytest.raises(BadText, match="a is longer than 20,000 characters"):
        said("{{ a | default('x') }}", a="x" * 20_001)
    assert len(said("{{ a }}" * 500, a="x" * 399)) == 199_501


@given(st.text(alphabet=st.sampled_from("{}%#|()[]'\" \nabif.=,~-+*"), max_size=60))
def test_a_template_is_refused_or_written_and_nothing_else_happens(source: str) -> None:
    letter = step(source)
    try:
        check([letter])
    except BadText:
        return
    names = missing(letter, {})
    assert written(letter, dict.fromkeys([*names, "a", "b", "f", "i"], "1"), PLAIN).text.endswith("\n")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])))
def test_a_field_is_written_as_it_is_whatever_it_looks_like(value: str) -> None:
    text = said("<{{ a | default('') }}>", a=value)
    assert text == (f"<{value}>\n" if value.strip() else "<>\n")


def test_jinja_is_not_imported_before_the_first_text() -> None:
    program = "import sys, leadline.features.outreach.texts; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
