//! Converts lengths known at compile time to the integer types that headers and kernel helpers use.
//! Only called in constants, so that a length that does not fit fails the build.

pub(crate) const fn length_as_u8(length: usize) -> u8 {
    assert!(length <= u8::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let length = length as u8;
    length
}

pub(crate) const fn length_as_u16(length: usize) -> u16 {
    assert!(length <= u16::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let length = length as u16;
    length
}

pub(crate) const fn length_as_u32(length: usize) -> u32 {
    assert!(length <= u32::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let length = length as u32;
    length
}
