"""Certificates of the environment: one authority, made once in each life of the environment."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=3650)
# Clocks of the machine and of what it talks to may differ a little.
_BACKDATED = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Authority:
    """A certificate authority kept in two files.

    Attributes:
        certificate_path: PEM file of its certificate, which clients trust.
        key_path: PEM file of its key, readable by the owner only.
    """

    certificate_path: Path
    key_path: Path

    @property
    def certificate(self) -> bytes:
        return self.certificate_path.read_bytes()

    def issue(
        self, name: str, organization: str = "", hosts: Sequence[str] = (), client: bool = True
    ) -> Pair:
        """Signs a new certificate.

        Args:
            name: its common name; to Kubernetes, the user.
            organization: to Kubernetes, the group.
            hosts: DNS names and addresses that it may serve; without any it serves none.
            client: whether it may identify a client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        builder = (
            _builder(_subject(name, organization), key)
            .issuer_name(x509.load_pem_x509_certificate(self.certificate).subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key().public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Pair(_pem(builder.sign(self._key(), hashes.SHA256())), _key_pem(key))

    def _key(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key(self.key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.key_path} holds no elliptic curve key")
        return key


def ensure_authority(folder: Path, name: str) -> Authority:
    """The authority `name` in `folder`, made where there is none."""
    authority = Authority(folder / f"{name}.crt", folder / f"{name}.key")
    if authority.certificate_path.exists() and authority.key_path.exists():
        return authority
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"voicemesh {name}", "")
    certificate = (
        _builder(subject, key)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(authority.key_path, _key_pem(key))
    write_private(authority.certificate_path, _pem(certificate))
    return authority


def ensure_pair(
    authority: Authority,
    folder: Path,
    name: str,
    *,
    common_name: str,
    organization: str = "",
    hosts: Sequence[str] = (),
) -> tuple[Path, Path]:
    """The files of the pair `name` in `folder`, certificate and key, issued where missing."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if not (certificate.exists() and key.exists()):
        pair = authority.issue(common_name, organization, hosts)
        write_private(key, pair.key)
        write_private(certificate, pair.certificate)
    return certificate, key


def ensure_service_account_keys(folder: Path) -> tuple[Path, Path]:
    """The files with which service account tokens are signed and checked: private, public."""
    private, public = folder / "service-accounts.key", folder / "service-accounts.pub"
    if not (private.exists() and public.exists()):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(private, _key_pem(key))
        write_private(
            public,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )
    return private, public


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner reads, whole or not at all.

    A file that has the content is not touched: kube-proxy, for one, ends when its is.
    """
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str, organization: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL
        if isinstance(key, rsa.RSAPrivateKey)
        else serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
