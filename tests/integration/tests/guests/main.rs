//! Real guests: virtual machines behind tap devices, with policies applied to their own programs.

mod vm_lifecycle;
mod vm_policy;
