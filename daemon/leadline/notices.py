"""Whom the configuration, and a job itself, want to be told of jobs by mail and webhook, and what came of that."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from leadline.adapters.postgres.notices import PostgresNotices
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.smtp_mailer import Account as MailAccount
from leadline.config import Config
from leadline.core.events import Statement
from leadline.ports.notices import WISH_NOTICE, NoticeState
from leadline.ports.store import THIS_JOB, Unavailable
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused


class Notices:
    """The outbox, and what the configuration says of it now."""

    def __init__(self, outbox: PostgresNotices, store: PostgresStore, config: Callable[[], Config]) -> None:
        self._outbox = outbox
        self._store = store
        self._config = config

    def wishes(self, submission: wire.Submission) -> Sequence[Statement]:
        """Whom to tell of a new job: whom it names itself, and whom the configuration does. Raises Refused."""
        own = submission.notices
        rule = self._config().notices.teamspaces.get(submission.teamspace)
        if own is not None and own.mail and self._config().notices.smtp.host is None:
            raise Refused(ErrorCode.BAD_REQUEST, "no mail server is configured", at="notices.mail")
        wanted: dict[tuple[str, str], set[str]] = {}
        for each in (own, None if isinstance(submission, wire.Noop) else rule):
            if each is not None:
                places = [("webhook", each.webhook)] if each.webhook is not None else []
                for place in (*places, *(("mail", address) for address in each.mail)):
                    wanted.setdefault(place, set()).update(each.on)
        return [
            Statement(WISH_NOTICE, (THIS_JOB, medium, target, sorted(events)))
            for (medium, target), events in wanted.items()
        ]

    def webhook_secret(self, teamspace: str) -> str | None:
        """What signs a teamspace's webhooks."""
        rule = self._config().notices.teamspaces.get(teamspace)
        return None if rule is None or rule.secret is None else rule.secret.reveal()

    def mail_account(self) -> MailAccount | None:
        """How mails are sent now."""
        smtp, sender = self._config().notices.smtp, self._config().notices.sender
        if smtp.host is None or sender is None:
            return None
        password = None if smtp.secret is None else smtp.secret.reveal()
        return MailAccount(smtp.host, smtp.port, smtp.tls, sender, smtp.user, password)

    def sends_mail(self) -> bool:
        """Whether there is a mail server."""
        return self.mail_account() is not None

    def allowed_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """The private networks that webhooks may go to."""
        return [ip_network(text) for text in self._config().notices.allow_networks]

    async def notices(self, wanted: wire.Notices) -> Sequence[wire.NoticeView]:
        """Mails and webhooks about jobs. Raises Refused."""
        if wanted.again is not None and not await self._outbox.again(wanted.again):
            raise Refused(ErrorCode.NOT_FOUND, f"no notice {wanted.again} was given up or is held", at="again")
        self._store.noticed()
        states: list[NoticeState] = ["due", "sending", "failed", "unknown"]
        if wanted.all:
            states.append("sent")
        found = await self._outbox.notices(
            job=wanted.job, teamspace=wanted.teamspace, states=states, limit=wanted.limit
        )
        return [
            wire.NoticeView(
                notice=each.id,
                job=each.job,
                teamspace=each.teamspace,
                event=each.event,
                medium=each.medium,
                target=each.target,
                state=each.state,
                tries=each.tries,
                made_at=each.made,
                next_try_at=each.due if each.state == "due" else None,
                detail=each.detail or None,
            )
            for each in found
        ]

    async def undelivered(self) -> int:
        """How many notices were given up or are held; none where the database cannot be asked."""
        try:
            return await self._outbox.undelivered()
        except Unavailable:
            return 0
