"""Batch jobs, their code and their runs."""

from typing import Annotated, Literal

from msgspec import Meta, field

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.batch import BatchReply
from leadline_protocol.messages.submissions import Address
from leadline_protocol.messages.words import INT64_MAX, Id, Name, Path

SettingName = Annotated[str, Meta(min_length=1, max_length=100)]

SettingValue = Annotated[str, Meta(max_length=65_536)]


class BatchJobs(ControlOperation[BatchReply], tag="batch", frozen=True, kw_only=True):
    """The batch jobs of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal[
        "list", "describe", "create", "upload", "set", "publish", "unpublish", "delete", "download", "runs", "logs"
    ] = "list"
    teamspace: Name | None = None
    name: Name | None = None
    path: Path | None = None
    """Of `upload`: the zip, as a file that the daemon may read."""
    version: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    """Of `download`: which; absent: the newest."""
    api: bool | None = None
    """Of `create` and `set`, as what follows: whether it may be run by submission."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_timeouts: bool | None = None
    stall_after_seconds: Annotated[int, Meta(ge=0, le=604_800)] | None = None
    """0: it may be silent as long as it likes."""
    interpreter: Annotated[str, Meta(max_length=100)] | None = None
    """Empty: the machine's own."""
    mail_success: Annotated[list[Address], Meta(max_length=10)] | None = None
    """Who has the mails of success that the code sends."""
    mail_failure: Annotated[list[Address], Meta(max_length=10)] | None = None
    settings: dict[SettingName, SettingValue | None] = field(default_factory=dict)
    """Values to be set; null takes a setting away."""
    secrets: dict[SettingName, SettingValue] = field(default_factory=dict)
    """Settings that are never shown again."""
    instance: Id | None = None
    """Of `runs` and `logs`: which run; `logs` needs it."""
    retry_attempt: Annotated[int, Meta(ge=0, le=100)] = 0
    """Of `logs`: whose lines."""
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    """Of `logs`: so long to wait for a line where there is none yet."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 0
    """The `next` of the page before; of `logs`, the number of the last line that is known."""
    before: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """Of `logs`, in place of `after`: the last lines in front of the line with that number; 0: the last of all. `next`
    is then to be sent as `before`, for those in front of them."""

    def __post_init__(self) -> None:
        by_instance = self.action in {"runs", "logs"} and self.instance is not None
        if self.action not in {"list", "runs"} and not by_instance and (self.teamspace is None or self.name is None):
            raise ValueError("name the teamspace and the batch job")
        if self.action == "logs" and self.instance is None:
            raise ValueError("logs are those of one run: give instance")
        if (self.path is not None) != (self.action == "upload"):
            raise ValueError("path goes with the action upload, and it with path")
        if self.before is not None and (self.action != "logs" or self.after or self.wait_seconds):
            raise ValueError("before goes with the action logs, and without after and wait_seconds")
