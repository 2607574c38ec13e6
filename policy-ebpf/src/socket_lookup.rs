//! Looks up the host's TCP sockets for a redirected segment. A reference is released when dropped;
//! the verifier rejects a program that keeps one.

use core::{marker::PhantomData, mem::size_of, ptr::NonNull};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sock, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::{
        bpf_map_lookup_elem, bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
    programs::TcContext,
};

use crate::{ip_header::IpHeader, maps::PROXY_LISTENERS, transport::TransportHeader};

// include/net/tcp_states.h
pub(crate) const TCP_TIME_WAIT: u32 = 6;
pub(crate) const TCP_CLOSE: u32 = 7;
pub(crate) const TCP_LISTEN: u32 = 10;
pub(crate) const TCP_NEW_SYN_RECV: u32 = 12;

/// `BPF_F_CURRENT_NETNS`: the network namespace of the interface.
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

/// A reference to a socket, or to the request or TIME_WAIT socket that the kernel uses at the start
/// or end of a connection.
pub(crate) struct SocketReference(NonNull<bpf_sock>);

impl SocketReference {
    /// The listener with this key. The kernel removes closed listeners from the map.
    #[inline(always)]
    pub(crate) fn proxy_listener(key: u32) -> Option<Self> {
        let map = (&raw const PROXY_LISTENERS).cast_mut().cast();
        // SAFETY: the map's keys have this type. The kernel returns a socket on which it holds a
        // reference for the program.
        NonNull::new(unsafe { bpf_map_lookup_elem(map, (&raw const key).cast()) }.cast()).map(Self)
    }

    /// Its `TCP_*` state.
    #[inline(always)]
    pub(crate) fn tcp_state(&self) -> u32 {
        // SAFETY: the reference keeps the socket alive.
        unsafe { (*self.0.as_ptr()).state }
    }

    /// The full socket, unless this is a request or TIME_WAIT socket.
    #[inline(always)]
    pub(crate) fn full_socket(&self) -> Option<FullSocket<'_>> {
        // SAFETY: the reference keeps the socket alive.
        let full = NonNull::new(unsafe { bpf_sk_fullsock(self.0.as_ptr()) })?;
        Some(FullSocket { socket: full, reference: PhantomData })
    }

    /// A pointer for the helper that assigns the socket.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bpf_sock {
        self.0.as_ptr()
    }
}

impl Drop for SocketReference {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this program owns the reference and releases it once.
        unsafe { bpf_sk_release(self.0.as_ptr().cast()) };
    }
}

/// A full socket, all of whose fields are readable while the reference is held.
pub(crate) struct FullSocket<'a> {
    socket: NonNull<bpf_sock>,
    reference: PhantomData<&'a SocketReference>,
}

impl FullSocket<'_> {
    /// `SO_MARK`.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the reference keeps the socket alive.
        unsafe { (*self.socket.as_ptr()).mark }
    }

    /// Its `TCP_*` state.
    #[inline(always)]
    pub(crate) fn tcp_state(&self) -> u32 {
        // SAFETY: the reference keeps the socket alive.
        unsafe { (*self.socket.as_ptr()).state }
    }
}

/// The addresses and ports of an incoming connection.
pub(crate) struct ConnectionTuple {
    /// A `bpf_sock_tuple`: source, destination, both ports.
    tuple_words: [u32; 9],
    /// The verifier must know this value. Old verifiers track a value that the compiler spills to
    /// the stack only if it has the width of a register.
    tuple_size: u64,
}

impl ConnectionTuple {
    /// The connection that a segment belongs to.
    #[inline(always)]
    pub(crate) fn from_headers(header: &IpHeader, transport: &TransportHeader) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (header.source, header.destination);
        let (from, to) = (transport.source_port, transport.destination_port);
        let [from, to] = [from.to_be_bytes(), to.to_be_bytes()];
        let ports = u32::from_ne_bytes([from[0], from[1], to[0], to[1]]);
        // Words without padding, all initialised: old verifiers reject uninitialised ones even if
        // they are only copied.
        let (words, size) = if header.is_v6 {
            ([a, b, c, d, e, f, g, h, ports], size_of::<TupleV6>())
        } else {
            ([d, h, ports, 0, 0, 0, 0, 0, 0], size_of::<TupleV4>())
        };
        Self { tuple_words: words, tuple_size: size as u64 }
    }

    /// The size of the tuple, as the helpers expect it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the size of one of two structures")]
    fn tuple_length(&self) -> u32 {
        self.tuple_size as u32
    }

    /// The socket of this connection (of any kind), or a listener at its destination.
    #[inline(always)]
    pub(crate) fn lookup_socket(&self, ctx: &TcContext) -> Option<SocketReference> {
        let tuple = (&raw const self.tuple_words).cast_mut().cast();
        // SAFETY: the context is valid while the program runs, and the tuple is at least
        // `tuple_length` bytes long.
        let found = unsafe {
            bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, self.tuple_length(), BPF_F_CURRENT_NETNS, 0)
        };
        NonNull::new(found).map(SocketReference)
    }

    /// The same, but returns the listener of a request socket instead of the request socket.
    #[inline(always)]
    pub(crate) fn lookup_full_socket(&self, ctx: &TcContext) -> Option<SocketReference> {
        let tuple = (&raw const self.tuple_words).cast_mut().cast();
        // SAFETY: as above.
        let found = unsafe {
            bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, self.tuple_length(), BPF_F_CURRENT_NETNS, 0)
        };
        NonNull::new(found).map(SocketReference)
    }
}
