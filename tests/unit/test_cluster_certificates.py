"""The environment's certificates, as the ssl module of a client and a server judges them."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import yaml

from infra.local.certificates import Authority, Pair, ensure_authority, ensure_pair, write_private
from infra.local.kubeconfig import write_kubeconfig


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return ensure_authority(tmp_path, "authority")


def handshake(
    server: Pair, client: Pair | None, authority: Authority, host: str, folder: Path
) -> None:
    """A whole TLS handshake in memory, in which both sides verify the other."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_verify_locations(authority.certificate_path)
    server_context.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    _load(server_context, server, folder / "server.pem")
    client_context = ssl.create_default_context(cafile=str(authority.certificate_path))
    if client:
        _load(client_context, client, folder / "client.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server_context.wrap_bio(to_server, to_client, server_side=True),
        client_context.wrap_bio(to_client, to_server, server_hostname=host),
    ]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not ends, "the handshake did not end"


def test_a_server_is_known_by_each_of_its_names(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("api", hosts=("10.245.0.11", "kubernetes.default"))
    for host in ("10.245.0.11", "kubernetes.default"):
        handshake(server, None, authority, host, tmp_path)


@pytest.mark.parametrize("host", ["10.245.0.12", "kubernetes.default.evil"])
def test_a_server_is_refused_under_any_other_name(
    authority: Authority, tmp_path: Path, host: str
) -> None:
    server = authority.issue("api", hosts=("10.245.0.11", "kubernetes.default"))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, None, authority, host, tmp_path)


def test_a_client_of_the_authority_is_let_in(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("api", hosts=("api",))
    handshake(server, authority.issue("admin", "system:masters"), authority, "api", tmp_path)


def test_a_client_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = ensure_authority(tmp_path / "other", "authority").issue("admin", "system:masters")
    server = authority.issue("api", hosts=("api",))
    with pytest.raises(ssl.SSLError, match=r"verify failed|unknown ca"):
        handshake(server, stranger, authority, "api", tmp_path)


def test_a_client_cannot_serve(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(authority.issue("admin"), None, authority, "admin", tmp_path)


def test_an_authority_and_its_pairs_are_made_once(authority: Authority, tmp_path: Path) -> None:
    assert ensure_authority(tmp_path, "authority").certificate == authority.certificate
    certificate, _ = ensure_pair(authority, tmp_path, "admin", common_name="admin")
    before = certificate.read_bytes()
    ensure_pair(authority, tmp_path, "admin", common_name="admin")
    assert certificate.read_bytes() == before


def test_a_pair_that_lost_a_half_is_made_anew(authority: Authority, tmp_path: Path) -> None:
    certificate, key = ensure_pair(authority, tmp_path, "api", common_name="api", hosts=("api",))
    certificate.unlink()
    ensure_pair(authority, tmp_path, "api", common_name="api", hosts=("api",))
    pair = Pair(certificate.read_bytes(), key.read_bytes())
    handshake(pair, None, authority, "api", tmp_path)


def test_nobody_else_reads_keys_and_kubeconfigs(authority: Authority, tmp_path: Path) -> None:
    certificate, key = ensure_pair(authority, tmp_path, "admin", common_name="admin")
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, "https://api", authority.certificate_path, certificate, key)
    for path in (authority.key_path, key, kubeconfig):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_file_with_the_same_content_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "kube-proxy.yaml"
    write_private(file, b"one")
    before = file.stat()
    write_private(file, b"one")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_private(file, b"other")
    assert file.read_bytes() == b"other"


def test_a_kubeconfig_needs_no_other_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = ensure_pair(authority, tmp_path, "admin", common_name="admin")
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, "https://api", authority.certificate_path, certificate, key)
    config = yaml.safe_load(kubeconfig.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://api"
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]) == key.read_bytes()


def _load(context: ssl.SSLContext, pair: Pair, file: Path) -> None:
    file.write_bytes(pair.certificate + pair.key)
    context.load_cert_chain(file)
