"""How outreach is configured where nothing is queued but by the test, whatever the hour."""

from tests.world.mail import MailServed

NEVER = "0 0 29 2 *"


def outreach(*settings: str, served: MailServed | None = None) -> list[str]:
    """That part of a configuration, with these settings, and with the mail server of all mailboxes if there is one."""
    crons = [f'{name}_cron = "{NEVER}"' for name in ("queue", "weekday", "weekend")]
    lines = ["[outreach]", *crons, *settings]
    if served is None:
        return lines
    return [*lines, "[outreach.smtp]", f'host = "{served.host}"', f"port = {served.port}", 'tls = "none"']
