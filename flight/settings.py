"""The settings of the Flight SQL server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadSettings


@dataclass(frozen=True, slots=True)
class FlightSettings:
    """TLS of Flight SQL: files in PEM. Without a certificate there is none."""

    tls_certificate: Path | None = None
    """The server's certificate, with the chain to its authority."""
    tls_key: Path | None = None
    """The certificate's private key."""
    tls_client_authority: Path | None = None
    """Certificates of the authorities whose clients are let in (mTLS); without it clients need no certificate."""
    tls_roots: Path | None = None
    """For `tailrace query` and the like: the authorities to trust beside the server's own certificate."""
    tls_client_certificate: Path | None = None
    """For the same: the certificate to show to a server that asks for one."""
    tls_client_key: Path | None = None
    """For the same: that certificate's private key."""

    def tls_arguments(self) -> dict[str, Any]:
        """The arguments of pyarrow's server. Raises BadSettings when a file is missing."""
        if self.tls_certificate is None and self.tls_key is None and self.tls_client_authority is None:
            return {}
        if self.tls_certificate is None or self.tls_key is None:
            raise BadSettings("TLS needs both flight.tls_certificate and flight.tls_key")
        try:
            pair = (self.tls_certificate.read_bytes(), self.tls_key.read_bytes())
            authority = self.tls_client_authority.read_bytes() if self.tls_client_authority else None
        except OSError as error:
            raise BadSettings(f"A file of TLS cannot be read: {error}") from error
        return {
            "tls_certificates": [pair], "verify_client": authority is not None, "root_certificates": authority,
        }  # fmt: skip

    @property
    def scheme(self) -> str:
        """How an address of the server begins."""
        return "grpc+tls" if self.tls_certificate else "grpc"
