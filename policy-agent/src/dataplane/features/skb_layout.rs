//! The layout of `struct sk_buff` in the running kernel, read from its BTF.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use btfparse::{Offset, Readable, TypeInformation};
use policy_common::skb::SkbLayout;

/// The BTF of the running kernel.
pub(crate) const VMLINUX_BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Width of `ip_summed` in bits.
const IP_SUMMED_BITS: u32 = 2;

/// Reads the layout from the running kernel's BTF.
pub(crate) fn kernel_skb_layout() -> Result<SkbLayout> {
    parse_skb_layout(Path::new(VMLINUX_BTF_PATH)).with_context(|| {
        format!("cannot learn from {VMLINUX_BTF_PATH} where the kernel keeps a packet's checksum")
    })
}

fn parse_skb_layout(path: &Path) -> Result<SkbLayout> {
    let types = TypeInformation::new(&BtfBytes(fs::read(path)?)).map_err(into_anyhow)?;
    let skb = types.id_of("sk_buff").context("it has no struct sk_buff")?;
    let bits = |field: &str| -> Result<(u32, u32)> {
        let (_, offset) = types.offset_of(skb, field).map_err(into_anyhow)?;
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
    ensure!(size == IP_SUMMED_BITS, "ip_summed has {size} bits");
    ensure!(summed % 8 + size <= 8, "ip_summed lies in two bytes");
    Ok(SkbLayout {
        ip_summed: summed / 8,
        ip_summed_shift: summed % 8,
        csum_start: bytes("csum_start")?,
        csum_offset: bytes("csum_offset")?,
        head: bytes("head")?,
        data: bytes("data")?,
    })
}

fn into_anyhow(error: btfparse::Error) -> Error {
    anyhow!("{}", error.message())
}

/// The contents of a BTF file.
struct BtfBytes(Vec<u8>);

impl Readable for BtfBytes {
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
        let layout = kernel_skb_layout().expect("a kernel with BTF");
        // True for every kernel since 2016.
        assert_eq!(layout.csum_offset, layout.csum_start + 2);
        assert_eq!(layout.data, layout.head + 8);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for path in ["/proc/self/exe", "/dev/null", "/nowhere"] {
            assert!(parse_skb_layout(Path::new(path)).is_err(), "{path}");
        }
    }
}
