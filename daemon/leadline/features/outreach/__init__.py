"""Outreach: mails that follow up on leads, spaced, and never sent twice."""
