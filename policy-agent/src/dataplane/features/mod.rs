//! Features of the running kernel, and the agent's fallbacks if one is missing.
//!
//! Attaching, maps and `doctor` use these values. The table in `docs/kernel-support.md` is
//! generated from them.

pub(crate) mod kernel_types;
pub(crate) mod kernel_version;
mod probes;
pub(crate) mod skb_layout;

use std::{fmt, sync::OnceLock};

/// The oldest kernel that the programs support.
pub(crate) const OLDEST_SUPPORTED_KERNEL: (u32, u32) = (5, 10);

/// A feature that not every supported kernel has.
pub(crate) struct KernelFeature {
    /// Its name in documents and `doctor`.
    pub(crate) name: &'static str,
    /// Which kernels have it.
    pub(crate) since: FeatureOrigin,
    /// Probes the running kernel. `None` if it cannot be probed, or not by this process.
    probe: fn() -> Option<bool>,
    /// The agent's behaviour without it.
    pub(crate) fallback: &'static str,
    supported: OnceLock<bool>,
}

/// Which kernels have a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeatureOrigin {
    /// All kernels from this version on.
    Version(u32, u32),
    /// The first version lacks it, and the second has it.
    Between((u32, u32), (u32, u32)),
    /// Kernels built with this option.
    BuildOption(&'static str),
}

/// Gates can be attached with tcx.
pub(crate) static TCX: KernelFeature = KernelFeature {
    name: "pinned tcx links",
    since: FeatureOrigin::Version(6, 6),
    probe: probes::probe_tcx,
    fallback: "clsact filters (`dataplane.attach`), which the kernel keeps when the agent is gone",
    supported: OnceLock::new(),
};

/// LPM tries can be filled with one call.
pub(crate) static LPM_TRIE_BATCH: KernelFeature = KernelFeature {
    name: "batched updates of LPM tries",
    since: FeatureOrigin::Version(5, 13),
    probe: probes::probe_lpm_trie_batch,
    fallback: "one call per prefix",
    supported: OnceLock::new(),
};

/// The kernel charges maps to the control group.
pub(crate) static MAP_MEMORY_IN_CGROUP: KernelFeature = KernelFeature {
    name: "memory of maps charged to the control group",
    since: FeatureOrigin::Version(5, 11),
    probe: probes::no_probe,
    fallback: "`RLIMIT_MEMLOCK` limits it; the agent raises the limit if it may",
    supported: OnceLock::new(),
};

/// The memory for tables, which is a single value of an array, can have its full size.
pub(crate) static LARGE_MAP_VALUES: KernelFeature = KernelFeature {
    name: "map values above 4 MiB",
    since: FeatureOrigin::Between((5, 10), (6, 1)),
    probe: probes::probe_large_map_values,
    fallback: "the memory for tables has 4 MiB in place of 32; policies that do not fit are in an LPM \
               trie, which is slower",
    supported: OnceLock::new(),
};

/// The guard can be a BPF program of netfilter.
pub(crate) static NETFILTER_LINKS: KernelFeature = KernelFeature {
    name: "BPF programs of netfilter (6.4)",
    since: FeatureOrigin::BuildOption("CONFIG_NETFILTER_BPF_LINK"),
    probe: probes::probe_netfilter_links,
    fallback: "the guard is a table of nftables, as in other network namespaces than the agent's; \
               without `nft` there is none",
    supported: OnceLock::new(),
};

/// The kernel describes `struct sk_buff`, whose fields the programs read.
pub(crate) static SKB_TYPES: KernelFeature = KernelFeature {
    name: "description of `sk_buff` (BTF)",
    since: FeatureOrigin::BuildOption("CONFIG_DEBUG_INFO_BTF"),
    // Callers need the layout or its error, and use `skb_layout::kernel_skb_access`.
    probe: probes::no_probe,
    fallback: "the agent does not start",
    supported: OnceLock::new(),
};

/// Programs can load fields of `struct sk_buff`.
pub(crate) static CONTEXT_CAST: KernelFeature = KernelFeature {
    name: "`bpf_cast_to_kern_ctx`",
    since: FeatureOrigin::Version(6, 2),
    probe: probes::probe_context_cast,
    fallback: "programs read where a checksum will be written with calls, which take longer",
    supported: OnceLock::new(),
};

/// The kernel compiles programs to machine code.
pub(crate) static JIT: KernelFeature = KernelFeature {
    name: "BPF JIT",
    since: FeatureOrigin::BuildOption("CONFIG_BPF_JIT"),
    probe: probes::probe_jit,
    fallback: "packets are judged many times slower",
    supported: OnceLock::new(),
};

/// Every feature, in the order of the table in `docs/kernel-support.md`.
#[cfg(test)]
pub(crate) static ALL_FEATURES: [&KernelFeature; 8] = [
    &TCX,
    &LPM_TRIE_BATCH,
    &MAP_MEMORY_IN_CGROUP,
    &LARGE_MAP_VALUES,
    &NETFILTER_LINKS,
    &SKB_TYPES,
    &CONTEXT_CAST,
    &JIT,
];

impl KernelFeature {
    /// Whether the running kernel has the feature. Its version decides if it cannot be probed. The
    /// result is cached.
    pub(crate) fn is_supported(&self) -> bool {
        *self.supported.get_or_init(|| {
            (self.probe)().unwrap_or_else(|| {
                kernel_version::running_version().is_some_and(|version| self.since.is_in(version))
            })
        })
    }

    /// Probes the running kernel. `None` if it cannot be probed, or not by this process.
    pub(crate) fn probe(&self) -> Option<bool> {
        (self.probe)()
    }

    /// How to get the feature.
    pub(crate) fn fix(&self) -> String {
        match self.since {
            FeatureOrigin::Version(major, minor) | FeatureOrigin::Between(_, (major, minor)) => {
                format!("run Linux {major}.{minor} or newer")
            }
            FeatureOrigin::BuildOption(option) => format!("run a kernel with {option}=y"),
        }
    }
}

impl FeatureOrigin {
    /// Whether a kernel of this version certainly has the feature.
    pub(crate) fn is_in(self, version: (u32, u32)) -> bool {
        match self {
            Self::Version(major, minor) | Self::Between(_, (major, minor)) => {
                version >= (major, minor)
            }
            Self::BuildOption(_) => false,
        }
    }
}

impl fmt::Display for FeatureOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(major, minor) => write!(f, "{major}.{minor}"),
            Self::Between((lacks, its_minor), (has, minor)) => {
                write!(f, "after {lacks}.{its_minor}, before {has}.{minor}")
            }
            Self::BuildOption(option) => write!(f, "`{option}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_lack_more() {
        let missing = |version| {
            [&TCX, &LPM_TRIE_BATCH]
                .into_iter()
                .filter(|feature| !feature.since.is_in(version))
                .count()
        };
        assert_eq!((missing((6, 6)), missing((6, 5)), missing((5, 10))), (0, 1, 2));
    }

    /// A wrong probe would otherwise go unnoticed, because the agent falls back.
    #[test]
    fn probes_agree_with_the_version() {
        let version = kernel_version::running_version().expect("a version");
        for feature in ALL_FEATURES {
            if let (FeatureOrigin::Version(..), Some(probed)) = (feature.since, feature.probe()) {
                assert_eq!(probed, feature.since.is_in(version), "{}", feature.name);
            }
        }
    }
}
