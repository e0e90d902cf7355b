"""What a run reaches: the internet, and nothing of what is nearer.

The internet is a network namespace that stands for everything there is outside: servers on addresses that are set aside
for documentation, others on private ones, at the address of a cloud's metadata, and a name server on a private network.
The machine is another namespace, with services of its own. Each server says where it stands, so that nobody is taken
for another.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest

from leadline.adapters.sandbox_runner import network
from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.ports.runner import INTERNET, NetworkMissing
from tests.contracts.runners import Code
from tests.internet import ADDRESSES, ENVIRONMENT, MACHINE, Internet, ip

pytestmark = pytest.mark.timeout(120)

DOCUMENTATION = [IPv4Network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
NEARER = ("10.77.0.1", "169.254.169.254", "172.16.0.1", "192.168.7.1", "100.64.0.1", "198.18.0.1")
NAME_SERVER = "10.77.0.1"

SERVER = """
    import asyncio, sys

    class Names(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport
        def datagram_received(self, question, address):
            end = question.index(b"\\0", 12) + 5
            wanted = question[end - 4 : end - 2] == b"\\0\\1"
            answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + bytes([203, 0, 113, 5]) if wanted else b""
            head = question[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if wanted else b"\\0\\0") + b"\\0\\0\\0\\0"
            self.transport.sendto(head + question[12:end] + answer, address)

    async def main():
        async def answer(reader, writer):
            writer.write(writer.get_extra_info("sockname")[0].encode())
            writer.close()
        for port in (80, 5432):
            await asyncio.start_server(answer, "0.0.0.0", port)
        if "names" in sys.argv:
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(Names, local_addr=("0.0.0.0", 53))
        print("listening", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""

TRY_ALL = """
    import os, socket
    def reached(host, port):
        try:
            with socket.create_connection((host, port), 5) as connection:
                return connection.recv(100).decode() or "nobody"
        except OSError:
            return None
    def main(targets):
        return {f"{host}:{port}": who for host, port in targets if (who := reached(host, port)) is not None}
"""

RUN = """
    import asyncio, json, sys
    from pathlib import Path
    from leadline.adapters.sandbox_runner.cgroups import find_ground
    from leadline.adapters.sandbox_runner.runner import sandbox_runner
    from tests.contracts.runners import Code

    async def main(folder, program, targets, reaches, protected):
        async with sandbox_runner(folder / "runs", ground=find_ground(), protected=protected) as runner:
            run = await runner.start(Code(folder).order(program, event=targets, reaches=tuple(reaches)))
            how = (await run.ended()).how
            print(bytes(how.value).decode() if hasattr(how, "value") else how)

    folder, program, *rest = sys.argv[1:]
    asyncio.run(main(Path(folder), program, *map(json.loads, rest)))
"""


class World:
    """A machine and an internet, and a wire between them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._internet = Internet(stack, also=NEARER)
        ip("-n", self._internet.machine, "addr", "add", "10.77.0.2/24", "dev", "wire")
        self._serve(self._internet.servers, "names")
        self._serve(self._internet.machine)

    def _serve(self, name: str, *words: str) -> None:
        command = ["ip", "netns", "exec", name, sys.executable, "-c", dedent(SERVER), *words]
        server = self._stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT))
        self._stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"

    def reached(
        self, targets: Sequence[tuple[str, int]], *, reaches: Sequence[str] = INTERNET, protected: bool = True
    ) -> Mapping[str, str]:
        """Whom a run on the machine reaches, by where it tried."""
        resolve = self._folder / "resolv.conf"
        resolve.write_text(f"nameserver {NAME_SERVER}\n")
        place = self._folder / f"place-{len(list(self._folder.iterdir()))}"
        place.mkdir()
        words = [msgspec.json.encode(each).decode() for each in (targets, reaches, protected)]
        done = subprocess.run(
            [
                *("ip", "netns", "exec", self._internet.machine, "sh", "-c"),
                'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"',
                *(str(resolve), sys.executable, "-c", dedent(RUN), str(place), dedent(TRY_ALL), *words),
            ],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            check=True,
        )
        found: Mapping[str, str] = msgspec.json.decode(done.stdout)
        return found


@pytest.fixture
def device() -> None:
    try:
        network.check(INTERNET)
    except NetworkMissing as error:
        pytest.skip(f"needs the device for networks: {error}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("world"), stack)


FAR = [(host, 80) for host in ADDRESSES]
NEAR = [(host, port) for host in (*NEARER, MACHINE) for port in (80, 5432)]
HELPERS = [(host, port) for host in (network.GATEWAY, network.NAMESERVER) for port in (80, 5432)]
LOOPBACK = [("127.0.0.1", 80), ("127.0.0.1", 5432), ("localhost", 80), ("0.0.0.0", 80)]
NAMED = [("anything.example", 80)]


def at(targets: Sequence[tuple[str, int]]) -> dict[str, str]:
    return {f"{host}:{port}": host for host, port in targets}


@pytest.mark.root
@pytest.mark.needs("bwrap", "slirp4netns", "ip")
@pytest.mark.usefixtures("device")
def test_the_internet_is_reached_and_nothing_that_is_nearer(world: World) -> None:
    assert world.reached([*FAR, *NEAR, *HELPERS, *LOOPBACK, *NAMED]) == {
        **at(FAR), "anything.example:80": "203.0.113.5",
    }  # fmt: skip


@pytest.mark.root
@pytest.mark.needs("bwrap", "slirp4netns", "ip")
def test_without_a_sandbox_all_of_it_is_reached(world: World) -> None:
    assert world.reached([*FAR, *NEAR, *LOOPBACK, *NAMED], protected=False) == {
        **at([*FAR, *NEAR]),
        **{f"{host}:{port}": "127.0.0.1" for host, port in LOOPBACK},
        "anything.example:80": "203.0.113.5",
    }


@pytest.mark.root
@pytest.mark.needs("bwrap", "slirp4netns", "ip")
@pytest.mark.usefixtures("device")
def test_a_list_of_networks_is_all_that_is_reached(world: World) -> None:
    assert world.reached([*FAR, *NEAR, *NAMED], reaches=["203.0.113.0/24"]) == {
        "203.0.113.5:80": "203.0.113.5", "anything.example:80": "203.0.113.5",
    }  # fmt: skip


@pytest.mark.root
@pytest.mark.needs("bwrap", "slirp4netns", "ip")
def test_without_networks_nothing_is_reached(world: World) -> None:
    assert world.reached([*FAR, *NEAR, *NAMED], reaches=[]) == {}


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("network_asked_for", ["10.1.0.0/16", "127.0.0.1/32", "169.254.169.254/32"])
async def test_no_list_brings_what_is_nearer(network_asked_for: str, tmp_path: Path) -> None:
    async with sandbox_runner(tmp_path / "runs", ground=None) as runner:
        with pytest.raises(NetworkMissing, match="never reached"):
            await runner.start(Code(tmp_path).order("", reaches=("203.0.113.0/24", network_asked_for)))


@pytest.mark.needs("bwrap")
async def test_without_the_tools_code_that_needs_the_internet_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "SEARCH_PATH", str(tmp_path))
    async with sandbox_runner(tmp_path / "runs", ground=None) as runner:
        with pytest.raises(NetworkMissing, match="apt-get install slirp4netns iproute2"):
            await runner.start(Code(tmp_path).order("", reaches=INTERNET))


RATHER_DENIED = [IPv4Network(text) for text in ("224.0.0.0/4", "192.88.99.0/24")]


def test_what_is_denied_is_what_no_public_address_is_in() -> None:
    """By ipaddress; which takes for global what is sent to several, and what was for relays to IPv6."""
    denied = [IPv4Network(text) for text in network.DENIED]
    for text in ("0.0.0.0", "10.255.255.255", "127.0.0.1", "169.254.0.0", "172.31.255.255", "192.168.0.0"):
        assert any(IPv4Address(text) in each for each in denied), text
    for each in denied:
        assert not each[0].is_global or each in RATHER_DENIED
    assert not any(each.overlaps(example) for each in denied for example in DOCUMENTATION)


def test_the_machines_own_addresses_are_denied_besides() -> None:
    made = network.routes(["203.0.113.0/24"], ["203.0.113.9"]).splitlines()
    assert "route replace prohibit 203.0.113.9/32" in made
    assert "route add 203.0.113.0/24 via 10.0.2.2 dev tap0" in made
    assert not any("default" in line or "0.0.0.0/0" in line for line in made)
