//! Calls of bpf(2) that aya lacks: batches, creating and updating an array of maps, detaching a link that others hold, and pinning an object without giving it up on failure.
//!
//! Source: `union bpf_attr` in the kernel's `include/uapi/linux/bpf.h`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Maximum number of attempts to load a program.
const LOAD_ATTEMPTS: u32 = 5;
/// The kernel's ENOTSUPP, which libc does not define.
const ENOTSUPP: i32 = 524;

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The anonymous struct of `union bpf_attr` for `BPF_MAP_*_ELEM`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The first fields of the anonymous struct of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// Creates an array of maps with `inner` as the template.
pub(crate) fn create_array_of_maps(entries: u32, inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut creation = MapCreateAttr {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS as u32,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        map_flags: 0,
        inner_map_fd: raw_fd(inner),
    };
    call_for_fd(BPF_MAP_CREATE, &mut creation)
}

/// The anonymous struct of `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins a map, a program or a link.
pub(crate) fn pin_object(object: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let mut object =
        PinAttr { pathname: pathname.as_ptr() as u64, bpf_fd: raw_fd(object), file_flags: 0 };
    call_for_status(BPF_OBJ_PIN, &mut object)
}

/// Opens a pinned object.
pub(crate) fn open_pinned(pin: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let mut object = PinAttr { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    call_for_fd(BPF_OBJ_GET, &mut object)
}

/// Opens a link by its ID (Linux 5.8).
pub(crate) fn open_link_by_id(id: u32) -> io::Result<OwnedFd> {
    call_for_fd(BPF_LINK_GET_FD_BY_ID, &mut { id })
}

/// Detaches a link (Linux 5.9), even if others hold it.
pub(crate) fn detach_link(link: &OwnedFd) -> io::Result<()> {
    call_for_status(BPF_LINK_DETACH, &mut raw_fd(link.as_fd()))
}

/// Updates many elements with one call. On an error some elements may have been updated.
pub(crate) fn update_batch<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "every key has a value");
    if keys.is_empty() {
        return Ok(());
    }
    let mut batch = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: raw_fd(map),
        ..BatchAttr::default()
    };
    call_for_status(BPF_MAP_UPDATE_BATCH, &mut batch)
}

/// Whether the kernel supports batches on maps of this type. Tries an empty batch. `None` if the
/// result is inconclusive.
pub(crate) fn accepts_batches(map: BorrowedFd<'_>) -> Option<bool> {
    let mut empty = BatchAttr { map_fd: raw_fd(map), ..BatchAttr::default() };
    match call_for_status(BPF_MAP_UPDATE_BATCH, &mut empty) {
        Ok(()) => Some(true),
        Err(error) if error.raw_os_error() == Some(ENOTSUPP) => Some(false),
        Err(_) => None,
    }
}

pub(crate) fn update_element<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut element = ElementAttr {
        map_fd: raw_fd(map),
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        ..ElementAttr::default()
    };
    call_for_status(BPF_MAP_UPDATE_ELEM, &mut element)
}

/// Reads an element of one word. For an array of programs, that is the program's ID.
pub(crate) fn lookup_word(map: BorrowedFd<'_>, key: u32) -> io::Result<u32> {
    let mut word = 0_u32;
    let mut element = ElementAttr {
        map_fd: raw_fd(map),
        key: (&raw const key) as u64,
        value: (&raw mut word) as u64,
        ..ElementAttr::default()
    };
    call_for_status(BPF_MAP_LOOKUP_ELEM, &mut element)?;
    Ok(word)
}

/// Loads a program, again if interrupted: any pending signal makes the verifier fail with EAGAIN.
/// `verifier_error` returns the verifier's error, if it is one.
pub(crate) fn retry_interrupted<T, E>(
    mut load: impl FnMut() -> Result<T, E>,
    verifier_error: impl Fn(&E) -> Option<&io::Error>,
) -> Result<T, E> {
    let is_interrupted =
        |error: &E| verifier_error(error).and_then(io::Error::raw_os_error) == Some(libc::EAGAIN);
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(error) if is_interrupted(&error) => {}
            done => return done,
        }
    }
    load()
}

/// For calls that return a file descriptor.
pub(crate) fn call_for_fd<A>(command: libc::c_long, attribute: &mut A) -> io::Result<OwnedFd> {
    let opened = i32::try_from(bpf_syscall(command, attribute)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// For calls that return only a status.
fn call_for_status<A>(command: libc::c_long, attribute: &mut A) -> io::Result<()> {
    bpf_syscall(command, attribute).map(|_| ())
}

fn bpf_syscall<A>(command: libc::c_long, attribute: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is a prefix of `union bpf_attr` of the given size. Its pointers refer
    // to live, initialised buffers of the map's key and value sizes.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>())
    };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn raw_fd(map: BorrowedFd<'_>) -> u32 {
    map.as_raw_fd().unsigned_abs() // file descriptors are never negative
}
