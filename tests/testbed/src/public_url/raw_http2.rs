//! HTTP/2 with frames and fields that no library would send (RFC 9113; RFC 7541 for the fields).

use std::io::{Read as _, Write as _};

use crate::{
    named_internet::raw_http::RawHttpConnection,
    testbed::{OrFail as _, Testbed},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The ID of the only stream.
const STREAM_ID: u32 = 1;

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Outcome {
    /// A response with this status.
    Answered(u16),
    /// A reset of the stream.
    Reset,
    /// The end of the connection.
    Closed,
}

/// An HTTP/2 connection with prior knowledge.
pub struct RawHttp2Connection(RawHttpConnection);

impl Testbed {
    /// Connects from the internet to the gateway. The test writes HTTP/2 on the connection itself.
    #[track_caller]
    pub fn connect_http2(&self) -> RawHttp2Connection {
        let mut talk = self.connect_to_gateway();
        talk.send(PREFACE).send(encode_frame(SETTINGS, 0, 0, &[]));
        RawHttp2Connection(talk)
    }
}

impl RawHttp2Connection {
    /// Sends a request with these fields (pseudo-header fields included), and with a body unless it
    /// is empty. Waits for the outcome.
    #[track_caller]
    pub fn request(mut self, fields: &[(&str, &str)], body: &str) -> Http2Outcome {
        let block: Vec<u8> =
            fields.iter().flat_map(|(name, value)| encode_literal_field(name, value)).collect();
        let end = if body.is_empty() { END_STREAM } else { 0 };
        self.0.send(encode_frame(HEADERS, END_HEADERS | end, STREAM_ID, &block));
        if !body.is_empty() {
            self.0.send(encode_frame(DATA, END_STREAM, STREAM_ID, body.as_bytes()));
        }
        loop {
            match self.next_frame() {
                Some((HEADERS, block)) => return Http2Outcome::Answered(decode_status(&block)),
                Some((RST_STREAM, _)) => return Http2Outcome::Reset,
                Some((GOAWAY, _)) | None => return Http2Outcome::Closed,
                Some(_) => {}
            }
        }
    }

    /// Reads the next frame: type and payload.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.stream().read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.0.stream().read_exact(&mut payload).ok()?;
        if head[3] == SETTINGS && head[4] & 1 == 0 {
            let acknowledged = encode_frame(SETTINGS, 1, 0, &[]);
            self.0.stream().write_all(&acknowledged).ok()?;
        }
        Some((head[3], payload))
    }
}

fn encode_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).or_fail("a short frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Encodes a literal field with a new name, never indexed and without Huffman coding (RFC 7541,
/// 6.2.2).
fn encode_literal_field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        encode_integer(text.len(), &mut field);
        field.extend(text.as_bytes());
    }
    field
}

/// Encodes an integer with a 7-bit prefix (RFC 7541, 5.1).
fn encode_integer(value: usize, out: &mut Vec<u8>) {
    let small = u8::try_from(value).ok().filter(|value| *value < 127);
    let Some(mut rest) = value.checked_sub(127).filter(|_| small.is_none()) else {
        out.extend(small);
        return;
    };
    out.push(127);
    while rest >= 128 {
        out.push(rest.to_le_bytes()[0] | 128);
        rest /= 128;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// Decodes the status at the start of a header block: an entry of the static table, or three
/// digits, possibly in Huffman code (digits 0 to 2 have five bits, the others six).
fn decode_status(block: &[u8]) -> u16 {
    let block = without_size_updates(block);
    if let Some(0x88..=0x8e) = block.first() {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] - 0x88)];
    }
    let length = usize::from(block.get(1).copied().unwrap_or(0));
    let text = block.get(2..2 + (length & 127)).unwrap_or_default();
    let digits = if length & 128 == 0 {
        text.iter().map(|byte| u16::from(byte.wrapping_sub(b'0'))).collect()
    } else {
        huffman_digits(text)
    };
    digits.iter().take(3).fold(0, |number, digit| number * 10 + digit)
}

/// Skips updates of the dynamic table size, with which servers may begin (RFC 7541, 6.3).
fn without_size_updates(mut block: &[u8]) -> &[u8] {
    while let [size @ 0x20..=0x3f, rest @ ..] = block {
        let more = rest.iter().take_while(|byte| **byte >= 128).count() + 1;
        block = if *size == 0x3f { rest.get(more..).unwrap_or_default() } else { rest };
    }
    block
}

fn huffman_digits(text: &[u8]) -> Vec<u16> {
    let bits: Vec<u16> = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let (mut at, mut digits) = (0, Vec::new());
    let number = |bits: &[u16]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    while let Some(five) = bits.get(at..at + 5) {
        match (number(five), bits.get(at..at + 6).map(number)) {
            (digit @ 0..=2, _) => (at, digits) = (at + 5, [digits, vec![digit]].concat()),
            (_, Some(code @ 0x19..=0x1f)) => {
                (at, digits) = (at + 6, [digits, vec![code - 0x19 + 3]].concat());
            }
            _ => break,
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(decode_status(&[0x8c]), 400);
        assert_eq!(decode_status(&[0x3f, 0xe1, 0x1f, 0x88]), 200);
        assert_eq!(decode_status(&[0x48, 3, b'5', b'0', b'2']), 502);
        // RFC 7541, C.6.1 and C.6.2: "302" and "307".
        assert_eq!(decode_status(&[0x48, 0x82, 0x64, 0x02]), 302);
        assert_eq!(decode_status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    }
}
