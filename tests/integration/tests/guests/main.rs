//! Real guests: virtual machines behind tap devices, whose own programs meet the policy.

mod vm_lifecycle;
mod vm_policy;
