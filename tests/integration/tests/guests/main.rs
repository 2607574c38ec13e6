//! Real guests: virtual machines behind tap devices, with policies applied to their own programs.

mod how_tos;
mod vm_lifecycle;
mod vm_policy;
