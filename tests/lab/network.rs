//! Several machines on one wire, apart from this machine's own network.

use std::process::{Child, Command, Stdio};

use super::Lab;
use super::machine::wait_for;

/// A switch. Dropping it cuts the wire.
pub struct Network {
    switch: Child,
}

impl Network {
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let has_ip = Command::new("ip").arg("-V").output().is_ok();
        if !has_ip || std::fs::metadata("/usr/sbin/sshd").is_err() {
            return Err("openssh-server or iproute2 is not installed".to_owned());
        }
        // cat ends with its input: a crashed test leaves none behind.
        let mut switch = Command::new("unshare");
        switch.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let network = Self { switch: switch.spawn().unwrap() };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let its = format!("/proc/{}/ns/net", network.switch.id());
        wait_for("the switch", || std::fs::read_link(&its).is_ok_and(|its| its != own));
        Self::ip(network.switch.id(), "link add br0 type bridge");
        Self::ip(network.switch.id(), "link set br0 up");
        Ok(network)
    }

    /// The address of machine `n`.
    pub fn address(n: u8) -> String {
        format!("10.77.0.{n}")
    }

    /// A new machine on the wire.
    pub fn host(&self, n: u8) -> Result<Lab, String> {
        let lab = Lab::start(true)?;
        let (switch, host) = (self.switch.id(), lab.init());
        Self::ip(switch, &format!("link add v{n} type veth peer name eth0 netns {host}"));
        Self::ip(switch, &format!("link set v{n} master br0 up"));
        Self::ip(host, &format!("address add {}/24 dev eth0", Self::address(n)));
        Self::ip(host, "link set eth0 up");
        Self::ip(host, "link set lo up");
        Ok(lab)
    }

    /// From here on, what this machine sends to the address of machine `n`, who is none, is lost and nobody is told.
    pub fn swallow(lab: &Lab, n: u8) {
        let address = Self::address(n);
        let neighbour =
            format!("neigh add {address} lladdr 02:00:00:00:00:{n:02x} dev eth0 nud permanent");
        Self::ip(lab.init(), &neighbour);
    }

    /// Pulls the plug of machine `n`, or puts it back: nothing arrives and nobody is told.
    pub fn plug(&self, n: u8, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        Self::ip(self.switch.id(), &format!("link set v{n} {state}"));
    }

    fn ip(namespace: u32, words: &str) {
        let target = namespace.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &target, "--net", "--", "ip"]).args(words.split(' '));
        let output = command.output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}
