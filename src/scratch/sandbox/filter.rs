//! The seccomp layer: system calls that a server never needs for itself, and that lead out.
//!
//! A list of refusals, not of permissions: extensions of any kind must load, and the other layers stand
//! behind it. It needs no privilege and works in every unit and container.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever the arguments.
const REFUSED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// Refused as unknown, so that callers fall back to the older call, which can be looked into.
const UNKNOWN: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
];

/// The filters to install, in order. `collector`: the server has a statistics collector (before 15).
pub(super) fn filters(collector: bool) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let mut refused: Rules = REFUSED.iter().map(|number| (*number, vec![])).collect();
    // CLONE_NEW*: namespaces give back the privileges that were dropped.
    let namespaces =
        (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID) as u64;
    let mut clone_rules = Vec::new();
    for bit in (0..64).map(|bit| 1u64 << bit).filter(|bit| namespaces & bit != 0) {
        clone_rules.push(rule(vec![(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(bit),
            bit,
        )])?);
    }
    refused.insert(libc::SYS_clone, clone_rules);
    refused.insert(libc::SYS_socket, vec![socket_rule(collector)?]);
    if !collector {
        refused.insert(libc::SYS_connect, vec![]);
        refused.insert(libc::SYS_sendmsg, vec![]);
        refused.insert(libc::SYS_sendmmsg, vec![]);
        // With an address; without, it is how every server answers its clients.
        refused.insert(
            libc::SYS_sendto,
            vec![rule(vec![(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)])?],
        );
    }
    let mut unknown: Rules = UNKNOWN.iter().map(|number| (*number, vec![])).collect();
    refuse_second_numbers(&refused, &mut unknown);
    Ok(vec![
        compile(refused, libc::EACCES)?,
        compile(unknown, libc::ENOSYS)?,
    ])
}

/// Every family but Unix sockets, which reach only what the file system shows; that keeps out vsock, netlink
/// and packet sockets too.
fn socket_rule(collector: bool) -> Result<SeccompRule, seccompiler::Error> {
    let mut families = vec![libc::AF_UNIX];
    if collector {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    let conditions = families
        .into_iter()
        .map(|family| (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family as u64))
        .collect();
    rule(conditions)
}

/// On x86-64 the same calls have second numbers (x32), which a filter by number would let through.
#[cfg(target_arch = "x86_64")]
fn refuse_second_numbers(refused: &Rules, unknown: &mut Rules) {
    const X32: i64 = 0x4000_0000;
    // Those whose number differs there: sendto's is the same; sendmsg, ptrace, process_vm_*, sendmmsg, recv*.
    const DIFFERENT: [i64; 5] = [518, 521, 538, 539, 540];
    let numbers = refused
        .keys()
        .copied()
        .chain(UNKNOWN.iter().copied())
        .chain(DIFFERENT);
    for number in numbers.collect::<Vec<_>>() {
        unknown.insert(number | X32, vec![]);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn refuse_second_numbers(_refused: &Rules, _unknown: &mut Rules) {}

fn rule(
    conditions: Vec<(u8, SeccompCmpArgLen, SeccompCmpOp, u64)>,
) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = conditions
        .into_iter()
        .map(|(index, length, operator, value)| SeccompCondition::new(index, length, operator, value))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

fn compile(rules: Rules, error: libc::c_int) -> Result<BpfProgram, seccompiler::Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let action = SeccompAction::Errno(error as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_filter_compile_for_this_machine() {
        assert_eq!(filters(true).unwrap().len(), 2);
        assert_eq!(filters(false).unwrap().len(), 2);
    }
}
