"""What is read from a file, and that everything wrong with it is said at once."""

import pickle
import pwd
from pathlib import Path

import pytest

from leadline.config import Config, ConfigError, Secret, describe, load, parse, reading
from leadline.core.model import Family
from leadline.core.rate_limit import ConcurrentLimit, Unit, WindowLimit

SECTIONS = (
    "database, queue, plans, teamspaces, submit, files, providers, modules, batch, outreach, notices, http, log,"
    " service"
)
FILE = Path("/etc/leadline/leadline.toml")


def faults_of(text: str, path: Path = FILE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, path)
    return [str(fault) for fault in caught.value.faults]


def test_without_a_file_the_defaults_just_work() -> None:
    config = Config()
    rules = config.rules()
    assert config.database.url is None
    assert config.database.records_per_hour == 1_000_000
    assert (rules.beat_seconds_max, rules.warn_after_seconds, rules.stall_after_seconds) == (30, 120, 300)
    assert (rules.max_stall_kills, rules.yield_slot_after_seconds) == (2, 900)
    assert rules.capacity[Family.TABLES] == 8
    assert rules.capacity[Family.NOOP] is None
    assert rules.default_limits.slots == {Family.NOOP: 1, Family.TABLES: 1, Family.BATCH: 5, Family.OUTREACH: None}
    assert rules.default_limits.max_queued == 10_000


def test_an_empty_file_is_the_defaults() -> None:
    assert parse("", FILE).rules() == Config().rules()


def test_all_faults_are_told_at_once_each_with_its_path_and_what_is_allowed(tmp_path: Path) -> None:
    text = """
        colour = "red"
        [database]
        records_per_hour = -1
        interactive_share = nan
        [queue]
        stall_after_second = 3
        auto_kill_stalled = "yes"
        capacity = {tables = 0}
        default_plan = "gold"
        [plans.silver]
        slots = 4
        [teamspaces."a b"]
        [teamspaces.c]
        plan = "brass"
        [submit]
        allow = {"no such user" = ["b"]}
        [files]
        upload_folders = ["/nonexistent", 5]
        [providers.snov]
        preset = "snov"
        limits = [
            {shape = "window", amount = 0, per_seconds = 60},
            {shape = "heap"},
            {shape = "daily", amount = 1, zone = "Mars"},
        ]
        [log]
        level = "loud"
    """
    assert faults_of(text, tmp_path / "leadline.toml") == [
        f"colour: there is no such key; known here: {SECTIONS}",
        "database.records_per_hour: must be a whole number from 0 to 1,000,000,000,000, not -1",
        "database.interactive_share: must be a number from 0 to 1, not nan",
        "queue.stall_after_second: there is no such key; did you mean stall_after_seconds?",
        'queue.auto_kill_stalled: must be true or false, not "yes"',
        "queue.capacity.tables: must be a whole number from 1 to 100,000, not 0",
        "plans.silver.slots: must be a table of keys, not 4",
        'teamspaces."a b".plan: is missing; it must be a name of 1 to 100 characters',
        'submit.allow."no such user": there is no user of this name on this machine',
        "files.upload_folders[0]: there is no folder /nonexistent",
        "files.upload_folders[1]: must be the path of a folder, not 5",
        "providers.snov.limits[0].amount: must be a whole number of at least 1, not 0",
        'providers.snov.limits[1].shape: must be one of window, concurrent, daily, bucket, not "heap"',
        'providers.snov.limits[2].zone: must be a time zone such as Europe/Berlin, not "Mars"',
        'log.level: must be one of debug, info, warning, error, not "loud"',
        "queue.default_plan: must be one of the plans default, silver",
        "teamspaces.c.plan: must be one of the plans default, silver",
    ]


def test_what_is_wrong_with_keys_together_is_told_too() -> None:
    assert faults_of("[queue]\nwarn_after_seconds = 300") == [
        "queue.warn_after_seconds: must be less than queue.stall_after_seconds, which is 300"
    ]
    assert faults_of("[providers.x]\nbase_url = 'https://x.test'") == ["providers.x: needs a module or a preset"]
    assert faults_of(
        "[providers.x]\npreset = 'snov'\n"
        "limits = [{shape = 'concurrent', amount = 1}, {shape = 'concurrent', amount = 2}]"
    ) == ["providers.x.limits: has two limits of the same shape, unit and period"]


def test_a_key_at_fault_is_not_blamed_twice() -> None:
    assert faults_of("[queue]\nstall_after_seconds = 'long'\nwarn_after_seconds = 400") == [
        'queue.stall_after_seconds: must be a whole number from 1 to 604,800, not "long"'
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[queue", "is not TOML: Expected ']' at the end of a table declaration (at end of document)"),
        (b"a = '\xff'", "is not UTF-8 at byte 5"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault_of_the_file(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "leadline.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [str(each) for each in caught.value.faults] == [f"{path}: {fault}"]


def test_the_option_goes_before_the_variable_and_the_variable_before_the_system_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for number, name in enumerate(("option", "variable", "system"), 1):
        files[name] = tmp_path / name
        files[name].write_text(f"[queue]\nmax_stall_kills = {number}")
    monkeypatch.setattr(reading, "SYSTEM_CONFIG", files["system"])
    monkeypatch.setenv("LEADLINE_CONFIG", str(files["variable"]))
    assert load(files["option"]).queue.max_stall_kills == 1
    assert load().queue.max_stall_kills == 2
    monkeypatch.delenv("LEADLINE_CONFIG")
    assert load().queue.max_stall_kills == 3
    files["system"].unlink()
    assert load() == Config()


def test_a_plan_takes_what_it_does_not_say_from_the_plan_default() -> None:
    config = parse(
        """
        [plans.default]
        max_queued = 500
        slots = {tables = 2}
        [plans.gold]
        weight = 3
        slots = {batch = 9}
        [teamspaces.acme]
        plan = "gold"
        """,
        FILE,
    )
    assert config.plan_of("acme") == "gold"
    assert config.plan_of("anybody") == "default"
    gold = config.limits_of("gold")
    assert (gold.max_queued, gold.weight) == (500, 3.0)
    assert gold.slots == {Family.NOOP: 1, Family.TABLES: 2, Family.BATCH: 9, Family.OUTREACH: None}


def test_limits_are_read_as_the_core_knows_them() -> None:
    config = parse(
        "[providers.snov]\npreset = 'snov'\nlimits = [{shape = 'window', amount = 15, per_seconds = 60, unit = 'lead'},"
        "{shape = 'concurrent', amount = 4}]",
        FILE,
    )
    assert config.providers["snov"].limits == [WindowLimit(15, 60.0, Unit.LEAD), ConcurrentLimit(4)]


def test_a_user_may_be_named_or_numbered_and_a_star_stands_for_all_teamspaces() -> None:
    me = pwd.getpwuid(0).pw_name
    submit = parse(f"[submit]\nallow = {{{me} = ['*'], 4711 = ['acme']}}", FILE).submit
    assert submit.allows(0, "anything")
    assert submit.allows(4711, "acme")
    assert not submit.allows(4711, "other")
    assert not submit.allows(4712, "acme")


def test_where_nobody_is_named_everybody_may_submit() -> None:
    assert Config().submit.allows(4711, "acme")


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "snov.toml").touch()
    (tmp_path / "uploads").mkdir()
    config = parse(
        "[files]\nupload_folders = ['uploads']\n[providers.snov]\nmodule = 'snov.toml'", tmp_path / "leadline.toml"
    )
    assert config.providers["snov"].module == tmp_path / "snov.toml"
    assert config.files.upload_folders == [tmp_path / "uploads"]


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary-1\n")
    config = parse("[providers.x]\npreset = 'x'\nsecret_file = 'key'", tmp_path / "leadline.toml")
    assert config.providers["x"].secret == Secret("canary-1")


def test_a_plain_name_is_a_credential_of_the_service_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "key").write_text("canary-2")
    (tmp_path / "key").write_text("canary-1")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    config = parse("[providers.x]\npreset = 'x'\nsecret_file = 'key'", tmp_path / "leadline.toml")
    assert config.providers["x"].secret == Secret("canary-2")


def test_a_secret_file_without_a_secret_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    assert faults_of("[providers.x]\npreset = 'x'\nsecret_file = 'key'", tmp_path / "leadline.toml") == [
        f"providers.x.secret_file: {tmp_path / 'key'} is empty"
    ]


def test_a_secret_may_not_be_given_twice(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary")
    text = "[providers.x]\npreset = 'x'\nsecret_file = 'key'\nsecret = 'canary'"
    assert faults_of(text, tmp_path / "leadline.toml") == ["providers.x: may have a secret or a secret_file, not both"]


def test_secrets_are_never_printed() -> None:
    config = parse("[database]\nurl = 'postgres://u:canary@db/x'\n[providers.x]\npreset = 'x'\nsecret = 'canary'", FILE)
    shown = [repr(config), str(config.database.url), *map(str, describe(config))]
    assert not any("canary" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(config.database.url)
    assert config.database.url is not None
    assert config.database.url.reveal() == "postgres://u:canary@db/x"


def test_a_faulty_secret_is_not_repeated() -> None:
    assert faults_of("[database]\nurl = ['canary']") == ["database.url: must be a text"]


def test_a_teamspaces_own_key_is_read_and_judged_like_the_providers(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("canary-3\n", encoding="utf-8")
    text = "[providers.x]\npreset = 'x'\nflight_seconds = 2\n[providers.x.own.acme]\n"
    config = parse(text + "secret_file = 'acme'", tmp_path / "leadline.toml")
    assert config.providers["x"].own["acme"].secret == Secret("canary-3")
    assert "canary" not in repr(config) + repr(describe(config))
    assert faults_of(text) == ["providers.x.own.acme: needs a secret or a secret_file"]
    assert faults_of(text + "secret = 's'\nlimits = [{shape = 'window', amount = 0, per_seconds = 1}]") == [
        "providers.x.own.acme.limits[0].amount: must be a whole number of at least 1, not 0"
    ]


def test_a_module_is_read_and_judged_like_a_provider(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary\n")
    module = parse("[modules.phone]\nsecret_file = 'key'\nprocesses = 3\n", tmp_path / "leadline.toml").modules["phone"]
    assert (module.processes, module.secret) == (3, Secret("canary"))
    assert "canary" not in repr(module)
    wrong = "[providers.snov]\npreset = 'snov'\n[modules.snov]\nsecret = 'a'\nsecret_file = 'key'\nprocesses = 0\n"
    assert faults_of(wrong, tmp_path / "leadline.toml") == [
        "modules.snov.processes: must be a whole number from 1 to 256, not 0",
        "modules.snov: a provider has this name",
        "modules.snov: may have a secret or a secret_file, not both",
    ]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://jobs.example.com", True),
        ("http://10.1.2.3:8021", True),
        ("https://[2001:db8::1]:8443", True),
        ("https://jobs.example.com/", False),
        ("https://jobs.example.com/leadline", False),
        ("https://jobs.example.com?a=1", False),
        ("https://u:p@jobs.example.com", False),
        ("https://jobs.example.com\\n", False),
        ("https://:8021", False),
        ("jobs.example.com", False),
        ("ftp://jobs.example.com", False),
    ],
)
def test_the_address_of_browsers_is_a_scheme_and_a_host(url: str, fits: bool) -> None:
    text = f'[http]\npublic_url = "{url}"\n'
    if fits:
        assert parse(text, FILE).http.public_url == url
    else:
        (fault,) = faults_of(text)
        assert fault.startswith("http.public_url: must be http:// or https:// and a host, with nothing after it, not ")


def test_notices_that_could_never_be_sent_are_faults() -> None:
    text = """
    [notices]
    allow_networks = ["10.0.0.0/8", "10.0.0.1/8"]
    [notices.teamspaces.acme]
    mail = ["ada@a.example"]
    [notices.teamspaces.beta]
    on = ["failed"]
    [notices.teamspaces.gamma]
    webhook = "https://u@a.example/"
    mail = ["x@y.example\\nBcc: z@y.example"]
    """
    assert faults_of(text) == [
        'notices.teamspaces.gamma.webhook: must be a URL that begins with http:// or https://, not "https://u@a.example/"',
        r'notices.teamspaces.gamma.mail[0]: must be an e-mail address, not "x@y.example\nBcc: z@y.example"',
        "notices.allow_networks[1]: must be a network such as 10.1.0.0/16, not 10.0.0.1/8",
        "notices.teamspaces.acme.mail: needs notices.smtp.host",
        "notices.teamspaces.beta: needs a webhook or mail",
    ]
    assert faults_of("[notices.smtp]\nhost = 'mail.example'\n") == [
        "notices.sender: is missing; mails come from somebody"
    ]
