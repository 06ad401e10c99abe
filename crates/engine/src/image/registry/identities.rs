// SPDX-License-Identifier: Apache-2.0
//! Several certificates of ours for one registry: it says whose it takes, and
//! is shown the first that fits. The HTTP library knows of one only; what it
//! would set up is set up here. For [`super::client`].

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{client::bad, hosts::Trust};
use crate::error::{Error, Kind, Result};

/// TLS as `trust` says, with all of its certificates.
///
/// # Errors
/// `InvalidArgument` for what is no certificate or no key. Blocks: the system's
/// authorities are read.
pub(super) fn config(trust: &Trust) -> Result<ClientConfig> {
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
    let keys = trust.identities.iter().map(|pem| certified(pem, &provider)).collect::<Result<_>>()?;
    let verifier: Arc<dyn ServerCertVerifier> = if trust.insecure {
        Arc::new(Anybody(Arc::clone(&provider)))
    } else {
        let authorities = trust.authorities.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem));
        let authorities = authorities.collect::<Result<Vec<_>, _>>().map_err(|e| bad("authorities", e))?;
        let verifier =
            rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, Arc::clone(&provider));
        Arc::new(verifier.map_err(|e| bad("authorities", e))?)
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Internal, "set up the registry client").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Several(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certified(pem: &[u8], provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|e| bad("client certificate", e))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|e| bad("client certificate", e))?;
    let key = CertifiedKey::from_der(certificates, key, provider);
    key.map(Arc::new).map_err(|e| bad("client certificate", e))
}

/// Our certificates, in the order of the file.
#[derive(Debug)]
struct Several(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Several {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let signs = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let known = |key: &&Arc<CertifiedKey>| {
            key.cert.iter().filter_map(|cert| issuer(cert)).any(|issuer| authorities.contains(&issuer))
        };
        // Who names nobody may take any.
        let mut able = self.0.iter().filter(signs);
        able.clone().find(known).or_else(|| able.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A server that may be anybody: `skip_verify`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Who has issued a certificate: the name, as DER (RFC 5280, 4.1).
fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (_, whole, _) = value(certificate)?;
    let (_, signed, _) = value(whole)?;
    let (tag, _, mut rest) = value(signed)?;
    // The version may be left out; the serial number comes next, then the
    // algorithm.
    if tag == 0xa0 {
        rest = value(rest)?.2;
    }
    rest = value(rest)?.2;
    let after = value(rest)?.2;
    rest.get(..rest.len().checked_sub(after.len())?)
}

/// A DER value: its tag, its content, what follows.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                digits
                    .iter()
                    .try_fold(0_usize, |n, digit| n.checked_mul(256)?.checked_add((*digit).into()))?,
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a version and without; a name of one attribute.
    #[test]
    fn an_issuer_is_found_whatever_comes_before_it() {
        let name = b"\x30\x0b\x31\x09\x30\x07\x06\x03\x55\x04\x03\x0c\x00";
        let sequence = |content: &[u8]| {
            let mut der = vec![0x30, 0x82, u8::try_from(content.len() >> 8).expect("short")];
            der.push(u8::try_from(content.len() & 0xff).expect("a byte"));
            der.extend_from_slice(content);
            der
        };
        for version in [&b"\xa0\x03\x02\x01\x02"[..], b""] {
            let signed = [version, b"\x02\x01\x07", b"\x30\x00", name, b"\x30\x00"].concat();
            let certificate = sequence(&[sequence(&signed), vec![0x30, 0]].concat());
            assert_eq!(issuer(&certificate), Some(&name[..]));
            for cut in 0..certificate.len() {
                // Cut short there is none, and no panic.
                assert_eq!(issuer(&certificate[..cut]), None, "{cut}");
            }
        }
        assert_eq!(issuer(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(issuer(b"\x30\x80"), None);
    }
}
