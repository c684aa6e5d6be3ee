"""Any system from a TOML file: what is filled in, and what is said of a file that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.cluster.drivers.base import NoAnswer, NodePlace
from seatrial.cluster.drivers.registry import by_name
from seatrial.cluster.drivers.template import TemplateDriver, find

DUMMY = Path(__file__).parent / "testdata" / "dummy.toml"
DUMMY_ONE_ADDRESS = Path(__file__).parent / "testdata" / "dummy_one_address.toml"
SMALLEST = 'name = "x"\ncommand = ["sh", "-c", "{node}"]\n[ports]\npeer = 7000\n'


def place(tmp_path: Path) -> NodePlace:
    return NodePlace(
        node=2,
        directory=tmp_path,
        listen={"peer": "127.1.1.2:7000", "http": "127.1.1.2:8000"},
        peers={1: "127.1.1.102:7001", 2: "127.1.1.102:7002", 3: "127.1.1.102:7003"},
    )


def driver_of(tmp_path: Path, text: str) -> TemplateDriver:
    file = tmp_path / "system.toml"
    file.write_text(text)
    return TemplateDriver(file)


def test_the_command_is_filled_in_with_the_nodes_own_view_of_its_peers(tmp_path: Path) -> None:
    command = TemplateDriver(DUMMY).command(place(tmp_path))
    assert command.argv[3:] == (
        str(DUMMY.parent / "dummy_node.py"),
        "2",
        str(tmp_path),
        "127.1.1.2:7000",
        "127.1.1.2:8000",
        "1=127.1.1.102:7001,2=127.1.1.2:7000,3=127.1.1.102:7003",
    )


def test_with_one_address_for_all_a_node_is_told_its_own_advertised_one(tmp_path: Path) -> None:
    peers = TemplateDriver(DUMMY_ONE_ADDRESS).command(place(tmp_path)).argv[-1]
    assert peers == "1=127.1.1.102:7001,2=127.1.1.102:7002,3=127.1.1.102:7003"


def test_the_environment_is_filled_in_and_a_node_can_be_left_out_of_its_own_peers(tmp_path: Path) -> None:
    text = SMALLEST + 'http = 8000\n[environment]\nPEERS = "{peers}"\n[peers]\ninclude_self = false\nseparator = " "\n'
    environment = driver_of(tmp_path, text).command(place(tmp_path)).environment
    assert environment == {"PEERS": "1@127.1.1.102:7001 3@127.1.1.102:7003"}


def test_client_addresses_come_from_the_endpoints(tmp_path: Path) -> None:
    addresses = TemplateDriver(DUMMY).addresses(place(tmp_path))
    assert (addresses.http, addresses.kafka, addresses.rack) == ("http://127.1.1.2:8000", None, None)
    assert addresses.peer == "127.1.1.2:7000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not TOML"),
        ('nmae = "x"', "no key 'nmae'; there are: name, command"),
        ('name = "x"', "command is missing"),
        (SMALLEST.replace('["sh", "-c", "{node}"]', '"sh"'), "command has to be a list, not 'sh'"),
        (SMALLEST.replace('"-c"', "1"), "command has to be a list of strings, program first"),
        (SMALLEST.replace("peer", "client"), r"\[ports\] needs `peer`"),
        (SMALLEST.replace("7000", "80"), "between 1024 and 65535"),
        ('links = "ring"\n' + SMALLEST, "links has to be one of per_link, per_destination"),
        (SMALLEST + '[status]\nurl = "x"\n', r"\[status\] needs leader"),
        (SMALLEST + '[health]\nurls = "x"\n', r"\[health\] has no key urls; there are: url"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_expectation(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        driver_of(tmp_path, text)
    assert "system.toml" in str(refused.value)


def test_an_unknown_placeholder_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot fill in '\{nod\}'.*there are: .*\{node\}"):
        driver_of(tmp_path, SMALLEST.replace("{node}", "{nod}")).command(place(tmp_path))


def test_a_missing_program_is_unavailable_and_says_what_to_install(tmp_path: Path) -> None:
    text = 'install = "apt-get install nosuch"\n' + SMALLEST.replace('"sh"', '"no-such-program"')
    reason = driver_of(tmp_path, text).unavailable()
    assert reason == "there is no program 'no-such-program' here: apt-get install nosuch"


def test_a_json_path_goes_through_keys_and_list_indexes() -> None:
    answer = {"raft": {"peers": [{"id": 4}]}}
    assert find(answer, "raft.peers.0.id") == 4
    for wrong in ("raft.leader", "raft.peers.1", "raft.peers.x"):
        with pytest.raises(NoAnswer, match="there is no"):
            find(answer, wrong)


def test_options_and_versions_that_a_file_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match="no version to choose"):
        by_name(str(DUMMY), "1.0", {})
    with pytest.raises(ValueError, match="no options"):
        by_name(str(DUMMY), None, {"a": 1})
    with pytest.raises(ValueError, match=r"no system 'zookeeper'; there are: etcd, own, or the path of a .toml file"):
        by_name("zookeeper", None, {})
