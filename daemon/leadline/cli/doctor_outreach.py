"""What the doctor looks at where mails are sent: who takes them, how one unsubscribes, and what waits for a person.

Nothing is sent. The mail server of the configuration is talked to as the daemon would, as far as logging in. Of those
that mailboxes have of their own it is only looked whether somebody is there: their passwords are the daemon's.
"""

import http.client
import smtplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from leadline.cli.daemon import NoDaemon, Place, any_socket
from leadline.cli.outreach import command, every_of
from leadline.cli.words import counted
from leadline.config import Config, OutreachSmtp
from leadline_protocol.errors import Refused
from leadline_protocol.messages import AssociateView, FollowUps, MailView

SECONDS: Final = 10.0
MAILBOXES_TOLD: Final = 10

Findings = Iterator[tuple[Literal["fine", "note", "fault"], str]]


class Seen(Struct, frozen=True):
    """What a running daemon says."""

    associates: Sequence[AssociateView]
    unknown: Sequence[MailView]


def outreach(config: Config, place: Place) -> Findings:
    """What is to be said of outreach; nothing where nobody writes and no mail server is configured."""
    seen = _seen(place)
    associates = [] if seen is None else seen.associates
    smtp = config.outreach.smtp
    if smtp.host is None and not associates:
        return
    if smtp.host is not None:
        yield _configured(smtp, smtp.host)
    yield from _of_mailboxes(associates, has_server=smtp.host is not None)
    yield from _unsubscribing(config, is_there=seen is not None, is_wanted=bool(associates))
    for view in [each for each in associates if each.paused is not None][:MAILBOXES_TOLD]:
        resume = command("resume", view.teamspace, view.name)
        yield "note", f"The mailbox of {view.name} ({view.teamspace}) is paused: {view.paused}: {resume}"
    if seen is not None and seen.unknown:
        waits = "waits" if len(seen.unknown) == 1 else "wait"
        mails = counted(len(seen.unknown), "mail")
        yield (
            "note",
            f"{mails} of unknown outcome {waits} for a person: `leadline outreach unknown` shows what is known.",
        )


def _seen(place: Place) -> Seen | None:
    """None where no daemon says anything to this user."""
    try:
        with any_socket(place) as daemon:
            if not daemon.controls:
                return None
            associates = every_of(daemon, FollowUps(action="associates"), lambda page: page.associates)
            return Seen(associates, every_of(daemon, FollowUps(action="mails"), lambda page: page.mails))
    except (NoDaemon, Refused):
        return None


# -- mail servers ------------------------------------------------------------------------------------------------------


def _configured(smtp: OutreachSmtp, host: str) -> tuple[Literal["fine", "fault"], str]:
    name = f"The mail server {host}:{smtp.port}"
    context = ssl.create_default_context()
    try:
        if smtp.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, smtp.port, timeout=SECONDS, context=context)
        else:
            server = smtplib.SMTP(host, smtp.port, timeout=SECONDS)
        with server:
            if smtp.tls == "starttls":
                server.starttls(context=context)
            if smtp.user is not None:
                server.login(smtp.user, "" if smtp.secret is None else smtp.secret.reveal())
    except (OSError, smtplib.SMTPException) as error:
        return "fault", f"{name} takes no mails: {error}."
    return "fine", f"{name} takes mails{'' if smtp.user is None else f' of {smtp.user}'}."


def _of_mailboxes(associates: Sequence[AssociateView], *, has_server: bool) -> Findings:
    homeless = [view for view in associates if view.active and view.server is None]
    if homeless and not has_server:
        names = ", ".join(f"{view.name} ({view.teamspace})" for view in homeless[:MAILBOXES_TOLD])
        yield (
            "fault",
            f"No mail server takes the mails of {names}: set outreach.smtp.host, or give each one of its own.",
        )
    servers = sorted({view.server for view in associates if view.active and view.server is not None})
    silent = {server: reason for server in servers if (reason := _unreachable(server)) is not None}
    for server, reason in silent.items():
        yield "fault", f"The mail server {server} of a mailbox cannot be reached: {reason}."
    if servers and not silent:
        yield "fine", f"{counted(len(servers), 'mail server')} of mailboxes can be reached."


def _unreachable(server: str) -> str | None:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


# -- unsubscribing -----------------------------------------------------------------------------------------------------


def _unsubscribing(config: Config, *, is_there: bool, is_wanted: bool) -> Findings:
    url, listen = config.outreach.unsubscribe_url, config.outreach.unsubscribe_listen
    if url is None:
        if is_wanted:
            yield (
                "note",
                "Nobody can unsubscribe by one click, which large mail providers want: outreach.unsubscribe_url.",
            )
        return
    if not is_there:
        return
    host, _, port = listen.rpartition(":")
    if (reason := _other(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=SECONDS), "")) is not None:
        yield "fault", f"The daemon does not listen for unsubscribing at {listen}: {reason}; restart it."
        return
    parts = urlsplit(url)
    outside = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    if (reason := _other(outside, parts.path)) is not None:
        yield "note", f"From here {url} does not lead to {listen}: {reason}. Look at the reverse proxy."
    else:
        yield "fine", f"{url} leads to the daemon."


def _other(connection: http.client.HTTPConnection, path: str) -> str | None:
    """Why it is not the daemon's listener that answers; None: it is. It knows nothing of what is asked for."""
    try:
        connection.request("GET", f"{path.rstrip('/')}/doctor")
        reply = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    finally:
        connection.close()
    if reply.status == http.client.NOT_FOUND and reply.headers.get("X-Robots-Tag") == "noindex":
        return None
    return f"something else answers, with status {reply.status}"
