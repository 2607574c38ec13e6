//! Attaches gates as filters of a clsact qdisc, for kernels without tcx. The kernel keeps these
//! filters without pins.

use std::pin::pin;

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{
        NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
        qdisc_detach_program,
    },
};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use policy_common::bpf_names::{GATE_FROM, GATE_TO};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use crate::dataplane::{
    HostInterface,
    net::{netlink, netns},
};

/// A low value, so that our filters are among the first that clsact runs.
const FILTER_PRIORITY: u16 = 1;
/// Unusual handles, so that no filter of another program is replaced. There are two, because a
/// filter with a new handle is inserted before others of its priority, whereas replacing a filter
/// keeps its position.
const FILTER_HANDLES: [u16; 2] = [0x7061, 0x7062];

/// A filter of a hook.
struct ClsactFilter {
    /// The handle, if the filter is one of ours.
    own_handle: Option<u16>,
    /// The ID of the filter's program, if it is a BPF filter.
    program_id: Option<u32>,
}

/// The ID of the program of the hook's first filter. A filter before ours could let packets pass
/// unjudged.
pub(crate) fn first_program_id(interface: &str, hook: TcAttachType) -> Result<Option<u32>> {
    Ok(list_filters(interface, hook)?.first().and_then(|filter| filter.program_id))
}

/// Makes a gate the first filter of the hook. If our filter is the first, it is replaced in place.
/// Otherwise it is removed once the new one is attached.
pub(crate) fn attach_first(
    interface: &str,
    hook: TcAttachType,
    gate: &mut SchedClassifier,
) -> Result<()> {
    let _ = qdisc_add_clsact(interface); // it exists already, or the next step reports the error
    let there = list_filters(interface, hook)?;
    let own: Vec<u16> = there.iter().filter_map(|filter| filter.own_handle).collect();
    let leads = there.first().and_then(|filter| filter.own_handle);
    let unused = FILTER_HANDLES.into_iter().find(|handle| !own.contains(handle));
    let handle = leads.or(unused).unwrap_or(FILTER_HANDLES[0]);
    let is_replaced = own.contains(&handle);
    let link = if is_replaced {
        gate.attach_to_link(attached_link(interface, hook, handle)?)
    } else {
        let options =
            NlOptions { priority: FILTER_PRIORITY, handle: filter_handle(handle), classid: None };
        gate.attach_with_options(interface, hook, TcAttachOptions::Netlink(options))
    };
    let link = link.with_context(|| format!("interface: cannot attach to {interface}"))?;
    // Dropping the link would remove the filter, which must outlive the agent.
    std::mem::forget(gate.take_link(link)?);
    for old in own.into_iter().filter(|old| *old != handle) {
        attached_link(interface, hook, old)?.detach()?;
    }
    Ok(())
}

/// Removes our filters from an interface that may no longer exist.
pub(crate) fn detach_from_interface(interface: &HostInterface) {
    let _ = netns::run_in_netns(interface.netns.as_deref(), || {
        remove_own_filters(&interface.name);
        Ok(())
    });
}

/// Removes our filters, if any.
pub(crate) fn remove_own_filters(interface: &str) {
    let _ = qdisc_detach_program(interface, TcAttachType::Ingress, GATE_FROM);
    let _ = qdisc_detach_program(interface, TcAttachType::Egress, GATE_TO);
}

fn attached_link(interface: &str, hook: TcAttachType, handle: u16) -> Result<SchedClassifierLink> {
    Ok(SchedClassifierLink::attached(
        interface,
        hook,
        FILTER_PRIORITY,
        filter_handle(handle),
        None,
    )?)
}

const fn filter_handle(handle: u16) -> TcHandle {
    TcHandle::new(0, handle)
}

/// The filters of a hook in execution order. Empty if there is no clsact.
fn list_filters(interface: &str, hook: TcAttachType) -> Result<Vec<ClsactFilter>> {
    let index = i32::try_from(if_nametoindex(interface)?)?;
    netlink::with_handle(async |netlink| {
        let mut handle = netlink.traffic_filter(index);
        let request = match hook {
            TcAttachType::Ingress => handle.get().ingress(),
            _ => handle.get().egress(),
        };
        let mut messages = pin!(request.execute());
        let mut filters = Vec::new();
        while let Some(message) = messages.try_next().await? {
            filters.extend(parse_filter(&message));
        }
        Ok(filters)
    })
}

/// Parses a filter message. Ignores other chains than the first, which only run if a filter refers
/// to them, and the message about a priority that precedes its filters.
fn parse_filter(message: &TcMessage) -> Option<ClsactFilter> {
    let other_chain = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Chain(1..));
    if message.header.handle == 0.into() || message.attributes.iter().any(other_chain) {
        return None;
    }
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => Some(*program),
        _ => None,
    });
    let handle = message.header.handle;
    let priority = message.header.info >> 16; // TC_H_MAJ of tcm_info
    let is_ours = priority == u32::from(FILTER_PRIORITY) && handle.major == 0;
    let ours = FILTER_HANDLES.into_iter().find(|own| is_ours && handle.minor == *own);
    Some(ClsactFilter { own_handle: ours.filter(|_| program.is_some()), program_id: program })
}
