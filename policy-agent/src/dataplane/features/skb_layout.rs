//! What the running kernel's BTF says about `struct sk_buff`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use policy_common::skb::SkbLayout;

use super::kernel_types::{KernelTypes, VMLINUX_BTF_PATH};

/// Width of `ip_summed` in bits.
const IP_SUMMED_BITS: u32 = 2;

/// The kernel function that turns a context into a pointer to the `sk_buff`.
pub(super) const CONTEXT_CAST_FUNCTION: &str = "bpf_cast_to_kern_ctx";

/// How programs read fields of `struct sk_buff`.
#[derive(Debug)]
pub(crate) struct SkbAccess {
    pub(crate) layout: SkbLayout,
    /// The BTF ID of [`CONTEXT_CAST_FUNCTION`], if the kernel has it.
    pub(crate) context_cast: Option<u32>,
}

/// Reads the running kernel's BTF.
pub(crate) fn kernel_skb_access() -> Result<SkbAccess> {
    parse_skb_access(Path::new(VMLINUX_BTF_PATH)).with_context(|| {
        format!("cannot learn from {VMLINUX_BTF_PATH} where the kernel keeps a packet's checksum")
    })
}

fn parse_skb_access(path: &Path) -> Result<SkbAccess> {
    let types = KernelTypes::read(path)?;
    let skb = types.structure("sk_buff")?;
    let (summed, size) = skb.bit_offset("ip_summed")?;
    ensure!(size == IP_SUMMED_BITS, "ip_summed has {size} bits");
    ensure!(summed % 8 + size <= 8, "ip_summed lies in two bytes");
    let context_cast = types.function_id(CONTEXT_CAST_FUNCTION);
    let layout = SkbLayout {
        ip_summed: summed / 8,
        ip_summed_shift: summed % 8,
        csum_start: skb.byte_offset("csum_start")?,
        csum_offset: skb.byte_offset("csum_offset")?,
        head: skb.byte_offset("head")?,
        data: skb.byte_offset("data")?,
        has_context_cast: context_cast.is_some().into(),
    };
    Ok(SkbAccess { layout, context_cast })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_kernel_describes_its_packets() {
        let layout = kernel_skb_access().expect("a kernel with BTF").layout;
        // True for every kernel since 2016.
        assert_eq!(layout.csum_offset, layout.csum_start + 2);
        assert_eq!(layout.data, layout.head + 8);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for path in ["/proc/self/exe", "/dev/null", "/nowhere"] {
            assert!(parse_skb_access(Path::new(path)).is_err(), "{path}");
        }
    }
}
