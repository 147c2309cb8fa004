//! How QUIC is set up: limits of ours, the transport's parameters, the socket, the reset key.

use std::{io, net::SocketAddr, net::UdpSocket, sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::{
    HashedConnectionIdGenerator,
    crypto::{CryptoError, HmacKey},
};
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use socket2::{Domain, Protocol, Socket, Type};
use wardlock_wire::Lane;

use crate::tls::{ALPN, Identity, TlsError};

/// The limits and timings of an endpoint.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many clients' connections are kept at once. A router is one client; each costs some tens of
    /// kilobytes. Default 4,096.
    pub clients: usize,
    /// How many handshakes may be under way at once. Each costs the processor about a millisecond; from
    /// half of this on, dialers must first prove their address. Default 256.
    pub handshakes: usize,
    /// How long a connection may take to be made, the hello included. Default 4 s.
    pub handshake_timeout: Duration,
    /// After how much silence a connection is dead. Shorter finds a frozen peer sooner; too short cuts
    /// peers that merely stall. Default 4 s.
    pub idle_timeout: Duration,
    /// How often a silent connection shows that it lives. Default 1 s.
    pub keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            clients: 4_096,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(4),
            keep_alive: Duration::from_secs(1),
        }
    }
}

/// What the kernel is asked to buffer of datagrams, each way. It may give less.
const SOCKET_BYTES: usize = 4 << 20;
/// What a peer may send ahead of its reader, on one lane and on all.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

pub(super) fn transport(config: &Config) -> Result<Arc<TransportConfig>, TlsError> {
    let idle = IdleTimeout::try_from(config.idle_timeout).map_err(|error| TlsError::Unusable(error.to_string()))?;
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(Lane::ALL.len() as u32))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive))
        .initial_rtt(Duration::from_millis(20))
        .send_fairness(false)
        .ack_frequency_config(Some(acks))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW));
    Ok(Arc::new(transport))
}

pub(super) fn server(
    identity: &Identity,
    config: &Config,
    transport: Arc<TransportConfig>,
) -> Result<ServerConfig, TlsError> {
    let tls = QuicServerConfig::try_from(identity.server_config(&[ALPN])?)
        .map_err(|error| TlsError::Unusable(error.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(transport);
    server.max_incoming(2 * config.handshakes).incoming_buffer_size(64 << 10);
    Ok(server)
}

pub(super) fn client(identity: &Identity, transport: Arc<TransportConfig>) -> Result<ClientConfig, TlsError> {
    let tls = QuicClientConfig::try_from(identity.client_config(&[ALPN])?)
        .map_err(|error| TlsError::Unusable(error.to_string()))?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(transport);
    Ok(client)
}

/// A restarted node must be able to tell its peers at once that it has forgotten them, instead of
/// leaving them to their timeout. So both what marks its connection ids and the key of its resets are
/// the same after each start: drawn from its private key.
pub(super) fn endpoint(identity: &Identity) -> EndpointConfig {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    let secrets = (identity.derived_secret(b"wardlock quic reset"), identity.derived_secret(b"wardlock quic ids"));
    match (suite, secrets) {
        (Some(suite), (Some(reset), Some(ids))) if identity.node().is_some() => {
            let key = ResetKey { hkdf: suite.hkdf_provider, key: OkmBlock::new(&reset) };
            let mut config = EndpointConfig::new(Arc::new(key));
            let [a, b, c, d, e, f, g, h, ..] = ids;
            let ids = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
            config
        }
        _ => EndpointConfig::default(),
    }
}

/// HMAC-SHA-256, by the provider that TLS uses.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.hkdf.hmac_sign(&self.key, data);
        let expected = expected.as_ref();
        let differs = expected.iter().zip(signature).fold(0, |differs, (a, b)| differs | (a ^ b));
        if signature.len() == expected.len() && differs == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

/// A bound socket with large buffers. An IPv6 one takes IPv4 too.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel caps these, and smaller ones only cost throughput.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
