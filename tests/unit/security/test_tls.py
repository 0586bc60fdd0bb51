"""Certificates from files: what is refused and how it is said, and what a changed file brings about."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from infer.config import load_settings
from infer.errors import ConfigError
from infer.security.tls import Certificates, TlsFiles, not_after, server_context
from tests.support.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


def refusal(files: TlsFiles) -> str:
    with pytest.raises(ConfigError) as caught:
        server_context(files)
    return caught.value.message


def test_only_forward_secret_authenticated_ciphers_and_new_versions(pair: Pair) -> None:
    context = server_context(TlsFiles(*pair))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    ciphers = [cipher["name"] for cipher in context.get_ciphers()]
    assert ciphers
    assert all(name.startswith(("TLS_AES", "TLS_CHACHA", "ECDHE-")) for name in ciphers)
    assert all("GCM" in name or "POLY1305" in name for name in ciphers)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode == ssl.CERT_NONE


def test_clients_are_asked_for_a_certificate(authority: Authority, pair: Pair) -> None:
    assert server_context(TlsFiles(*pair, authority.file)).verify_mode == ssl.CERT_REQUIRED


def test_what_is_refused(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    other = authority.issue("other")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    missing = tmp_path / "missing.pem"
    assert refusal(TlsFiles(missing, pair.key)) == f"{missing}: cannot be read: No such file or directory"
    assert refusal(TlsFiles(pair.cert, missing)) == f"{missing}: cannot be read: No such file or directory"
    assert refusal(TlsFiles(*pair, missing)) == f"{missing}: cannot be read: No such file or directory"
    assert refusal(TlsFiles(pair.cert, other.key)) == (
        f"{other.key} is not the key of the certificate in {pair.cert}; give the pair that was issued together")
    assert "no usable certificate and key" in refusal(TlsFiles(junk, pair.key))
    assert "no usable certificate and key" in refusal(TlsFiles(pair.cert, junk))
    assert f"{junk}: no CA certificates" in refusal(TlsFiles(*pair, junk))
    expired = authority.issue("expired", expired=True)
    assert refusal(TlsFiles(*expired)) == (
        f"{expired.cert}: the certificate expired on 2020-01-01 00:00 UTC; renew it")


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret")))
    assert "encrypted with a passphrase" in refusal(TlsFiles(*pair))


@pytest.mark.parametrize("expired", [False, True])
def test_expiry_is_what_another_reader_finds(authority: Authority, expired: bool) -> None:
    certificate = authority.issue("read", expired=expired).cert
    assert not_after(certificate) == x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    # A CA's certificate has a date past 2049, so another form of it.
    assert not_after(authority.file) == x509.load_pem_x509_certificate(authority.file.read_bytes()).not_valid_after_utc


@pytest.mark.parametrize("size", [0, 1, 10, 40, 80, 120])
def test_expiry_of_what_is_cut_short(pair: Pair, size: int) -> None:
    content = ssl.PEM_cert_to_DER_cert(pair.cert.read_text().split("-----END CERTIFICATE-----")[0]
                                       + "-----END CERTIFICATE-----\n")
    pair.cert.write_text(ssl.DER_cert_to_PEM_cert(content[:size]))
    with pytest.raises(ConfigError, match=r"is not an X\.509 certificate"):
        not_after(pair.cert)


def test_F43_a_new_certificate_is_taken(authority: Authority, pair: Pair) -> None:
    certificates = Certificates(TlsFiles(*pair))
    first = certificates.context
    assert not certificates.check()
    assert certificates.context is first
    authority.issue("server")
    assert certificates.check()
    assert certificates.context is not first
    assert not certificates.check()


def test_F43_a_link_that_points_elsewhere(authority: Authority, tmp_path: Path) -> None:
    """How Kubernetes changes the files of a Secret."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        issued = authority.issue("server")
        for path in issued:
            path.rename(tmp_path / name / path.name)
    link = tmp_path / "data"
    link.symlink_to("old")
    certificates = Certificates(TlsFiles(link / "server.pem", link / "server-key.pem"))
    assert not certificates.check()
    (tmp_path / "link").symlink_to("new")
    os.replace(tmp_path / "link", link)
    assert certificates.check()


def test_F44_a_bad_pair_keeps_the_old_one(authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(TlsFiles(*pair))
    first, expiry = certificates.context, certificates.expiry
    key = pair.key.read_bytes()
    with caplog.at_level(logging.ERROR, "infer.security"):
        for break_it in (lambda: authority.issue("server", expired=True), lambda: pair.key.write_bytes(key),
                         lambda: pair.cert.write_text("junk"), pair.cert.unlink):
            break_it()
            for _ in range(3):
                assert not certificates.check()
            assert certificates.problem
            assert (certificates.context, certificates.expiry) == (first, expiry)
        assert len(caplog.records) == 4
    authority.issue("server")
    assert certificates.check()
    assert certificates.problem == ""


def settings_problems(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings({"paths": ("model.onnx",), **flags}, {}, None)
    return caught.value.message


def test_settings_say_where_and_what(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    assert settings_problems(tls_cert="a.pem").splitlines()[1:] == [
        "  --tls-cert: TLS needs a certificate and its key; give --tls-key too"]
    assert settings_problems(tls_client_ca="a.pem").splitlines()[1:] == [
        "  --tls-client-ca: TLS needs a certificate and its key; give --tls-cert and --tls-key too"]
    text = settings_problems(tls_cert="missing.pem", tls_key=str(pair.key), port="1", http_port="1")
    assert "--tls-cert, --tls-key: missing.pem: cannot be read: No such file or directory" in text
    assert "both are 1" in text
    file = tmp_path / "infer.toml"
    file.write_text('tls_cert = "server.pem"\ntls_key = "server-key.pem"\ntls_client_ca = "ca.pem"\n')
    settings, _ = load_settings({"paths": ("model.onnx",)}, {}, file)
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == (*pair, authority.file)
