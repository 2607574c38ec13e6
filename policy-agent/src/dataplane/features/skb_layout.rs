//! The layout of `struct sk_buff` in the running kernel, read from its BTF.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use policy_common::skb::SkbLayout;

use super::kernel_types::{KernelTypes, VMLINUX_BTF_PATH};

/// Width of `ip_summed` in bits.
const IP_SUMMED_BITS: u32 = 2;

/// Reads the layout from the running kernel's BTF.
pub(crate) fn kernel_skb_layout() -> Result<SkbLayout> {
    parse_skb_layout(Path::new(VMLINUX_BTF_PATH)).with_context(|| {
        format!("cannot learn from {VMLINUX_BTF_PATH} where the kernel keeps a packet's checksum")
    })
}

fn parse_skb_layout(path: &Path) -> Result<SkbLayout> {
    let types = KernelTypes::read(path)?;
    let bytes = |field| types.byte_offset("sk_buff", field);
    let (summed, size) = types.bit_offset("sk_buff", "ip_summed")?;
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
