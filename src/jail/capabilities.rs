//! Which of root's powers a process keeps: capabilities(7). Each list says what every one of its entries is
//! for; docs/security.md has them for people, and `tests/e2e/privileges.rs` compares a running node with them.
//!
//! What is given up is gone: no program that is run later gets it back, not as root either
//! (no_new_privs).

use rustix::io::Errno;
pub use rustix::thread::CapabilitySet;
use rustix::thread::{
    CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// None: of a Nix command, which asks the daemon, and of the first process of a container.
pub const NOTHING: CapabilitySet = CapabilitySet::empty();

/// Of nix-daemon: it makes the sandbox of builds, and the store theirs no more when they are done.
pub const DAEMON: CapabilitySet = CapabilitySet::SYS_ADMIN // mounts and namespaces of the sandbox
    .union(CapabilitySet::SYS_CHROOT) // its root, where builds get no user namespace
    .union(CapabilitySet::NET_ADMIN) // its loopback, likewise
    .union(CapabilitySet::SETUID) // builds run as the users of nixbld
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP) // a user namespace of root's, where there are no such users
    .union(CapabilitySet::CHOWN) // outputs and build directories change owners
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE) // what a build leaves is read and removed
    .union(CapabilitySet::KILL) // and what of it still runs ends
    .union(CapabilitySet::SYS_PTRACE); // a collector sees in /proc what other users' processes use

/// Of sshd, whose sessions have none.
pub const SSHD: CapabilitySet = CapabilitySet::NET_BIND_SERVICE // port 22
    .union(CapabilitySet::SYS_CHROOT) // who has not logged in is spoken to from an empty root
    .union(CapabilitySet::SETUID) // and as another user, as sessions are
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::AUDIT_WRITE) // some distributions' sshd lets nobody in that it can't tell the kernel of
    .union(CapabilitySet::KILL); // of which it ends those that are late

/// Of a node: its children's, and what it does itself.
pub const NODE: CapabilitySet = DAEMON
    .union(SSHD)
    .union(CapabilitySet::FSETID) // the set-group-id bits of pods' directories: overlays act as who mounted them
    .union(CapabilitySet::MKNOD) // /dev/loop*, for volumes with a size
    .union(CapabilitySet::SETPCAP); // children have less in their bounding sets too

/// Of a cache, which mounts nothing itself.
pub const CACHE: CapabilitySet = DAEMON.union(SSHD).union(CapabilitySet::SETPCAP);

/// Of `nix-store --import`, which builds nothing.
pub const IMPORT: CapabilitySet = CapabilitySet::CHOWN // the new store's group
    .union(CapabilitySet::FOWNER) // and modes, in a store that may be another user's
    .union(CapabilitySet::DAC_OVERRIDE);

/// Of a bootstrap: its child's, and what it takes to guard it.
pub const BOOTSTRAP: CapabilitySet =
    IMPORT.union(CapabilitySet::KILL).union(CapabilitySet::SETPCAP);

/// Of a guard, once its program runs: to end it, and what it has started as whomever.
pub(super) const WATCH: CapabilitySet = CapabilitySet::KILL;

/// Gives up, for this thread and all it starts, what is not in `kept`. To be called while there is one
/// thread. What the process did not have it does not get.
pub fn keep_only(kept: CapabilitySet) -> rustix::io::Result<()> {
    match bound_to(kept) {
        // Without CAP_SETPCAP: what follows bounds later programs as well.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    // Not known to Linux before 4.3.
    let _ = clear_ambient_capability_set();
    let left = capabilities(None)?.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets { effective: left, permitted: left, inheritable: NOTHING },
    )?;
    set_no_new_privs(true)
}

/// Each that the kernel knows; the first that it doesn't is EINVAL.
pub(super) fn bound_to(kept: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Err(Errno::INVAL) if bit > 0 => break,
            Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
            result => drop(result?),
        }
    }
    Ok(())
}

/// As people write them: `chown,sys_admin`.
pub fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.join(",")
}

pub(super) fn parse(text: &str) -> Option<CapabilitySet> {
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(|name| CapabilitySet::from_name(&name.to_ascii_uppercase())).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Those of these bits that have names.
    pub(in crate::jail) fn named(bits: u64) -> CapabilitySet {
        let set = CapabilitySet::from_bits_retain(bits);
        set.iter_names().map(|(_, one)| one).collect()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for set in [NOTHING, DAEMON, SSHD, NODE, CACHE, named(u64::MAX)] {
            assert_eq!(parse(&names(set)), Some(set));
        }
        assert_eq!(names(CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN), "chown,sys_admin");
        assert_eq!(parse("chown,everything"), None);
    }

    /// Each of them would be a way around all of this.
    #[test]
    fn nobody_keeps_what_is_the_kernels_own() {
        let kernel = CapabilitySet::SYS_MODULE
            | CapabilitySet::SYS_RAWIO
            | CapabilitySet::SYS_BOOT
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::BPF
            | CapabilitySet::MAC_ADMIN;
        assert!(NODE.intersection(kernel).is_empty() && CACHE.difference(NODE).is_empty());
        assert!(NODE.contains(DAEMON | SSHD | WATCH));
    }
}
