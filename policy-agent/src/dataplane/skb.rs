//! Where the running kernel keeps the fields of its `struct sk_buff`, by its own description (BTF).

use std::{fs, io, path::Path};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use btfparse::{Offset, Readable, TypeInformation};
use policy_common::skb::SkbLayout;

/// The kernel's types.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Bits of `ip_summed`.
const SUMMED_BITS: u32 = 2;

/// The layout that the running kernel describes.
pub fn layout() -> Result<SkbLayout> {
    described(Path::new(BTF)).with_context(|| {
        format!("cannot learn from {BTF} where the kernel keeps a packet's checksum")
    })
}

fn described(path: &Path) -> Result<SkbLayout> {
    let types = TypeInformation::new(&Bytes(fs::read(path)?)).map_err(told)?;
    let skb = types.id_of("sk_buff").context("it has no struct sk_buff")?;
    let bits = |field: &str| -> Result<(u32, u32)> {
        let (_, offset) = types.offset_of(skb, field).map_err(told)?;
        Ok(match offset {
            Offset::ByteOffset(bytes) => (bytes * 8, 0),
            Offset::BitOffsetAndSize(bits, size) => (bits, size),
        })
    };
    let bytes = |field: &str| match bits(field)? {
        (bits, 0) if bits % 8 == 0 => Ok(bits / 8),
        _ => bail!("{field} is a field of bits"),
    };
    let (summed, size) = bits("ip_summed")?;
    ensure!(size == SUMMED_BITS, "ip_summed has {size} bits");
    ensure!(summed % 8 + size <= 8, "ip_summed lies in two bytes");
    Ok(SkbLayout {
        summed: summed / 8,
        summed_shift: summed % 8,
        start: bytes("csum_start")?,
        offset: bytes("csum_offset")?,
        head: bytes("head")?,
        data: bytes("data")?,
    })
}

fn told(error: btfparse::Error) -> Error {
    anyhow!("{}", error.message())
}

/// A file that has been read.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        let part = from.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_kernel_describes_its_packets() {
        let layout = layout().expect("a kernel with BTF");
        // As in every kernel since 2016.
        assert_eq!(layout.offset, layout.start + 2);
        assert_eq!(layout.data, layout.head + 8);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for path in ["/proc/self/exe", "/dev/null", "/nowhere"] {
            assert!(described(Path::new(path)).is_err(), "{path}");
        }
    }
}
