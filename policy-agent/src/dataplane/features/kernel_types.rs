//! Structures of the running kernel, read from its BTF.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};

/// The BTF of the running kernel.
pub(crate) const VMLINUX_BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The types of a kernel.
pub(crate) struct KernelTypes {
    types: TypeInformation,
}

impl KernelTypes {
    /// Reads those of the running kernel.
    pub(crate) fn of_running_kernel() -> Result<Self> {
        Self::read(Path::new(VMLINUX_BTF_PATH))
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let types = TypeInformation::new(&BtfBytes(fs::read(path)?)).map_err(into_anyhow)?;
        Ok(Self { types })
    }

    /// The offset of a field in bits, and its size if it is a bit field or else 0.
    pub(crate) fn bit_offset(&self, structure: &str, field: &str) -> Result<(u32, u32)> {
        let missing = || format!("it has no struct {structure}");
        let id = self.types.id_of(structure).with_context(missing)?;
        let (_, offset) = self.types.offset_of(id, field).map_err(into_anyhow)?;
        Ok(match offset {
            Offset::ByteOffset(bytes) => (bytes * 8, 0),
            Offset::BitOffsetAndSize(bits, size) => (bits, size),
        })
    }

    /// The ID of a function.
    pub(super) fn function_id(&self, name: &str) -> Option<u32> {
        let id = self.types.id_of(name)?;
        matches!(self.types.from_id(id)?, TypeVariant::Func(_)).then_some(id)
    }

    /// The offset of a field in bytes.
    pub(crate) fn byte_offset(&self, structure: &str, field: &str) -> Result<u32> {
        match self.bit_offset(structure, field)? {
            (bits, 0) if bits % 8 == 0 => Ok(bits / 8),
            _ => bail!("{field} is a field of bits"),
        }
    }
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
