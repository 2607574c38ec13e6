//! Finds out whether a server speaks HTTP/2: its first frame must be SETTINGS (RFC 9113, 3.4). The
//! HTTP library sends the client preface without waiting for that frame, so the stream below it
//! looks at the first bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// Length of a frame's header in bytes (RFC 9113, 4.1).
const FRAME_HEADER_LEN: usize = 9;
/// Maximum length of a frame that needs no negotiation.
const MAX_FRAME_LEN: usize = 16 * 1024;
/// The type of SETTINGS frames.
const SETTINGS: u8 = 4;
/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 8441, 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The settings with which an HTTP/2 server begins, as far as somebody needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Http2Settings {
    /// Whether it accepts extended CONNECT, and so WebSockets.
    pub extended_connect: bool,
    /// Maximum number of concurrent requests, if it has one.
    pub max_streams: Option<u32>,
}

/// A connection to a server that reports the settings once they have arrived. A server that
/// begins with anything else ends the stream, and the receiver.
pub(crate) struct SettingsProbe<S, P> {
    stream: S,
    /// The first bytes, until the outcome is known.
    first_bytes: Vec<u8>,
    outcome: Option<oneshot::Sender<Http2Settings>>,
    /// Released when the connection has been closed.
    _permit: P,
}

impl<S, P> SettingsProbe<S, P> {
    /// Wraps a connection, with its permit.
    pub(crate) fn new(stream: S, permit: P) -> (Self, oneshot::Receiver<Http2Settings>) {
        let (outcome, settings) = oneshot::channel();
        let (outcome, first_bytes) = (Some(outcome), Vec::new());
        (Self { stream, first_bytes, outcome, _permit: permit }, settings)
    }

    fn inspect(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.outcome.is_none() {
            return Ok(());
        }
        self.first_bytes.extend_from_slice(bytes);
        match parse_first_frame(&self.first_bytes) {
            FirstFrame::Incomplete if !bytes.is_empty() => Ok(()),
            FirstFrame::Settings(settings) => {
                self.first_bytes = Vec::new();
                if let Some(outcome) = self.outcome.take() {
                    let _ = outcome.send(settings);
                }
                Ok(())
            }
            _ => {
                self.outcome = None;
                Err(io::Error::new(io::ErrorKind::InvalidData, "the server speaks no HTTP/2"))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstFrame {
    Incomplete,
    Settings(Http2Settings),
    NotSettings,
}

fn parse_first_frame(bytes: &[u8]) -> FirstFrame {
    // Text, such as an HTTP/1 response, differs from a SETTINGS frame by its fourth byte.
    if bytes.get(3).is_some_and(|kind| *kind != SETTINGS) {
        return FirstFrame::NotSettings;
    }
    let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER_LEN) else {
        return FirstFrame::Incomplete;
    };
    let length =
        usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let is_on_connection = header[5..] == [0; 4];
    let is_acknowledgement = header[4] & 1 != 0;
    if length > MAX_FRAME_LEN || length % 6 != 0 || !is_on_connection || is_acknowledgement {
        return FirstFrame::NotSettings;
    }
    let Some(payload) = rest.get(..length) else { return FirstFrame::Incomplete };
    FirstFrame::Settings(parse_settings(payload))
}

fn parse_settings(payload: &[u8]) -> Http2Settings {
    let mut settings = Http2Settings::default();
    for setting in payload.chunks_exact(6) {
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        match u16::from_be_bytes([setting[0], setting[1]]) {
            MAX_CONCURRENT_STREAMS => settings.max_streams = Some(value),
            ENABLE_CONNECT_PROTOCOL => settings.extended_connect = value == 1,
            _ => {}
        }
    }
    settings
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for SettingsProbe<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.inspect(&buffer.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for SettingsProbe<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extended_connect: bool) -> FirstFrame {
        FirstFrame::Settings(Http2Settings { extended_connect, max_streams: None })
    }

    #[test]
    fn a_service_of_http2_begins_with_its_settings() {
        let empty = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        assert_eq!(parse_first_frame(&empty), settings(false));
        let connect = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
        assert_eq!(parse_first_frame(&connect), settings(true));
        let disabled = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0];
        assert_eq!(parse_first_frame(&disabled), settings(false));
        let streams = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 2];
        let limited = Http2Settings { max_streams: Some(258), ..Http2Settings::default() };
        assert_eq!(parse_first_frame(&streams), FirstFrame::Settings(limited));
        for end in 0..connect.len() {
            assert_eq!(parse_first_frame(&connect[..end]), FirstFrame::Incomplete, "{end}");
        }
    }

    #[test]
    fn other_services_do_not() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"SSH-2.0-OpenSSH\r\n",
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],       // an acknowledgement
            &[0, 0, 0, 4, 0, 0, 0, 0, 1],       // of a stream
            &[0, 0, 5, 4, 0, 0, 0, 0, 0],       // of a length that is no multiple of 6
            &[0xff, 0, 0, 4, 0, 0, 0, 0, 0],    // too long
            &[0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0], // a ping
        ] {
            assert_eq!(parse_first_frame(bytes), FirstFrame::NotSettings, "{bytes:?}");
        }
    }
}
