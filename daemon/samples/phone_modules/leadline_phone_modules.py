"""Telephone numbers: written the same way (`phone`), and who serves them (`phone_line`, `phone_lines`).

`phone` computes, so it is a plain function. `phone_line` asks a service over HTTP, so it is async and has 16 leads on
their way in each process; what the service allows is declared, and the queue keeps to it over all teamspaces.
`phone_lines` asks the same service about a hundred numbers at a time, so it takes a batch.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import aiohttp

from leadline_protocol.modules import (
    Context,
    Lead,
    Module,
    QuotaGone,
    Rejected,
    Results,
    SecretRefused,
    Throttled,
    Values,
)

COUNTRIES: Final = {
    "AT": "43", "BE": "32", "CH": "41", "DE": "49", "DK": "45", "ES": "34", "FI": "358", "FR": "33", "GB": "44",
    "IE": "353", "IT": "39", "NL": "31", "NO": "47", "PL": "48", "PT": "351", "SE": "46", "US": "1",
}  # fmt: skip

KEEP_THE_ZERO: Final = {"IT"}
"""Where the zero at the beginning of a number is dialled from abroad, too."""

DIGITS: Final = range(8, 16)
"""So many has a number with its country's code; E.164 knows no longer ones."""

_NO_DIGITS = re.compile(r"[\s()./\-\u2010-\u2015]|\(0\)")


def normalise(lead: Lead, context: Context) -> Values | None:
    """The number as E.164 writes it; None where it is none."""
    text = re.sub(r"\(0\)", "", str(lead["phone"]))
    text = _NO_DIGITS.sub("", text)
    country = str(lead.get("country") or context.settings["country"]).upper()
    if text.startswith("00"):
        text = "+" + text[2:]
    if not text.startswith("+"):
        if country not in COUNTRIES:
            raise Rejected(f"the number has no country's code, and {country} is none of {', '.join(COUNTRIES)}")
        text = "+" + COUNTRIES[country] + (text if country in KEEP_THE_ZERO else text.removeprefix("0"))
    digits = text[1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) in DIGITS):
        return None
    return {"phone_e164": text, "phone_country": _country_of(digits)}


def _country_of(digits: str) -> str | None:
    return next((name for name, code in COUNTRIES.items() if digits.startswith(code)), None)


async def look_up(lead: Lead, context: Context) -> Values | None:
    """What the service knows of the line; None where it knows nothing."""
    line = await _asked("GET", context, params={"number": lead["phone_e164"]})
    return None if line is None else {"line_type": line.get("type"), "carrier": line.get("carrier")}


async def look_up_many(leads: Sequence[Lead], context: Context) -> Results:
    """The same of many lines at a time; what the service says to be no number has failed."""
    lines = await _asked("POST", context, json={"numbers": [lead["phone_e164"] for lead in leads]})
    return [_told(lines, lead["phone_e164"]) for lead in leads]


def _told(lines: Any, number: str) -> Values | Exception | None:
    line = lines.get(number)
    if line is None:
        return None
    if "error" in line:
        return Rejected(f"{number}: {line['error']}")
    return {"line_type": line.get("type"), "carrier": line.get("carrier")}


async def _asked(method: str, context: Context, **request: Any) -> Any:
    """What the service answers; None where it knows nothing."""
    headers = {"Authorization": f"Bearer {context.secret}"} if context.secret else {}
    url = f"{context.settings['url'].rstrip('/')}/v1/lines"
    async with _session().request(method, url, headers=headers, **request) as answer:
        match answer.status:
            case 200:
                return await answer.json()
            case 404:
                return None
            case 401:
                raise SecretRefused("the service does not take the secret")
            case 402:
                raise QuotaGone
            case 429:
                raise Throttled(float(answer.headers.get("Retry-After", 60)))
            case status if status < 500:
                raise Rejected(f"status {status}: {(await answer.text())[:200]}")
            case status:
                raise aiohttp.ClientError(f"status {status}")  # may pass: the lead is tried again


@cache
def _session() -> aiohttp.ClientSession:
    """One for the process: it keeps connections open."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))


phone = Module(
    run=normalise,
    version="1.0.0",
    title="Telephone numbers as E.164 writes them",
    inputs=("phone",),
    optional_inputs=("country",),
    outputs={"phone_e164": "text", "phone_country": "text"},
    settings={"country": "DE"},
)

phone_line = Module(
    run=look_up,
    version="1.0.0",
    title="What kind of line a number is, and who serves it",
    inputs=("phone_e164",),
    outputs={"line_type": ["mobile", "landline", "voip"], "carrier": "text"},
    settings={"url": "https://lines.example"},
    limits=({"shape": "window", "amount": 600, "per_seconds": 60, "unit": "request"},),
    credits_per_lead=1,
    leads_at_once=16,
    timeout_seconds=60,
)

phone_lines = Module(
    run=look_up_many,
    version="1.0.0",
    title="What kinds of lines many numbers are, and who serves them",
    inputs=("phone_e164",),
    outputs={"line_type": ["mobile", "landline", "voip"], "carrier": "text"},
    settings={"url": "https://lines.example"},
    limits=({"shape": "window", "amount": 60, "per_seconds": 60, "unit": "request"},),
    credits_per_lead=0.5,
    batch=100,
    timeout_seconds=120,
)
