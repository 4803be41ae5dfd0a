//! System calls that are refused to a program which reads what tenants wrote: seccomp(2). What is left out
//! is what changes the machine, its namespaces or other processes, and what much of the kernel's code is
//! reached by that Nix, git, ssh and tar have no use for.
//!
//! It comes on top: a jailed program has no privileges for most of these either.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

use super::sys::{self, Forked};

/// Not in libc's list for musl on aarch64: `include/uapi/asm-generic/unistd.h`.
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: i64 = 294;
#[cfg(not(target_arch = "aarch64"))]
const KEXEC_FILE_LOAD: i64 = libc::SYS_kexec_file_load;

/// Refused whatever the arguments.
const REFUSED: &[i64] = &[
    // Mounts.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other processes, and namespaces.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    // Keys outlive who made them, and are not of any namespace.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Flags of clone(2) and unshare(2).
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What a fetcher speaks; netlink is how the resolver asks for addresses of its own.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// For this process and all that it starts, for good. It must have given up new privileges.
pub(super) fn refuse() -> io::Result<()> {
    for program in programs().map_err(io::Error::other)? {
        apply_filter(&program).map_err(|error| match error {
            Error::Prctl(error) | Error::Seccomp(error) => error,
            error => io::Error::other(error),
        })?;
    }
    Ok(())
}

/// Whether calls can be refused here, which a child finds out. To be called while there is one thread.
pub fn can_be_refused() -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        Forked::Child => {
            let said = refuse().err().map(|error| error.to_string()).unwrap_or_default();
            let written = fs::File::from(writer).write_all(said.as_bytes());
            std::process::exit(written.is_err().into())
        }
        Forked::Parent(child) => {
            drop(writer);
            let mut said = String::new();
            fs::File::from(reader).read_to_string(&mut said)?;
            let ended = waitpid(Some(child), WaitOptions::empty())?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) if said.is_empty() => Ok(()),
                Some(0) => Err(io::Error::other(said)),
                _ => Err(io::Error::other("who tried it was killed")),
            }
        }
    }
}

fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let one_of_them = NAMESPACES.map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        rule(vec![argument(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    let namespaces = one_of_them.into_iter().collect::<Result<Vec<_>, _>>()?;
    refused.insert(libc::SYS_unshare, namespaces.clone());
    refused.insert(libc::SYS_clone, namespaces);
    let others =
        FAMILIES.map(|family| argument(0, SeccompCmpOp::Ne, u64::from(family.cast_unsigned())));
    let others = rule(others.into_iter().collect::<Result<_, _>>()?)?;
    refused.insert(libc::SYS_socket, vec![others]);
    #[cfg(target_arch = "x86_64")]
    refuse_x32(&mut refused);
    // Its flags are out of a filter's sight; who gets this takes clone.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([program(refused, libc::EPERM)?, program(unknown, libc::ENOSYS)?])
}

/// The same calls by their other numbers, and those that have numbers only there; see
/// `arch/x86/entry/syscalls/syscall_64.tbl`.
#[cfg(target_arch = "x86_64")]
fn refuse_x32(refused: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    const X32: i64 = 0x4000_0000;
    let numbers: Vec<i64> = refused.keys().copied().chain(512..=547).collect();
    refused.extend(numbers.into_iter().map(|number| (number | X32, Vec::new())));
    refused.insert(libc::SYS_clone3 | X32, Vec::new());
}

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<BpfProgram, BackendError> {
    let refusal = SeccompAction::Errno(error.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_can_be_made() {
        let programs = programs().unwrap();
        assert!(programs.iter().all(|program| program.len() < 4096), "BPF_MAXINSNS");
    }
}
