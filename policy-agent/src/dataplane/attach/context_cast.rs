//! Links the programs to the kernel function `bpf_cast_to_kern_ctx`, which the loader cannot. See
//! `policy_common::skb`.

use aya_obj::generated::{BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL};
use policy_common::skb::CONTEXT_CAST_HELPER;

/// An instruction in an object file. Sections of code are aligned to its size.
type EncodedInstruction = [u8; 8];

/// Copies an object file and replaces the calls by calls of the kernel function with this BTF ID.
///
/// The parser of object files requires an alignment of 8 bytes and reports an error otherwise. Every
/// allocator aligns a vector of this size to more.
pub(crate) fn link_context_cast(object: &[u8], function: u32) -> Vec<u8> {
    let helper = encode_call(0, CONTEXT_CAST_HELPER);
    let kernel_function = encode_call(BPF_PSEUDO_KFUNC_CALL, function);
    let mut linked = object.to_vec();
    let (instructions, _) = linked.as_chunks_mut();
    for instruction in instructions.iter_mut().filter(|found| **found == helper) {
        *instruction = kernel_function;
    }
    linked
}

/// A call as `struct bpf_insn`: operation, registers (the source has the upper 4 bits), offset (0: the
/// kernel itself, no module) and the called function.
fn encode_call(source: u32, function: u32) -> EncodedInstruction {
    #[expect(clippy::cast_possible_truncation, reason = "both are at most 8 bits long")]
    let (operation, registers) = ((BPF_JMP | BPF_CALL) as u8, (source << 4) as u8);
    let [a, b, c, d] = function.to_ne_bytes();
    [operation, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_calls_are_replaced() {
        let other = encode_call(0, 6);
        let object = [other, encode_call(0, CONTEXT_CAST_HELPER), other].concat();
        let linked = link_context_cast(&object, 77);
        assert_eq!(linked, [other, [0x85, 0x20, 0, 0, 77, 0, 0, 0], other].concat());
    }
}
