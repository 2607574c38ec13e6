//! Gates as filters of a clsact qdisc, which the kernel keeps by itself: where it has no tcx.

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

/// Ours are among the first filters that clsact runs.
const FILTER_PRIORITY: u16 = 1;
/// Unusual ones, so that nobody else's filter is replaced. Two, since a filter with a new handle goes
/// in front of those of its priority, and one that is there already does not.
const FILTER_HANDLES: [u16; 2] = [0x7061, 0x7062];

/// A filter of a hook.
struct ClsactFilter {
    /// Its handle, if it is one of ours.
    own_handle: Option<u16>,
    /// The number of its program, if it is one of BPF.
    program_id: Option<u32>,
}

/// The program of the hook's first filter: one in front of ours could let packets pass without asking.
pub(crate) fn first_program_id(interface: &str, hook: TcAttachType) -> Result<Option<u32>> {
    Ok(list_filters(interface, hook)?.first().and_then(|filter| filter.program_id))
}

/// Makes a gate the first filter of the hook. One of ours that is the first is replaced in place; one
/// that is not goes when the new one is there.
pub(crate) fn attach_first(
    interface: &str,
    hook: TcAttachType,
    gate: &mut SchedClassifier,
) -> Result<()> {
    let _ = qdisc_add_clsact(interface); // it is there already, or the next step says what is wrong
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
    // Dropping the link would remove the filter; the kernel is to keep it.
    std::mem::forget(gate.take_link(link)?);
    for old in own.into_iter().filter(|old| *old != handle) {
        attached_link(interface, hook, old)?.detach()?;
    }
    Ok(())
}

/// Removes the filters of an interface that may be gone.
pub(crate) fn detach_from_interface(interface: &HostInterface) {
    let _ = netns::run_in_netns(interface.netns.as_deref(), || {
        remove_own_filters(&interface.name);
        Ok(())
    });
}

/// Removes our filters, if there are any.
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

/// The filters of a hook, in the order in which they run; none where there is no clsact.
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

/// What a message says about a filter. Other chains than the first run only if a filter says so, and
/// before the filters of a priority comes a message about that.
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
