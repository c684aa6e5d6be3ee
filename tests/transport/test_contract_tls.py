"""Contract of every transport with TLS: who is let in, who is not, and what both sides say about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from wired_nodes import GROUP, Certificates, Nodes, certificates

from seatrial.raft.ids import NodeId
from seatrial.transport import BadCertificate, Tls, TlsFiles, load_tls, make_wire
from seatrial.transport.wire import Wire


@pytest.fixture(params=("framed", "grpc"))
def secured(request: pytest.FixtureRequest, node_certificates: Certificates) -> Nodes:
    """Nodes that demand a certificate of the cluster's authority."""
    return Nodes(str(request.param), node_certificates.tls)


async def is_refused(nodes: Nodes, wire: Wire, *words: str) -> None:
    """A caller on this wire gets nowhere, hears about it in a sentence with one of these words, and so does the log."""
    target = await nodes.start(2, {1: "127.0.0.1:1"})
    caller = await nodes.start(1, {2: target.address}, wire=wire)
    target.add_peer(NodeId(1), caller.address)
    caller.send(GROUP, [nodes.vote(1)])

    def told() -> bool:
        return any("node 2 at" in line and "--raft-tls" in line for line in nodes.reports)

    await nodes.until(told, f"the caller's report: {nodes.reports}, {caller.peers()}")
    line = next(line for line in nodes.reports if "node 2 at" in line)
    assert any(word.lower() in line.lower() for word in words), line
    assert not caller.peers()[NodeId(2)].connected
    assert nodes.received[2] == []


def test_mutual_tls_lets_members_of_the_cluster_talk(secured: Nodes) -> None:
    async def scenario() -> None:
        first, second = await secured.pair()
        first.send(GROUP, [secured.vote(1)])
        second.send(GROUP, [secured.vote(2, sender=2, to=1)])
        await secured.until(lambda: secured.received[1] and secured.received[2], "both messages")

    secured.run(scenario())


def test_tls_refuses_a_plaintext_client(secured: Nodes) -> None:
    async def scenario() -> None:
        await is_refused(secured, make_wire(secured.wire_name), "closed", "reset", "TLS", "never answered")

    secured.run(scenario())


def test_a_plaintext_node_refuses_a_tls_client(plain_nodes: Nodes, node_certificates: Certificates) -> None:
    async def scenario() -> None:
        wire = make_wire(plain_nodes.wire_name, node_certificates.tls)
        await is_refused(plain_nodes, wire, "SSL", "TLS", "closed", "reset", "handshake")
        if plain_nodes.wire_name == "framed":
            assert any("it speaks TLS" in line for line in plain_nodes.reports)

    plain_nodes.run(scenario())


def test_tls_refuses_a_certificate_of_the_wrong_authority(
    secured: Nodes, node_certificates: Certificates, tmp_path: Path
) -> None:
    """The caller trusts our authority, but its certificate is another one's: it is the listening side that refuses."""
    foreign = certificates(tmp_path, trustme.CA())

    async def scenario() -> None:
        tls = _trusting(foreign.files, node_certificates)
        await is_refused(secured, make_wire(secured.wire_name, tls), "unknown ca", "certificate", "closed", "reset")

    secured.run(scenario())


def test_a_node_with_a_certificate_of_the_wrong_authority_is_not_talked_to(secured: Nodes, tmp_path: Path) -> None:
    """The other way round: the dialling side refuses the certificate that it is shown."""
    foreign = certificates(tmp_path, trustme.CA())

    async def scenario() -> None:
        wire = make_wire(secured.wire_name, foreign.tls)
        await is_refused(secured, wire, "certificate verify failed", "CERTIFICATE_VERIFY_FAILED")

    secured.run(scenario())


def test_mutual_tls_refuses_a_client_without_certificate(secured: Nodes, node_certificates: Certificates) -> None:
    async def scenario() -> None:
        wire = make_wire(secured.wire_name, _without_certificate(node_certificates.tls))
        await is_refused(secured, wire, "certificate required", "CERTIFICATE", "closed", "reset", "handshake")

    secured.run(scenario())


def test_tls_without_an_authority_of_the_cluster_asks_callers_for_no_certificate(
    plain_nodes: Nodes, authority: trustme.CA, node_certificates: Certificates, tmp_path: Path
) -> None:
    """The listening side shows its certificate and lets anyone in; the dialling side verifies it all the same."""
    nodes = plain_nodes

    async def scenario() -> None:
        open_to_all = certificates(tmp_path, authority, demanded=False)
        target = await nodes.start(2, {1: "127.0.0.1:1"}, wire=make_wire(nodes.wire_name, open_to_all.tls))
        anonymous = _without_certificate(node_certificates.tls)
        caller = await nodes.start(1, {2: target.address}, wire=make_wire(nodes.wire_name, anonymous))
        caller.send(GROUP, [nodes.vote(1)])
        await nodes.until(lambda: nodes.received[2] or not caller.send(GROUP, [nodes.vote(1)]), "a message")
        await nodes.connected(caller, 2)

    nodes.run(scenario())


def test_a_certificate_for_another_host_is_not_accepted(secured: Nodes, authority: trustme.CA, tmp_path: Path) -> None:
    elsewhere = certificates(tmp_path, authority, "node-2.example.org")
    nodes = secured

    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"}, wire=make_wire(nodes.wire_name, elsewhere.tls))
        caller = await nodes.start(1, {2: target.address})
        await nodes.until(lambda: any("node 2 at" in line for line in nodes.reports), "the report")
        line = next(line for line in nodes.reports if "node 2 at" in line)
        assert "127.0.0.1" in line
        assert any(word in line for word in ("mismatch", "not valid", "Hostname", "Peer name")), line
        assert not caller.peers()[NodeId(2)].connected

    nodes.run(scenario())


def test_a_certificate_for_the_name_of_all_peers_is_accepted_at_any_address(
    plain_nodes: Nodes, authority: trustme.CA, tmp_path: Path
) -> None:
    nodes = plain_nodes
    named = certificates(tmp_path, authority, "peers.cluster.test", peer_name="peers.cluster.test")

    async def scenario() -> None:
        first, _ = await nodes.pair(wire=make_wire(nodes.wire_name, named.tls))
        first.send(GROUP, [nodes.vote(1)])
        await nodes.until(lambda: nodes.received[2], "a message")

    nodes.run(scenario())


def test_a_certificate_for_the_host_is_not_enough_where_peers_have_a_name(
    secured: Nodes, authority: trustme.CA, tmp_path: Path
) -> None:
    named = certificates(tmp_path, authority, "peers.cluster.test", peer_name="peers.cluster.test")

    async def scenario() -> None:
        wire = make_wire(secured.wire_name, named.tls)
        await is_refused(secured, wire, "mismatch", "not valid", "Hostname", "Peer name")

    secured.run(scenario())


def _without_certificate(tls: Tls) -> Tls:
    """Trusts the same authority, and has nothing to show."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=tls.authority.decode())
    return dataclasses.replace(tls, dialling=context, demands_certificates=False)


def _trusting(files: TlsFiles, other: Certificates) -> Tls:
    """These certificates, and the other one's authority."""
    return load_tls(dataclasses.replace(files, authority=other.files.authority), lambda path: Path(path).read_bytes())


def _no_file(made: TlsFiles, directory: Path) -> TlsFiles:
    return dataclasses.replace(made, certificate=str(directory / "nothing.crt"))


def _not_pem(made: TlsFiles, directory: Path) -> TlsFiles:
    (directory / "text.crt").write_text("hello")
    return dataclasses.replace(made, certificate=str(directory / "text.crt"))


def _another_key(made: TlsFiles, directory: Path) -> TlsFiles:
    other = certificates(directory / "other", trustme.CA())
    return dataclasses.replace(made, key=other.files.key)


def _no_authority(made: TlsFiles, directory: Path) -> TlsFiles:
    (directory / "text.crt").write_text("hello")
    return dataclasses.replace(made, authority=str(directory / "text.crt"))


def _encrypted_key(made: TlsFiles, directory: Path) -> TlsFiles:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(Path(made.key).read_bytes(), None)
    locked = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))
    (directory / "locked.key").write_bytes(locked)
    return dataclasses.replace(made, key=str(directory / "locked.key"))


BAD_FILES: dict[str, tuple[Callable[[TlsFiles, Path], TlsFiles], str]] = {
    "a file that is not there": (_no_file, r"--raft-tls-cert .*nothing.crt: No such file"),
    "a certificate that is none": (_not_pem, r"--raft-tls-cert .*text.crt .* not a certificate and its key in PEM"),
    "the key of another certificate": (_another_key, r"--raft-tls-key .* is not the key of --raft-tls-cert"),
    "an authority that is none": (_no_authority, r"--raft-tls-ca .*text.crt holds no certificates in PEM"),
    "an encrypted key": (_encrypted_key, r"--raft-tls-key .*locked.key: the key is encrypted"),
}


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_bad_tls_files_are_refused_with_the_setting_and_the_file(
    name: str, node_certificates: Certificates, tmp_path: Path
) -> None:
    spoil, says = BAD_FILES[name]
    with pytest.raises(BadCertificate, match=says):
        load_tls(spoil(node_certificates.files, tmp_path), lambda path: Path(path).read_bytes())


def test_good_tls_files_are_taken(node_certificates: Certificates) -> None:
    loaded: Any = load_tls(node_certificates.files, lambda path: Path(path).read_bytes())
    assert loaded.demands_certificates
    assert not load_tls(
        dataclasses.replace(node_certificates.files, authority=None), lambda path: Path(path).read_bytes()
    ).demands_certificates
