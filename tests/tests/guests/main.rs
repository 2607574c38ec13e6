//! Real guests: virtual machines behind tap devices, whose own programs meet the policy.

mod life;
mod policy;
