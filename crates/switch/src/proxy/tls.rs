//! TLS from certificate files, chosen by the name that the client asks for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_wire::spec::TlsSpec;

/// A listener's configuration, replaced when the table changes; none: plain HTTP.
#[derive(Debug, Default)]
pub(crate) struct TlsCell(ArcSwapOption<ServerConfig>);

impl TlsCell {
    pub(crate) fn load(&self) -> Option<Arc<ServerConfig>> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, config: Option<Arc<ServerConfig>>) {
        self.0.store(config);
    }
}

/// Certificates by host name; the first one also serves clients that name no host that is known.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().map(str::to_ascii_lowercase);
        let found = named.and_then(|name| self.names.get(&name));
        Some(Arc::clone(found.unwrap_or(&self.first)))
    }
}

/// The configuration of a listener with these routes' hosts and certificates; none without any.
///
/// # Errors
/// A sentence naming the file that cannot be used and why.
pub(crate) fn config<'a>(
    routes: impl Iterator<Item = (Option<String>, &'a TlsSpec)>,
) -> Result<Option<Arc<ServerConfig>>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut loaded: BTreeMap<&TlsSpec, Arc<CertifiedKey>> = BTreeMap::new();
    let mut by_name: Option<ByName> = None;
    for (host, files) in routes {
        let key = match loaded.get(files) {
            Some(key) => Arc::clone(key),
            None => Arc::new(load(files, &provider)?),
        };
        loaded.insert(files, Arc::clone(&key));
        let all = by_name
            .get_or_insert_with(|| ByName { first: Arc::clone(&key), names: HashMap::new() });
        match host {
            Some(host) => drop(all.names.insert(host, key)),
            None => all.first = key,
        }
    }
    let Some(by_name) = by_name else { return Ok(None) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn load(files: &TlsSpec, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let TlsSpec { certificate, key } = files;
    let chain = CertificateDer::pem_file_iter(Path::new(certificate))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("the certificate {certificate} cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {certificate}"));
    }
    let private = PrivateKeyDer::from_pem_file(Path::new(key))
        .map_err(|error| format!("the private key {key} cannot be read: {error}"))?;
    CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| format!("{certificate} and {key} do not belong together: {error}"))
}
