//! Structures of the running kernel, read from its BTF.
//!
//! The kernel describes over 100 000 types, of which an agent needs three at every start. So this
//! walks over the records in place, and keeps nothing but where each of them begins.
//!
//! Source: `Documentation/bpf/btf.rst` in Linux. All numbers have the byte order of the host.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::generated::{
    BTF_KIND_ARRAY, BTF_KIND_DATASEC, BTF_KIND_DECL_TAG, BTF_KIND_ENUM, BTF_KIND_ENUM64,
    BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO, BTF_KIND_INT, BTF_KIND_MAX, BTF_KIND_STRUCT,
    BTF_KIND_UNION, BTF_KIND_VAR,
};

/// The BTF of the running kernel.
pub(crate) const VMLINUX_BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Size in words of `struct btf_type`, with which each record begins, and of `struct btf_member`.
const HEAD_WORDS: usize = 3;
/// Maximum depth of anonymous structures and unions in each other.
const MAX_NESTING: u32 = 16;

/// The types of a kernel.
pub(crate) struct KernelTypes {
    bytes: Vec<u8>,
    /// Where each record begins, in words from the start of `bytes`. The first is that of type 1.
    records: Vec<usize>,
    /// Where names begin in `bytes`.
    names: usize,
}

/// A structure of the kernel.
pub(crate) struct KernelStruct<'types> {
    types: &'types KernelTypes,
    /// Where its record begins.
    record: usize,
    name: &'static str,
}

/// The second word of `struct btf_type`.
#[derive(Clone, Copy)]
struct TypeInfo(u32);

impl KernelTypes {
    /// Reads those of the running kernel.
    pub(crate) fn of_running_kernel() -> Result<Self> {
        Self::read(Path::new(VMLINUX_BTF_PATH))
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        Self::parse(fs::read(path)?).context("not BTF, or damaged")
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let magic = bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic));
        ensure!(magic == Some(MAGIC), "it does not begin with BTF's magic number");
        let words = to_words(&bytes);
        let header = |field: usize| {
            let number = words.get(field).map(|word| u32::from_ne_bytes(*word) as usize);
            number.context("it ends within its header")
        };
        let (length, types, types_length, names) = (header(1)?, header(2)?, header(3)?, header(4)?);
        let (mut at, names) = ((length + types) / 4, length + names);
        let end = at + types_length / 4;
        ensure!(end <= words.len() && names < bytes.len(), "it ends before its header says");
        let mut records = Vec::new();
        while at < end {
            let info = words.get(at + 1).context("the last record is not whole")?;
            records.push(at);
            at += TypeInfo(u32::from_ne_bytes(*info)).record_words()?;
        }
        ensure!(at == end, "the last record is not whole");
        Ok(Self { bytes, records, names })
    }

    /// The structure of this name.
    pub(crate) fn structure(&self, name: &'static str) -> Result<KernelStruct<'_>> {
        let (_, record) = self
            .find(BTF_KIND_STRUCT, name)
            .with_context(|| format!("the kernel has no struct {name}"))?;
        Ok(KernelStruct { types: self, record, name })
    }

    /// The ID of a function.
    pub(super) fn function_id(&self, name: &str) -> Option<u32> {
        self.find(BTF_KIND_FUNC, name).map(|(id, _)| id)
    }

    /// The ID of a type, and where its record begins.
    fn find(&self, kind: u32, name: &str) -> Option<(u32, usize)> {
        let words = to_words(&self.bytes);
        for (place, record) in self.records.iter().copied().enumerate() {
            let info = TypeInfo(u32::from_ne_bytes(words[record + 1]));
            if info.kind() == kind && self.is_named(u32::from_ne_bytes(words[record]), name) {
                return Some((u32::try_from(place + 1).ok()?, record));
            }
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let stored = self.bytes.get(self.names + offset as usize..);
        let rest = stored.and_then(|stored| stored.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The offset of a member in bits and its size if it is a bit field or else 0. Members of
    /// anonymous structures and unions count as the outer one's.
    fn find_member(&self, outer: usize, name: &str, nesting: u32) -> Option<(u32, u32)> {
        let words = to_words(&self.bytes);
        let word = |at: usize| words.get(at).map(|word| u32::from_ne_bytes(*word));
        let info = TypeInfo(word(outer + 1)?);
        (1..=info.count()).find_map(|number| {
            let at = outer + number * HEAD_WORDS;
            let (member, id, place) = (word(at)?, word(at + 1)?, word(at + 2)?);
            let (offset, size) = info.split_member_offset(place);
            if self.is_named(member, name) {
                return Some((offset, size));
            }
            if !self.is_named(member, "") || nesting == MAX_NESTING {
                return None;
            }
            let inner = *self.records.get((id as usize).checked_sub(1)?)?;
            if !matches!(TypeInfo(word(inner + 1)?).kind(), BTF_KIND_STRUCT | BTF_KIND_UNION) {
                return None;
            }
            let (within, size) = self.find_member(inner, name, nesting + 1)?;
            Some((offset + within, size))
        })
    }
}

fn to_words(bytes: &[u8]) -> &[[u8; 4]] {
    bytes.as_chunks().0
}

impl KernelStruct<'_> {
    /// The offset of a field in bits, and its size if it is a bit field or else 0.
    pub(crate) fn bit_offset(&self, field: &str) -> Result<(u32, u32)> {
        let found = self.types.find_member(self.record, field, 0);
        found.with_context(|| format!("the kernel's struct {} has no {field}", self.name))
    }

    /// The offset of a field in bytes.
    pub(crate) fn byte_offset(&self, field: &str) -> Result<u32> {
        match self.bit_offset(field)? {
            (bits, 0) if bits % 8 == 0 => Ok(bits / 8),
            _ => bail!("{field} is a field of bits"),
        }
    }
}

impl TypeInfo {
    const fn kind(self) -> u32 {
        self.0 >> 24 & 0x1f
    }

    /// The number of members, values or parameters.
    const fn count(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Splits what a member's record says into its offset in bits and the size of a bit field or 0.
    const fn split_member_offset(self, offset: u32) -> (u32, u32) {
        let has_sizes = self.0 >> 31 == 1;
        if has_sizes { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) }
    }

    /// The number of words up to the next record.
    fn record_words(self) -> Result<usize> {
        let behind = match self.kind() {
            BTF_KIND_INT | BTF_KIND_VAR | BTF_KIND_DECL_TAG => 1,
            BTF_KIND_ARRAY => 3,
            BTF_KIND_STRUCT | BTF_KIND_UNION | BTF_KIND_DATASEC | BTF_KIND_ENUM64 => {
                3 * self.count()
            }
            BTF_KIND_ENUM | BTF_KIND_FUNC_PROTO => 2 * self.count(),
            kind if kind > BTF_KIND_MAX => bail!("a type has the unknown kind {kind}"),
            _ => 0,
        };
        Ok(HEAD_WORDS + behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_and_functions_are_found_by_name() {
        let types = KernelTypes::of_running_kernel().expect("a kernel with BTF");
        let state = types.structure("nf_hook_state").expect("a structure");
        assert_eq!(state.byte_offset("hook").expect("a field"), 0);
        // In an anonymous union of an anonymous structure.
        let skb = types.structure("sk_buff").expect("a structure");
        assert_eq!(skb.byte_offset("next").expect("a field"), 0);
        assert_eq!(skb.bit_offset("ip_summed").expect("a field").1, 2);
        assert!(skb.byte_offset("ip_summed").is_err(), "bits");
        assert!(skb.byte_offset("no_such_field").is_err());
        assert!(types.structure("sk_buf").is_err(), "a prefix of a name");
        assert!(types.function_id("tcp_v4_connect").is_some());
        assert!(types.function_id("sk_buff").is_none(), "not a function");
    }

    #[test]
    fn damaged_btf_is_refused() {
        let whole = fs::read(VMLINUX_BTF_PATH).expect("a kernel with BTF");
        for length in [0, 1, 2, 8, 23, 24, 35, 100, 10_001] {
            assert!(KernelTypes::parse(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
        let mut other_kind = whole[..36].to_vec();
        other_kind[24 + 7] = 0x1f; // the kind of type 1
        assert!(KernelTypes::parse(other_kind).is_err());
    }
}
