"""Reminds by SMS those who have not checked in to an event.

Settings: events_url, sms_url, text (with {name} in it). Secrets: events_key, sms_key. Called with the event's number:

    leadline batch invoke checkin-reminder --teamspace acme --body '{"event": "expo-26"}'

When the gateway says 429, it is left alone for as long as it asks. Each message has a reference by which the gateway
knows one that it was given already, so a retry reminds nobody twice.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from helper import LS

SECONDS_UNSAID = 30
"""The time to wait after a 429 that does not say how long."""


def main(event):
    number = event["body"]["event"]
    reminded = unreachable = 0
    for guest in guests(number):
        if guest["phone"] and send(f"{number}-{guest['id']}", guest):
            reminded += 1
        else:
            LS.log.warn("cannot be reminded", {"id": guest["id"]})
            unreachable += 1
        LS.progress(reminded + unreachable)
    LS.log.info("done", {"reminded": reminded, "unreachable": unreachable})
    return {"reminded": reminded, "unreachable": unreachable}


def guests(number):
    """Those who have not checked in, page after page."""
    page = 1
    while page is not None:
        query = urllib.parse.urlencode({"checked_in": "false", "page": page})
        url = f"{LS.settings.events_url}/events/{urllib.parse.quote(number)}/guests?{query}"
        found = ask(url, LS.settings.events_key)
        yield from found["guests"]
        page = found["next"]


def send(reference, guest):
    """Send one message, when the gateway has time for it. Returns False where it cannot be delivered."""
    text = LS.settings.text.format(name=guest["name"])
    message = {"to": guest["phone"], "text": text, "reference": reference}
    while True:
        try:
            ask(f"{LS.settings.sms_url}/messages", LS.settings.sms_key, message)
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return False
            if error.code != 429:
                raise
            seconds = seconds_asked(error.headers.get("retry-after"))
            LS.log.info("the gateway asks us to wait, in seconds", round(seconds, 1))
            time.sleep(seconds)
        else:
            return True


def seconds_asked(retry_after):
    """How long a Retry-After asks to wait: it is a number of seconds or a date."""
    if retry_after is None:
        return SECONDS_UNSAID
    if retry_after.isdigit():
        return int(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return SECONDS_UNSAID
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())


def ask(url, key, document=None):
    """One request: POST with a document, else GET."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
        return json.load(response)
